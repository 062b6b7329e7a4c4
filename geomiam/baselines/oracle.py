"""The oracle: a model of its own for every subset, the bound that one model for all is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.predictors import bind
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import Subsets, Using, listed, name_subsets
from geomiam.evaluation.masked import Masked
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.select import visible_tokens
from geomiam.training.fit import fit


@dataclass(frozen=True, eq=False)
class Oracle:
    """One model per subset, each asked for its own subset only."""

    schema: Schema
    models: Mapping[str, Model]
    """By the name of the subset."""
    subsets: Mapping[str, list | None]
    """Selectors by the name of the subset; None is everything."""

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
            One of the subsets it was trained for.

        Raises
        ------
        SelectionError
            If there is no model of this subset.
        """
        for name, subset in self.subsets.items():
            if subset == listed(using):
                return Masked(self.models[name]).scores(sites, using=subset)
        raise SelectionError(
            f"the oracle has no model of {using!r}, but of {', '.join(self.subsets)}: train it with "
            "gm.fit_oracle(sites, schema, subsets=...)"
        )


@with_progress
def fit_oracle(
    sites: xr.Dataset,
    schema: Schema,
    *,
    subsets: Subsets = "unimodal+all",
    progress: bool | None = None,
    **options: Any,
) -> Oracle:
    """Train one model per subset, on that subset alone and with nothing hidden.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``.
    schema : Schema
    subsets : str, sequence or mapping
        As :func:`geomiam.evaluate`.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.
    **options
        Of :func:`geomiam.fit`, ``masking`` aside. They are the same for all, early stopping on the
        same held-out sites included.

    Returns
    -------
    Oracle
        For ``gm.evaluate(oracle, test, subsets=...)`` with subsets that it was trained for.

    Raises
    ------
    SelectionError
        If a subset is unknown.
    LabelError, MissingVariable, VariableMismatch
        As :func:`geomiam.fit`.
    """
    schema = bind(schema, sites)
    chosen = name_subsets(schema, subsets)
    models = {
        name: _alone(*part(sites, schema, using), **options)
        for name, using in progress_bar(chosen.items(), "oracle", unit="model")
    }
    return Oracle(schema, models, chosen)


def _alone(
    sites: xr.Dataset, schema: Schema, *, backbones: Mapping[str, Any] | None = None, **options: Any
) -> Model:
    """A model of a subset, with those backbones that have something to encode in it."""
    known = {*schema.modalities, *schema.variables}
    own = {name: backbone for name, backbone in (backbones or {}).items() if name in known}
    return fit(sites, schema, masking=Constant(0.0), backbones=own, **options)


def part(sites: xr.Dataset, schema: Schema, using: Using) -> tuple[xr.Dataset, Schema]:
    """Return sites and schema of a subset alone: what it does not show is NaN or not there.

    Parameters
    ----------
    sites : xarray.Dataset
    schema : Schema
        Bound to the sites.
    using : selector or sequence of selectors, optional
        None is everything.

    Raises
    ------
    SelectionError
        If a selector names nothing.
    """
    layout = Layout.of(schema)
    shown = visible_tokens(layout, using)
    kept, masks = [], {}
    for span in layout.spans:
        seen = shown[span.start : span.start + span.size].reshape(span.steps)
        if seen.any():
            kept.append(span.variable.name)
            masks[span.variable.name] = xr.DataArray(_values(seen, span), dims=span.variable.dims)
    hidden = {name: sites[name].where(mask) for name, mask in masks.items() if not mask.all()}
    return sites.assign(hidden), schema.subset(kept)


def _values(tokens: np.ndarray, span: Span) -> np.ndarray:
    """Booleans per token step → per value ``(*own dims)``."""
    for axis, steps in enumerate(span.places):
        owner = np.empty(span.variable.sizes[axis], np.intp)
        for token, positions in enumerate(steps):
            owner[list(positions)] = token
        tokens = tokens.take(owner, axis)
    return tokens


def gap(table: xr.Dataset, oracle: xr.Dataset, *, metric: str = "auc") -> xr.Dataset:
    """Return how far a model stays behind the oracle, subset by subset.

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
    """
    for dim in ("subset", "species"):
        lost = set(table[dim].values.tolist()) ^ set(oracle[dim].values.tolist())
        if lost:
            raise SelectionError(f"only one of the tables has the {dim} {sorted(lost)[:5]}")
    difference = (oracle[metric] - table[metric]).rename("gap")
    means = difference.mean("species")
    found = xr.Dataset({"gap": difference, "mean_gap": means})
    return found.assign_attrs(metric=metric, mean=float(means.mean()))
