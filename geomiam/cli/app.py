"""The command line: the verbs of the package, on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam._version import __version__
from geomiam.cli import correlations as cli_correlations
from geomiam.cli import maps as cli_maps
from geomiam.cli import records as cli_records
from geomiam.cli import report as cli_report
from geomiam.cli import sites as cli_sites
from geomiam.cli import train as cli_train
from geomiam.cli.messages import run_app, say
from geomiam.cli.options import ModelPath, Overwrite, SitesPath
from geomiam.cli.outputs import AsCsv, AsJson, reserve, say_table
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import CUBE, PICTURE
from geomiam.outputs.paths import expand
from geomiam.outputs.write import save_picture
from geomiam.schema.schema import frame_of

HELP = """Map species from the predictors that each place has, with the contribution of each group of predictors.

A first look:    geomiam demo

Your own data:

  geomiam build catalog.yaml --out cube.zarr                predictors on one grid

  geomiam records gbif.zip --out records.parquet            read and clean records, with counts

  geomiam sample cube.zarr records.parquet --out sites.zarr predictors at the records

  geomiam split sites.zarr --train train.zarr --test test.zarr   hold out spatial blocks

  geomiam fit train.zarr --schema catalog.yaml --out model  train by masking

  geomiam evaluate model test.zarr --subsets every          AUC from each subset, held out

  geomiam predict model cube.zarr --out map.zarr            suitability of every cell

  geomiam explain model cube.zarr --out why.zarr            and the contribution of each group

  geomiam report model --map why.zarr --test test.zarr --out report.html   with the ODMAP tables
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(requested_version: bool) -> None:
    if requested_version:
        say(f"geomiam {__version__}")
        raise typer.Exit


