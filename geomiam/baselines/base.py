"""Common parts of the baselines: training data, and scores from any subset of the predictors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from zlib import crc32

import numpy as np
import xarray as xr

from geomiam.baselines.columns import Columns, Using
from geomiam.progress import progress_bar

Scorer = Callable[[np.ndarray], np.ndarray]
"""Table ``(n, p)`` → scores: ``(n,)`` of one species, or ``(n, S)`` of all."""
NEUTRAL = 0.5
"""Score of a species with one class only in training."""


@dataclass(frozen=True)
class Training:
    """Training data of a baseline.

    Examples
    --------
    >>> from dataclasses import fields
    >>> [f.name for f in fields(gm.baselines.Training)]
    ['table', 'labels', 'species', 'columns', 'seed']
    """

    table: np.ndarray
    """``(n, p)``; NaN = not observed."""
    labels: np.ndarray
    """``(n, S)``; 1, 0, NaN = not surveyed."""
    species: tuple[str, ...]
    columns: Columns
    seed: int


class Method(Protocol):
    """A kind of baseline: a frozen dataclass whose fields are its options.

    Examples
    --------
    >>> gm.baselines.BASELINES["rf"](trees=10).engine
    'scikit-learn'
    """

    onehot: ClassVar[bool]
    """Whether classes are columns of indicators; otherwise one column of codes."""

    @property
    def engine(self) -> str:
        """Library that trains the baseline."""
        ...

    def fit(self, training: Training) -> Scorer:
        """Train on a table; return a function that scores tables ``(n, p)`` as ``(n, S)``."""
        ...


@dataclass(frozen=True)
class Baseline:
    """A trained baseline, which scores sites from any subset of the predictors.

    Examples
    --------
    >>> gm.baselines.fit_baseline("rf", sites, schema, options={"trees": 10}).engine
    'scikit-learn'
    """

    name: str
    engine: str
    """Library that trains the baseline."""
    species: list[str]
    columns: Columns
    scorer: Scorer
    """Table ``(n, p)`` → scores ``(n, S)``."""
    base: np.ndarray
    """Scores ``(S,)`` of a site without any observed predictor: the mean over training sites."""

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Score sites.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``; NaN = missing.
        using : selector or sequence of selectors, optional
            Predictors to use, as for :func:`geomiam.predict`; default all.

        Returns
        -------
        numpy.ndarray
            ``(n, S)``, species in the order of ``species``; higher = more likely present. Never NaN.

        Raises
        ------
        SelectionError
            If a selector names nothing.
        MissingVariable, VariableMismatch
            If predictors are missing in part, or differ from the schema.
        """
        table = self.columns.table(sites, using=using)
        any_observed = np.isfinite(table).any(1)
        scores = np.tile(self.base, (len(table), 1))
        if any_observed.any():
            scores[any_observed] = self.scorer(table[any_observed])
        return scores


@dataclass(frozen=True)
class PerSpecies:
    """One scorer per species."""

    scorers: tuple[Scorer | None, ...]
    """None for a species with one class only."""
    n_jobs: int

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n, S)``."""

        def one(scorer: Scorer | None) -> np.ndarray:
            return np.full(len(table), NEUTRAL) if scorer is None else scorer(table)

        scores = spread(one, self.scorers, n_jobs=self.n_jobs, title="scoring species")
        return np.stack(list(scores), 1)


def per_species(
    training: Training,
    fit: Callable[[np.ndarray, np.ndarray, np.random.Generator], Scorer],
    *,
    n_jobs: int,
) -> PerSpecies:
    """Train one scorer per species, on the sites where the species was surveyed."""

    def one(number: int) -> Scorer | None:
        labels = training.labels[:, number]
        is_surveyed = ~np.isnan(labels)
        if len(np.unique(labels[is_surveyed])) < 2:
            return None
        # The seed depends on the name, so that scores do not depend on the other species.
        name = training.species[number].encode()
        rng = np.random.default_rng([training.seed, crc32(name)])
        return fit(training.table[is_surveyed], labels[is_surveyed].astype(np.intp), rng)

    numbers = range(len(training.species))
    return PerSpecies(tuple(spread(one, numbers, n_jobs=n_jobs, title="training species")), n_jobs)


def spread(
    work: Callable[[Any], Any], items: Sequence[Any], *, n_jobs: int, title: str
) -> Iterator[Any]:
    """Map over species, in ``n_jobs`` threads, with a progress bar."""
    with progress_bar(total=len(items), desc=title, unit="species", leave=False) as bar:
        with ThreadPoolExecutor(n_jobs) as pool:
            results = map(work, items) if n_jobs == 1 else pool.map(work, items)
            for result in results:
                yield result
                bar.update()
