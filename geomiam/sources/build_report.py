"""Reports on a build: source, grid, resampling and coverage of each variable."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from geomiam.errors import GridError
from geomiam.outputs.text import table_html

SHOWN = 4
"""Most names of variables in a line."""
COVERAGE_DIFFERENCE = 0.005
"""A variable with a smaller coverage than its modality by this share gets a separate line."""


@dataclass
class VariableReport:
    """Source, files, grid and resampling of one variable; ``bytes`` under the grid, as float32."""

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
    """Files and scenes that a build would read.

    Attributes
    ----------
    table
        A row for each variable, with columns variable, modality, source, kind, files, absent (number
        of missing tiles), crs and resolution of the source, resampling, bytes (under the grid, as
        float32), notes.
    grid
        GeoBox of the cube.
    missing
        Variables of the catalog without a source.

    See Also
    --------
    geomiam.plan_cube : return the plan of a catalog.

    Examples
    --------
    >>> plan = gm.plan_cube("catalog.yaml")  # doctest: +SKIP
    >>> plan.table[["variable", "files", "bytes"]]  # doctest: +SKIP
    """

    table: pd.DataFrame
    grid: GeoBox
    missing: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes to read, before compression and without the margins of Sentinel-2 masks."""
        return int(self.table["bytes"].sum())

    def __repr__(self) -> str:
        head, *ends = self._about()
        return "\n".join([head, *_lines(self.table), *ends])

    def _repr_html_(self) -> str:
        notes = ["; ".join(lines) for lines in self.table["notes"]]
        table = self.table.assign(notes=notes).drop(columns="bytes")
        return table_html(
            "\n".join(self._about()), list(table.columns), table.itertuples(index=False)
        )

    def _about(self) -> list[str]:
        rows, cols = self.grid.shape.yx
        cell = f"{abs(self.grid.resolution.x):g} {unit_of(self.grid)}"
        names = ", ".join(self.missing)
        return [
            f"{rows:,} × {cols:,} cells of {cell} in {crs_name(self.grid)}",
            *([f"without a source, not built: {names}"] if self.missing else []),
            f"{self.bytes / 1e6:,.1f} MB to read, as float32",
        ]


def summary(cube: xr.Dataset) -> str:
    """Return the sources and the coverage of a cube as lines of text, from its attributes.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube of :func:`geomiam.build_cube`, or of :func:`geomiam.open_cube` from files.

    Returns
    -------
    str
        A line for the variables of each source, with the format, the number of files, and their CRS,
        resolution and resampling; then the coverage, if the cube is written, and remarks.

    Raises
    ------
    GridError
        If the cube states no sources.

    Examples
    --------
    >>> import geomiam as gm
    >>> print(gm.sources.summary(gm.open_cube("rasters/")))  # doctest: +SKIP
    """
    if "sources" not in cube.attrs:
        raise GridError(
            "the cube states no sources; pass a cube of gm.build_cube, or of gm.open_cube from files"
        )
    blank = asdict(VariableReport("", "", "", ""))
    table = pd.DataFrame([{**blank, **row} for row in json.loads(cube.attrs["sources"])])
    lines = _lines(table)
    coverage = json.loads(cube.attrs.get("variable_coverage", "{}"))
    for modality, share in json.loads(cube.attrs.get("coverage", "{}")).items():
        lines.append(f"  {modality}: data in {share:.1%} of the cells that have any")
        names = table["variable"][table["modality"] == modality]
        smaller = [n for n in names if coverage.get(n, share) < share - COVERAGE_DIFFERENCE]
        lines += [f"    {name}: {coverage[name]:.1%}" for name in smaller]
    failures = list(cube.attrs.get("failed_assets", []))
    if failures:
        lines.append(f"  {len(failures)} files could not be read; their cells are NaN:")
        lines += [f"    {line}" for line in failures[:20]]
        lines += [f"    … and {len(failures) - 20} more"] if len(failures) > 20 else []
    return "\n".join(lines)


def _lines(table: pd.DataFrame) -> list[str]:
    """Return a line for the variables of each source, grid and resampling, then the notes."""
    lines = []
    keys = ["modality", "source", "kind", "crs", "resolution", "resampling"]
    for key, rows in table.groupby(keys, sort=False):
        modality, source, kind, crs, resolution, resampling = key
        of_scenes = kind == "stac"
        count = int(rows["files"].max() if of_scenes else rows["files"].sum())
        unit = "scenes" if of_scenes else "file" if count == 1 else "files"
        absent = int(rows["absent"].sum())
        details = [
            f"{kind}, {count} {unit}",
            f"{absent} tiles absent" if absent else "",
            crs,
            resolution,
            f"resampling {resampling}",
        ]
        text = ", ".join(part for part in details if part)
        names = list_variables(list(rows["variable"]))
        lines.append(f"  {modality}: {names} from {source} ({text})")
    notes = itertools.chain.from_iterable(table["notes"])
    return lines + [f"  {note}" for note in dict.fromkeys(notes)]


def list_variables(names: Sequence[str]) -> str:
    """Return the first names, and how many there are."""
    ellipsis = f", … ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + ellipsis


def crs_name(box: GeoBox) -> str:
    """Return the EPSG code of a grid's CRS, or its name if it has no code."""
    if box.crs is None:
        return "no CRS"
    if box.crs.epsg:
        return f"EPSG:{box.crs.epsg}"
    by = box.crs.proj.coordinate_operation
    return str(box.crs.proj.name if by is None else by.method_name)


def unit_of(box: GeoBox) -> str:
    """Return the unit of a grid's resolution: m, degrees, or the name in the CRS."""
    if box.crs is None:
        return ""
    unit = str(box.crs.proj.axis_info[0].unit_name)
    return {"metre": "m", "degree": "degrees"}.get(unit, unit)
