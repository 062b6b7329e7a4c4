"""``geomiam report``: one HTML file on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.evaluate import names_of
from geomiam.cli.messages import say
from geomiam.cli.options import ModelPath, Overwrite, named_paths
from geomiam.cli.outputs import reserve
from geomiam.outputs.kinds import REPORT


def report(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")],
    map_path: Annotated[
        Path | None, typer.Option("--map", help="Map (Zarr) of 'geomiam predict' or 'explain'.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option(help="Sites over which response curves are averaged.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Held-out sites on which the model is scored.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Scores on the held-out sites; joined by ','.")
    ] = "auc,tss,boyce",
    scores: Annotated[
        Path | None, typer.Option(help="Scores (Zarr) of 'geomiam cross-validate'.")
    ] = None,
    projection: Annotated[
        Path | None,
        typer.Option(help="Maps of other times and places (Zarr) of 'geomiam project'."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="Range change (Zarr) of 'geomiam change'; repeat. TITLE=PATH sets its title, e.g. "
            "'now to 2070=c.zarr'."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the study.")] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="YAML file with texts of the author for fields of ODMAP, by key."),
    ] = None,
    species: Annotated[int, typer.Option(help="Most species with figures.")] = 4,
    points: Annotated[
        bool, typer.Option("--points", help="Show the presences of the sites on the maps.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a report: maps, skill, response curves, contributions, other times, limits, sources and ODMAP.

    Fields of ODMAP that the model does not determine are marked. The file of --texts fills them by key, such as
    'authors: A. Author'.
    """
    import geomiam as gm
    from geomiam.data.store.store import open_zarr
    from geomiam.schema.catalogs import load_yaml

    changes = named_paths(change or [])
    inputs = [model, map_path, sites, test, texts, scores, projection, *changes.values()]
    reserve(out, overwrite, kind=REPORT, inputs=inputs)
    entries = {k: str(v) for k, v in load_yaml(texts)[0].items()} if texts else {}
    options = gm.reports.ReportOptions(title=title, texts=entries, species=species, points=points)
    loaded_model = gm.load_model(model)
    tables = {"Cross-validation": open_zarr(scores).load()} if scores else {}
    if test:
        table = gm.evaluate(loaded_model, gm.open_sites(test).load(), metrics=names_of(metrics))
        tables["Evaluation"] = table
    material: dict[str, Any] = {
        "table": tables,
        "maps": open_zarr(map_path) if map_path else None,
        "sites": gm.open_sites(sites).load() if sites else None,
        "projection": gm.Projection.open(projection) if projection else None,
    }
    gm.report(
        loaded_model,
        out,
        **material,
        changes={title: open_zarr(path) for title, path in changes.items()},
        options=options,
        overwrite=overwrite,
    )
    fields = gm.reports.odmap(loaded_model, **material, texts=entries)
    gaps = list(fields["key"][~fields["complete"]])
    say(f"{len(fields) - len(gaps)} of {len(fields)} fields of ODMAP are filled → {out}")
    say(f"to be completed by the author, with --texts FILE.yaml: {', '.join(gaps)}")
