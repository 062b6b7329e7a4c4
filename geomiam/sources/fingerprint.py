"""A digest of everything that determines the numbers of a variable: equal digests, equal numbers."""

from __future__ import annotations

import hashlib
import json

import xarray as xr

from geomiam.sources.files import files_of, stamp
from geomiam.sources.scenes import Scenes
from geomiam.sources.tasks import Task, Todo

HOW = {"on_error", "hosts"}
"""Keys of a source that change no number."""


def fingerprint(task: Task, cube: xr.Dataset, todo: Todo, *, scenes: Scenes | None) -> str:
    """Return a fingerprint of all that the numbers of a variable follow from."""
    from geomiam._version import __version__

    array = cube[task.variable.name]
    tied = [task, *([todo.elevation_of(task)] if task.source.kind == "derived" else [])]
    parts = [
        __version__,
        [list(task.box.shape.yx), list(task.box.affine), str(task.box.crs), list(cube.dims)],
        [array.dims, array.chunks, sorted((k, str(v)) for k, v in array.attrs.items())],
        [
            [t.source.model_dump(mode="json", exclude=HOW), t.variable.model_dump(mode="json")]
            for t in tied
        ],
        [stamp(p) for t in tied for p in paths_of(t)],
        [str(array[d].values.tolist()) for d in array.dims if d in array.coords],
        scenes.items if scenes else [],
    ]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def paths_of(task: Task) -> list[str]:
    """Return the files that a variable is read from; of Sentinel-2 none."""
    if task.source.kind in ("derived", "stac"):
        return []
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    return [path for step in files.paths for path in step]
