"""Reference sites: a sample of the training sites that is saved with a model, for measures of novelty.

The sites are standardised features (:mod:`geomiam.tokens.features`) without coordinates, labels or order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from geomiam.checks.files import refusing
from geomiam.errors import ArtifactError
from geomiam.model.weight_file import Header, identity, read_header
from geomiam.tokens.features import Features

if TYPE_CHECKING:
    from geomiam.model.model import Model

FILE = "reference.safetensors"
MOST_SITES = 5000
MOST_VALUES = 2**24
"""Most numbers of the sample, 64 MiB; models of many features store fewer sites."""
NO_FOLD = -1


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of a sample of the training sites."""

    values: np.ndarray
    """float32 ``(n, f)``; NaN = not observed."""
    fold: np.ndarray
    """int32 ``(n,)``: spatial fold that held the site out in validation; -1: none."""

    @classmethod
    def of(
        cls, values: np.ndarray, fold: np.ndarray | None = None, *, limit: int = MOST_SITES
    ) -> Reference:
        """Return a sample of sites ``(n, f)`` that has the least and the greatest value of each feature.

        Equal sites in another order give the same sample of up to ``limit`` sites.
        """
        fold = np.full(len(values), NO_FOLD) if fold is None else fold
        observed = np.isfinite(values).any(1)
        values, fold = values[observed].astype(np.float32), fold[observed].astype(np.int32)
        # Sorted by value, since the order of sites may reveal which of them are presences.
        order = np.lexsort((fold, *values.T)) if len(values) else np.zeros(0, int)
        values, fold = values[order], fold[order]
        limit = max(1, min(limit, MOST_VALUES // max(values.shape[1], 1)))
        if len(values) > limit:
            rows = _sample(values, limit)
            values, fold = values[rows], fold[rows]
        return cls(values, fold)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        content = (np.ascontiguousarray(a).tobytes() for a in (self.values, self.fold))
        return hashlib.sha256(b"".join(content)).hexdigest()

    def save(self, folder: Path, scaling: str) -> None:
        """Write the file of the sites into a model directory; ``scaling`` is that of the model."""
        tensors = {"values": self.values, "fold": self.fold}
        save_file(tensors, folder / FILE, metadata={"scaling": scaling})

    @classmethod
    def load(cls, folder: Path, features: tuple[Features, ...], scaling: str) -> Reference | None:
        """Read the file of a model directory; None if there is no such file.

        Names, types and shapes are checked before the values are read.
        """
        file = folder / FILE
        if not file.exists():
            return None
        header = read_header(file)
        with refusing(
            ArtifactError, f"{file} is damaged; save the model again", passing=ArtifactError
        ):
            _check(file, header, columns=sum(f.size for f in features), scaling=scaling)
            tensors = load_file(file)
            if np.isinf(tensors["values"]).any():
                raise ValueError("infinite values")
        return cls(tensors["values"], tensors["fold"])


def _check(file: Path, header: Header, *, columns: int, scaling: str) -> None:
    """Refuse a file of other tensors than the sites of this model."""
    n = int(header.tensors["values"][1][0])
    expected = {"values": ("F32", [n, columns]), "fold": ("I32", [n])}
    tensors = {name: (dtype, shape) for name, (dtype, shape, _) in header.tensors.items()}
    advice = "save the model again, or delete the file and pass reference=sites to gm.novelty"
    if tensors != expected or n > MOST_SITES:
        raise ArtifactError(
            f"{file} has tensors {tensors}, expected {expected} of at most {MOST_SITES:,} sites: {advice}"
        )
    with safe_open(file, "np") as file_of_sites:
        if (file_of_sites.metadata() or {}).get("scaling") != scaling:
            raise ArtifactError(
                f"{file} has sites that another model standardised: copy model directories as a whole, or {advice}"
            )


def scaling_of(model: Model) -> str:
    """Return a digest of the schema and the scaler of a model, by which sites are standardised."""
    specification = model.specification()
    return identity({k: specification[k] for k in ("schema", "scaler")}, {})


def joined(*samples: Reference, limit: int = MOST_SITES) -> Reference:
    """Return up to ``limit`` sites of several samples, of which all but the last may lack the last features."""
    columns = samples[-1].values.shape[1]
    values = np.full((sum(map(len, samples)), columns), np.nan, np.float32)
    start = 0
    for sample in samples:
        values[start : start + len(sample), : sample.values.shape[1]] = sample.values
        start += len(sample)
    return Reference.of(values, np.concatenate([s.fold for s in samples]), limit=limit)


def _sample(values: np.ndarray, limit: int) -> np.ndarray:
    """Return rows ``(limit,)`` in ascending order: the extremes of each feature, and random others."""
    observed = np.isfinite(values)
    low = np.where(observed, values, np.inf).argmin(0)
    high = np.where(observed, values, -np.inf).argmax(0)
    extremes = np.unique(np.concatenate([low, high]))[:limit]
    other_rows = np.setdiff1d(np.arange(len(values)), extremes)
    random_rows = np.random.default_rng(0).choice(other_rows, limit - len(extremes), replace=False)
    return np.sort(np.concatenate([extremes, random_rows]))
