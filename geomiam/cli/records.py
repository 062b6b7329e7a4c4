"""``geomiam records``: read, clean and thin occurrence records."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geomiam.cli.messages import Flags, flags_of, with_flags
from geomiam.cli.options import Overwrite, with_options
from geomiam.cli.outputs import TableFlags, reserve_pair
from geomiam.errors import GeomiamError, RecordsRemoved
from geomiam.outputs.kinds import RECORDS
from geomiam.outputs.write import save_picture

if TYPE_CHECKING:
    import pandas as pd

VECTOR = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet")


@dataclass(frozen=True)
class RecordColumns:
    """Columns of a table of records, and its CRS."""

    species: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of species names; or, repeated, one column of 1 and 0 for each species."
        ),
    ] = None
    presence: Annotated[
        str | None, typer.Option(help="Column of 1, 0 or counts; default: presence.")
    ] = None
    x: Annotated[str | None, typer.Option("--x", help="Column of longitudes or eastings.")] = None
    y: Annotated[str | None, typer.Option("--y", help="Column of latitudes or northings.")] = None
    crs: Annotated[str | None, typer.Option(help="CRS of the records, e.g. EPSG:4326.")] = None

    def arguments(self) -> dict[str, Any]:
        """Return the columns and the CRS that the user names, as arguments of the library."""
        names = {k: v for k, v in vars(self).items() if v}
        if self.species and len(self.species) == 1:
            names["species"] = self.species[0]
        return names


@dataclass(frozen=True)
class CleaningFlags:
    """Tests of records, and the data that they compare with."""

    clean: Annotated[bool, typer.Option(help="Test the records for usual errors, or not.")] = True
    remove: Annotated[
        bool, typer.Option(help="Remove records that fail a test, or keep them with flag columns.")
    ] = True
    uncertainty: Annotated[
        str | None, typer.Option(help="Largest coordinate uncertainty, e.g. '5 km'.")
    ] = None
    first_year: Annotated[int | None, typer.Option(help="Earlier records fail.")] = None
    require_date: Annotated[
        bool, typer.Option("--require-date", help="Records without a date fail.")
    ] = False
    outliers: Annotated[
        str | None, typer.Option(help="Test of spatial outliers: quantile, mad or distance.")
    ] = None
    environment_factor: Annotated[
        float | None,
        typer.Option(help="Test of environmental outliers: interquartile ranges allowed, e.g. 5."),
    ] = None
    tolerance: Annotated[
        str | None, typer.Option(help="Distance allowed beyond coast and border, e.g. '1 km'.")
    ] = None
    land: Annotated[
        str | None, typer.Option(help="Land mask: a variable of the cube, or polygons (gpkg).")
    ] = None
    countries: Annotated[
        Path | None, typer.Option(help="Polygons of countries with a column of codes (gpkg).")
    ] = None
    reference: Annotated[
        list[str] | None,
        typer.Option(help="capitals=FILE, centroids=FILE or institutions=FILE; repeat."),
    ] = None

    def flagged(self, table: pd.DataFrame, grid: Any) -> pd.DataFrame:
        """Return the records with a column for each test."""
        import geomiam as gm

        names = ("uncertainty", "first_year", "outliers", "environment_factor", "tolerance")
        rules: dict[str, Any] = {n: v for n in names if (v := getattr(self, n)) is not None}
        rules["require_date"] = self.require_date
        return gm.clean_records(
            table,
            rules=gm.CleaningRules(**rules),
            cube=grid,
            land=_land(self.land, grid),
            countries=None if self.countries is None else _polygons(self.countries),
            references=_references(self.reference or []),
            remove=False,
        )


@with_options()
def records(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="GBIF zip, Darwin Core archive, csv, tsv, txt, parquet or gpkg.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Table to write: .parquet or .csv.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text, e.g. cp1252.")] = None,
    doi: Annotated[str | None, typer.Option(help="DOI of the download.")] = None,
    cube: Annotated[Path | None, typer.Option(help="Cube of the study area (Zarr).")] = None,
    thin: Annotated[
        str | None,
        typer.Option(help="Least distance between records, e.g. '10 km', or 'cell' of the cube."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Map of the records and failed tests to write, e.g. map.png."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of thinning.")] = 0,
    overwrite: Overwrite = False,
    *,
    columns: RecordColumns,
    tests: CleaningFlags,
    output: TableFlags,
) -> None:
    """Read occurrence records, remove or flag doubtful ones, and thin them; every test is counted."""
    import geomiam as gm
    from geomiam.data.records.write import check_suffix, write_records

    if out:
        check_suffix(out)
    inputs = [source, cube, tests.countries, tests.land]
    reserve_pair(out, figure, overwrite, kind=RECORDS, inputs=inputs)
    table = gm.read_records(source, encoding=encoding, doi=doi, **columns.arguments())
    grid = gm.open_cube(cube, chunks=None) if cube else None
    lines = [_summary(table)]
    if tests.clean:
        table = tests.flagged(table, grid)
        lines.append(_counts_text(table, flags_of(context.command)))
    if figure:
        save_picture(gm.plot.records(table).figure, figure, overwrite=overwrite)
    if tests.clean and tests.remove:
        table = _without_flagged(table)
    if thin:
        table = _thinned(table, thin, grid=grid, seed=seed)
        lines.append(_thinning_text(table))
    if out:
        write_records(table, out, overwrite=overwrite)
    output.say(_counts(table), "\n\n".join([*lines, *_end_text(table, out)]))


def _thinning_text(table: pd.DataFrame) -> str:
    steps = table.attrs["thinning"]
    return f"thinning by {steps['method']} ({steps['setting']}): {steps['removed']:,} removed"


def _end_text(table: pd.DataFrame, out: Path | None) -> list[str]:
    """Return the number of records at the end, and what their file lacks."""
    lines = [_summary(table) + (f" → {out}" if out else "; --out writes them")]
    if out and out.suffix.lower() == ".csv":
        lines.append(
            "CSV keeps neither the DOI nor these counts for a report; records.parquet does"
        )
    return lines


def _summary(table: pd.DataFrame) -> str:
    presence = table["presence"]
    counts = f"{len(table):,} records: {int((presence > 0).sum()):,} presences, {int((presence == 0).sum()):,} absences"
    return f"{counts}, {table['species'].nunique():,} species"


def _without_flagged(table: pd.DataFrame) -> pd.DataFrame:
    """Return the records that pass all tests, without the columns of tests."""
    attrs = table.attrs
    attrs["cleaning"]["removed"] = attrs["cleaning"]["flagged"]
    flags = [c for c in table.columns if str(c).startswith("flag_")]
    out = table[~table["flagged"]].drop(columns=[*flags, "flagged"]).reset_index(drop=True)
    out.attrs = attrs
    return out


def _counts(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = ["test", "tested", "flagged", "only", "description"]
    return pd.DataFrame(table.attrs.get("cleaning", {}).get("tests", []), columns=columns)


def _counts_text(table: pd.DataFrame, flags: Flags) -> str:
    lines = [f"{'test':14}{'tested':>10}{'flagged':>10}{'only':>10}  description"]
    for row in _counts(table).to_dict("records"):
        numbers = "".join(f"{row[k]:10,}" for k in ("tested", "flagged", "only"))
        lines.append(f"{row['test']:14}{numbers}  {row['description']}")
    for name, reason in table.attrs["cleaning"]["not_run"].items():
        lines.append(f"{name:14}{'not run':>10}  {with_flags(reason, flags)}")
    return "\n".join(lines)


def _thinned(table: pd.DataFrame, thin: str, *, grid: Any, seed: int) -> pd.DataFrame:
    import geomiam as gm

    if thin == "cell" and grid is None:
        raise GeomiamError("--thin cell needs the cells of a cube; pass --cube cube.zarr as well")
    method: dict[str, Any] = {"grid": grid} if thin == "cell" else {"distance": thin}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsRemoved)  # the output has the count
        return gm.thin_records(table, rng=seed, **method)


def _land(land: str | None, cube: Any) -> Any:
    if land is None or (cube is not None and land in cube):
        return land
    if not land.lower().endswith(VECTOR):
        names = [] if cube is None else list(cube.data_vars)
        raise GeomiamError(
            f"--land {land} is neither a variable of --cube, which has {names}, nor a file of polygons (gpkg, geojson, shp)"
        )
    return _polygons(Path(land))


def _polygons(path: Path) -> Any:
    from geomiam.data.records.files import read_table

    table = read_table(path)
    if not hasattr(table, "geom_type"):
        raise GeomiamError(f"{path.name} has no geometries; pass polygons as gpkg, geojson or shp")
    return table


def _references(texts: list[str]) -> dict[str, pd.DataFrame]:
    from geomiam.data.records.files import read_table

    if wrong := [t for t in texts if "=" not in t]:
        raise GeomiamError(
            f"--reference {wrong[0]}: expected NAME=FILE, such as --reference capitals=capitals.csv"
        )
    return {name: read_table(path) for name, path in (t.split("=", 1) for t in texts)}
