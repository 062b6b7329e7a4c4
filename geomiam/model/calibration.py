"""Calibration sites of a model: standardised predictors and labels, stored beside the weights.

The file ``calibration.safetensors`` holds the tokens of each part of the layout, which of them are observed, and
the labels and spatial blocks. Names, types and shapes are compared with the model before a value is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from geomiam.checks.files import refusing
from geomiam.errors import ArtifactError
from geomiam.model.weight_file import Header, read_header
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.layout import Layout

FILE = "calibration.safetensors"
MOST_SITES = 100_000
MOST_BYTES = 2**30
UNKNOWN = 255
"""Label of a species that was not surveyed at a site."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictors and labels of n calibration sites."""

    block: TokenArrays
    """Standardised predictors; only values and observed tokens are stored."""
    labels: np.ndarray
    """uint8 ``(n, S)``: 1, 0, or :data:`UNKNOWN`."""
    blocks: np.ndarray
    """int32 ``(n,)``: number of the spatial block of each site, which is exchanged as a whole."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        digest = hashlib.sha256()
        for name, array in sorted(self._arrays().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __dask_tokenize__(self) -> str:
        return self.digest

    def save(self, file: Path) -> None:
        """Write the file."""
        save_file({k: np.ascontiguousarray(v) for k, v in self._arrays().items()}, file)

    def _arrays(self) -> dict[str, np.ndarray]:
        values = {f"values.{i}": v for i, v in enumerate(self.block.values)}
        return {
            **values,
            "observed": self.block.observed,
            "labels": self.labels,
            "blocks": self.blocks,
        }


def read_calibration(file: Path, layout: Layout, *, species: int, about: Any) -> Calibration:
    """Read the calibration sites of a model; refuse a file that does not belong to it."""
    header = read_header(file)
    _check(file, header, layout, species=species)
    with refusing(ArtifactError, f"{file} is damaged; calibrate the model again"):
        arrays: Mapping[str, np.ndarray] = load_file(file)
    labels = arrays["labels"]
    if not np.isin(labels, (0, 1, UNKNOWN)).all():
        raise ArtifactError(f"{file}: labels other than 0, 1 and {UNKNOWN}; calibrate again")
    values = tuple(arrays[f"values.{i}"] for i in range(len(layout.parts)))
    if any(np.isinf(v).any() for v in values):
        raise ArtifactError(f"{file}: predictors are infinite; calibrate the model again")
    calibration = Calibration(TokenArrays(values, arrays["observed"]), labels, arrays["blocks"])
    if not isinstance(about, Mapping) or about.get("digest") != calibration.digest:
        raise ArtifactError(
            f"{file} is not the calibration that the model was saved with; calibrate it again with "
            "gm.calibrate(model, sites)"
        )
    return calibration


def _check(file: Path, header: Header, layout: Layout, *, species: int) -> None:
    """Compare names, types and shapes with those that the model implies."""
    labels = header.tensors.get("labels", ("", [0], 0))[1]
    n = int(labels[0]) if labels else 0
    if not 0 < n <= MOST_SITES or header.size > MOST_BYTES:
        raise ArtifactError(
            f"{file} holds {n:,} sites in {header.size:,} bytes, expected 1 to {MOST_SITES:,} sites in at "
            f"most {MOST_BYTES:,} bytes; calibrate again with fewer sites"
        )
    expected: dict[str, tuple[str, list[int]]] = {
        f"values.{i}": ("F32", [n, p.size, p.width]) for i, p in enumerate(layout.parts)
    }
    expected |= {
        "observed": ("BOOL", [n, layout.size]),
        "labels": ("U8", [n, species]),
        "blocks": ("I32", [n]),
    }
    actual = {k: (dtype, shape) for k, (dtype, shape, _) in header.tensors.items()}
    if actual != expected:
        odd = sorted(k for k in {*actual, *expected} if actual.get(k) != expected.get(k))[:5]
        raise ArtifactError(
            f"{file}: {odd} are not the arrays that the model implies; calibrate it again"
        )
    end = max(last for _, _, last in header.tensors.values())
    if header.size != end:
        raise ArtifactError(f"{file} holds {header.size:,} bytes, expected {end:,}: truncated?")
