"""Imputation baselines: the same network, never masked; what is hidden is filled in.

After the baselines of MaskSDM (Zbinden et al. 2025): mean, median, marginal and conditional::

    imputed = gm.fit_imputed(train, schema, network=..., training=...)
    table = gm.evaluate(imputed, test, subsets="unimodal+all")
    table = gm.evaluate(imputed.by("conditional"), test, subsets="unimodal+all")  # the same weights
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from geomiam.baselines.columns import Columns
from geomiam.data.predictors import bind
from geomiam.data.sites.table import SiteTable, read_arrays
from geomiam.errors import SelectionError
from geomiam.evaluation.masked import to_probability
from geomiam.inference.engine import predict_block
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.schema.schema import Schema, Variable
from geomiam.tokens.blocks import Block
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, visible_tokens
from geomiam.training.fit import fit

Kind = Literal["mean", "median", "marginal", "conditional"]
KINDS: tuple[str, ...] = get_args(Kind)
ROWS = 1024
"""Sites filled at a time."""
MEMORY = 2**27
"""Bytes of a table of distances at a time."""


def fit_imputed(
    sites: xr.Dataset, schema: Schema, *, kind: Kind = "mean", **options: Any
) -> Imputed:
    """Train a network without masking on filled sites, to predict from filled sites.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``; NaN becomes the mean of the variable, or the median.
    schema : Schema
    kind : {"mean", "median", "marginal", "conditional"}
        How hidden values are filled when it predicts; see :class:`Imputed`.
    **options
        Of :func:`geomiam.fit`, ``masking`` aside.

    Returns
    -------
    Imputed

    Raises
    ------
    SelectionError
        If there is no such kind.
    LabelError, MissingVariable, VariableMismatch
        As :func:`geomiam.fit`.
    """
    schema = bind(schema, sites)
    middles = typical(sites, schema, kind=kind)
    filled = sites.assign({name: sites[name].fillna(value) for name, value in middles.items()})
    return Imputed(fit(filled, schema, masking=Constant(0.0), **options), sites, kind)


@dataclass(frozen=True, eq=False)
class Imputed:
    """A model that sees every predictor, the hidden ones with filled-in values.

    =============  ==========================================================================
    kind           a hidden value becomes
    =============  ==========================================================================
    mean           the training mean; the circular mean of an angle, the most frequent class
    median         the training median; of angles and classes as above
    marginal       that of a training site drawn at random; ``draws`` of them, predictions averaged
    conditional    that of the nearest training sites by what is available; ``neighbours`` of them,
                   predictions averaged
    =============  ==========================================================================

    A site where nothing that may be seen is observed gets NaN, as from a masked model. Where the
    training site that lends a value lacks it itself, the mean stands in. The same training sites are
    drawn for every site, so that no site's answer depends on the others. Distances are Euclidean on
    the standardised columns of the baselines, averaged over the columns that both sites have.
    Predictions are averaged as probabilities.

    Parameters
    ----------
    model : Model
        Best trained without masking on filled sites: see :func:`fit_imputed`.
    train : xarray.Dataset
        The sites that values are taken from, with their gaps.
    kind : {"mean", "median", "marginal", "conditional"}
    draws : int
        Of marginal.
    neighbours : int
        Of conditional.
    rng : int
        Seeds the draws.

    Raises
    ------
    SelectionError
        If there is no such kind, or a number is below 1.
    """

    model: Model
    train: xr.Dataset
    kind: Kind = "mean"
    _: KW_ONLY
    draws: int = 100
    neighbours: int = 5
    rng: int = 0

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        for name in ("draws", "neighbours"):
            if (found := getattr(self, name)) < 1:
                raise SelectionError(f"{name}={found}, expected 1 or more: pass {name}=1")

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the scores."""
        return self.model.species

    @property
    def schema(self) -> Schema:
        """The model's."""
        return self.model.schema

    def by(self, kind: Kind, **settings: Any) -> Imputed:
        """Return the same network with another imputation."""
        return replace(self, kind=kind, **settings)

    def scores(
        self, sites: xr.Dataset, *, using: Selector | Sequence[Selector] | None = None
    ) -> np.ndarray:
        """Score sites from a subset of the predictors, the others filled in.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``; NaN = missing.
        using : selector or sequence of selectors, optional
            What may be seen; default everything.

        Returns
        -------
        numpy.ndarray
            ``(n, S)``, logits (log-shares for a softmax model) of the mean prediction; NaN where
            nothing that may be seen is observed.

        Raises
        ------
        SelectionError, MissingVariable, VariableMismatch
            As :func:`geomiam.predict`.
        """
        layout = self.model.layout
        shown = visible_tokens(layout, using)
        block = _block(sites, self.model, shown)
        table = np.where(np.repeat(shown, _widths(layout)), _flat(block), np.nan)
        seen = (block.observed & shown).any(1)
        near = self._columns.table(sites, using=using) if self.kind == "conditional" else table
        out = np.full((len(table), len(self.species)), np.nan)
        for rows in np.array_split(np.flatnonzero(seen), seen.sum() // ROWS + 1):
            out[rows] = self._answer(table[rows], near[rows])
        return out

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Turn scores into probabilities of the same shape."""
        return to_probability(self.model, scores) if self._shares else 1 / (1 + np.exp(-scores))

    @property
    def _shares(self) -> bool:
        return self.model.link == "softmax"

    def _answer(self, table: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Scores ``(n, S)`` of sites ``(n, F)``: of the mean probability over the fillings."""
        total, count = np.zeros((len(table), len(self.species))), 0
        for filled in self._fillings(table, near):
            total += self._probability(filled)
            count += 1
        p = np.clip(total / count, 1e-12, None)
        return np.log(p) if self._shares else np.log(p) - np.log(np.clip(1 - p, 1e-12, None))

    def _fillings(self, table: np.ndarray, near: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the table ``(n, F)`` without gaps, as often as predictions are averaged."""
        gap = np.isnan(table)
        if self.kind in ("mean", "median") or not gap.any():
            yield np.where(gap, self._typical, table)
            return
        for lenders in self._lenders(near).T:
            yield np.where(gap, self._donors[lenders], table)

    def _lenders(self, near: np.ndarray) -> np.ndarray:
        """Training sites that lend their values to each site ``(n, m)``."""
        n = len(self._donors)
        if self.kind == "conditional":
            return nearest(near, self._columns.table(self.train), count=min(self.neighbours, n))
        drawn = np.random.default_rng(self.rng).choice(n, min(self.draws, n), replace=False)
        return np.broadcast_to(drawn, (len(near), len(drawn)))

    def _probability(self, table: np.ndarray) -> np.ndarray:
        layout = self.model.layout
        shown, every = np.ones(layout.size, bool), np.arange(len(self.species))
        return predict_block(self.model, _cut(table, layout), visible=shown, species=every)

    @cached_property
    def _donors(self) -> np.ndarray:
        """Training sites ``(N, F)``, their gaps filled with what is typical."""
        every = np.ones(self.model.layout.size, bool)
        table = _flat(_block(self.train, self.model, every))
        return np.where(np.isnan(table), self._typical, table)

    @cached_property
    def _typical(self) -> np.ndarray:
        """What each value is filled with where no site lends one ``(F,)``."""
        middles = typical(self.train, self.schema, kind=self.kind)
        rows = {n: v.expand_dims("site").values for n, v in middles.items()}
        return _flat(self.model.encode(rows))[0]

    @cached_property
    def _columns(self) -> Columns:
        return Columns.fit(self.train, self.schema, onehot=True)


def typical(sites: xr.Dataset, schema: Schema, *, kind: Kind = "mean") -> dict[str, xr.DataArray]:
    """Mean or median of each variable over the sites, ``(*own dims)``.

    Parameters
    ----------
    kind : {"mean", "median", "marginal", "conditional"}
        The median for ``"median"``, the mean for all others. Angles always have their circular mean,
        classes the most frequent one, of equals the smallest. NaN where nothing was observed.

    Raises
    ------
    SelectionError
        If there is no such kind.
    """
    _check_kind(kind)
    arrays = SiteTable.read(sites, schema, include_labels=False).checked().arrays
    return {
        n: xr.DataArray(_middle(arrays[n], v, kind), dims=v.dims)
        for n, v in schema.variables.items()
    }


def nearest(x: np.ndarray, donors: np.ndarray, *, count: int) -> np.ndarray:
    """Return the rows ``(n, count)`` of donors ``(N, p)`` next to each row of x ``(n, p)``.

    Mean squared distance over the columns that both have; who shares no column comes last, and of
    equals the first.
    """
    step = max(1, MEMORY // (8 * len(donors)))
    parts = [_nearest(x[i : i + step], donors, count) for i in range(0, len(x), step)]
    return np.concatenate(parts) if parts else np.empty((0, count), np.intp)


def _nearest(x: np.ndarray, donors: np.ndarray, count: int) -> np.ndarray:
    a, b = (np.isfinite(t).astype(np.float64) for t in (x, donors))
    u, v = np.nan_to_num(x.astype(np.float64)), np.nan_to_num(donors.astype(np.float64))
    square = (u * u) @ b.T - 2 * u @ v.T + a @ (v * v).T
    shared = a @ b.T
    distance = np.where(shared > 0, square / np.maximum(shared, 1), np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def _middle(x: np.ndarray, variable: Variable, kind: Kind) -> np.ndarray:
    """Typical value of ``(n, *own dims)`` over n."""
    known = np.isfinite(x)
    x, count = np.where(known, x, 0.0).astype(np.float64), known.sum(0)
    if variable.kind == "categorical":
        classes = np.unique(x[known])
        votes = np.stack([((x == c) & known).sum(0) for c in classes])
        return np.where(count > 0, classes[votes.argmax(0)], np.nan)
    if variable.kind == "circular":
        turn = 2 * np.pi / variable.period
        sine, cosine = (np.where(known, f(x * turn), 0).sum(0) for f in (np.sin, np.cos))
        return np.where(count > 0, np.arctan2(sine, cosine) / turn % variable.period, np.nan)
    if kind == "median":
        return np.ma.filled(np.ma.median(np.ma.array(x, mask=~known), axis=0), np.nan)
    return np.divide(x.sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise SelectionError(f"no imputation {kind!r}; choose from {', '.join(KINDS)}")


def _block(sites: xr.Dataset, model: Model, shown: np.ndarray) -> Block:
    """Sites, standardised and cut; variables without a shown token are NaN."""
    return model.encode(
        read_arrays(sites, model.schema, variables=model.layout.variables_of(shown))
    )


def _widths(layout: Layout) -> np.ndarray:
    """Values per token ``(t,)``."""
    return np.concatenate([np.full(p.size, p.width) for p in layout.parts])


def _flat(block: Block) -> np.ndarray:
    """All values of a block, token after token ``(n, F)``."""
    return np.concatenate([v.reshape(len(block), -1) for v in block.values], 1)


def _cut(table: np.ndarray, layout: Layout) -> Block:
    """Undo :func:`_flat`."""
    ends = np.cumsum([p.size * p.width for p in layout.parts])[:-1]
    parts = zip(np.split(table.astype(np.float32), ends, axis=1), layout.parts)
    values = tuple(np.ascontiguousarray(v).reshape(len(table), p.size, p.width) for v, p in parts)
    return Block(values, np.concatenate([np.isfinite(v).any(-1) for v in values], 1))
