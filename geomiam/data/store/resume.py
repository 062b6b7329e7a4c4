"""Writing of a cube in parts, so that an interrupted write can resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.data.grid.grid import spatial_dims
from geomiam.data.store.encoding import encodable, json_attributes
from geomiam.data.store.store import is_zarr
from geomiam.outputs.atomic import remove, replace, write_text
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.contents import MARK
from geomiam.outputs.kinds import CUBE
from geomiam.outputs.paths import below, check_names
from geomiam.progress import log, progress_bar

BAND = 2**27
"""Approximate number of bytes that are written between two updates of the ledger."""
Finish = Callable[[Path, list[str]], Mapping[str, Any]]


@dataclass
class Ledger:
    """Complete parts of an unfinished store: fingerprint, rows and remarks of each variable."""

    path: Path
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Ledger:
        """Read a ledger; a missing or truncated file gives an empty one."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return cls(path)
        is_valid = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
        return cls(path, content if is_valid else {})

    def update(self, names: Sequence[str], **entries: Any) -> None:
        """Set entries of variables, and write the file atomically."""
        for name in names:
            self.variables[name] = {**self.variables.get(name, {}), **entries}
        write_text(self.path, json.dumps(self.variables))

    def rows(self, names: Sequence[str]) -> int:
        """Return the number of rows that are complete in all these variables."""
        return min(int(self.variables.get(n, {}).get("rows", 0)) for n in names)


def write_parts(
    ds: xr.Dataset,
    path: str | Path,
    *,
    prints: Mapping[str, str],
    together: Sequence[Sequence[str]] = (),
    remarks: Mapping[str, Sequence[str]] | None = None,
    overwrite: bool = False,
    finish: Finish | None = None,
) -> None:
    """Write a Dataset as Zarr v3 in bands of rows; the store appears at its path when complete.

    An unfinished store is a hidden folder beside the path, with a ledger of its complete rows. A later
    call keeps complete rows of variables with the same fingerprint and writes the others.

    Parameters
    ----------
    ds
        The cube, lazy.
    path
        A local directory.
    prints
        Fingerprint of each variable, of everything that determines its values.
    together
        Groups of variables that are computed from the same pixels and are therefore written together.
    remarks
        Remarks on each variable, which may grow while pixels are computed; stored in the ledger.
    overwrite
        Replace an existing store once the new one is complete.
    finish
        Function of the complete store, before it is renamed, and of all remarks; returns attributes
        that are added to the store.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False.
    OutputRefused
        When ``path`` lies in a store, or has any content except a cube of geomiam.
    OutputBusy
        When another process or thread writes to ``path``.
    NameRefused
        When a variable's or a dim's name cannot be a folder of the store.
    """
    check_names([*ds.variables, *ds.dims])
    with locked_output(path, overwrite) as target:
        partial = target.with_name(f".{target.name}.building")
        ledger = Ledger.of(target.with_name(f".{target.name}.building.json"))
        attrs = _begin(ds, partial, ledger=ledger, prints=prints)
        options: dict[str, Any] = {"together": together, "remarks": remarks}
        lines = _write_units(ds, partial, ledger=ledger, prints=prints, **options)
        _attributes(partial, attrs)  # each write of a part has replaced the attributes
        _attributes(partial, {**attrs, **({} if finish is None else finish(partial, lines))})
        check_output(target, overwrite)  # again: hours may have passed
        replace(target, partial)
        remove(ledger.path)


def _begin(
    ds: xr.Dataset, partial: Path, *, ledger: Ledger, prints: Mapping[str, str]
) -> dict[str, Any]:
    """Keep the complete rows that can be used, write the coordinates, and return the attributes."""
    if partial.is_symlink():
        remove(partial)  # only the link, because its target does not belong to geomiam
    _keep(ledger, partial, prints)
    return {**_head(ds, partial), MARK: CUBE.name}


def _write_units(
    ds: xr.Dataset,
    partial: Path,
    *,
    ledger: Ledger,
    prints: Mapping[str, str],
    together: Sequence[Sequence[str]],
    remarks: Mapping[str, Sequence[str]] | None,
) -> list[str]:
    """Write the missing rows of all variables, and return all remarks."""
    units = _units(ds, together)
    with _bar(ds, units, ledger) as bar:
        for names in units:
            for rows in _unit(ds, names, partial, ledger=ledger, prints=prints):
                unit_remarks = {n: list((remarks or {}).get(n, ())) for n in names}
                for name in names:
                    earlier = ledger.variables[name].get("remarks", [])
                    ledger.variables[name]["remarks"] = list(
                        dict.fromkeys([*earlier, *unit_remarks[name]])
                    )
                ledger.update(names, rows=rows.stop)
                bar.update(_bytes(ds, names) * (rows.stop - rows.start) / _height(ds))
    return list(dict.fromkeys(r for n in prints for r in ledger.variables[n].get("remarks", [])))


