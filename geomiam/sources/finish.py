"""A cube on disk, finished: what it covers, what it follows from, and what is still to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.cube.coverage import coverage
from geomiam.cube.grid import spatial_dims
from geomiam.cube.store import open_cube
from geomiam.outputs.lock import only_writer
from geomiam.sources.repair import (
    FAILED,
    FINGERPRINTS,
    check_fingerprints,
    failed_lines,
    repair,
    set_attributes,
)
from geomiam.sources.scenes import Scenes, kinds
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
    with only_writer(store):
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
    """What can be said once all pixels are there."""
    names = [t.variable.name for t in todo.tasks]
    seen = coverage(open_cube(store), todo.schema.subset(names))["observed"]
    shares = {str(m): round(float(seen.sel(modality=m)), 6) for m in seen["modality"].values}
    facts = {"coverage": json.dumps(shares), FINGERPRINTS: json.dumps(dict(prints))}
    return {**facts, **({FAILED: failed} if failed else {})}
