"""Labels of sites: 1, 0 and NaN = not surveyed, as a table ``(n, S)`` or compact.

Presence-only records of many species are few at each site: nearly all its species are not surveyed, or 0
where the site is background. The compact form stores that label once per site, and the exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import LabelError, MemoryRefused

MOST_BYTES = 4 * 2**30
"""Most bytes of the table of labels that is made from the compact form."""
PART = 2**21
"""Labels that are converted to the compact form at a time: few enough for the cache."""


@dataclass(frozen=True)
class Counts:
    """Numbers of labels of some sites."""

    sites: int
    present: np.ndarray
    """Sites with label 1, by species ``(S,)``."""
    absent: np.ndarray
    """Sites with label 0, by species ``(S,)``."""
    single: int
    """Sites with exactly one present species."""

    @property
    def surveyed(self) -> np.ndarray:
        """Sites with a label, by species ``(S,)``."""
        return np.asarray(self.present + self.absent)

    @property
    def rarer(self) -> int:
        """Labels of the rarer class of each species, summed over species."""
        return int(np.minimum(self.present, self.absent).sum())


@dataclass(frozen=True, eq=False)
class SparseLabels:
    """Labels of n sites and S species: one label for all species of a site, and the exceptions."""

    fill: np.ndarray
    """Label of the species of a site that are no exceptions, float32 ``(n,)``."""
    starts: np.ndarray
    """Position of the first exception of each site, and the number of all, int64 ``(n + 1,)``."""
    species: np.ndarray
    """Species of each exception, int32 ``(k,)``."""
    values: np.ndarray
    """Label of each exception, float16 ``(k,)``."""
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return labels of some sites as a table, float32 ``(r, S)``."""
        rows = self._numbers(rows)
        owner, entries = self._exceptions(rows)
        table = np.repeat(self.fill[rows, None], self.shape[1], axis=1)
        table[owner, self.species[entries]] = self.values[entries]
        return table

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All labels, for a fingerprint."""
        return self.fill, self.starts, self.species, self.values

    def take(self, rows: np.ndarray) -> SparseLabels:
        """Return the labels of some sites, by row numbers or a mask."""
        rows = self._numbers(rows)
        owner, entries = self._exceptions(rows)
        starts = np.searchsorted(owner, np.arange(len(rows) + 1))
        shape = (len(rows), self.shape[1])
        return SparseLabels(
            self.fill[rows], starts, self.species[entries], self.values[entries], shape
        )

    def _numbers(self, rows: Any) -> np.ndarray:
        """Return rows as numbers."""
        if isinstance(rows, np.ndarray) and rows.dtype.kind == "i":
            return rows
        return np.atleast_1d(np.arange(len(self))[rows])

    def _exceptions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the exceptions of rows: which of the rows each belongs to, and its position."""
        first = self.starts[rows]
        lengths = self.starts[rows + 1] - first
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths  # exceptions of the rows before
        return owner, np.arange(len(owner)) + np.repeat(first - before, lengths)

    @classmethod
    def of(cls, table: np.ndarray) -> SparseLabels:
        """Return a table ``(n, S)`` in compact form; LabelError for values other than 0, 1 and NaN."""
        missing, absent = np.isnan(table), table == 0
        is_missing = np.count_nonzero(missing, 1) >= np.count_nonzero(absent, 1)
        fill = np.where(is_missing, np.float32(np.nan), np.float32(0))
        rows, species = np.nonzero(~np.where(is_missing[:, None], missing, absent))
        starts = np.searchsorted(rows, np.arange(len(table) + 1))
        values = check_values(table[rows, species]).astype(np.float16)
        return cls(fill, starts, species.astype(np.int32), values, table.shape)

    @classmethod
    def joined(cls, parts: Sequence[SparseLabels]) -> SparseLabels:
        """Return the labels of several sets of sites in order."""
        sizes = np.cumsum([0, *(len(p.values) for p in parts)])
        starts = [p.starts[:-1] + size for p, size in zip(parts, sizes)]
        return cls(
            np.concatenate([p.fill for p in parts]),
            np.concatenate([*starts, sizes[-1:]]),
            np.concatenate([p.species for p in parts]),
            np.concatenate([p.values for p in parts]),
            (sum(map(len, parts)), parts[0].shape[1]),
        )


