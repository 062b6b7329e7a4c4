"""Table 1 of MIAM: skill on GeoPlant from twelve subsets of the predictors, strategy by strategy.

    python -m geomiam_bench.geoplant FOLDER --json out/bench/geoplant.json
    python -m geomiam_bench.geoplant FOLDER --limit 2000 --coarsen 4 --epochs 10 --rows miam dropout

FOLDER holds GeoPlant as it comes out of its archives, see ``readers.geoplant``; columns whose predictors
are not there are left out, and the average is then over the columns that are. Sites are split by blocks of
1 degree into 70 % training, 15 % validation and 15 % test; the same split serves every row. The published
numbers stand beside ours in the output. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import geomiam as gm
from geomiam.baselines.oracle import part
from geomiam.data.predictors import bind
from geomiam.errors import SelectionError
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import visible_tokens
from geomiam_bench import readers

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
class Data:
    """Sites and how they are split."""

    rest: xr.Dataset
    """Training and validation."""
    validation: np.ndarray
    """Which of the rest validate ``(site,)``."""
    test: xr.Dataset
    schema: gm.Schema
    columns: dict[str, list | None]


def read(args: argparse.Namespace) -> Data:
    """Read and split the sites, and keep the columns that they can answer."""
    sites = readers.geoplant(args.folder, limit=args.limit, min_records=args.min_records, chunks=64)
    sites = coarsened(sites, args.coarsen).compute()
    test = gm.splits.hold_out_blocks(sites, share=SHARE, block=BLOCK, rng=args.seed)
    rest = sites.isel(site=~test)
    share = SHARE / (1 - SHARE)
    validation = gm.splits.hold_out_blocks(rest, share=share, block=BLOCK, rng=args.seed)
    schema = bind(readers.geoplant_schema(sites), sites)
    return Data(rest, validation, sites.isel(site=test), schema, answerable(schema))


def coarsened(sites: xr.Dataset, factor: int) -> xr.Dataset:
    """Average patches over squares of pixels, so that all of them fit into memory."""
    if factor == 1 or "sentinel2" not in sites:
        return sites
    attrs = sites["sentinel2"].attrs
    small = sites["sentinel2"].coarsen(row=factor, column=factor, boundary="trim").mean()
    return sites.drop_vars("sentinel2").assign(sentinel2=small.assign_attrs(attrs))


def answerable(schema: gm.Schema) -> dict[str, list | None]:
    """The columns of the table whose predictors the schema has, "All" included."""
    layout, kept = Layout.of(schema), {}
    for name, using in COLUMNS.items():
        try:
            visible_tokens(layout, using)
        except SelectionError:
            continue
        kept[name] = using
    return kept


def train(data: Data, using: list | None, masking: Any, args: argparse.Namespace) -> gm.Model:
    """Train on a subset of the predictors, by a strategy."""
    sites, schema = part(data.rest, data.schema, using)
    network = gm.NetworkConfig(
        fusion=args.fusion,
        width=args.width,
        depth=args.depth,
        heads=args.heads,
        members=args.members,
    )
    training = gm.TrainingConfig(
        loss="weighted-bce",
        epochs=args.epochs,
        batch=args.batch,
        accelerator=args.accelerator,
        precision=args.precision,
    )
    return gm.fit(
        sites,
        schema,
        masking=masking,
        network=network,
        training=training,
        validation=data.validation,
        rng=args.seed,
    )


def rows(data: Data, args: argparse.Namespace, done: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    """Yield the rows of the table: per column, mean AUC over species and the number of them."""
    for row in args.rows:
        if row not in done:
            started = time.perf_counter()
            found = oracle(data, args) if row == "oracle" else strategy(data, row, args)
            done[row] = {"auc": found, "seconds": round(time.perf_counter() - started, 1)}
        yield row, done[row]


def strategy(data: Data, name: str, args: argparse.Namespace) -> dict[str, float]:
    """One model for all columns."""
    model = train(data, None, gm.masking.named(name), args)
    return scored(model, data, data.columns)


def oracle(data: Data, args: argparse.Namespace) -> dict[str, float]:
    """A model of its own for every column, trained with nothing hidden."""
    found: dict[str, float] = {}
    for name, using in data.columns.items():
        model = train(data, using, gm.masking.Constant(0.0), args)
        found |= scored(model, data, {name: using})
    return found


def scored(model: gm.Model, data: Data, columns: dict[str, list | None]) -> dict[str, float]:
    """Mean AUC over species on the test sites, in per cent."""
    table = gm.evaluate(model, data.test, subsets=columns)
    return {n: round(100 * float(table["mean_auc"].sel(subset=n)), 2) for n in columns}


def average(row: dict[str, float], columns: list[str]) -> float:
    """Mean over columns, as the paper's last one."""
    return round(float(np.mean([row[c] for c in columns])), 2)


