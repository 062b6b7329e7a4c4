"""Shapley values of groups of predictors, for every cell or site."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import base_value
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.options import Method
from geomiam.inference.options import ShapleyOptions as ShapleyOptions  # gm.explain has it, too
from geomiam.inference.outside import warn_if_many
from geomiam.inference.predict import (
    layer_outputs,
    layer_shares,
    observed_bits,
    observed_output,
    suitability_output,
)
from geomiam.inference.required import leave_out, require_groups, warn_if_few
from geomiam.inference.shapley_block import amortised_block, shapley_block
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model, Precision
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.select import Selector, group_masks, visible_tokens

MOST_GROUPS = 12
"""Most groups whose 2^G coalitions are all computed; 12 groups have 4096."""


@dataclass(frozen=True)
class ShapleyBlock:
    """Function of a block: values ``(n, G, s)``, suitability ``(n, s)``, observed ``(n,)``, further layers.

    The further layers are those of :func:`geomiam.inference.predict.layer_shares` and, for sampled coalitions,
    the standard error ``(n, G, s)``.
    """

    model: Model
    groups: np.ndarray
    species: np.ndarray
    scale: Scale
    precision: Precision
    coalitions: Coalitions | None
    amortised: bool

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        species, scale = self.species, self.scale
        model = self.model.in_precision(self.precision)
        visible = np.any(self.groups, axis=0)
        shares = layer_shares(self.model, block, visible=visible)
        if self.amortised:
            predicted_values = amortised_block(
                model, block, visible=visible, species=species, scale=scale
            )
            return *predicted_values, observed_bits(block, self.groups), *shares
        values, full, error = shapley_block(
            model,
            block,
            groups=self.groups,
            species=species,
            scale=scale,
            coalitions=self.coalitions,
        )
        results = values, full, observed_bits(block, self.groups), *shares
        return results if error is None else (*results, error)


@with_progress
def shapley(
    ds: Data,
    model: Model | str | Path,
    *,
    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    options: ShapleyOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Return the contribution of each group of predictors to the prediction of every cell or site.

    Values are exact for up to 12 groups: the model predicts from all coalitions of the groups that are
    present (Shapley 1953). Other groups are hidden by the mask of the model, without a background sample or
    imputation. With more groups, coalitions are sampled (MaskSDM, Zbinden et al. 2025, Algorithm 1), the
    same for every cell, and the standard error is an additional layer.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Cube or sites, as for :func:`geomiam.predict`.
    model : Model or path
    groups : sequence of selectors or mapping of name to selectors, optional
        Modalities, variables or parts of them, for example
        ``{"summer": "landsat[time=2018-06:2018-09]", "terrain": ["elevation", "slope"]}``; default: the
        groups of the model's schema. All other predictors form the group ``rest``.
    using : selector or sequence of selectors, optional
        Predictors to use, as :func:`geomiam.predict`.
    species, scale, progress
        As :func:`geomiam.predict`. Values add up on this scale.
    options : ShapleyOptions, optional
        The method with its ``samples`` and ``rng``, cells to leave out (``require``, ``mask``),
        ``precision`` and ``memory_limit``; see :class:`geomiam.explain.ShapleyOptions`.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species, y, x)``: exactly 0 for a group without an observed predictor, NaN where
        no group has one. ``base_value(species)``: the prediction without predictors. ``suitability``,
        ``observed``, ``outside_range`` and ``saturated`` as from :func:`geomiam.predict`. Per cell,
        ``base_value + shapley.sum("group") == suitability``. For sampled coalitions also
        ``standard_error(group, species, y, x)``.

    Raises
    ------
    SelectionError
        If groups overlap, have unknown names, or are more than 12 for ``"exact"``; if ``samples`` is below
        2; or if the model has no explainer for these groups and this scale.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.explain.importance : the contribution to the skill of a model.
    geomiam.explain.response : predictions along one predictor.
    geomiam.plot.shapley : plot the maps.
    geomiam.write_map : values of maps of any size with ``shapley=True``.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube, model = gm.open_cube("cube.zarr"), gm.load_model("model")  # doctest: +SKIP
    >>> why = gm.shapley(cube, model)
    >>> why["shapley"].dims
    ('group', 'species', 'y', 'x')
    >>> difference = why["base_value"] + why["shapley"].sum("group") - why["suitability"]
    >>> bool(abs(difference).max() < 1e-5)
    True
    """
    options = ShapleyOptions.of(options)
    model, precision = as_model(model), options.precision
    data = as_data(ds, model)
    masks_by_name = group_masks(model.layout, groups, visible=visible_tokens(model.layout, using))
    names = list(masks_by_name)
    method = options.method or ("exact" if len(names) <= MOST_GROUPS else "latin")
    _check(model, method, names=names, groups=groups, scale=scale)
    coalitions = _sampled(len(names), options.samples, options.rng) if method == "latin" else None
    masks, index = np.stack(list(masks_by_name.values())), model.species_index(species)
    labels: dict[str, Sequence[str]] = {
        "group": names,
        "species": [model.species[i] for i in index],
    }
    outputs = [
        _values_output("shapley", labels, scale),
        suitability_output(model, labels["species"], scale=scale),
        observed_output(names),
        *layer_outputs(model),
        *([] if coalitions is None else [_values_output("standard_error", labels, scale)]),
    ]
    visible = np.any(masks, axis=0)
    task = ShapleyBlock(model, masks, index, scale, precision, coalitions, method == "amortised")
    out = over_cells(
        data,
        model,
        require_groups(task, model.layout, options.require, visible=visible),
        outputs=outputs,
        visible=visible,
        memory_limit=options.memory_limit,
    )
    out = leave_out(out, data, options.mask)
    warn_if_many(out, data, model, visible=visible)
    if groups is None:
        warn_if_few(out, model, visible=visible)
    base = base_value(model.in_precision(precision), species=index, scale=scale)
    out["base_value"] = (
        "species",
        base,
        {"long_name": "prediction without predictors", "units": "1", "scale": scale},
    )
    settings: dict[str, Any] = {"method": method, "precision": precision}
    if method == "latin":
        settings["samples"] = options.samples
    if method == "amortised":
        settings["explainer"] = json.dumps(model.about["explainer"])
    return like_data(out.assign_attrs(groups=json.dumps(names), **settings), ds)


