"""``geomiam records``: read, clean and thin occurrence records."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geomiam.cli.messages import flags_of, verb, with_flags
from geomiam.cli.options import Overwrite
from geomiam.cli.outputs import AsCsv, AsJson, reserve, say_table
from geomiam.errors import GeomiamError, RecordsRemoved
from geomiam.outputs.kinds import PICTURE, RECORDS
from geomiam.outputs.write import save_picture

if TYPE_CHECKING:
    import pandas as pd

SpeciesColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--species",
        help="Column of species names; or, repeated, one column of 1 and 0 for each species.",
    ),
]
PresenceColumn = Annotated[
    str | None, typer.Option("--presence", help="Column of 1, 0 or counts; default: presence.")
]
XColumn = Annotated[str | None, typer.Option("--x", help="Column of longitudes or eastings.")]
YColumn = Annotated[str | None, typer.Option("--y", help="Column of latitudes or northings.")]
RecordsCrs = Annotated[str | None, typer.Option(help="CRS of the records, e.g. EPSG:4326.")]
VECTOR = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet")


def columns_of(
    species: list[str] | None, presence: str | None, x: str | None, y: str | None, crs: str | None
) -> dict[str, Any]:
    """Return the columns and the CRS that the user names, as arguments of the library."""
    names = species[0] if species and len(species) == 1 else species
    arguments = {"species": names, "presence": presence, "x": x, "y": y, "crs": crs}
    return {k: v for k, v in arguments.items() if v}


def records(
    source: Annotated[
        Path, typer.Argument(help="GBIF zip, Darwin Core archive, csv, tsv, txt, parquet or gpkg.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Table to write: .parquet or .csv.")
    ] = None,
    species: SpeciesColumn = None,
    presence: PresenceColumn = None,
    x: XColumn = None,
    y: YColumn = None,
    crs: RecordsCrs = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text, e.g. cp1252.")] = None,
    doi: Annotated[str | None, typer.Option(help="DOI of the download.")] = None,
    clean: Annotated[bool, typer.Option(help="Test the records for usual errors, or not.")] = True,
    remove: Annotated[
        bool, typer.Option(help="Remove records that fail a test, or keep them with flag columns.")
    ] = True,
    uncertainty: Annotated[
        str | None, typer.Option(help="Largest coordinate uncertainty, e.g. '5 km'.")
    ] = None,
    first_year: Annotated[int | None, typer.Option(help="Earlier records fail.")] = None,
    outliers: Annotated[
        str | None, typer.Option(help="Test of spatial outliers: quantile, mad or distance.")
    ] = None,
    tolerance: Annotated[
        str | None, typer.Option(help="Distance allowed beyond coast and border, e.g. '1 km'.")
    ] = None,
    cube: Annotated[Path | None, typer.Option(help="Cube of the study area (Zarr).")] = None,
    land: Annotated[
        str | None, typer.Option(help="Land mask: a variable of the cube, or polygons (gpkg).")
    ] = None,
    countries: Annotated[
        Path | None, typer.Option(help="Polygons of countries with a column of codes (gpkg).")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="capitals=FILE, centroids=FILE or institutions=FILE; repeat."),
    ] = None,
    thin: Annotated[
        str | None,
        typer.Option(help="Least distance between records, e.g. '10 km', or 'cell' of the cube."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Map of the records and failed tests to write, e.g. map.png."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of thinning.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Read occurrence records, remove or flag doubtful ones, and thin them; every test is counted."""
    import geomiam as gm
    from geomiam.data.records.write import check_suffix, write_records

    inputs = [source, cube, countries, land]
    if out:
        check_suffix(out)
        reserve(out, overwrite, kind=RECORDS, inputs=[*inputs, figure])
    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[*inputs, out])
    names = columns_of(species, presence, x, y, crs)
    table = gm.read_records(source, encoding=encoding, doi=doi, **names)
    grid = gm.open_cube(cube, chunks=None) if cube else None
    lines = [_summary(table)]
    if clean:
        rules: dict[str, Any] = {
            "uncertainty": uncertainty,
            "first_year": first_year,
            "outliers": outliers,
            "tolerance": tolerance,
        }
        table = gm.clean_records(
            table,
            rules=gm.CleaningRules(**{k: v for k, v in rules.items() if v is not None}),
            cube=grid,
            land=_land(land, grid),
            countries=None if countries is None else _polygons(countries),
            references=_references(reference or []),
            remove=False,
        )
        lines.append(_counts_text(table))
    if figure:
        save_picture(gm.plot.records(table).figure, figure, overwrite=overwrite)
    if clean and remove:
        table = _without_flagged(table)
    if thin:
        table = _thinned(table, thin, grid=grid, seed=seed)
        steps = table.attrs["thinning"]
        lines.append(
            f"thinning by {steps['method']} ({steps['setting']}): {steps['removed']:,} removed"
        )
    if out:
        write_records(table, out, overwrite=overwrite)
    lines.append(f"{_summary(table)}" + (f" → {out}" if out else "; --out writes them"))
    say_table(_counts(table), "\n\n".join(lines), as_json=as_json, as_csv=as_csv)


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


def _counts_text(table: pd.DataFrame) -> str:
    from geomiam.cli.app import app

    flags = flags_of(verb(typer.main.get_command(app), ["records"]))
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
