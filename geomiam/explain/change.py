"""Which group's change causes the change of a prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import geobox, place_dims, same_grid
from geomiam.errors import GridError, SelectionError
from geomiam.explain.shapley_values import MOST_GROUPS
from geomiam.geo.dims import SITE
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.change_block import change_block, in_both
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.options import CellOptions
from geomiam.inference.predict import bits_dtype, bits_of, flag_attributes
from geomiam.inference.required import leave_out, require_groups
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model, Precision
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.select import Selector, group_masks, visible_tokens


@dataclass(frozen=True)
class ChangeBlock:
    """Function of an earlier and a later block: values ``(n, G, s)``, predictions ``(n, s)``, flags ``(n,)``."""

    model: Model
    groups: np.ndarray
    species: np.ndarray
    scale: Scale
    precision: Precision
    common: bool

    def __call__(self, earlier: TokenArrays, later: TokenArrays) -> tuple[np.ndarray, ...]:
        one_sided = [
            (earlier.observed & tokens).any(1) ^ (later.observed & tokens).any(1)
            for tokens in self.groups
        ]
        if self.common:
            earlier, later = in_both(earlier, later)
        values, before, after, differs = change_block(
            self.model.in_precision(self.precision),
            earlier,
            later,
            groups=self.groups,
            species=self.species,
            scale=self.scale,
        )
        return values, before, after, bits_of(differs), bits_of(np.stack(one_sided, 1))


@with_progress
def change(
    earlier: Data,
    later: Data,
    *,
    model: Model | str | Path,
    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    common: bool = False,
    options: CellOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Return which group's change causes the change of the prediction, in every cell or site.

    Groups switch one after another from their earlier to their later values. The value of a group is the mean
    change of the prediction when it switches, over all orders (Shapley 1953). So the values add up to the
    change, and a group that has not changed has the value 0. The contributions of a group at two dates,
    which :func:`geomiam.explain.difference` compares, differ in this: they can change although the group has
    not, because it acts together with a group that has.

    Parameters
    ----------
    earlier, later : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Predictors of the same cells or sites at two dates, or in two scenarios, as for :func:`geomiam.predict`.
        Variables have the same names and labels in both.
    model : Model or path
    groups, using, species, scale, progress
        As :func:`geomiam.shapley`; at most 12 groups.
    common : bool
        Use in each cell only what both have. By default both predictions use what they have, as maps do, and a
        group that is missing in one of the two counts as changed: its value is the effect of knowing it.
    options : PredictOptions or ShapleyOptions, optional
        ``require`` (in both), ``mask`` (a layer of ``later``), ``clamp``, ``precision`` and ``memory_limit``.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species, y, x)`` adds up over groups to ``later - earlier``, the two predictions
        ``(species, y, x)``. ``changed(y, x)``: groups that differ, one bit each. ``one_sided(y, x)``: groups
        that are observed in one of the two only. NaN where one of the two has no predictor. Lazy for
        dask arrays.

    Raises
    ------
    GridError
        If the two do not have the same cells or sites.
    SelectionError
        If groups overlap, have unknown names, or are more than 12.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.explain.difference : how contributions differ between two explanations.
    geomiam.plot.shapley : plot the maps.
    geomiam.ranges.change : gain and loss of a range.

    Notes
    -----
    A cell in which k groups differ costs 2^k predictions.

    Examples
    --------
    >>> warmer = cube.assign(bio1=cube["bio1"] + 2)
    >>> causes = gm.explain.change(cube, warmer, model=model)
    >>> bool((causes["shapley"].sel(group="terrain").fillna(0) == 0).all())
    True
    """
    options = CellOptions.of(options)
    model = as_model(model)
    first, second = same_cells(as_data(earlier, model), as_data(later, model))
    masks_by_name = group_masks(model.layout, groups, visible=visible_tokens(model.layout, using))
    names, masks = list(masks_by_name), np.stack(list(masks_by_name.values()))
    if len(names) > MOST_GROUPS:
        raise SelectionError(
            f"{len(names)} groups mean up to 2^{len(names)} predictions per cell; join them to at most "
            f"{MOST_GROUPS} with groups={{'name': [...]}}"
        )
    index, visible = model.species_index(species), np.any(masks, axis=0)
    task = ChangeBlock(model, masks, index, scale, options.precision, common)
    out = over_cells(
        first,
        model,
        require_groups(task, model.layout, options.require, visible=visible),
        outputs=_outputs(names, [model.species[i] for i in index], scale),
        visible=visible,
        memory_limit=options.memory_limit,
        also=[second],
        clamp=options.clamp,
    )
    out = leave_out(out, second, options.mask)
    out = out.assign_attrs(groups=json.dumps(names), precision=options.precision)
    return like_data(out.assign_attrs(common=int(common)), later)


def same_cells(earlier: xr.Dataset, later: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return two datasets on equal coordinates; GridError if their cells or sites differ."""
    is_sites = SITE in earlier.dims
    if is_sites != (SITE in later.dims):
        raise GridError("one of the two has sites and the other a grid; pass two of one kind")
    if is_sites:
        counts = earlier.sizes[SITE], later.sizes[SITE]
        shared = [c for c in ("x", "y") if c in earlier.coords and c in later.coords]
        equal = counts[0] == counts[1] and all(np.array_equal(earlier[c], later[c]) for c in shared)
        if not equal:
            raise GridError(
                f"earlier= and later= have different sites ({counts[0]:,} and {counts[1]:,}); sample both "
                "cubes at the same records"
            )
        return earlier, later.drop_vars(SITE, errors="ignore")
    boxes = geobox(earlier), geobox(later)
    if boxes[0].shape != boxes[1].shape or not same_grid(*boxes):
        raise GridError(
            f"earlier= and later= have different grids, {tuple(boxes[0].shape)} and "
            f"{tuple(boxes[1].shape)} cells; align one with gm.align(sources, like=cube)"
        )
    dims, later_dims = place_dims(earlier), place_dims(later)
    later = later.rename({b: a for a, b in zip(dims, later_dims) if a != b})
    return earlier, later.assign_coords({d: earlier[d] for d in dims})


def _outputs(names: Sequence[str], species: Sequence[str], scale: Scale) -> list[Output]:
    attrs = {"units": "1", "scale": scale}
    by_species, number = {"species": species}, np.dtype(np.float32)
    values = {"long_name": "change of the prediction by the change of the group", **attrs}
    flags = {"changed": "groups that differ", "one_sided": "groups observed in one of the two only"}
    return [
        Output("shapley", {"group": names, **by_species}, number, values),
        *(
            Output(n, by_species, number, {"long_name": f"{n} prediction", **attrs})
            for n in ("earlier", "later")
        ),
        *(
            Output(n, {}, bits_dtype(len(names)), {"long_name": text, **flag_attributes(names)})
            for n, text in flags.items()
        ),
    ]
