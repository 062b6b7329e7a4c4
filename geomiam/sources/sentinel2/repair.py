"""A cube made whole: what files of Sentinel-2 could not give is read again, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import ResumeRefused
from geomiam.sources.scenes import Scenes

FINGERPRINTS = "fingerprints"
FAILED = "failed_assets"


def check_fingerprints(store: Path, prints: Mapping[str, str]) -> None:
    """Refuse to repair a cube that was built from something else.

    Raises
    ------
    ResumeRefused
        When variables differ, or were built from other files, scenes or settings.
    """
    before = _attributes(store).get(FINGERPRINTS)
    try:
        stored = json.loads(before) if isinstance(before, str) else {}
    except ValueError:
        stored = {}
    other = sorted({*stored, *prints} - {n for n in prints if prints[n] == stored.get(n)})
    if other:
        raise ResumeRefused(
            f"{store} was built from another catalog, other files, scenes or settings, or by another "
            f"version of geomiam: {', '.join(other[:5])} differ; build it again with overwrite=True"
        )


def repair(
    store: Path, cube: xr.Dataset, groups: Sequence[tuple[Sequence[str], Scenes]], *, rows: str
) -> list[str]:
    """Read again what failed, and put it in its place.

    A step and band of rows is replaced only if no further file failed in it, so that trying again
    never loses anything.

    Parameters
    ----------
    store
        The cube on disk.
    cube
        Variables of Sentinel-2 in the same cube, lazy, in chunks of single dates.
    groups
        Names of variables that are read together, and their scenes.
    rows
        The dim of rows.

    Returns
    -------
    list of str
        The lines on what could not be read, as they stand now.
    """
    lines = failed_lines(store)
    for names, known in groups:
        plain = set(known.failed)  # what metadata state: reading again does not change it
        again = [x for x in lines if x not in plain and _scene(x) in known.steps]
        still: set[str] = set(plain)
        for step in sorted({known.steps[_scene(x)] for x in again}):
            old = [x for x in again if known.steps[_scene(x)] == step]
            still |= set(
                _read_again(store, cube, names=names, known=known, step=step, old=old, rows=rows)
            )
        lines = [x for x in lines if x not in again or x in still]
    return lines


def failed_lines(store: Path) -> list[str]:
    """Return the lines of a cube on what could not be read."""
    return list(_attributes(store).get(FAILED, []))


def _read_again(
    store: Path,
    cube: xr.Dataset,
    *,
    names: Sequence[str],
    known: Scenes,
    step: int,
    old: Sequence[str],
    rows: str,
) -> list[str]:
    """Read one step of some variables, and return the lines that remain."""
    remain: set[str] = set()
    for part in _parts(cube, names, known, step, rows):
        before = len(known.failed)
        fresh = xr.Dataset({n: cube[n].isel(part[n]) for n in names}).compute(scheduler="threads")
        failed = list(known.failed)[before:]
        del known.failed[before:]
        new = {_file(x) for x in failed} - {_file(x) for x in old}
        remain |= set(old) if new else {x for x in old if _file(x) in {_file(y) for y in failed}}
        if not new:
            _write(store, fresh, part)
    return [x for x in old if x in remain]


def _parts(
    cube: xr.Dataset, names: Sequence[str], known: Scenes, step: int, rows: str
) -> Iterator[dict[str, dict[str, slice]]]:
    """Yield where to read, for each variable: one step in time, some rows of chunks."""
    height = max(cube[names[0]].chunksizes.get(rows, (cube.sizes[rows],)))
    for start in range(0, cube.sizes[rows], height):
        band = slice(start, min(start + height, cube.sizes[rows]))
        yield {n: {rows: band, **_step_of(n, known, step)} for n in names}


def _step_of(name: str, known: Scenes, step: int) -> dict[str, slice]:
    dim = known.times.get(name)
    return {} if dim is None else {dim: slice(step, step + 1)}


def _write(store: Path, fresh: xr.Dataset, part: Mapping[str, Mapping[str, slice]]) -> None:
    """Put values in their place; where there are none now, those on disk stay."""
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
    """Return the scene and asset of a line, without what went wrong."""
    scene, _, rest = line.partition(" / ")
    return f"{scene} / {rest.partition(':')[0]}"
