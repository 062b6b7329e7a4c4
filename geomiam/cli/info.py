"""``geomiam info``: a description of a file of geomiam."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.options import with_options
from geomiam.cli.outputs import TableFlags
from geomiam.outputs.paths import expand
from geomiam.schema.schema import frame_of


@with_options()
def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="Model directory, catalog, cube, sites, map, maps of scenarios or scores."
        ),
    ],
    *,
    table: TableFlags,
) -> None:
    """Describe a model, a catalog, a cube, sites, a map, maps of scenarios, or scores.

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
    table.say(rows, text)


def _describe_store(path: Path) -> tuple[Any, str]:
    """The table of a store, and its description for people."""
    import geomiam as gm
    from geomiam.data.store.store import open_zarr
    from geomiam.sources.build_report import summary

    store = open_zarr(path)
    if "scenarios" in store.attrs:
        projection = gm.Projection.open(path)
        return projection.table.reset_index(), str(projection)
    if "fold" in store:
        return gm.evaluation.tidy(store), str(store)
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
