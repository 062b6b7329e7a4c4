"""Thresholds of a model as plain JSON types, in its provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geomiam.errors import ArtifactError

if TYPE_CHECKING:
    import xarray as xr


def thresholds_entry(by_kind: Mapping[str, np.ndarray], *, source: str) -> dict[str, Any]:
    """Return thresholds ``(species,)`` by kind as JSON types; NaN becomes null."""
    values = {k: [None if np.isnan(v) else float(v) for v in row] for k, row in by_kind.items()}
    return {"source": source, "values": values}


def read_thresholds(entry: Any, species: Sequence[str]) -> xr.DataArray:
    """Return thresholds ``(kind, species)`` of an entry of the provenance; no kinds without an entry."""
    import xarray as xr

    rows: Any = entry.get("values") if isinstance(entry, dict) else {}
    try:
        table = np.array([np.array(row, float) for row in rows.values()]).astype(float)
        table = table.reshape(len(rows), len(species))
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(
            "the thresholds of the model are not one number per kind and species; choose them again with "
            "gm.evaluation.thresholds"
        ) from error
    return xr.DataArray(
        table,
        dims=("kind", "species"),
        coords={"kind": list(rows), "species": list(species)},
        name="threshold",
        attrs={"source": str(entry.get("source", "unknown"))} if isinstance(entry, dict) else {},
    )
