"""What every baseline shares: how it is trained, and how it answers from any subset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Protocol
from zlib import crc32

import numpy as np
import xarray as xr

from geomiam.baselines.columns import Columns, Using
from geomiam.progress import progress_bar

Answer = Callable[[np.ndarray], np.ndarray]
"""Table ``(n, p)`` → scores: ``(n,)`` of one species, or ``(n, S)`` of all."""
NEUTRAL = 0.5
"""Score of a species that had one class only, so that nothing could be learned."""


@dataclass(frozen=True)
class Training:
    """What a baseline is trained on."""

    table: np.ndarray
    """``(n, p)``; NaN = not observed."""
    labels: np.ndarray
    """``(n, S)``; 1, 0, NaN = not surveyed."""
    species: tuple[str, ...]
    columns: Columns
    seed: int


class Method(Protocol):
    """How a baseline is trained; a frozen dataclass, whose fields are its options."""

    onehot: ClassVar[bool]
    """Whether it reads classes as indicators; otherwise as codes."""

    @property
    def engine(self) -> str:
        """Library that does the work."""
        ...

    def fit(self, training: Training) -> Answer:
        """Train on a table; return what scores tables ``(n, p)`` as ``(n, S)``."""
        ...


@dataclass(frozen=True)
class Baseline:
    """A trained baseline: scores for any sites, seeing any subset of the predictors."""

    name: str
    engine: str
    """Library that does the work."""
    species: list[str]
    columns: Columns
    answer: Answer
    """Table ``(n, p)`` → scores ``(n, S)``."""
    base: np.ndarray
    """Scores ``(S,)`` of a site that shows nothing: the mean over training sites."""

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Score sites.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``; NaN = missing.
        using : selector or sequence of selectors, optional
            What the baseline may see, as for :func:`geomiam.predict`; default everything.

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
        seen = np.isfinite(table).any(1)
        found = np.tile(self.base, (len(table), 1))
        if seen.any():
            found[seen] = self.answer(table[seen])
        return found


@dataclass(frozen=True)
class PerSpecies:
    """One answer per species, side by side."""

    answers: tuple[Answer | None, ...]
    """None: a species that had one class only."""
    n_jobs: int

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n, S)``."""

        def one(answer: Answer | None) -> np.ndarray:
            return np.full(len(table), NEUTRAL) if answer is None else answer(table)

        scores = spread(one, self.answers, n_jobs=self.n_jobs, title="scoring species")
        return np.stack(list(scores), 1)


def per_species(
    training: Training,
    fit: Callable[[np.ndarray, np.ndarray, np.random.Generator], Answer],
    *,
    n_jobs: int,
) -> PerSpecies:
    """Train one answer per species, on the sites where the species was surveyed.

    Parameters
    ----------
    training : Training
    fit : callable
        Table ``(m, p)``, labels ``(m,)`` and a random generator → answer.
    n_jobs : int
        Threads.
    """

    def one(number: int) -> Answer | None:
        labels = training.labels[:, number]
        known = ~np.isnan(labels)
        if len(np.unique(labels[known])) < 2:
            return None
        # Seeded by name: a species' answer does not hang on which others stand beside it.
        name = training.species[number].encode()
        rng = np.random.default_rng([training.seed, crc32(name)])
        return fit(training.table[known], labels[known].astype(np.intp), rng)

    numbers = range(len(training.species))
    return PerSpecies(tuple(spread(one, numbers, n_jobs=n_jobs, title="training species")), n_jobs)


def spread(work: Callable, items, *, n_jobs: int, title: str) -> Iterator:
    """Map over species, in threads if asked for, with a progress bar."""
    with progress_bar(total=len(items), desc=title, unit="species", leave=False) as bar:
        with ThreadPoolExecutor(n_jobs) as pool:
            results = map(work, items) if n_jobs == 1 else pool.map(work, items)
            for result in results:
                yield result
                bar.update()