Labels = np.ndarray | SparseLabels
"""A table float ``(n, S)``, or the compact form."""


def label_counts(labels: Labels | Any) -> Counts:
    """Return the numbers of labels of all sites; ``labels`` may be a tensor on the CPU."""
    if isinstance(labels, SparseLabels):
        return _sparse_counts(labels)
    labels = np.asarray(labels)
    present = labels == 1
    single = int((present.sum(1) == 1).sum())
    return Counts(len(labels), present.sum(0), (labels == 0).sum(0), single)


def take(labels: Labels, rows: np.ndarray) -> Labels:
    """Return the labels of some sites in their form, by row numbers or a mask."""
    return labels.take(rows) if isinstance(labels, SparseLabels) else labels[rows]


def as_table(labels: Labels) -> np.ndarray:
    """Return labels as a table ``(n, S)``; MemoryRefused if a compact form would become too large."""
    if not isinstance(labels, SparseLabels):
        return labels
    refuse_large(labels.shape)
    return labels[:]


def refuse_large(
    shape: tuple[int, ...], *, bytes_each: int = 4, function: str = "this function"
) -> None:
    """Raise MemoryRefused if a table of labels ``(n, S)`` would be too large."""
    size = bytes_each * shape[0] * shape[1]
    if size > MOST_BYTES:
        raise MemoryRefused(
            f"{function} needs the labels as a table: {shape[0]:,} sites x {shape[1]:,} species are "
            f"{size / 2**30:,.1f} GiB, over the limit of {MOST_BYTES / 2**30:g} GiB. Pass fewer sites, "
            "sites.isel(site=slice(None, None, 100)), or fewer species, sites.isel(species=slice(100)). gm.fit reads "
            "labels in parts, from sites opened with gm.open_sites(path, chunks={})"
        )


def compact_labels(presence: xr.DataArray) -> SparseLabels:
    """Return the labels of a dask array ``presence(site, species)``, of which chunks are read in turn.

    Raises LabelError for values other than 0, 1 and NaN.
    """
    import dask

    array = presence.transpose("site", "species").data
    blocks = array.rechunk({1: -1}).to_delayed()[:, 0]
    return SparseLabels.joined(dask.compute(*(dask.delayed(_compact)(block) for block in blocks)))


def check_values(labels: np.ndarray) -> np.ndarray:
    """Return labels; LabelError for values other than 0, 1 and NaN."""
    odd = labels[~np.isnan(labels) & ~np.isin(labels, (0, 1))]
    if odd.size:
        raise LabelError(
            f"'presence' must be 0, 1 or NaN, found {odd[0]}: use (counts > 0) for counts"
        )
    return labels


def _compact(block: np.ndarray) -> SparseLabels:
    step = max(1, PART // max(1, block.shape[1]))
    parts = [block[i : i + step] for i in range(0, max(1, len(block)), step)]
    return SparseLabels.joined([SparseLabels.of(np.asarray(p, np.float32)) for p in parts])


def _sparse_counts(labels: SparseLabels) -> Counts:
    def by_species(is_counted: np.ndarray) -> np.ndarray:
        return np.bincount(labels.species[is_counted], minlength=labels.shape[1])

    rows = np.repeat(np.arange(len(labels)), np.diff(labels.starts))
    present = labels.values == 1
    absent = np.full(
        labels.shape[1], (labels.fill == 0).sum()
    )  # of all species, but the exceptions
    absent += by_species(labels.values == 0) - by_species(labels.fill[rows] == 0)
    single = int((np.bincount(rows[present], minlength=len(labels)) == 1).sum())
    return Counts(len(labels), by_species(present), absent, single)
