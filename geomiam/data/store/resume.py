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
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import CUBE, MARK
from geomiam.outputs.paths import below, check_names
from geomiam.outputs.write import remove, replace, write_text
from geomiam.progress import log, progress_bar
from geomiam.workers import active_client, warn_without_workers

BAND = 2**27  # approximate number of bytes that are written between two updates of the ledger
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

    def keep(self, prints: Mapping[str, str], partial: Path) -> None:
        """Remove the entries of variables that have changed or do not exist, and a store without any."""
        self.variables = {
            name: entries
            for name, entries in self.variables.items()
            if name in prints
            and prints[name] == entries.get("print")
            and is_zarr(below(partial, name))
        }
        if not self.variables:
            remove(partial)

    def add_remarks(self, names: Sequence[str], remarks: Mapping[str, Sequence[str]]) -> None:
        """Add remarks of variables, each once; the next update writes them."""
        for name in names:
            lines = [*self.variables[name].get("remarks", []), *remarks.get(name, ())]
            self.variables[name]["remarks"] = list(dict.fromkeys(lines))

    def rows(self, names: Sequence[str]) -> int:
        """Return the number of rows that are complete in all these variables."""
        return min(int(self.variables.get(n, {}).get("rows", 0)) for n in names)


def write_parts(
    ds: xr.Dataset,
    path: str | Path,
    *,
    prints: Mapping[str, str],
    together: Sequence[Sequence[str]] = (),
    remarks: Callable[[], Mapping[str, Sequence[str]]] = dict,
    multiples: Mapping[str, int] | None = None,
    overwrite: bool = False,
    finish: Finish | None = None,
) -> None:
    """Write a Dataset as Zarr v3 in bands of rows; the store appears at its path when complete.

    An unfinished store is a hidden folder beside the path, with a ledger of its complete rows. A later
    call keeps complete rows of variables with the same fingerprint and writes the others.

    ``prints`` is the fingerprint of everything that determines the values of each variable. ``together``
    are groups of variables that are computed from the same pixels and are therefore written together.
    ``remarks`` returns lines on each variable after each band, which are stored in the ledger.
    ``multiples`` are rows of variables that are computed together: a band is a multiple of them, so
    that no source is read for two bands. ``finish`` is called with the complete store, before it is renamed, and all remarks; it returns
    attributes that are added to the store. Raises the same errors as :func:`geomiam.data.store.store.write_zarr`.
    """
    check_names([*ds.variables, *ds.dims])
    with locked_output(path, overwrite) as target, warn_without_workers(active_client()):
        partial = target.with_name(f".{target.name}.building")
        ledger = Ledger.of(target.with_name(f".{target.name}.building.json"))
        if partial.is_symlink():
            remove(partial)  # only the link, because its target does not belong to geomiam
        ledger.keep(prints, partial)
        attrs = {**_write_coordinates(ds, partial), MARK: CUBE.name}
        units = [list(names) for names in together]
        units += [[str(n)] for n in ds.data_vars if not any(n in names for names in together)]
        with _bar(ds, units, ledger) as bar:
            for names in units:
                multiple = max((multiples or {}).get(n, 1) for n in names)
                bands = _write_rows(
                    ds, names, partial, ledger=ledger, prints=prints, multiple=multiple
                )
                for rows in bands:
                    ledger.add_remarks(names, remarks())
                    ledger.update(names, rows=rows.stop)
                    bar.update(_bytes(ds, names, rows.stop - rows.start))
        _set_attributes(partial, attrs)  # each write of a part has replaced the attributes
        if finish is not None:
            lines = [r for n in prints for r in ledger.variables[n].get("remarks", [])]
            _set_attributes(partial, {**attrs, **finish(partial, list(dict.fromkeys(lines)))})
        check_output(target, overwrite)  # again: hours may have passed
        replace(target, partial)
        remove(ledger.path)


def _write_rows(
    ds: xr.Dataset,
    names: Sequence[str],
    partial: Path,
    *,
    ledger: Ledger,
    prints: Mapping[str, str],
    multiple: int,
) -> Iterator[slice]:
    """Write the missing rows of variables in bands, and yield each band."""
    y = spatial_dims(ds)[0]
    start = ledger.rows(names)
    part = encodable(ds[list(names)])
    for name in names:  # xarray expects these as attributes if the coordinates are absent
        for key in ("grid_mapping", "coordinates"):
            if names_of := part[name].encoding.pop(key, None):
                part[name].attrs[key] = names_of
    part = part.drop_vars(list(part.coords))  # the store already has these
    if start == 0:
        for name in names:
            shutil.rmtree(below(partial, name), ignore_errors=True)
            ledger.update([name], print=prints[name], rows=0, remarks=[])
        part.to_zarr(partial, mode="a", zarr_format=3, consolidated=False, compute=False)
    step = _step(part, y, multiple)
    for first in range(start, part.sizes[y], step):
        rows = slice(first, min(first + step, part.sizes[y]))
        band = part.isel({y: rows}).drop_encoding()
        band.to_zarr(partial, region={y: rows}, zarr_format=3, consolidated=False)
        yield rows


def _step(part: xr.Dataset, y: str, multiple: int) -> int:
    """Return the number of rows of a band, which has whole chunks of every variable.

    It is a multiple of a number of rows, unless this is not a multiple of the chunks.
    """
    heights = {v.chunksizes[y][0] for v in part.variables.values() if y in v.chunksizes}
    chunk = max(heights, default=part.sizes[y])
    if any(chunk % h for h in heights):
        return part.sizes[y]
    if multiple % chunk == 0:
        chunk = multiple
    per_row = part.nbytes / part.sizes[y]
    return chunk * max(1, ceil(BAND / (per_row * chunk)) - 1)


def _write_coordinates(ds: xr.Dataset, partial: Path) -> dict[str, Any]:
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


def _set_attributes(partial: Path, attrs: Mapping[str, Any]) -> None:
    import zarr

    zarr.open_group(partial, mode="r+").attrs.put(dict(attrs))


def _bar(ds: xr.Dataset, units: Sequence[Sequence[str]], ledger: Ledger) -> Any:
    before = sum(_bytes(ds, names, ledger.rows(names)) for names in units)
    total = sum(ds[n].nbytes for names in units for n in names)
    if before:
        log(f"the build resumes: {before / total:.0%} is complete")
    return progress_bar(total=total, initial=before, desc="building", unit="B", unit_scale=True)


def _bytes(ds: xr.Dataset, names: Sequence[str], rows: int) -> float:
    """Return the number of bytes of some rows of variables."""
    return sum(ds[n].nbytes for n in names) * rows / ds.sizes[spatial_dims(ds)[0]]
