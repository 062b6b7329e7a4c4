"""Table 1 of MIAM: skill on GeoPlant from twelve subsets of the predictors, strategy by strategy.

    geomiam-bench geoplant FOLDER --json out/bench/geoplant.json
    geomiam-bench geoplant FOLDER --limit 2000 --coarsen 4 --epochs 10 --rows miam,dropout

FOLDER holds GeoPlant as it comes out of its archives, see ``geomiam_bench.readers.geoplant``; columns whose predictors
are not there are left out, and the average is then over the columns that are. Sites are split by blocks of
1 degree into 70 % training, 15 % validation and 15 % test; the same split serves every row. The published
numbers stand beside ours in the output. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
import xarray as xr

import geomiam as gm
from geomiam.baselines.oracle import part
from geomiam.data.predictors import bind
from geomiam.errors import SelectionError
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import visible_tokens
from geomiam_bench import readers
from geomiam_bench.options import Json, listed
from geomiam_bench.results import continued, write_json

PUBLISHED = json.loads(Path(__file__).with_name("geoplant_published.json").read_text("utf-8"))
COLUMNS: dict[str, list | None] = {
    "BIO1": ["Bio1"],
    "WorldClim": [f"Bio{i}" for i in range(1, 20)],
    "Clim 2018": ["bioclim[month=2018]"],
    "Clim 2000-2018": ["bioclim"],
    "centre patch": ["sentinel2[centre]"],
    "Tabular": ["tabular"],
    "Time series": ["time_series"],
    "Satellite": ["satellite"],
    "Tab+TS": ["tabular", "time_series"],
    "Tab+Sat": ["tabular", "satellite"],
    "TS+Sat": ["time_series", "satellite"],
    "All": None,
}
SHARE, BLOCK = 0.15, "100 km"
"""Of the sites in the test set and in the validation set; side of a block."""


@dataclass(frozen=True)
class Run:
    """Settings of reading and training; defaults of the command are those of the paper."""

    folder: Path
    rows: Sequence[str]
    limit: int | None
    min_records: int
    coarsen: int
    fusion: Any
    epochs: int
    batch: int
    width: int
    depth: int
    heads: int
    members: int
    seed: int
    accelerator: Any
    precision: Any


@dataclass(frozen=True)
class Data:
    """Sites and how they are split."""

    rest: xr.Dataset
    """Training and validation."""
    validation: np.ndarray
    """Which of the rest validate ``(site,)``."""
    test: xr.Dataset
    schema: gm.Schema
    columns: dict[str, list | None]


def read(run: Run) -> Data:
    """Read and split the sites, and keep the columns whose predictors they have."""
    sites = readers.geoplant(run.folder, limit=run.limit, min_records=run.min_records, chunks=64)
    sites = coarsened(sites, run.coarsen).compute()
    test = gm.splits.hold_out_blocks(sites, share=SHARE, block=BLOCK, rng=run.seed)
    remaining_sites = sites.isel(site=~test)
    share = SHARE / (1 - SHARE)
    validation = gm.splits.hold_out_blocks(remaining_sites, share=share, block=BLOCK, rng=run.seed)
    schema = bind(readers.geoplant_schema(sites), sites)
    return Data(remaining_sites, validation, sites.isel(site=test), schema, answerable(schema))


def coarsened(sites: xr.Dataset, factor: int) -> xr.Dataset:
    """Average patches over squares of pixels, so that all of them fit into memory."""
    if factor == 1 or "sentinel2" not in sites:
        return sites
    attrs = sites["sentinel2"].attrs
    small = sites["sentinel2"].coarsen(row=factor, column=factor, boundary="trim").mean()
    return sites.drop_vars("sentinel2").assign(sentinel2=small.assign_attrs(attrs))


def answerable(schema: gm.Schema) -> dict[str, list | None]:
    """Return the columns of the table whose predictors the schema has, "All" included."""
    layout, columns = Layout.of(schema), {}
    for name, using in COLUMNS.items():
        try:
            visible_tokens(layout, using)
        except SelectionError:
            continue
        columns[name] = using
    return columns


def train(data: Data, using: list | None, masking: Any, run: Run) -> gm.Model:
    """Train on a subset of the predictors, by a strategy."""
    sites, schema = part(data.rest, data.schema, using)
    network = gm.NetworkConfig(
        fusion=run.fusion,
        width=run.width,
        depth=run.depth,
        heads=run.heads,
        members=run.members,
    )
    training = gm.TrainingConfig(
        loss="weighted-bce",
        epochs=run.epochs,
        batch=run.batch,
        accelerator=run.accelerator,
        precision=run.precision,
    )
    return gm.fit(
        sites,
        schema,
        masking=masking,
        network=network,
        training=training,
        validation=data.validation,
        rng=run.seed,
    )


def rows(data: Data, run: Run, row_results: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    """Yield the rows of the table: per column, mean AUC over species and the number of them."""
    for row in run.rows:
        if row not in row_results:
            start = time.perf_counter()
            auc_by_column = oracle(data, run) if row == "oracle" else strategy(data, row, run)
            row_results[row] = {
                "auc": auc_by_column,
                "seconds": round(time.perf_counter() - start, 1),
            }
        yield row, row_results[row]


def strategy(data: Data, name: str, run: Run) -> dict[str, float]:
    """Return the scores of one model for all columns."""
    model = train(data, None, gm.masking.named(name), run)
    return scored(model, data, data.columns)


def oracle(data: Data, run: Run) -> dict[str, float]:
    """Return the scores of one model per column, each trained with nothing hidden."""
    auc_by_column: dict[str, float] = {}
    for name, using in data.columns.items():
        model = train(data, using, gm.masking.Constant(0.0), run)
        auc_by_column |= scored(model, data, {name: using})
    return auc_by_column


def scored(model: gm.Model, data: Data, columns: dict[str, list | None]) -> dict[str, float]:
    """Return the mean AUC over species on the test sites, in per cent."""
    table = gm.evaluate(model, data.test, subsets=columns)
    return {n: round(100 * float(table["mean_auc"].sel(subset=n)), 2) for n in columns}


def average(row: dict[str, float], columns: list[str]) -> float:
    """Return the mean over columns, as the last column of the paper."""
    return round(float(np.mean([row[c] for c in columns])), 2)


def facts(data: Data) -> dict[str, Any]:
    """Return the sizes of the data that train and test."""
    return {
        "species": data.test.sizes["species"],
        "train": int((~data.validation).sum()),
        "validation": int(data.validation.sum()),
        "test": data.test.sizes["site"],
        "tokens": dict(zip(data.schema.modalities, Layout.of(data.schema).sizes.tolist())),
        "left_out": [c for c in COLUMNS if c not in data.columns],
    }


def table(rows_by_name: dict[str, dict], columns: list[str]) -> str:
    """Return the table as text, with the published numbers below each row."""
    width = max(map(len, [*PUBLISHED["rows"], *rows_by_name]))
    lines = [" " * (width + 11) + "  ".join(f"{c:>14}" for c in [*columns, "average"])]
    for name, row in rows_by_name.items():
        lines.append(line(name, "ours", row["auc"], columns, width=width))
        if name in PUBLISHED["rows"]:
            published_row = dict(zip(PUBLISHED["columns"], PUBLISHED["rows"][name]))
            lines.append(line("", "published", published_row, columns, width=width))
    return "\n".join(lines)


def line(name: str, source: str, row: dict, columns: list[str], *, width: int) -> str:
    """Return one row of the table as text."""
    mean = row["Avg"] if "Avg" in row and len(columns) == len(COLUMNS) else average(row, columns)
    cells = [f"{value:14.1f}" for value in [*(row[c] for c in columns), mean]]
    return f"{name:<{width}} {source:<10}" + "  ".join(cells)


def main(
    folder: Annotated[Path, typer.Argument(help="GeoPlant as it comes out of its archives.")],
    out: Json = Path("out/bench/geoplant.json"),
    names: Annotated[
        str, typer.Option("--rows", help="Rows of the table, separated by commas; default: all.")
    ] = "",
    limit: Annotated[int | None, typer.Option(help="Surveys to read.")] = None,
    min_records: Annotated[int, typer.Option(help="Presences of a species.")] = 21,
    coarsen: Annotated[int, typer.Option(help="Pixels of a patch per value.")] = 1,
    fusion: Literal["token", "group"] = "token",
    epochs: int = 100,
    batch: int = 128,
    width: int = 192,
    depth: int = 3,
    heads: int = 8,
    members: int = 1,
    seed: int = 0,
    accelerator: str = "auto",
    precision: str = "32-true",
) -> None:
    """Compute Table 1 of MIAM on GeoPlant; a run that was stopped is continued."""
    settings = {k: v for k, v in locals().items() if k not in ("folder", "out", "names")}
    run = Run(folder, listed(names) or tuple(PUBLISHED["rows"]), **settings)
    row_results = (continued(out, settings) or {"rows": {}})["rows"]
    data = read(run)
    columns = list(data.columns)
    table_rows: dict[str, dict] = {}
    for name, row in rows(data, run, row_results):
        table_rows[name] = row | {"average": average(row["auc"], columns)}
        results = {"settings": settings, "data": facts(data), "rows": row_results | table_rows}
        write_json(out, results | {"published": PUBLISHED})
    print(table(table_rows, columns))
