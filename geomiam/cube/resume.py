"""A cube written variable by variable: a write that was stopped goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.cube.store import _progress, _replace, claim, encodable, is_zarr


def write_parts(
    ds: xr.Dataset,
    path: str | Path,
    *,
    prints: Mapping[str, str],
    overwrite: bool = False,
    progress: bool = True,
    finish: Callable[[Path], Mapping[str, Any]] | None = None,
) -> list[str]:
    """Write a Dataset as Zarr v3, one variable after the other; the store appears when complete.

    Until then it grows in a hidden sibling, beside a list of what is complete. A later call keeps
    variables of the same fingerprint and writes the others.

    Parameters
    ----------
    ds
        The cube, lazy.
    path
        A local directory.
    prints
        Fingerprint of each variable, with all that its numbers follow from.
    overwrite
        Replace the store that is there, once the new one is complete.
    progress
        Show a bar for each variable that takes long.
    finish
        Given the store before it is put in place, returns attributes to add to it.

    Returns
    -------
    list of str
        The variables that were kept from a call before.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False, or is no Zarr store.
    """
    target = claim(path, overwrite)
    partial = target.with_name(f".{target.name}.building")
    ledger = target.with_name(f".{target.name}.building.json")
    done = _done(partial, ledger, prints)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = sorted(done)
    _head(ds, partial)
    for name in map(str, ds.data_vars):
        if name not in done:
            _one(ds, name, partial, progress=progress)
            done[name] = prints[name]
            _note(ledger, done)
    _attributes(partial, {} if finish is None else finish(partial))
    _replace(target, partial)
    ledger.unlink(missing_ok=True)
    return kept


def _done(partial: Path, ledger: Path, prints: Mapping[str, str]) -> dict[str, str]:
    """What is complete and still what is wanted; all else in the unfinished store goes."""
    try:
        noted = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = {}
    kept = {k: v for k, v in noted.items() if prints.get(k) == v and is_zarr(partial / k)}
    if not kept:
        shutil.rmtree(partial, ignore_errors=True)
    _note(ledger, kept) if noted else None
    return kept


def _note(ledger: Path, done: Mapping[str, str]) -> None:
    """Replace the list at once: a list cut short would be taken for none."""
    fresh = ledger.with_suffix(".new")
    fresh.write_text(json.dumps(done), encoding="utf-8")
    fresh.replace(ledger)


def _head(ds: xr.Dataset, partial: Path) -> None:
    """Coordinates and attributes, and away with what the cube no longer has."""
    names = {*map(str, ds.variables)}
    for old in [p for p in partial.glob("*") if p.is_dir() and p.name not in names]:
        shutil.rmtree(old)
    bare = encodable(ds.drop_vars(list(ds.data_vars)))
    for name in bare.variables:
        shutil.rmtree(partial / str(name), ignore_errors=True)
    bare.to_zarr(partial, mode="a", zarr_format=3, consolidated=False)
    _attributes(partial, ds.attrs)


def _one(ds: xr.Dataset, name: str, partial: Path, *, progress: bool) -> None:
    shutil.rmtree(partial / name, ignore_errors=True)  # left half written
    part = encodable(ds[[name]])
    mapping = part[name].encoding.get("grid_mapping")
    part = part.drop_vars(list(part.coords))
    if mapping:  # without its coordinate, xarray takes it as an attribute
        part[name].encoding.pop("grid_mapping", None)
        part[name].attrs["grid_mapping"] = mapping
    with _progress(progress):
        part.to_zarr(partial, mode="a", zarr_format=3, consolidated=False)


def _attributes(partial: Path, attrs: Mapping[str, Any]) -> None:
    import zarr

    zarr.open_group(partial, mode="r+").attrs.update(dict(attrs))