def _keep(ledger: Ledger, partial: Path, prints: Mapping[str, str]) -> None:
    """Remove the entries of variables that have changed or do not exist."""
    ledger.variables = {
        name: entries
        for name, entries in ledger.variables.items()
        if name in prints and prints[name] == entries.get("print") and is_zarr(below(partial, name))
    }
    if not ledger.variables:
        remove(partial)


def _units(ds: xr.Dataset, together: Sequence[Sequence[str]]) -> list[list[str]]:
    units = [list(names) for names in together]
    alone = [[str(n)] for n in ds.data_vars if not any(n in g for g in units)]
    return units + alone


def _unit(
    ds: xr.Dataset,
    names: Sequence[str],
    partial: Path,
    *,
    ledger: Ledger,
    prints: Mapping[str, str],
) -> Iterator[slice]:
    """Write the missing rows of variables in bands, and yield each band."""
    y = spatial_dims(ds)[0]
    start = ledger.rows(names)
    part = _plain(ds, names)
    if start == 0:
        for name in names:
            shutil.rmtree(below(partial, name), ignore_errors=True)
            ledger.update([name], print=prints[name], rows=0, remarks=[])
        part.to_zarr(partial, mode="a", zarr_format=3, consolidated=False, compute=False)
    step = _step(part, y)
    for first in range(start, part.sizes[y], step):
        rows = slice(first, min(first + step, part.sizes[y]))
        band = part.isel({y: rows}).drop_encoding()
        band.to_zarr(partial, region={y: rows}, zarr_format=3, consolidated=False)
        yield rows


def _plain(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return encoded variables without coordinates, because the store already has these."""
    part = encodable(ds[list(names)])
    for name in names:  # xarray expects these as attributes if the coordinates are absent
        for key in ("grid_mapping", "coordinates"):
            if names_of := part[name].encoding.pop(key, None):
                part[name].attrs[key] = names_of
    return part.drop_vars(list(part.coords))


def _step(part: xr.Dataset, y: str) -> int:
    """Return the number of rows of a band, which has whole chunks of every variable."""
    heights = {v.chunksizes[y][0] for v in part.variables.values() if y in v.chunksizes}
    chunk = max(heights, default=part.sizes[y])
    if any(chunk % h for h in heights):
        return part.sizes[y]
    per_row = part.nbytes / part.sizes[y]
    return chunk * max(1, ceil(BAND / (per_row * chunk)) - 1)


def _head(ds: xr.Dataset, partial: Path) -> dict[str, Any]:
    """Write coordinates, remove variables that the cube does not have, and return the store's attributes."""
    import zarr

    names = {*map(str, ds.variables)}
    for old in [p for p in partial.glob("*") if p.is_dir() and p.name not in names]:
        remove(old)
    bare = encodable(ds.drop_vars(list(ds.data_vars)))
    for name in bare.variables:
        shutil.rmtree(below(partial, name), ignore_errors=True)
    bare.to_zarr(partial, mode="a", zarr_format=3, consolidated=False)
    return {**json_attributes(ds.attrs), **zarr.open_group(partial, mode="r").attrs}


def _attributes(partial: Path, attrs: Mapping[str, Any]) -> None:
    import zarr

    zarr.open_group(partial, mode="r+").attrs.put(dict(attrs))


def _bar(ds: xr.Dataset, units: Sequence[Sequence[str]], ledger: Ledger) -> Any:
    height = _height(ds)
    before = sum(_bytes(ds, names) * ledger.rows(names) / height for names in units)
    total = sum(_bytes(ds, names) for names in units)
    if before:
        log(f"the build resumes: {before / total:.0%} is complete")
    return progress_bar(total=total, initial=before, desc="building", unit="B", unit_scale=True)


def _bytes(ds: xr.Dataset, names: Sequence[str]) -> int:
    return sum(ds[n].nbytes for n in names)


def _height(ds: xr.Dataset) -> int:
    return int(ds.sizes[spatial_dims(ds)[0]])