def facts(data: Data) -> dict[str, Any]:
    """What was trained on and tested on."""
    return {
        "species": data.test.sizes["species"],
        "train": int((~data.validation).sum()),
        "validation": int(data.validation.sum()),
        "test": data.test.sizes["site"],
        "tokens": dict(zip(data.schema.modalities, Layout.of(data.schema).sizes.tolist())),
        "left_out": [c for c in COLUMNS if c not in data.columns],
    }


def table(found: dict[str, dict], columns: list[str]) -> str:
    """The table as text, ours above the published numbers of the same columns."""
    width = max(map(len, [*PUBLISHED["rows"], *found]))
    lines = [" " * (width + 11) + "  ".join(f"{c:>14}" for c in [*columns, "average"])]
    for name, row in found.items():
        lines.append(line(name, "ours", row["auc"], columns, width=width))
        if name in PUBLISHED["rows"]:
            published = dict(zip(PUBLISHED["columns"], PUBLISHED["rows"][name]))
            lines.append(line("", "published", published, columns, width=width))
    return "\n".join(lines)


def line(name: str, who: str, row: dict, columns: list[str], *, width: int) -> str:
    """One row of the table."""
    mean = row["Avg"] if "Avg" in row and len(columns) == len(COLUMNS) else average(row, columns)
    cells = [f"{value:14.1f}" for value in [*(row[c] for c in columns), mean]]
    return f"{name:<{width}} {who:<10}" + "  ".join(cells)


def earlier(path: Path | None, settings: dict) -> dict[str, dict]:
    """Rows of an interrupted run with the same settings.

    Raises
    ------
    SystemExit
        If the file is of other settings.
    """
    if path is None or not path.exists():
        return {}
    before = json.loads(path.read_text("utf-8"))
    if before["settings"] != settings:
        raise SystemExit(f"{path} holds results of other settings; choose another --json")
    return before["rows"]


def write(path: Path, whole: dict) -> None:
    """Write the results so far, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part_of = path.with_name(path.name + ".part")
    part_of.write_text(json.dumps(whole, indent=1), "utf-8")
    part_of.replace(path)


def main() -> None:
    """Train every row, print the table and write it."""
    args = arguments()
    settings = {k: v for k, v in vars(args).items() if k not in ("folder", "json", "rows")}
    done = earlier(args.json, settings)
    data = read(args)
    columns = list(data.columns)
    found: dict[str, dict] = {}
    for name, row in rows(data, args, done):
        found[name] = row | {"average": average(row["auc"], columns)}
        if args.json:
            whole = {"settings": settings, "data": facts(data), "rows": done | found}
            write(args.json, whole | {"published": PUBLISHED})
    print(table(found, columns))


def arguments() -> argparse.Namespace:
    """Options; defaults are the paper's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(PUBLISHED["rows"]))
    parser.add_argument("--limit", type=int, help="surveys to read")
    parser.add_argument("--min-records", type=int, default=21)
    parser.add_argument("--coarsen", type=int, default=1, help="pixels of a patch per value")
    parser.add_argument("--fusion", default="token", choices=["token", "group"])
    sizes = {"epochs": 100, "batch": 128, "width": 192, "depth": 3, "heads": 8, "members": 1}
    for name, default in (sizes | {"seed": 0}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--precision", default="32-true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
