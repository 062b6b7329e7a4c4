"""Shapley values of groups of predictors, for every cell or site."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError, SettingError
from geomiam.explain.interactions import check_order, interaction_outputs, with_includes
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import base_value
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.members import check_members
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
from geomiam.inference.terms import Index
from geomiam.model.model import Model, Precision
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.select import Selector, group_masks, visible_tokens

Groups = Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None
MOST_GROUPS = 12
"""Most groups whose 2^G coalitions are all computed; 12 groups have 4096."""


@dataclass(frozen=True)
class ShapleyBlock:
    """Function of a block: values ``(n, G, s)``, suitability ``(n, s)``, observed ``(n,)``, further layers.

    The further layers are those of :func:`geomiam.inference.predict.layer_shares` and, for sampled coalitions,
    the standard error ``(n, G, s)``; for a higher order main effects ``(n, G, s)`` and interactions; on request
    the spread over members ``(n, G, s)``.
    """

    model: Model
    groups: np.ndarray
    species: np.ndarray
    scale: Scale
    precision: Precision
    coalitions: Coalitions | None
    """None: the explainer of the model predicts the values."""
    spread: bool = False

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        species, scale = self.species, self.scale
        model = self.model.in_precision(self.precision)
        visible = np.any(self.groups, axis=0)
        shares = layer_shares(self.model, block, visible=visible)
        if self.coalitions is None:
            predicted_values = amortised_block(
                model, block, visible=visible, species=species, scale=scale
            )
            return *predicted_values, observed_bits(block, self.groups), *shares
        result = shapley_block(
            model,
            block,
            groups=self.groups,
            species=species,
            scale=scale,
            coalitions=self.coalitions,
            spread=self.spread,
        )
        terms, g = result.terms, len(self.groups)
        further = [terms[:, g : 2 * g], terms[:, 2 * g :]] if terms.shape[1] > g else []
        further += [a[:, :g] for a in (result.error, result.spread) if a is not None]
        return terms[:, :g], result.full, observed_bits(block, self.groups), *shares, *further


@dataclass(frozen=True)
class Game:
    """The groups that are explained and how, from the checked arguments of :func:`shapley`."""

    model: Model
    names: list[str]
    masks: np.ndarray
    """Tokens of each group ``(G, t)``."""
    species: np.ndarray
    scale: Scale
    order: int
    spread: bool
    method: Method
    index: Index
    """Kind of the interactions."""
    options: ShapleyOptions

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        groups: Groups,
        using: Selector | Sequence[Selector] | None,
        species: str | Sequence[str] | None,
        scale: Scale,
        order: int,
        spread: bool,
        options: ShapleyOptions,
    ) -> Game:
        """Check the arguments against each other and the model."""
        visible = visible_tokens(model.layout, using)
        masks_by_name = group_masks(model.layout, groups, visible=visible)
        names = list(masks_by_name)
        method = options.method or ("exact" if len(names) <= MOST_GROUPS else "latin")
        if spread:
            _check_spread(model, method)
        _check(model, method, names=names, groups=groups, scale=scale)
        index = check_order(order, options.index, names=names, method=method)
        masks, rows = np.stack(list(masks_by_name.values())), model.species_index(species)
        return cls(model, names, masks, rows, scale, order, spread, method, index, options)

    def block_task(self) -> ShapleyBlock:
        """Return the function that explains a block."""
        coalitions = _coalitions(
            len(self.names), self.method, self.options, order=self.order, index=self.index
        )
        precision, spread = self.options.precision, self.spread
        return ShapleyBlock(
            self.model, self.masks, self.species, self.scale, precision, coalitions, spread
        )

    def outputs(self) -> list[Output]:
        """Return the descriptions of the layers, in the order of the block's results."""
        species = [self.model.species[i] for i in self.species]
        labels: dict[str, Sequence[str]] = {"group": self.names, "species": species}
        further = ["standard_error"] if self.method == "latin" else []
        further += ["shapley_spread"] if self.spread else []
        return [
            _values_output("shapley", labels, self.scale),
            suitability_output(self.model, species, scale=self.scale),
            observed_output(self.names),
            *layer_outputs(self.model),
            *interaction_outputs(labels, order=self.order, index=self.index, scale=self.scale),
            *(_values_output(name, labels, self.scale) for name in further),
        ]

    def base_value(self) -> xr.Variable:
        """Return the prediction without predictors of each species."""
        model = self.model.in_precision(self.options.precision)
        base = base_value(model, species=self.species, scale=self.scale)
        attrs = {
            "long_name": "prediction without predictors",
            "units": "1",
            "scale": self.scale,
        }
        return xr.Variable("species", base, attrs)

    def attributes(self) -> dict[str, Any]:
        """Return the settings of the result."""
        attrs: dict[str, Any] = {
            "groups": json.dumps(self.names),
            "method": self.method,
            "precision": self.options.precision,
        }
        if self.order > 1:
            attrs |= {"order": self.order, "index": self.index}
        if self.method == "latin":
            attrs["samples"] = self.options.samples
        if self.method == "amortised":
            attrs["explainer"] = json.dumps(self.model.about["explainer"])
        return attrs


