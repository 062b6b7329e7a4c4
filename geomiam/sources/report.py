"""What a build tells: of each variable how it came to be, before any pixel and afterwards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from geomiam.errors import DoubtfulSource, warn
from geomiam.outputs.html import table_html

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

SHOWN = 4
"""Names of variables in a line."""
LESS = 0.005
"""A variable that covers less than its modality by this share of the cells gets a separate line."""


@dataclass
class Told:
    """How a variable came to be."""

    variable: str
    modality: str
    source: str
    kind: str
    files: int = 0
    absent: int = 0
    crs: str = ""
    resolution: str = ""
    resampling: str = ""
    bytes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CubePlan:
    """What a build would read.

    Attributes
    ----------
    table
        One row a variable: variable, modality, source, kind, files, absent (tiles that are not
        there), crs and resolution of the source, resampling, bytes (under the grid, as float32),
        notes.
    grid
        Of the cube.
    missing
        Variables of the catalog that come from no source.
    """

    table: pd.DataFrame
    grid: GeoBox
    missing: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that would be read, before compression and without Sentinel-2's margins."""
        return int(self.table["bytes"].sum())

    def __repr__(self) -> str:
        return "\n".join([self._head(), *_lines(self.table), *self._ends()])

    def _repr_html_(self) -> str:
        notes = ["; ".join(lines) for lines in self.table["notes"]]
        table = self.table.assign(notes=notes).drop(columns="bytes")
        title = "\n".join([self._head(), *self._ends()])
        return table_html(title, list(table.columns), table.itertuples(index=False))

    def _head(self) -> str:
        rows, cols = self.grid.shape.yx
        cell = f"{abs(self.grid.resolution.x):g} {unit_of(self.grid)}"
        return f"{rows:,} × {cols:,} cells of {cell} in {crs_name(self.grid)}"

    def _ends(self) -> list[str]:
        names = ", ".join(self.missing)
        lines = [f"from no source, so not built: {names}"] if self.missing else []
        return [*lines, f"{self.bytes / 1e6:,.1f} MB to read, as float32"]


def summary(cube: xr.Dataset) -> str:
    """Return how a cube was made and what it covers, in lines, from its attributes.

    Parameters
    ----------
    cube
        From :func:`geomiam.build_cube`.
    """
    blank = asdict(Told("", "", "", ""))
    table = pd.DataFrame([{**blank, **row} for row in json.loads(cube.attrs["sources"])])
    covered = json.loads(cube.attrs.get("coverage", "{}"))
    lines = _lines(table)
    each = json.loads(cube.attrs.get("variable_coverage", "{}"))
    for modality, share in covered.items():
        lines.append(f"  {modality}: data in {share:.1%} of the cells that have any")
        names = table["variable"][table["modality"] == modality]
        less = {n: each[n] for n in names if each.get(n, share) < share - LESS}
        lines += [f"    {name}: {part:.1%}" for name, part in less.items()]
    failed = list(cube.attrs.get("failed_assets", []))
    if failed:
        lines.append(f"  {len(failed)} files could not be read, so NaN is in their place:")
        lines += [f"    {line}" for line in failed[:20]]
        lines += [f"    … and {len(failed) - 20} more"] if len(failed) > 20 else []
    return "\n".join(lines)


def warn_of_empty(names: Sequence[str]) -> None:
    """Warn of variables of a built cube that have no number in any cell."""
    if names:
        warn(
            f"{len(names)} variables are NaN in every cell: {_names(names)}; check where their sources lie, "
            "their bands, and 'nodata:'",
            DoubtfulSource,
        )


def _lines(table: pd.DataFrame) -> list[str]:
    """A line for each source and way of reading it, then what else is to be said of them."""
    keys = ["modality", "source", "kind", "crs", "resolution", "resampling"]
    made = [_line(dict(zip(keys, key)), part) for key, part in table.groupby(keys, sort=False)]
    notes = itertools.chain.from_iterable(table["notes"])
    return made + [f"  {note}" for note in dict.fromkeys(notes)]


def _line(facts: Mapping[str, str], part: pd.DataFrame) -> str:
    grid = ", ".join(v for v in (facts["crs"], facts["resolution"]) if v)
    files, absent = int(part["files"].sum()), int(part["absent"].sum())
    what = "scenes" if facts["kind"] == "stac" else "files" if files != 1 else "file"
    count = int(part["files"].max()) if facts["kind"] == "stac" else files
    said = [f"{facts['kind']}, {count} {what}", f"{absent} tiles not there" if absent else "", grid]
    how = f"resampling {facts['resampling']}"
    names = _names(list(part["variable"]))
    about = ", ".join(s for s in [*said, how] if s)
    return f"  {facts['modality']}: {names} from {facts['source']} ({about})"


def _names(names: Sequence[str]) -> str:
    more = f", … ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def crs_name(box: GeoBox) -> str:
    """Return the code of a grid's CRS, or its name where it has none."""
    if box.crs is None:
        return "no CRS"
    if box.crs.epsg:
        return f"EPSG:{box.crs.epsg}"
    by = box.crs.proj.coordinate_operation
    return str(box.crs.proj.name if by is None else by.method_name)


def unit_of(box: GeoBox) -> str:
    """Return the unit of a grid's resolution: m, degrees, or as the CRS calls it."""
    if box.crs is None:
        return ""
    unit = str(box.crs.proj.axis_info[0].unit_name)
    return {"metre": "m", "degree": "degrees"}.get(unit, unit)
