"""Exact Shapley values of groups of predictors, as maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import Scale, amortised_block, base_value, shapley_block
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.outside import warn_if_many
from geomiam.inference.predict import (
    layer_outputs,
    layer_shares,
    observed_bits,
    observed_output,
    suitability_output,
)
from geomiam.inference.required import leave_out, require_groups, warn_if_few
from geomiam.model.model import Model, Precision
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.blocks import Block
from geomiam.tokens.select import Selector, group_masks, visible_tokens

Method = Literal["exact", "latin", "amortised"]

MOST_GROUPS = 12
"""Above this the 2^G coalitions are no longer affordable, and some are drawn."""
SAMPLES = 8
"""Latin samples that are drawn unless the caller says otherwise."""


@dataclass(frozen=True)
class ShapleyBlock:
    """Block → Shapley values ``(n, G, s)``, suitability ``(n, s)`` and observed ``(n,)``.

    With symbols saturated ``(n,)`` as well, and where coalitions are drawn, the values' standard error
    ``(n, G, s)``.
    """

    model: Model
    groups: np.ndarray
    species: np.ndarray
    scale: Scale
    precision: Precision
    coalitions: Coalitions | None
    amortised: bool

    def __call__(self, block: Block) -> tuple[np.ndarray, ...]:
        species, scale = self.species, self.scale
        model = self.model.in_precision(self.precision)
        visible = np.any(self.groups, axis=0)
        shares = layer_shares(self.model, block, visible=visible)
        if self.amortised:
            told = amortised_block(model, block, visible=visible, species=species, scale=scale)
            return *told, observed_bits(block, self.groups), *shares
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
    precision: Precision = "fp32",
    method: Method | None = None,
    samples: int = SAMPLES,
    rng: int | np.random.Generator | None = 0,
    memory_limit: int | str | None = None,
    require: Selector | Sequence[Selector] = (),
    mask: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Explain every cell or site: what each group of predictors adds to the prediction.

    Exact for up to 12 groups: all coalitions of the groups that are present are computed (Shapley
    1953), hiding the others with the model's own mask, so no background sample and no imputation
    enters. Beyond, coalitions are drawn (MaskSDM, Zbinden et al. 2025, Algorithm 1), the same for
    every cell, and the standard error is an additional layer.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Cube or sites, as for :func:`geomiam.predict`.
    model : Model or path
    groups : sequence of selectors or mapping of name to selectors, optional
        Default: the groups of the model's schema. Modalities, variables or parts of them, e.g.
        ``{"summer": "landsat[time=2018-06:2018-09]", "terrain": ["elevation", "slope"]}``. What no
        group names becomes the group ``rest``.
    using : selector or sequence of selectors, optional
        What the model may see at all.
    species, scale, precision, memory_limit, progress
        As :func:`geomiam.predict`. Values add up on the given scale.
    method : {"exact", "latin", "amortised"}, optional
        ``"exact"``: all coalitions, the default up to 12 groups; ``"latin"``: some are drawn, the
        default beyond; ``"amortised"``: predicted by the model's explainer in one pass, see
        :func:`geomiam.fit_explainer`, for the model's own groups; ``attrs["explainer"]`` (JSON) says
        how far it was from the exact values.
    require, mask
        As :func:`geomiam.predict`: cells without these data are NaN.
    samples : int
        Latin squares of coalitions to draw, 2 or more; each asks at most G·(G − 1) of them.
    rng : int, numpy.random.Generator or None
        Draws the squares.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species, y, x)``: exactly 0 for a group with nothing observed, NaN where no
        group has anything; ``base_value(species)``, the answer to nothing; ``suitability``,
        ``observed`` and, with symbols, ``saturated`` as from predict. ``base_value + shapley.sum("group") == suitability``. Where
        coalitions are drawn, ``standard_error(group, species, y, x)`` as well.

    Raises
    ------
    SelectionError
        If groups overlap or name something unknown, are more than 12 for ``"exact"``, ``samples`` is
        below 2, or the model has no explainer for what is asked.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.
    """
    model = as_model(model)
    data = as_data(ds, model)
    named = group_masks(model.layout, groups, visible=visible_tokens(model.layout, using))
    method = method or ("exact" if len(named) <= MOST_GROUPS else "latin")
    _check(model, method, named=list(named), groups=groups, scale=scale)
    coalitions = _drawn(len(named), samples, rng) if method == "latin" else None
    masks, index = np.stack(list(named.values())), model.species_index(species)
    names = [model.species[i] for i in index]
    outputs = [
        _shapley_output(list(named), names, scale),
        suitability_output(model, names, scale=scale),
        observed_output(list(named)),
        *layer_outputs(model),
        *([] if coalitions is None else [_error_output(list(named), names, scale)]),
    ]
    visible = np.any(masks, axis=0)
    task = ShapleyBlock(model, masks, index, scale, precision, coalitions, method == "amortised")
    out = over_cells(
        data,
        model,
        require_groups(task, model.layout, require, visible=visible),
        outputs=outputs,
        visible=visible,
        memory_limit=memory_limit,
    )
    out = leave_out(out, data, mask)
    warn_if_many(out, data, model, visible=visible)
    if groups is None:
        warn_if_few(out, model, visible=visible)
    base = base_value(model.in_precision(precision), species=index, scale=scale)
    out["base_value"] = (
        "species",
        base,
        {"long_name": "prediction from nothing", "units": "1", "scale": scale},
    )
    facts: dict[str, Any] = {"method": method, "precision": precision}
    if method == "latin":
        facts["samples"] = samples
    if method == "amortised":
        facts["explainer"] = json.dumps(model.about["explainer"])
    return like_data(out.assign_attrs(groups=json.dumps(list(named)), **facts), ds)


