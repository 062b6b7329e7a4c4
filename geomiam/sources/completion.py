"""Completing a cube on disk: attributes on coverage and failed files, and reading failed files again."""

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
from geomiam.sources.build_report import warn_of_empty_variables
from geomiam.sources.scene_variables import SceneVariables, group_by_source
from geomiam.sources.sentinel2.repair import (
    FAILED,
    FINGERPRINTS,
    check_fingerprints,
    failed_lines,
    repair,
    set_attributes,
)
from geomiam.sources.variable_tasks import BuildInputs


def repair_cube(
    store: Path,
    cube: xr.Dataset,
    scenes: Mapping[str, SceneVariables],
    *,
    inputs: BuildInputs,
    prints: Mapping[str, str],
) -> None:
    """Read files again that failed in a cube on disk, unless metadata exclude them.

    Raises
    ------
    ResumeRefused
        If the cube was built from other files, scenes or settings.
    """
    check_fingerprints(store, prints)
    if not scenes:
        return
    names = [[t.variable.name for t in group] for group in group_by_source(inputs.tasks)]
    with output_lock(store):
        lines = repair(
            store,
            cube,
            [(group, scenes[group[0]]) for group in names],
            rows=spatial_dims(inputs.template)[0],
        )
        if lines != failed_lines(store):
            changes = {**completion_attributes(inputs, prints, store, lines), FAILED: lines or None}
            set_attributes(store, changes)


def completion_attributes(
    inputs: BuildInputs, prints: Mapping[str, str], store: Path, failures: list[str]
) -> dict[str, Any]:
    """Return the attributes that depend on all pixels."""
    names = [t.variable.name for t in inputs.tasks]
    shares = coverage(open_cube(store), inputs.schema.subset(names))
    attrs = {
        "coverage": _shares(shares["observed"]),
        "variable_coverage": _shares(shares["variable_observed"]),
        FINGERPRINTS: json.dumps(dict(prints)),
    }
    coverage_by_variable = shares["variable_observed"]
    warn_of_empty_variables(
        [str(n) for n in coverage_by_variable["variable"].values[~(coverage_by_variable > 0)]]
    )
    return {**attrs, **({FAILED: failures} if failures else {})}


def _shares(coverage_by_name: xr.DataArray) -> str:
    names = coverage_by_name[coverage_by_name.dims[0]].values
    return json.dumps({str(n): round(float(v), 6) for n, v in zip(names, coverage_by_name.values)})
