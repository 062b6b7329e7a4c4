"""Imputation baselines: a network trained without masking, with hidden values filled in.

After the baselines of MaskSDM (Zbinden et al. 2025): mean, median, marginal and conditional::

    imputed = gm.baselines.fit_imputed(train, schema)
    table = gm.evaluate(imputed, test, subsets="unimodal+all")
    table = gm.evaluate(imputed.by("conditional"), test, subsets="unimodal+all")  # the same weights
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from geomiam.at_once import FILLED_ROWS
from geomiam.baselines.columns import Columns
from geomiam.baselines.filling import Kind, check_kind, nearest, typical
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_arrays
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import to_probability
from geomiam.inference.engine import predict_block
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, visible_tokens
from geomiam.training.fit import fit


def fit_imputed(
    sites: xr.Dataset,
    schema: Schema,
    *,
    kind: Kind = "mean",
    fit_options: Mapping[str, Any] | None = None,
    rng: int = 0,
) -> Imputed:
    """Train a network without masking on sites with filled gaps.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``; NaN becomes the mean of the variable, or the median.
    schema : Schema
    kind : {"mean", "median", "marginal", "conditional"}
        How hidden values are filled for predictions; see :class:`Imputed`.
    fit_options : mapping, optional
        Keyword arguments of :func:`geomiam.fit` except ``masking``.
    rng : int
        Seed of the training.

    Returns
    -------
    Imputed

    Raises
    ------
    SelectionError
        If there is no such kind.
    LabelError, MissingVariable, VariableMismatch
        As :func:`geomiam.fit`.

    See Also
    --------
    geomiam.evaluation.missingness_sweep : compare with a masked model as data go missing.

    Examples
    --------
    >>> short = {"network": {"fusion": "sum", "width": 16}, "training": {"steps": 25}}
    >>> imputed = gm.baselines.fit_imputed(sites, schema, kind="mean", fit_options=short)
    >>> imputed.scores(sites, using=["climate"]).shape == (sites.sizes["site"], 3)
    True
    """
    options = {"rng": rng, **(fit_options or {})}
    schema = bind(schema, sites)
    middles = typical(sites, schema, kind=kind)
    complete_sites = sites.assign(
        {name: sites[name].fillna(value) for name, value in middles.items()}
    )
    return Imputed(fit(complete_sites, schema, masking=Constant(0.0), **options), sites, kind)


@dataclass(frozen=True, eq=False)
class Imputed:
    """A model that predicts from all predictors, with filled values in place of hidden ones.

    =============  ==========================================================================
    kind           a hidden value becomes
    =============  ==========================================================================
    mean           the training mean; the circular mean of an angle, the most frequent class
    median         the training median; of angles and classes as above
    marginal       the value of a training site drawn at random; mean prediction of ``draws`` sites
    conditional    the value of the nearest training sites by the observed predictors; mean
                   prediction of ``neighbours`` sites
    =============  ==========================================================================

    A site where nothing of the subset is observed gets NaN, as from a masked model. If a donor site
    lacks a value, the mean replaces it. The same training sites are drawn for every site, so that
    the prediction of a site does not depend on the others. Distances are Euclidean on
    the standardised columns of the baselines, averaged over the columns that both sites have.
    Predictions are averaged as probabilities.

    Parameters
    ----------
    model : Model
        Best trained without masking on filled sites: see :func:`fit_imputed`.
    train : xarray.Dataset
        Donor sites, with their gaps.
    kind : {"mean", "median", "marginal", "conditional"}
    draws : int
        Donor sites of ``"marginal"``.
    neighbours : int
        Donor sites of ``"conditional"``.
    rng : int
        Seeds the draws.

    Raises
    ------
    SelectionError
        If there is no such kind, or a number is below 1.

    Examples
    --------
    >>> imputed = gm.baselines.Imputed(model, sites, kind="median")
    >>> imputed.by("marginal").kind
    'marginal'
    """

    model: Model
    train: xr.Dataset
    kind: Kind = "mean"
    _: KW_ONLY
    draws: int = 100
    neighbours: int = 5
    rng: int = 0

    def __post_init__(self) -> None:
        check_kind(self.kind)
        for name in ("draws", "neighbours"):
            if (number := getattr(self, name)) < 1:
                raise SelectionError(f"{name}={number}, expected 1 or more: pass {name}=1")

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the scores."""
        return self.model.species

    @property
    def schema(self) -> Schema:
        """Schema of the model."""
        return self.model.schema

    def by(
        self,
        kind: Kind,
        *,
        draws: int | None = None,
        neighbours: int | None = None,
        rng: int | None = None,
    ) -> Imputed:
        """Return the same network with another kind of imputation; None keeps a setting."""
        settings = {"draws": draws, "neighbours": neighbours, "rng": rng}
        changes: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
        return replace(self, kind=kind, **changes)

    def scores(
        self, sites: xr.Dataset, *, using: Selector | Sequence[Selector] | None = None
    ) -> np.ndarray:
        """Score sites from a subset of the predictors, the others filled in.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``; NaN = missing.
        using : selector or sequence of selectors, optional
            Predictors to use; default all.

        Returns
        -------
        numpy.ndarray
            ``(n, S)``, logits (log-shares for a softmax model) of the mean prediction; NaN where
            nothing of the subset is observed.

        Raises
        ------
        SelectionError, MissingVariable, VariableMismatch
            As :func:`geomiam.predict`.
        """
        layout = self.model.layout
        visible = visible_tokens(layout, using)
        block = _block(sites, self.model, visible)
        widths = np.concatenate([np.full(p.size, p.width) for p in layout.parts])  # of tokens
        table = np.where(np.repeat(visible, widths), _flat(block), np.nan)
        any_observed = (block.observed & visible).any(1)
        near = self._columns.table(sites, using=using) if self.kind == "conditional" else table
        out = np.full((len(table), len(self.species)), np.nan)
        for rows in np.array_split(
            np.flatnonzero(any_observed), any_observed.sum() // FILLED_ROWS + 1
        ):
            out[rows] = self._mean_scores(table[rows], near[rows])
        return out

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of the same shape as the scores."""
        return to_probability(self.model, scores) if self._shares else 1 / (1 + np.exp(-scores))

    @property
    def _shares(self) -> bool:
        return self.model.link == "softmax"

    def _mean_scores(self, table: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return scores ``(n, S)`` of sites ``(n, F)``, from the mean probability over the fillings."""
        total, count = np.zeros((len(table), len(self.species))), 0
        for complete_table in self._fillings(table, near):
            total += self._probability(complete_table)
            count += 1
        p = np.clip(total / count, 1e-12, None)
        return np.log(p) if self._shares else np.log(p) - np.log(np.clip(1 - p, 1e-12, None))

    def _fillings(self, table: np.ndarray, near: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the table ``(n, F)`` with filled gaps, once per prediction to average."""
        gap = np.isnan(table)
        if self.kind in ("mean", "median") or not gap.any():
            yield np.where(gap, self._typical, table)
            return
        for donors in self._donor_rows(near).T:
            yield np.where(gap, self._donors[donors], table)

    def _donor_rows(self, near: np.ndarray) -> np.ndarray:
        """Return the rows of the donor sites of each site ``(n, m)``."""
        n = len(self._donors)
        if self.kind == "conditional":
            return nearest(near, self._columns.table(self.train), count=min(self.neighbours, n))
        random_sites = np.random.default_rng(self.rng).choice(n, min(self.draws, n), replace=False)
        return np.broadcast_to(random_sites, (len(near), len(random_sites)))

    def _probability(self, table: np.ndarray) -> np.ndarray:
        layout = self.model.layout
        all_tokens, all_species = np.ones(layout.size, bool), np.arange(len(self.species))
        return predict_block(
            self.model, _cut(table, layout), visible=all_tokens, species=all_species
        )

    @cached_property
    def _donors(self) -> np.ndarray:
        """Training sites ``(N, F)``, with gaps filled by typical values."""
        all_tokens = np.ones(self.model.layout.size, bool)
        table = _flat(_block(self.train, self.model, all_tokens))
        return np.where(np.isnan(table), self._typical, table)

    @cached_property
    def _typical(self) -> np.ndarray:
        """Typical values ``(F,)``, for gaps without a donor."""
        middles = typical(self.train, self.schema, kind=self.kind)
        rows = {n: v.expand_dims("site").values for n, v in middles.items()}
        return _flat(self.model.encode(rows))[0]

    @cached_property
    def _columns(self) -> Columns:
        return Columns.fit(self.train, self.schema, onehot=True)


def _block(sites: xr.Dataset, model: Model, visible: np.ndarray) -> TokenArrays:
    """Return sites as standardised tokens; variables without a visible token are NaN."""
    return model.encode(
        read_arrays(sites, model.schema, variables=model.layout.variables_of(visible))
    )


def _flat(block: TokenArrays) -> np.ndarray:
    """Return all values of a block, token after token ``(n, F)``."""
    return np.concatenate([v.reshape(len(block), -1) for v in block.values], 1)


def _cut(table: np.ndarray, layout: Layout) -> TokenArrays:
    """Return the block of a flat table, the inverse of :func:`_flat`."""
    ends = np.cumsum([p.size * p.width for p in layout.parts])[:-1]
    parts = zip(np.split(table.astype(np.float32), ends, axis=1), layout.parts)
    values = tuple(np.ascontiguousarray(v).reshape(len(table), p.size, p.width) for v, p in parts)
    return TokenArrays(values, np.concatenate([np.isfinite(v).any(-1) for v in values], 1))
