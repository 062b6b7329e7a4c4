"""Attributes of a finished cube on disk: its coverage, fingerprints and failed files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.data.coverage import coverage
from geomiam.data.grid.grid import spatial_dims
from geomiam.data.store.store import open_cube
from geomiam.outputs.lock import output_lock
from geomiam.sources.report import warn_of_empty
from geomiam.sources.scenes import Scenes, kinds
from geomiam.sources.sentinel2.repair import (
    FAILED,
    FINGERPRINTS,
    check_fingerprints,
    failed_lines,
    repair,
    set_attributes,
)
from geomiam.sources.tasks import Todo


def mend(
    store: Path,
    cube: xr.Dataset,
    read: Mapping[str, Scenes],
    *,
    todo: Todo,
    prints: Mapping[str, str],
) -> None:
    """Read again what failed in a cube on disk, where it did not fail just now.

    Raises
    ------
    ResumeRefused
        When the cube was built from something else.
    """
    check_fingerprints(store, prints)
    if not read:
        return
    names = [[t.variable.name for t in group] for group in kinds(todo.tasks)]
    with output_lock(store):
        lines = repair(
            store,
            cube,
            [(group, read[group[0]]) for group in names],
            rows=spatial_dims(todo.template)[0],
        )
        if lines != failed_lines(store):
            changes = {**closing(todo, prints, store, lines), FAILED: lines or None}
            set_attributes(store, changes)


def closing(
    todo: Todo, prints: Mapping[str, str], store: Path, failed: list[str]
) -> dict[str, Any]:
    """Return the attributes that need all pixels."""
    names = [t.variable.name for t in todo.tasks]
    shares = coverage(open_cube(store), todo.schema.subset(names))
    attrs = {
        "coverage": _shares(shares["observed"]),
        "variable_coverage": _shares(shares["variable_observed"]),
        FINGERPRINTS: json.dumps(dict(prints)),
    }
    covered = shares["variable_observed"]
    warn_of_empty([str(n) for n in covered["variable"].values[~(covered > 0)]])
    return {**attrs, **({FAILED: failed} if failed else {})}


def _shares(covered: xr.DataArray) -> str:
    names = covered[covered.dims[0]].values
    return json.dumps({str(n): round(float(v), 6) for n, v in zip(names, covered.values)})
