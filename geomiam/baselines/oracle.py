"""The oracle: one model per subset, an upper bound for one model that serves all subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.predictors import bind
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import Masked
from geomiam.evaluation.subsets import Subsets, Using, listed, name_subsets
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.fields import split_fields, with_fields
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.select import visible_tokens
from geomiam.training.fit import fit


@dataclass(frozen=True, eq=False)
class Oracle:
    """One model per subset; each predicts from the subset it was trained on.

    Examples
    --------
    >>> short = {"network": {"fusion": "sum", "width": 16}, "training": {"steps": 25}}
    >>> oracle = gm.baselines.fit_oracle(
    ...     sites, schema, subsets={"climate": ["climate"]}, fit_options=short
    ... )
    >>> list(oracle.species)
    ['species 0', 'species 1', 'species 2']
    """

    schema: Schema
    models: Mapping[str, Model]
    """Models by the name of the subset."""
    subsets: Mapping[str, list[Any] | None]
    """Selectors by the name of the subset; None selects all predictors."""

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the scores."""
        return next(iter(self.models.values())).species

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Score sites ``(n, S)`` by the model of exactly this subset.

        Parameters
        ----------
        sites : xarray.Dataset
        using : selector or sequence of selectors, optional
            One of the subsets of ``subsets``.

        Raises
        ------
        SelectionError
            If there is no model of this subset.
        """
        for name, subset in self.subsets.items():
            if subset == listed(using):
                return Masked(self.models[name]).scores(sites, using=subset)
        raise SelectionError(
            f"the oracle has no model for {using!r}; it has models for {', '.join(self.subsets)}: train it with "
            "gm.baselines.fit_oracle(sites, schema, subsets=...)"
        )


@with_progress
def fit_oracle(
    sites: xr.Dataset,
    schema: Schema,
    *,
    subsets: Subsets = "unimodal+all",
    fit_options: Mapping[str, Any] | None = None,
    rng: int = 0,
    progress: bool | None = None,
) -> Oracle:
    """Train one model per subset, on that subset alone and with nothing hidden.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``.
    schema : Schema
    subsets : str, sequence or mapping
        As :func:`geomiam.evaluate`.
    fit_options : mapping, optional
        Keyword arguments of :func:`geomiam.fit` except ``masking``, the same for all models.
    rng : int
        Seed of every training, so that all models have the same held-out sites.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Oracle
        For ``gm.evaluate(oracle, test, subsets=...)`` with the same subsets.

    Raises
    ------
    SelectionError
        If a subset is unknown.
    LabelError, MissingVariable, VariableMismatch
        As :func:`geomiam.fit`.

    See Also
    --------
    geomiam.baselines.gap : the difference to a model.

    Examples
    --------
    >>> short = {"network": {"fusion": "sum", "width": 16}, "training": {"steps": 25}}
    >>> oracle = gm.baselines.fit_oracle(sites, schema, subsets=[["climate"]], fit_options=short)
    >>> oracle.scores(sites, using=["climate"]).shape == (sites.sizes["site"], 3)
    True
    """
    options = {"rng": rng, **(fit_options or {})}
    schema = bind(schema, sites)
    named_subsets = name_subsets(schema, subsets)
    models = {
        name: _alone(*part(sites, schema, using), **options)
        for name, using in progress_bar(named_subsets.items(), "oracle", unit="model")
    }
    return Oracle(schema, models, named_subsets)


def _alone(sites: xr.Dataset, schema: Schema, *, network: Any = None, **options: Any) -> Model:
    """Train a model of a subset, with the backbones whose variables are in the subset."""
    names = {*schema.modalities, *schema.variables}
    network, modules = split_fields(network, "backbones")
    if modules["backbones"]:
        usable_backbones = {k: v for k, v in modules["backbones"].items() if k in names}
        network = with_fields(network, backbones=usable_backbones)
    return fit(sites, schema, masking=Constant(0.0), network=network, **options)


def part(sites: xr.Dataset, schema: Schema, using: Using) -> tuple[xr.Dataset, Schema]:
    """Return sites and schema of a subset; predictors outside it are NaN or absent."""
    layout = Layout.of(schema)
    visible = visible_tokens(layout, using)
    visible_variables, masks = [], {}
    for span in layout.spans:
        visible_steps = visible[span.start : span.start + span.size].reshape(span.steps)
        if visible_steps.any():
            visible_variables.append(span.variable.name)
            masks[span.variable.name] = xr.DataArray(
                _values(visible_steps, span), dims=span.variable.dims
            )
    hidden = {name: sites[name].where(mask) for name, mask in masks.items() if not mask.all()}
    return sites.assign(hidden), schema.subset(visible_variables)


def _values(tokens: np.ndarray, span: Span) -> np.ndarray:
    """Return booleans per token step as booleans per value ``(*own dims)``."""
    for axis, steps in enumerate(span.places):
        owner = np.empty(span.variable.sizes[axis], np.intp)
        for token, positions in enumerate(steps):
            owner[list(positions)] = token
        tokens = tokens.take(owner, axis)
    return tokens


def gap(table: xr.Dataset, oracle: xr.Dataset, *, metric: str = "auc") -> xr.Dataset:
    """Return the difference between oracle and model for each subset.

    Parameters
    ----------
    table, oracle : xarray.Dataset
        From :func:`geomiam.evaluate`, on the same sites and subsets.
    metric : str

    Returns
    -------
    xarray.Dataset
        ``gap(subset, species)`` = oracle − model, positive where the oracle is better;
        ``mean_gap(subset)`` over species; attribute ``mean`` over the subsets.

    Raises
    ------
    SelectionError
        If the tables do not hold the same subsets and species.

    See Also
    --------
    geomiam.baselines.fit_oracle : train the oracle.

    Examples
    --------
    >>> table = gm.evaluate(model, sites)
    >>> gm.baselines.gap(table, table).attrs["mean"]
    0.0
    """
    for dim in ("subset", "species"):
        only_in_one = set(table[dim].values.tolist()) ^ set(oracle[dim].values.tolist())
        if only_in_one:
            raise SelectionError(f"only one of the tables has the {dim} {sorted(only_in_one)[:5]}")
    difference = (oracle[metric] - table[metric]).rename("gap")
    means = difference.mean("species")
    result = xr.Dataset({"gap": difference, "mean_gap": means})
    return result.assign_attrs(metric=metric, mean=float(means.mean()))
