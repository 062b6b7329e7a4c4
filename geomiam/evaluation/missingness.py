"""What is left of the skill when data go missing: sweeps over patterns of gaps and their share.

The patterns of :mod:`geomiam.evaluation.patterns` make gaps in training sites and in test sites, so a
model can be trained under one pattern and tested under another::

    gappy = hide(train, at_random(train, schema, share=0.4, rng=0), schema)
    model = gm.fit(gappy, schema)
    missingness_sweep(gappy, test, schema, predictors={"MIAM": model}, patterns=["belt"])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any
from zlib import crc32

import numpy as np
import xarray as xr

from geomiam.data.sites.labels import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import Predictor, as_predictor
from geomiam.evaluation.patterns import (
    PATTERNS,
    Pattern,
    Rng,
    at_random,
    belt,
    block_size,
    by_modality,
    hide,
    region,
)
from geomiam.metrics import auc
from geomiam.model.model import Model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema

__all__ = [
    "PATTERNS",
    "at_random",
    "belt",
    "block_size",
    "by_modality",
    "hide",
    "missingness_sweep",
    "region",
]

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)


@with_progress
def missingness_sweep(
    train: xr.Dataset,
    test: xr.Dataset,
    schema: Schema,
    *,
    predictors: Mapping[str, Model | Predictor],
    patterns: Sequence[str] | Mapping[str, Pattern] = tuple(PATTERNS),
    shares: Sequence[float] = SHARES,
    repeats: int = 1,
    rng: Rng = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Score fitted predictors while more and more of the test sites is hidden.

    All predictors see the same gaps. A site where a predictor does not answer, because nothing is
    left to see, gets that predictor's base value: the mean of its scores over the training sites,
    species by species. Leaving such sites out would reward silence, for they are the hard ones, and
    would score each predictor on other sites.

    Parameters
    ----------
    train : xarray.Dataset
        The sites that the predictors were trained on, as they were seen: for the base values.
    test : xarray.Dataset
        With ``presence(site, species)``; gaps that are there stay, and patterns add to them.
    schema : Schema
        What may be hidden.
    predictors : mapping of str to Model or Predictor
        By name: trained models, or anything else with ``species`` and ``scores(sites)`` ``(n, S)`` on
        the logit scale, such as :class:`geomiam.Imputed`.
    patterns : sequence of str, or mapping of str to pattern
        Of ``at-random``, ``by-modality``, ``belt``, ``region``; or functions of your own.
    shares : sequence of float
        Shares to hide, in [0, 1].
    repeats : int
        Number of times that gaps are drawn.
    rng : int, numpy.random.Generator or None
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``auc(predictor, pattern, share, repeat, species)``, NaN where the test sites have one class
        of a species; ``mean_auc(predictor, pattern, share, repeat)``, over the other species;
        ``answered`` of the same dims: share of the sites that had an answer;
        ``hidden(pattern, share, repeat)``: share of the observed entries that were taken away.

    Raises
    ------
    SelectionError
        If a pattern is unknown, or a predictor lacks a species of the test sites.
    LabelError, GridError, ValueError
        If the test sites have no labels or coordinates, or a share leaves [0, 1].
    """
    names = read_labels(test)[1]
    chosen = named_patterns(patterns)
    scorers = [_Scorer(as_predictor(p), n, train, test) for n, p in predictors.items()]
    seeds = np.random.default_rng(rng).integers(2**31, size=repeats)
    cases = [
        (lost := _lost(test, sites, schema), [s.case(sites, whole=not lost) for s in scorers])
        for sites in progress_bar(
            _gaps(test, schema, patterns=chosen, shares=shares, seeds=seeds),
            total=len(chosen) * len(shares) * repeats,
            desc="gaps",
        )
    ]
    coords = {"predictor": list(predictors), "pattern": list(chosen), "share": list(shares)}
    return _dataset(cases, {**coords, "repeat": np.arange(repeats), "species": list(names)})


