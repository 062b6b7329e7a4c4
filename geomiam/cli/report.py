"""``geomiam report``: one HTML file on a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.evaluate import names_of
from geomiam.cli.messages import say
from geomiam.cli.options import ModelPath, Overwrite, named_paths, with_options
from geomiam.cli.outputs import reserve
from geomiam.outputs.kinds import REPORT


@dataclass(frozen=True)
class Material:
    """The files that a report is written from, beside the model."""

    map_path: Annotated[
        Path | None, typer.Option("--map", help="Map (Zarr) of 'geomiam predict' or 'explain'.")
    ] = None
    sites: Annotated[
        Path | None, typer.Option(help="Sites over which response curves are averaged.")
    ] = None
    test: Annotated[
        Path | None, typer.Option(help="Held-out sites on which the model is scored.")
    ] = None
    metrics: Annotated[str, typer.Option(help="Scores on the held-out sites; joined by ','.")] = (
        "auc,tss,boyce"
    )
    scores: Annotated[
        Path | None, typer.Option(help="Scores (Zarr) of 'geomiam cross-validate'.")
    ] = None
    projection: Annotated[
        Path | None,
        typer.Option(help="Maps of other times and places (Zarr) of 'geomiam project'."),
    ] = None
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="Range change (Zarr) of 'geomiam change'; repeat. TITLE=PATH sets its title, e.g. "
            "'now to 2070=c.zarr'."
        ),
    ] = None

    @property
    def changes(self) -> dict[str, str]:
        """Paths of range changes by title."""
        return named_paths(self.change or [])

    @property
    def inputs(self) -> list[Path | str | None]:
        """All files."""
        files = [self.map_path, self.sites, self.test, self.scores, self.projection]
        return [*files, *self.changes.values()]

    def read(self, model: Any) -> dict[str, Any]:
        """Return the arguments that :func:`geomiam.report` and :func:`geomiam.reports.odmap` share."""
        import geomiam as gm
        from geomiam.data.store.store import open_zarr

        tables = {"Cross-validation": open_zarr(self.scores).load()} if self.scores else {}
        if self.test:
            sites = gm.open_sites(self.test).load()
            tables["Evaluation"] = gm.evaluate(model, sites, metrics=names_of(self.metrics))
        return {
            "table": tables,
            "maps": open_zarr(self.map_path) if self.map_path else None,
            "sites": gm.open_sites(self.sites).load() if self.sites else None,
            "projection": gm.Projection.open(self.projection) if self.projection else None,
        }


@dataclass(frozen=True)
class AuthorFlags:
    """Texts of the author, and what the figures show."""

    title: Annotated[str | None, typer.Option(help="Title of the study.")] = None
    texts: Annotated[
        Path | None,
        typer.Option(help="YAML file with texts of the author for fields of ODMAP, by key."),
    ] = None
    species: Annotated[int, typer.Option(help="Most species with figures.")] = 4
    points: Annotated[
        bool, typer.Option("--points", help="Show the presences of the sites on the maps.")
    ] = False
    static: Annotated[
        bool,
        typer.Option("--static", help="Leave out the interactive map: a page without a script."),
    ] = False

    def options(self) -> Any:
        """Return the options of :func:`geomiam.report`."""
        import geomiam as gm
        from geomiam.schema.catalogs import load_yaml

        entries = load_yaml(self.texts)[0] if self.texts else {}
        texts = {k: str(v) for k, v in entries.items()}
        return gm.reports.ReportOptions(
            title=self.title,
            texts=texts,
            species=self.species,
            points=self.points,
            interactive=not self.static,
        )


@with_options()
def report(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")],
    overwrite: Overwrite = False,
    *,
    material: Material,
    author: AuthorFlags,
) -> None:
    """Write a report: maps, skill, response curves, contributions, other times, limits, sources and ODMAP.

    Layers of the map on spread, prediction sets, novelty and the value of missing data have sections, too. Fields
    of ODMAP that the model does not determine are marked. The file of --texts fills them by key, such as 'authors: A. Author'.
    """
    import geomiam as gm
    from geomiam.data.store.store import open_zarr

    reserve(out, overwrite, kind=REPORT, inputs=[model, author.texts, *material.inputs])
    options, loaded_model = author.options(), gm.load_model(model)
    shared = material.read(loaded_model)
    changes = {title: open_zarr(path) for title, path in material.changes.items()}
    gm.report(loaded_model, out, **shared, changes=changes, options=options, overwrite=overwrite)
    fields = gm.reports.odmap(loaded_model, **shared, texts=options.texts)
    gaps = list(fields["key"][~fields["complete"]])
    say(f"{len(fields) - len(gaps)} of {len(fields)} fields of ODMAP are filled → {out}")
    say(f"to be completed by the author, with --texts FILE.yaml: {', '.join(gaps)}")
