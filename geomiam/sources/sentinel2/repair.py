"""Repair of a cube on disk: Sentinel-2 files that could not be read are read again, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import ResumeRefused
from geomiam.sources.scene_variables import SceneVariables

FINGERPRINTS = "fingerprints"
FAILED = "failed_assets"


def check_fingerprints(store: Path, prints: Mapping[str, str]) -> None:
    """Refuse to repair a cube that was built from other inputs.

    Raises
    ------
    ResumeRefused
        If variables differ, or were built from other files, scenes or settings.
    """
    before = _attributes(store).get(FINGERPRINTS)
    try:
        stored_prints = json.loads(before) if isinstance(before, str) else {}
    except ValueError:
        stored_prints = {}
    equal = {n for n in prints if prints[n] == stored_prints.get(n)}
    if different := sorted({*stored_prints, *prints} - equal):
        raise ResumeRefused(
            f"{store} was built from another catalog, other files, scenes or settings, or by another "
            f"version of geomiam: {', '.join(different[:5])} differ; build it again with overwrite=True"
        )


def repair(
    store: Path,
    cube: xr.Dataset,
    groups: Sequence[tuple[Sequence[str], SceneVariables]],
    *,
    rows: str,
) -> list[str]:
    """Read the files again that failed, and write their pixels into the cube.

    A step and band of rows is replaced only if no further file failed in it, so that a repair never
    loses data.

    Parameters
    ----------
    store
        The cube on disk.
    cube
        Sentinel-2 variables of the same cube, lazy, in chunks of single dates.
    groups
        Names of variables that are read together, and their scenes.
    rows
        Name of the dim of rows.

    Returns
    -------
    list of str
        The lines on files that still cannot be read.
    """
    lines = failed_lines(store)
    for names, scenes in groups:
        plain = set(
            scenes.failed
        )  # failures by the metadata of items: reading again does not change them
        again = [x for x in lines if x not in plain and _scene(x) in scenes.steps]
        still: set[str] = set(plain)
        for step in sorted({scenes.steps[_scene(x)] for x in again}):
            old = [x for x in again if scenes.steps[_scene(x)] == step]
            still |= set(
                _read_again(store, cube, names=names, scenes=scenes, step=step, old=old, rows=rows)
            )
        lines = [x for x in lines if x not in again or x in still]
    return lines


def failed_lines(store: Path) -> list[str]:
    """Return the lines of a cube on files that could not be read."""
    return list(_attributes(store).get(FAILED, []))


def _read_again(
    store: Path,
    cube: xr.Dataset,
    *,
    names: Sequence[str],
    scenes: SceneVariables,
    step: int,
    old: Sequence[str],
    rows: str,
) -> list[str]:
    """Read one step of some variables, and return the lines that remain."""
    remain: set[str] = set()
    for part in _parts(cube, names, scenes, step, rows):
        before = len(scenes.failed)
        fresh = xr.Dataset({n: cube[n].isel(part[n]) for n in names}).compute(scheduler="threads")
        failures = list(scenes.failed)[before:]
        del scenes.failed[before:]
        new = {_file(x) for x in failures} - {_file(x) for x in old}
        remain |= set(old) if new else {x for x in old if _file(x) in {_file(y) for y in failures}}
        if not new:
            _write(store, fresh, part)
    return [x for x in old if x in remain]


def _parts(
    cube: xr.Dataset, names: Sequence[str], scenes: SceneVariables, step: int, rows: str
) -> Iterator[dict[str, dict[str, slice]]]:
    """Yield the slices of each variable to read at a time: one step in time, one row of chunks."""
    height = max(cube[names[0]].chunksizes.get(rows, (cube.sizes[rows],)))
    for start in range(0, cube.sizes[rows], height):
        band = slice(start, min(start + height, cube.sizes[rows]))
        yield {n: {rows: band, **_step_of(n, scenes, step)} for n in names}


def _step_of(name: str, scenes: SceneVariables, step: int) -> dict[str, slice]:
    dim = scenes.time_dims.get(name)
    return {} if dim is None else {dim: slice(step, step + 1)}


def _write(store: Path, fresh: xr.Dataset, part: Mapping[str, Mapping[str, slice]]) -> None:
    """Write values into the store; where they are NaN, those on disk are kept."""
    import zarr

    group: Any = zarr.open_group(store, mode="r+")
    for name, array in fresh.data_vars.items():
        at = tuple(part[str(name)].get(str(d), slice(None)) for d in array.dims)
        values = array.values
        group[str(name)][at] = np.where(np.isnan(values), group[str(name)][at], values)


def _attributes(store: Path) -> dict[str, Any]:
    import zarr

    return dict(zarr.open_group(store, mode="r").attrs)


def set_attributes(store: Path, changes: Mapping[str, Any]) -> None:
    """Change attributes of a store; None removes one."""
    import zarr

    attrs = {**_attributes(store), **changes}
    group = zarr.open_group(store, mode="r+")
    group.attrs.put({k: v for k, v in attrs.items() if v is not None})


def _scene(line: str) -> str:
    return line.partition(" / ")[0]


def _file(line: str) -> str:
    """Return the scene and asset of a line, without the error."""
    scene, _, rest = line.partition(" / ")
    return f"{scene} / {rest.partition(':')[0]}"
