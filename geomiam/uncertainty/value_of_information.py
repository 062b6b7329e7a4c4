"""Value of information: how much a prediction would change if a group of predictors that a cell lacks were observed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.errors import SelectionError
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.required import leave_out, require_groups
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model
from geomiam.model.reference import MOST_SITES
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.features import features_of
from geomiam.tokens.select import Selector, group_masks, visible_tokens
from geomiam.uncertainty.block import (
    class_counts,
    random_rows,
    site_tokens,
    stored_sites,
    values_of,
)
from geomiam.uncertainty.donors import Donors, tokens_of_features, undrawable
from geomiam.uncertainty.options import ValueOptions
from geomiam.uncertainty.value_block import ValueBlock

CALL = "gm.value_of_information"


@with_progress
def value_of_information(
    ds: Data,
    model: Model | str | Path,
    *,
    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    reference: xr.Dataset | None = None,
    options: ValueOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Return how much each prediction is expected to change if a group of predictors that the cell lacks were observed.

    The group is drawn from the training sites that are most similar to the cell in the predictors that it has.
    The model predicts the cell with the group of each of them. The value is the mean absolute change. It
    shows where further data would matter for the map, and not whether the map would become better.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Cube ``(y, x)`` or sites ``(site)``, as for :func:`geomiam.predict`. numpy in, numpy out; dask in,
        dask out.
    model : Model or path
    groups : sequence of selectors or mapping of name to selectors, optional
        Groups whose value is computed, such as ``["soil"]``; default: the groups of the model's schema.
    using : selector or sequence of selectors, optional
        Predictors to use, as for :func:`geomiam.predict`; default all.
    species, scale, progress
        As :func:`geomiam.predict`. Changes are on this scale.
    reference : xarray.Dataset, optional
        Training sites to draw from, at most 5,000 of which are used. Default: the sample of the training
        sites that the model stores. Groups with a series or an image need it, since the model stores their means.
    options : ValueOptions, optional
        Number of sites to draw from, weights of a set of species, and cells to leave out; see
        :class:`geomiam.ValueOptions`.

    Returns
    -------
    xarray.Dataset
        ``value_of_information(group, species, y, x)``: expected absolute change of the prediction, or
        ``(group, y, x)``, its weighted mean over species, with ``ValueOptions(weights=...)``. NaN where the
        group is observed, no site to draw from has it, or the cell has no predictor at all.

        ``value_standard_error``: standard error of this mean over the sites that were drawn. It falls with
        their number, and does not include the error of the model.

        ``missing_groups(y, x)``: number of the groups that the cell lacks; NaN where it has no predictor at all.

    Raises
    ------
    SelectionError
        If the model stores no sites and there is no ``reference``, a group with a series or an image is drawn without
        ``reference``, or ``using``, ``groups``, ``species`` or ``weights`` have an unknown name.
    SettingError
        If an option has an unknown value.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.plot.value_of_information : a map of the group worth most.
    geomiam.explain.mean_value : means over the map and over regions.
    geomiam.novelty : how similar the training sites are.
    geomiam.write_map : write it beside a prediction with ``MapOptions(value_of_information=gm.ValueOptions())``.

    Notes
    -----
    The expected absolute change is the preposterior expectation of the value of information (Howard 1966,
    doi:10.1109/TSSC.1966.300074) with the size of the change as utility. The conditional distribution of a group is
    that of nearest neighbours. Distances are those of :func:`geomiam.novelty`: predictors standardised by the
    sites, each with the same variance, without coordinates. A predictor that the cell lacks is not compared; one
    that a site lacks counts as the mean squared difference of two sites. Among equally similar sites the choice
    is fixed and random. A cell of the map costs one prediction for each drawn site and group that it lacks.

    Examples
    --------
    >>> import geomiam as gm
    >>> value = gm.value_of_information(cube, model, groups=["climate", "terrain"])
    >>> value["value_of_information"].dims
    ('group', 'species', 'y', 'x')
    >>> bool((value["value_of_information"].fillna(0) >= 0).all())
    True
    """
    options = ValueOptions.of(options)
    model = as_model(model)
    data = as_data(ds, model)
    visible = visible_tokens(model.layout, using)
    masks = _groups(model, groups, visible)
    index, weights = options.species_of(model, species)
    donors = _donors(model, visible, masks, reference, options.neighbours)
    tokens = np.stack(list(masks.values()))
    block = ValueBlock(model, visible, tokens, index, weights, scale, donors)
    labels: dict[str, Sequence[str]] = {"group": list(masks)}
    if weights is None:
        labels["species"] = [model.species[i] for i in index]
    out = over_cells(
        data,
        model,
        require_groups(block, model.layout, options.require, visible=visible),
        outputs=_outputs(labels, scale),
        visible=visible,
        memory_limit=options.memory_limit,
        clamp=options.clamp,
    )
    out = leave_out(out, data, options.mask)
    return like_data(
        out.assign_attrs(groups=json.dumps(list(masks)), neighbours=options.neighbours), ds
    )


def _groups(model: Model, groups: Any, visible: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tokens of the groups whose value is computed; not of all others, unless a caller names them."""
    masks = group_masks(model.layout, groups, visible=visible)
    is_named = groups is None or "rest" in groups
    return masks if is_named else {n: tokens for n, tokens in masks.items() if n != "rest"}


def _donors(
    model: Model,
    visible: np.ndarray,
    masks: Mapping[str, np.ndarray],
    reference: xr.Dataset | None,
    count: int,
) -> Donors:
    """Return the sites to draw from: those that are passed, or those of the model."""
    groups = np.stack(list(masks.values()))
    if reference is not None:
        tokens = site_tokens(model, reference, visible)
        tokens = tokens.take(random_rows(len(tokens), MOST_SITES))
        values = values_of(tokens, model, visible)
    else:
        values = stored_sites(model, visible, call=CALL).values
        _refuse_means(model, masks)
        tokens = tokens_of_features(values, model.layout)
    tokens = TokenArrays(tokens.values, tokens.observed & visible)
    return Donors.of(
        values,
        tokens,
        groups=groups,
        features=features_of(model.layout),
        classes=class_counts(model),
        count=count,
    )


def _refuse_means(model: Model, masks: Mapping[str, np.ndarray]) -> None:
    """Refuse to draw a group of which the stored sites have means only."""
    means = {n: undrawable(model.layout, tokens[None]) for n, tokens in masks.items()}
    if names := [name for name, variables in means.items() if variables]:
        drawable_groups = [n for n in masks if n not in names]
        hint = f", or compute the value of other groups, groups={drawable_groups}"
        hint = hint if drawable_groups else ""
        raise SelectionError(
            f"groups {list_names(names)} have series or images, of which the model stores means only: pass the training "
            f"sites, {CALL}(cube, model, reference=sites){hint}"
        )


def _outputs(labels: dict[str, Sequence[str]], scale: Scale) -> list[Output]:
    attrs = {"units": "1", "scale": scale}
    texts = {
        "value_of_information": "expected absolute change of the prediction if the group were observed",
        "value_standard_error": "standard error of the expected change over the drawn sites",
    }
    number = np.dtype(np.float32)
    outputs = [Output(n, labels, number, {"long_name": t, **attrs}) for n, t in texts.items()]
    text = "number of groups that the cell lacks"
    return [*outputs, Output("missing_groups", {}, number, {"long_name": text, "units": "1"})]