def _check(model: Model, method: str, *, named: list[str], groups: Any, scale: Scale) -> None:
    """Refuse what cannot be told, before anything starts."""
    if method not in get_args(Method):
        raise SelectionError(f"method={method!r}; use {', '.join(get_args(Method))}")
    if method == "exact" and len(named) > MOST_GROUPS:
        raise SelectionError(
            f"{len(named)} groups mean 2^{len(named)} coalitions per cell; use method='latin', or join "
            f"them to at most {MOST_GROUPS} with groups={{'name': [...]}}"
        )
    if method != "amortised":
        return
    known = model.about.get("explainer", {})
    if model.network.explainer is None:
        raise SelectionError(
            "the model has no explainer; train one with model = gm.fit_explainer(model, sites)"
        )
    if known.get("scale") != scale:
        raise SelectionError(
            f"the explainer tells values on the scale '{known.get('scale')}', asked for '{scale}'; "
            f"train one with gm.fit_explainer(model, sites, scale='{scale}')"
        )
    if groups is not None or named != known.get("groups"):
        raise SelectionError(
            f"the explainer knows the groups {known.get('groups')}, asked for {named}; leave groups= "
            "out, or use method='exact'"
        )


def _drawn(groups: int, samples: int, rng: Any) -> Coalitions:
    if samples < 2:
        raise SelectionError(f"samples={samples} has no standard error; pass samples=2 or more")
    return Coalitions.latin(groups, samples=samples, rng=np.random.default_rng(rng))


def _shapley_output(groups: Sequence[str], species: Sequence[str], scale: Scale) -> Output:
    attrs = {
        "long_name": "Shapley value of the group of predictors",
        "units": "1",
        "scale": scale,
        "ancillary_variables": "base_value suitability observed",
    }
    return Output("shapley", {"group": groups, "species": species}, np.dtype(np.float32), attrs)


def _error_output(groups: Sequence[str], species: Sequence[str], scale: Scale) -> Output:
    said = "standard error of the Shapley value, of the draw of coalitions"
    attrs = {"long_name": said, "units": "1", "scale": scale}
    labels = {"group": groups, "species": species}
    return Output("standard_error", labels, np.dtype(np.float32), attrs)
