"""A cube written part by part: a write that was stopped goes on where it was."""

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
"""Bytes that are written between two notes of what is complete, about."""
Finish = Callable[[Path, list[str]], Mapping[str, Any]]


@dataclass
class Ledger:
    """What is complete in an unfinished store: fingerprint, rows and remarks of each variable."""

    path: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Ledger:
        """Read a ledger; one that is cut short counts as none."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return cls(path)
        complete = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
        return cls(path, content if complete else {})

    def note(self, names: Sequence[str], **facts: Any) -> None:
        """Note facts of variables, and replace the file at once."""
        for name in names:
            self.done[name] = {**self.done.get(name, {}), **facts}
        write_text(self.path, json.dumps(self.done))

    def rows(self, names: Sequence[str]) -> int:
        """Return how many rows of all these variables are complete."""
        return min(int(self.done.get(n, {}).get("rows", 0)) for n in names)


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
    """Write a Dataset as Zarr v3, band of rows after band of rows; it appears when complete.

    Until then it grows in a hidden sibling, beside a list of what is complete. A later call keeps
    rows of variables that have the same fingerprint and writes the others.

    Parameters
    ----------
    ds
        The cube, lazy.
    path
        A local directory.
    prints
        Fingerprint of each variable, with all that its numbers follow from.
    together
        Variables that are computed from the same pixels, so written at once.
    remarks
        Of variables, as they stand while pixels are computed; kept with what is complete.
    overwrite
        Replace the store that is there, once the new one is complete.
    finish
        Given the store before it is put in place, and all remarks, returns attributes to add to it.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False.
    OutputRefused
        When ``path`` lies in a store, or holds anything but a cube that geomiam wrote.
    OutputBusy
        When another writer is at work there.
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
        _attributes(partial, attrs)  # every write of a part has put its own in their place
        _attributes(partial, {**attrs, **({} if finish is None else finish(partial, lines))})
        check_output(target, overwrite)  # again: hours may have passed
        replace(target, partial)
        remove(ledger.path)


def _begin(
    ds: xr.Dataset, partial: Path, *, ledger: Ledger, prints: Mapping[str, str]
) -> dict[str, Any]:
    """Keep what is complete and still wanted, write the coordinates, and return the attributes."""
    if partial.is_symlink():
        remove(partial)  # the link alone: its target does not belong to geomiam
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
    """Write the rows that are not there yet, and return all remarks."""
    units = _units(ds, together)
    with _bar(ds, units, ledger) as bar:
        for names in units:
            for rows in _unit(ds, names, partial, ledger=ledger, prints=prints):
                unit_remarks = {n: list((remarks or {}).get(n, ())) for n in names}
                for name in names:
                    earlier = ledger.done[name].get("remarks", [])
                    ledger.done[name]["remarks"] = list(
                        dict.fromkeys([*earlier, *unit_remarks[name]])
                    )
                ledger.note(names, rows=rows.stop)
                bar.update(_bytes(ds, names) * (rows.stop - rows.start) / _height(ds))
    return list(dict.fromkeys(r for n in prints for r in ledger.done[n].get("remarks", [])))


def _keep(ledger: Ledger, partial: Path, prints: Mapping[str, str]) -> None:
    """Forget all that is no longer wanted."""
    ledger.done = {
        name: facts
        for name, facts in ledger.done.items()
        if name in prints and prints[name] == facts.get("print") and is_zarr(below(partial, name))
    }
    if not ledger.done:
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
    """Write the rows that are not there of some variables, and yield them."""
    y = spatial_dims(ds)[0]
    start = ledger.rows(names)
    part = _plain(ds, names)
    if start == 0:
        for name in names:
            shutil.rmtree(below(partial, name), ignore_errors=True)
            ledger.note([name], print=prints[name], rows=0, remarks=[])
        part.to_zarr(partial, mode="a", zarr_format=3, consolidated=False, compute=False)
    step = _step(part, y)
    for first in range(start, part.sizes[y], step):
        rows = slice(first, min(first + step, part.sizes[y]))
        band = part.isel({y: rows}).drop_encoding()
        band.to_zarr(partial, region={y: rows}, zarr_format=3, consolidated=False)
        yield rows


def _plain(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Variables without coordinates, which are there already, ready to be written."""
    part = encodable(ds[list(names)])
    for name in names:  # without its coordinate, xarray takes the mapping as an attribute
        for key in ("grid_mapping", "coordinates"):
            if names_of := part[name].encoding.pop(key, None):
                part[name].attrs[key] = names_of
    return part.drop_vars(list(part.coords))


def _step(part: xr.Dataset, y: str) -> int:
    """Rows of a band: whole chunks of every variable."""
    heights = {v.chunksizes[y][0] for v in part.variables.values() if y in v.chunksizes}
    chunk = max(heights, default=part.sizes[y])
    if any(chunk % h for h in heights):
        return part.sizes[y]
    per_row = part.nbytes / part.sizes[y]
    return chunk * max(1, ceil(BAND / (per_row * chunk)) - 1)


def _head(ds: xr.Dataset, partial: Path) -> dict[str, Any]:
    """Write coordinates, remove what the cube no longer has, and return the store's attributes."""
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
    look = {"unit": "B", "unit_scale": True}
    return progress_bar(total=total, initial=before, desc="building", **look)


def _bytes(ds: xr.Dataset, names: Sequence[str]) -> int:
    return sum(ds[n].nbytes for n in names)


def _height(ds: xr.Dataset) -> int:
    return int(ds.sizes[spatial_dims(ds)[0]])