def named_patterns(patterns: Sequence[str] | Mapping[str, Pattern]) -> dict[str, Pattern]:
    """Return patterns by name.

    Raises
    ------
    SelectionError
        If there is none of a name.
    """
    if isinstance(patterns, Mapping):
        return dict(patterns)
    if unknown := [p for p in patterns if p not in PATTERNS]:
        raise SelectionError(f"no pattern of gaps {unknown}; choose from {', '.join(PATTERNS)}")
    return {p: PATTERNS[p] for p in patterns}


@dataclass(frozen=True)
class _Scorer:
    """One predictor, answering for the species of the test sites, everywhere."""

    predictor: Predictor
    name: str
    train: xr.Dataset
    test: xr.Dataset

    def case(self, sites: xr.Dataset, *, whole: bool) -> tuple[np.ndarray, float]:
        """AUC ``(S,)`` and the share of sites answered; where nothing is hidden, scored once."""
        return self._whole if whole else self._case(sites)

    @cached_property
    def _whole(self) -> tuple[np.ndarray, float]:
        return self._case(self.test)

    def _case(self, sites: xr.Dataset) -> tuple[np.ndarray, float]:
        scores = self._scores(sites)
        known = np.isfinite(scores)
        filled = scores if known.all() else np.where(known, scores, self._base)
        return auc(read_labels(self.test)[0], filled), float(known.any(1).mean())

    @cached_property
    def _base(self) -> np.ndarray:
        """Mean score over the training sites ``(S,)``; 0 where there is none."""
        scores = self._scores(self.train)
        known = np.isfinite(scores)
        return np.where(known, scores, 0).sum(0) / np.maximum(known.sum(0), 1)

    def _scores(self, sites: xr.Dataset) -> np.ndarray:
        """Scores ``(n, S)``, species in the order of the test sites."""
        own = [str(s) for s in self.predictor.species]
        wanted = [str(s) for s in self.test["species"].values]
        if lost := [s for s in wanted if s not in own]:
            raise SelectionError(
                f"predictor '{self.name}' does not know {len(lost)} of {len(wanted)} species "
                f"({', '.join(lost[:3])}); select the others with sites.sel(species=[...])"
            )
        return np.asarray(self.predictor.scores(sites))[:, [own.index(s) for s in wanted]]


def _gaps(
    test: xr.Dataset,
    schema: Schema,
    *,
    patterns: Mapping[str, Pattern],
    shares: Sequence[float],
    seeds: np.ndarray,
) -> Iterator[xr.Dataset]:
    """Test sites of each pattern, share and repeat; a curve is drawn from one seed."""
    for (name, pattern), share, seed in product(patterns.items(), shares, seeds):
        draws = np.random.default_rng([int(seed), crc32(name.encode())])
        yield hide(test, pattern(test, schema, share=share, rng=draws), schema)


def _lost(before: xr.Dataset, after: xr.Dataset, schema: Schema) -> float:
    """Share of the observed entries ``(site, variable)`` that are gone."""
    was, now = (
        sum(int(_observed(ds[v]).sum()) for v in schema.variables if v in ds)
        for ds in (before, after)
    )
    return 1 - now / was if was else 0.0


def _observed(values: xr.DataArray) -> np.ndarray:
    n = values.sizes["site"]
    return np.isfinite(values.transpose("site", ...).values.reshape(n, -1)).any(1)


def _dataset(cases: list, coords: dict[str, Any]) -> xr.Dataset:
    case = ("pattern", "share", "repeat")
    shape = tuple(len(coords[d]) for d in case)
    values = np.array([[score for score, _ in row] for _, row in cases])  # (cases, P, S)
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    mean = np.where(known.any(-1), mean, np.nan)
    answered = np.array([[share for _, share in row] for _, row in cases])
    tables = {"auc": values, "mean_auc": mean, "answered": answered}
    ds = xr.Dataset(coords=coords).assign(hidden=(case, np.reshape([c[0] for c in cases], shape)))
    for name, table in tables.items():
        own = ("species",) if table.ndim == 3 else ()
        ds[name] = ((*case, "predictor", *own), table.reshape(*shape, *table.shape[1:]))
    return ds.transpose("predictor", ...)