@with_progress
def shapley(
    ds: Data,
    model: Model | str | Path,
    *,
    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    order: int = 1,
    spread: bool = False,
    options: ShapleyOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Return the contribution of each group of predictors to the prediction of every cell or site.

    With ``order=2`` the same pass also returns how each pair of groups acts together.

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
    order : int
        2 adds the main effect of each group and the interaction of each pair of groups. Higher orders add
        interactions of more groups, at most of all.
    spread : bool
        Add the standard deviation of each Shapley value over the members of the ensemble.
    options : ShapleyOptions, optional
        The method with its ``samples`` and ``rng``, the ``index`` of the interactions (default
        Shapley-Taylor, Sundararajan et al. 2020), cells to leave out (``require``, ``mask``),
        ``precision`` and ``memory_limit``; see :class:`geomiam.explain.ShapleyOptions`.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species, y, x)``: exactly 0 for a group without an observed predictor, NaN where
        no group has one. ``base_value(species)``: the prediction without predictors. ``suitability``,
        ``observed``, ``outside_range`` and ``saturated`` as from :func:`geomiam.predict`. Per cell,
        ``base_value + shapley.sum("group") == suitability``. For sampled coalitions also
        ``standard_error(group, species, y, x)``.

        With ``order=2`` also ``main_effect(group, species, y, x)`` and ``interaction(combination, species, y,
        x)``, for combinations such as ``"climate:soil"``; the coordinate ``includes(combination, group)``
        has their groups. ``base_value``, all main effects and all interactions add up to ``suitability``. A
        Shapley value is the main effect and half of each interaction of the group. Interactions are exactly
        0 where one of the groups has no observed predictor.

        With ``spread=True`` also ``shapley_spread(group, species, y, x)``: how much the members, which are
        explained in the same pass, differ about a value. It contains no error that all of them share.

    Raises
    ------
    SelectionError
        If groups overlap, have unknown names, or are more than 12 for ``"exact"`` or a higher order; if
        ``samples`` is below 2; if ``order`` exceeds the number of groups; or if the model has no explainer
        for these groups and this scale.
    SettingError
        If ``order`` or ``index`` is invalid, or ``index`` has no effect; if ``spread`` is requested of a model
        of one member, or with the method ``"amortised"``.
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
    >>> pairs = gm.shapley(cube, model, groups=["climate", "terrain"], order=2)
    >>> pairs["interaction"].sel(combination="climate:terrain").dims
    ('species', 'y', 'x')
    """
    options = ShapleyOptions.of(options)
    model = as_model(model)
    data = as_data(ds, model)
    game = Game.of(
        model,
        groups=groups,
        using=using,
        species=species,
        scale=scale,
        order=order,
        spread=spread,
        options=options,
    )
    visible = np.any(game.masks, axis=0)
    out = over_cells(
        data,
        model,
        require_groups(game.block_task(), model.layout, options.require, visible=visible),
        outputs=game.outputs(),
        visible=visible,
        memory_limit=options.memory_limit,
        clamp=options.clamp,
    )
    out = leave_out(out, data, options.mask)
    warn_if_many(out, data, model, visible=visible)
    if groups is None:
        warn_if_few(out, model, visible=visible)
    out = with_includes(out.assign(base_value=game.base_value()), game.names, order)
    return like_data(out.assign_attrs(game.attributes()), ds)


def _check_spread(model: Model, method: str) -> None:
    check_members(model)
    if method == "amortised":
        raise SettingError(
            "method='amortised' predicts the values of the ensemble as a whole, without a spread; use "
            "ShapleyOptions(method='exact'), or leave spread= out"
        )


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


def _coalitions(
    groups: int, method: str, options: ShapleyOptions, *, order: int, index: Index
) -> Coalitions | None:
    """Return the coalitions of a method; None where the explainer of the model predicts the values."""
    if method == "exact":
        return Coalitions.every(groups, order=order, index=index)
    if method == "amortised":
        return None
    if options.samples < 2:
        raise SelectionError(
            f"samples={options.samples} has no standard error; pass ShapleyOptions(samples=2) or more"
        )
    rng = np.random.default_rng(options.rng)
    return Coalitions.latin(groups, samples=options.samples, rng=rng)


LONG_NAMES = {
    "shapley": "Shapley value of the group of predictors",
    "standard_error": "standard error of the Shapley value due to the sampling of coalitions",
    "shapley_spread": "standard deviation of the Shapley value over the members of the ensemble",
}


def _values_output(name: str, labels: dict[str, Sequence[str]], scale: Scale) -> Output:
    attrs = {"long_name": LONG_NAMES[name], "units": "1", "scale": scale}
    if name == "shapley":
        attrs["ancillary_variables"] = "base_value suitability observed"
    return Output(name, labels, np.dtype(np.float32), attrs)
