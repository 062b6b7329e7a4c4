"""Fingerprints of variables: equal fingerprints mean equal values."""

from __future__ import annotations

import hashlib
import json

import xarray as xr

from geomiam.sources.paths import files_of, stamp
from geomiam.sources.scene_variables import SceneVariables
from geomiam.sources.variable_tasks import BuildInputs, VariableTask

WITHOUT_EFFECT = {"on_error", "hosts"}
"""Keys of a source that change no value."""


def fingerprint(
    task: VariableTask, cube: xr.Dataset, inputs: BuildInputs, *, scenes: SceneVariables | None
) -> str:
    """Return a digest of everything that determines the values of a variable."""
    from geomiam._version import __version__

    array = cube[task.variable.name]
    tasks = [task, *([inputs.elevation_of(task)] if task.source.kind == "derived" else [])]
    parts = [
        __version__,
        [list(task.box.shape.yx), list(task.box.affine), str(task.box.crs), list(cube.dims)],
        [array.dims, array.chunks, sorted((k, str(v)) for k, v in array.attrs.items())],
        [
            [
                t.source.model_dump(mode="json", exclude=WITHOUT_EFFECT),
                t.variable.model_dump(mode="json"),
            ]
            for t in tasks
        ],
        [stamp(p) for t in tasks for p in paths_of(t)],
        [str(array[d].values.tolist()) for d in array.dims if d in array.coords],
        scenes.items if scenes else [],
    ]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def paths_of(task: VariableTask) -> list[str]:
    """Return the files that a variable is read from; none for Sentinel-2."""
    if task.source.kind in ("derived", "stac"):
        return []
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    return [path for step in files.paths for path in step]