def _check(model: Model, method: str, *, names: list[str], groups: Any, scale: Scale) -> None:
    """Refuse settings that no method supports."""
    if method not in get_args(Method):
        raise SelectionError(f"method={method!r}; use {', '.join(get_args(Method))}")
    if method == "exact" and len(names) > MOST_GROUPS:
        raise SelectionError(
            f"{len(names)} groups mean 2^{len(names)} coalitions per cell; use options=gm.explain.ShapleyOptions(method='latin'), or join "
            f"them to at most {MOST_GROUPS} with groups={{'name': [...]}}"
        )
    if method != "amortised":
        return
    about = model.about.get("explainer", {})
    if model.network.explainer is None:
        raise SelectionError(
            "the model has no explainer; train one with model = gm.explain.fit_explainer(model, sites)"
        )
    if about.get("scale") != scale:
        raise SelectionError(
            f"the explainer predicts values on the scale '{about.get('scale')}', found scale='{scale}'; "
            f"train one with gm.explain.fit_explainer(model, sites, scale='{scale}')"
        )
    if groups is not None or names != about.get("groups"):
        raise SelectionError(
            f"the explainer supports the groups {about.get('groups')}, found {names}; leave groups= "
            "out, or use ShapleyOptions(method='exact')"
        )


def _sampled(groups: int, samples: int, rng: Any) -> Coalitions:
    if samples < 2:
        raise SelectionError(
            f"samples={samples} has no standard error; pass ShapleyOptions(samples=2) or more"
        )
    return Coalitions.latin(groups, samples=samples, rng=np.random.default_rng(rng))


LONG_NAMES = {
    "shapley": "Shapley value of the group of predictors",
    "standard_error": "standard error of the Shapley value due to the sampling of coalitions",
}


def _values_output(name: str, labels: dict[str, Sequence[str]], scale: Scale) -> Output:
    attrs = {"long_name": LONG_NAMES[name], "units": "1", "scale": scale}
    if name == "shapley":
        attrs["ancillary_variables"] = "base_value suitability observed"
    return Output(name, labels, np.dtype(np.float32), attrs)