@app.callback()
def _every_verb(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Out = Annotated[Path, typer.Option("--out", "-o", help="Zarr store to write.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")] = Path(
        "out/demo"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Train on bundled records of a species, map it in the western USA, and explain the map."""
    from geomiam.demo import run

    run(out, overwrite=overwrite)


@app.command()
def build(
    catalog: Annotated[
        str,
        typer.Argument(
            help="Catalog (YAML) with sources, the name of a bundled one, or a folder of GeoTIFF and NetCDF files."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Zarr store to write.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="Cube (Zarr) or GeoTIFF whose grid to build on.")
    ] = None,
    bounds: Annotated[
        str | None, typer.Option(help="xmin,ymin,xmax,ymax in the CRS of the catalog's grid.")
    ] = None,
    bbox: Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="Of a folder of files: CRS of the grid, e.g. EPSG:3035.")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(help="Of a folder of files: side of a cell, e.g. '1 km', or 0.01 in degrees."),
    ] = None,
    kind: cli_train.Kinds = None,
    root: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE=FOLDER: folder of the files of a source; repeat."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: value of a parameter of the catalog; repeat."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be read, and stop.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Read the failed files of the cube at --out again.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Build a cube from a catalog, or from a folder of files: every source on one grid.

    A stopped build from a catalog is continued.
    """
    import geomiam as gm
    from geomiam.sources.build_report import summary
    from geomiam.sources.open_cube import are_files

    settings = {"crs": crs, "resolution": resolution, "kind": kind}
    if are_files(catalog):
        of_catalog: dict[str, Any] = {
            "bounds": bounds,
            "bbox": bbox,
            "root": root,
            "repair": repair,
        }
        _refuse_flags(
            {**of_catalog, "set": parameters}, "needs a catalog; leave it out for a folder of files"
        )
        _build_from_files(catalog, out, like, settings, plan=plan, overwrite=overwrite)
        return
    _refuse_flags(settings, "is for a folder of files; a catalog has it under its keys")

    build_options: dict[str, Any] = {
        "bounds": _place(bounds, bbox),
        "roots": _pairs(root, "--root", "SOURCE=FOLDER, such as --root worldclim=downloads"),
        "parameters": _pairs(parameters, "--set", "NAME=VALUE, such as --set period=2041-2070"),
    }
    if plan:
        cube_plan = gm.plan_cube(catalog, like, **build_options)
        say_table(cube_plan.table, str(cube_plan), as_json=as_json, as_csv=as_csv)
        return
    if as_json or as_csv:
        raise GeomiamError("--json and --csv print the table of a plan; pass --plan as well")
    if out is None:
        raise GeomiamError(
            "--out is missing: the Zarr store to write; or pass --plan to print the plan only"
        )
    cube = gm.build_cube(
        catalog,
        like,
        out=out,
        overwrite=overwrite,
        options=gm.sources.BuildOptions(repair=repair),
        **build_options,
    )
    say(f"{summary(cube)}\n{len(cube.data_vars)} variables → {out}")


def _refuse_flags(flags: dict[str, Any], reason: str) -> None:
    """Refuse flags that do not apply to the input."""
    if passed_flags := [k for k, v in flags.items() if v]:
        raise GeomiamError(f"--{passed_flags[0]} {reason}")


def _build_from_files(
    files: str,
    out: Path | None,
    like: Path | None,
    settings: dict[str, Any],
    *,
    plan: bool,
    overwrite: bool,
) -> None:
    """Bring raster files onto one grid, and write them."""
    import geomiam as gm

    if out is None and not plan:
        raise GeomiamError("--out is missing: the Zarr store to write; or pass --plan")
    if out is not None and not plan:
        reserve(out, overwrite, kind=CUBE, inputs=[files, like])
    text = settings["resolution"]
    try:
        side = None if text is None else float(text)
    except ValueError:
        side = text
    kinds = cli_train.kinds_of(settings["kind"], None) or None
    cube = gm.open_cube(files, grid=like, crs=settings["crs"], resolution=side, kinds=kinds)
    lines = [gm.sources.summary(cube)]
    if not plan:
        gm.write_cube(cube, str(out), overwrite=overwrite)
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


app.command()(cli_records.records)


app.command()(cli_sites.sample)
app.command()(cli_correlations.correlations)
app.command()(cli_sites.split)
app.command()(cli_train.fit)
app.command()(cli_train.pretrain)
app.command()(cli_train.finetune)


@app.command()
def evaluate(
    model: ModelPath,
    sites: SitesPath,
    subsets: Annotated[
        str, typer.Option(help="unimodal, pairs, leave-one-out, every, variables, all; join by +.")
    ] = "unimodal+all",
    metrics: Annotated[
        str, typer.Option(help="auc, auc_prg, average_precision, tss, boyce, cor, …; join by ,.")
    ] = "auc",
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the scores to write, e.g. skill.png.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Score a model on labelled sites, for subsets of the predictors."""
    import geomiam as gm

    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[model, sites])
    names = [m.strip() for m in metrics.split(",")]
    data = gm.open_sites(sites).load()
    table = gm.evaluate(gm.load_model(model), data, subsets=subsets, metrics=names)
    rows = table.drop_dims(["species", "modality"]).to_dataframe().reset_index()
    say_table(rows, _scores_text(rows, names), as_json=as_json, as_csv=as_csv)
    if figure:
        save_picture(gm.plot.subsets(table, metric=names[0])[0].figure, figure, overwrite=overwrite)


def _scores_text(rows: Any, names: list[str]) -> str:
    lines = ["  ".join(f"{m[:9]:>9}" for m in names) + "  unscored     sites  subset"]
    for row in rows.to_dict("records"):
        scores = "  ".join(f"{row[f'mean_{m}']:9.4f}" for m in names)
        unscored_text = f"{row[f'unscored_{names[0]}']:8.0f}"
        lines.append(f"{scores}  {unscored_text}  {row['sites']:8,.0f}  {row['subset']}")
    return "\n".join(lines)


app.command()(cli_maps.predict)
app.command()(cli_maps.explain)
app.command()(cli_maps.export)
app.command()(cli_maps.classify)
app.command()(cli_report.report)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Model directory, catalog, cube, sites or map.")],
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Describe a model, a catalog, a cube, sites or a map.

    With --json or --csv: a row per predictor; for a map, a row per layer.
    """
    import geomiam as gm

    path = Path(expand(path))
    if (path / "config.json").exists():
        model = gm.load_model(path)
        rows, text = frame_of(model.schema), str(model)
    elif path.suffix in (".yaml", ".yml") or (str(path) in gm.catalogs() and not path.exists()):
        schema = gm.Schema.from_yaml(gm.catalogs().get(str(path), path))
        rows, text = frame_of(schema), str(schema)
    else:
        rows, text = _describe_store(path)
    say_table(rows, text, as_json=as_json, as_csv=as_csv)


def main() -> None:
    """Run the command line."""
    run_app(app)


def _describe_store(path: Path) -> tuple[Any, str]:
    """The table of a store, and its description for people."""
    import geomiam as gm
    from geomiam.data.store.store import open_zarr
    from geomiam.sources.build_report import summary

    store = open_zarr(path)
    if "suitability" in getattr(store, "data_vars", ()):
        return _layers(store), str(store)
    data = gm.open_sites(path) if "site" in store.dims else gm.open_cube(path)
    schema = gm.infer_schema(data)
    sources = f"\n\nbuilt from\n{summary(data)}" if "sources" in data.attrs else ""
    return frame_of(schema), f"{schema}{sources}\n\n{gm.coverage(data, schema)}"


def _layers(store: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "layer": name,
            "dims": " ".join(map(str, layer.dims)),
            "long_name": layer.attrs.get("long_name", ""),
            "units": layer.attrs.get("units", ""),
        }
        for name, layer in store.data_vars.items()
    )
