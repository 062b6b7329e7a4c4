"""``geomiam build``: a cube from a catalog or from a folder of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import Overwrite, with_options
from geomiam.cli.outputs import TableFlags, reserve
from geomiam.cli.train import Kinds, kinds_of
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import CUBE


@dataclass(frozen=True)
class CatalogFlags:
    """Options of a build from a catalog."""

    bounds: Annotated[
        str | None, typer.Option(help="xmin,ymin,xmax,ymax in the CRS of the catalog's grid.")
    ] = None
    bbox: Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")] = None
    root: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE=FOLDER: folder of the files of a source; repeat."),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE: value of a parameter of the catalog; repeat."),
    ] = None
    repair: Annotated[
        bool, typer.Option("--repair", help="Read the failed files of the cube at --out again.")
    ] = False


@dataclass(frozen=True)
class FileFlags:
    """Options of a build from a folder of files."""

    crs: Annotated[
        str | None, typer.Option(help="For a folder of files: CRS of the grid, e.g. EPSG:3035.")
    ] = None
    resolution: Annotated[
        str | None,
        typer.Option(
            help="For a folder of files: side of a cell, e.g. '1 km', or 0.01 in degrees."
        ),
    ] = None
    kind: Kinds = None

    def side(self) -> float | str | None:
        """Return the side of a cell as a number in the unit of the CRS, or as text with a unit."""
        try:
            return None if self.resolution is None else float(self.resolution)
        except ValueError:
            return self.resolution


@with_options()
def build(
    catalog: Annotated[
        str,
        typer.Argument(
            help="Catalog (YAML) with sources, name of a bundled catalog, or folder of GeoTIFFs and NetCDF files."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Zarr store to write.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="Cube (Zarr) or GeoTIFF whose grid to build on.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be read, and stop.")
    ] = False,
    overwrite: Overwrite = False,
    *,
    of_files: FileFlags,
    of_catalog: CatalogFlags,
    table: TableFlags,
) -> None:
    """Build a cube from a catalog, or from a folder of files: every source on one grid.

    A stopped build from a catalog is continued.
    """
    from geomiam.sources.open_cube import are_files

    if table.for_programs and not plan:
        raise GeomiamError("--json and --csv print the table of a plan; pass --plan as well")
    if out is None and not plan:
        raise GeomiamError(
            "--out is missing: the Zarr store to write; or pass --plan to print the plan only"
        )
    out = None if plan else out
    if are_files(catalog):
        _refuse_flags(of_catalog, "needs a catalog; leave it out for a folder of files")
        _from_files(catalog, out, like, of_files, overwrite=overwrite)
    else:
        _refuse_flags(of_files, "is for a folder of files; a catalog has it under its keys")
        _from_catalog(catalog, out, like, of_catalog, overwrite=overwrite, table=table)


def _refuse_flags(flags: CatalogFlags | FileFlags, reason: str) -> None:
    """Refuse flags that do not apply to the input."""
    if passed_flags := [k for k, v in vars(flags).items() if v]:
        raise GeomiamError(f"--{passed_flags[0]} {reason}")


def _from_catalog(
    catalog: str,
    out: Path | None,
    like: Path | None,
    flags: CatalogFlags,
    *,
    overwrite: bool,
    table: TableFlags,
) -> None:
    """Build and write a cube, or print the plan if there is no output."""
    import geomiam as gm

    place: dict[str, Any] = {
        "bounds": _place(flags.bounds, flags.bbox),
        "roots": _pairs(flags.root, "--root", "SOURCE=FOLDER, such as --root worldclim=downloads"),
        "parameters": _pairs(flags.set, "--set", "NAME=VALUE, such as --set period=2041-2070"),
    }
    if out is None:
        plan = gm.plan_cube(catalog, like, **place)
        table.say(plan.table, str(plan))
        return
    options = gm.sources.BuildOptions(repair=flags.repair)
    cube = gm.build_cube(catalog, like, out=out, overwrite=overwrite, options=options, **place)
    say(f"{gm.sources.summary(cube)}\n{len(cube.data_vars)} variables → {out}")


def _from_files(
    files: str, out: Path | None, like: Path | None, flags: FileFlags, *, overwrite: bool
) -> None:
    """Bring raster files onto one grid, and write them if there is an output."""
    import geomiam as gm

    if out is not None:
        reserve(out, overwrite, kind=CUBE, inputs=[files, like])
    kinds = kinds_of(flags.kind, None) or None
    cube = gm.open_cube(files, grid=like, crs=flags.crs, resolution=flags.side(), kinds=kinds)
    lines = [gm.sources.summary(cube)]
    if out is not None:
        gm.write_cube(cube, out, overwrite=overwrite)
        lines.append(f"{len(cube.data_vars)} variables → {out}")
    say("\n".join(lines))


def _place(bounds: str | None, bbox: str | None) -> Any:
    if bounds and bbox:
        raise GeomiamError("--bounds and --bbox both set the area; pass one of them")
    if bbox is None:
        return _numbers(bounds, "--bounds")
    from odc.geo.geom import BoundingBox

    west, south, east, north = _numbers(bbox, "--bbox") or ()
    return BoundingBox(west, south, east, north, crs="EPSG:4326")


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        a, b, c, d = map(float, text.split(","))
    except ValueError:
        raise GeomiamError(
            f"{option} {text}: expected four numbers joined by commas, such as {option}=4.0,50.6,4.2,50.8"
        ) from None
    return a, b, c, d


def _pairs(texts: list[str] | None, option: str, expected: str) -> dict[str, str]:
    if bad := [t for t in texts or () if "=" not in t]:
        raise GeomiamError(f"{option} {bad[0]}: expected {expected}")
    return dict(t.split("=", 1) for t in texts or ())
