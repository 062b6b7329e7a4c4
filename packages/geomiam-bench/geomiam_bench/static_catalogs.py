"""Static STAC catalogs on disk, and the cost of a plan of one month from them; a part of ``geomiam-bench planning``.

Only the items that a plan should read exist as files: a link that is followed although its date is outside the
period counts as a document that cannot be read.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import geomiam as gm
from geomiam.maps.memory import peak_memory
from geomiam_bench import planning

COLLECTION = "sentinel-2-c1-l2a"
START, DAYS = dt.date(2016, 1, 1), 3652
MONTH, READ_FROM, READ_TO = "2020-03", dt.date(2020, 2, 1), dt.date(2020, 4, 30)
"""The month that is planned, and the days of which items exist: its neighbours are read, too, where only folders have
dates."""
ASSETS = ("red", "scl")
SIDE = 5
"""Tiles along each side of the area."""
LAYOUTS = {
    "one list, dates in names": ("", "S2B_T{tile}_{day:%Y%m%d}T105031_{number}"),
    "folders by month": ("{day.year}/{day.month}/", "item-{number}"),
    "one list, no dates": ("", "item-{number}"),
}
"""Folder and name of an item by layout."""

Place = tuple[str, str, dt.date, int]
"""Folder, name, day and number of an item."""


def places(layout: str, count: int) -> Iterator[Place]:
    """Yield items that are spread evenly over ten years and the tiles."""
    folder, name = LAYOUTS[layout]
    for number in range(count):
        day = START + dt.timedelta(days=number * DAYS // count)
        names = {"day": day, "number": number, "tile": f"31U{number % SIDE**2:02d}"}
        yield folder.format(**names), name.format(**names), day, number


def write(root: Path, layout: str, count: int) -> None:
    """Write a catalog with a number of links to items."""
    folders: dict[str, list[dict[str, str]]] = {}
    every_day = "no dates" in layout
    for folder, name, day, number in places(layout, count):
        href = f"./{name}/{name}.json"
        link = {"rel": "item", "href": href, "type": "application/geo+json", "title": name}
        folders.setdefault(folder, []).append(link)
        if every_day or READ_FROM <= day <= READ_TO:
            _write(root / folder / href, _item(name, day, number))
    if "" in folders:
        _write(root / "collection.json", _document("Collection", folders[""]))
        return
    for year in sorted({f.split("/")[0] for f in folders}):
        months = [f.split("/")[1] for f in folders if f.startswith(year)]
        _write(root / year / "catalog.json", _document("Catalog", _children(months)))
        for month in months:
            document = _document("Catalog", folders[f"{year}/{month}/"])
            _write(root / year / month / "catalog.json", document)
    years = sorted({f.split("/")[0] for f in folders})
    _write(root / "collection.json", _document("Collection", _children(years)))


def _children(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"rel": "child", "href": f"./{n}/catalog.json"} for n in names]


def _document(kind: str, links: Sequence[dict[str, str]]) -> dict[str, Any]:
    about = {"type": kind, "id": COLLECTION, "stac_version": "1.0.0", "description": "scenes"}
    return {**about, "license": "other", "links": list(links)}


@cache
def _tile(number: int) -> dict[str, Any]:
    """Return the item of a tile with few assets."""
    item = planning.item(number % SIDE, number // SIDE, START)
    return {**item, "assets": {k: item["assets"][k] for k in ASSETS}}


def _item(name: str, day: dt.date, number: int) -> dict[str, Any]:
    item = _tile(number % SIDE**2)
    properties = {**item["properties"], "datetime": f"{day}T10:50:31.024Z"}
    return {**item, "id": name, "properties": properties}


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def measure(root: str) -> dict[str, Any]:
    """Return the scenes, CPU seconds and memory of a plan of one month; to be called in a new process."""
    grid = planning.grid_of(SIDE, 100)
    settings: dict[str, Any] = {"bands": ASSETS[:1], "progress": False}
    gm.plan_sentinel2(grid, MONTH, source=[_item("s", dt.date(2020, 3, 1), 0)], **settings)
    before, start = peak_memory(), time.process_time()
    plan = gm.plan_sentinel2(grid, MONTH, source=f"{root}/collection.json", **settings)
    seconds = time.process_time() - start
    megabytes = (peak_memory() - before) / 1e6
    row = {"scenes": len(plan.scenes), "not_read": len(plan.lost), "notes": list(plan.notes)}
    return {**row, "seconds": seconds, "megabytes": megabytes}


def run(links: Sequence[int]) -> dict[str, Any]:
    """Return the cost of a plan against the links of a catalog, by layout, with slopes."""
    rows = []
    for layout in LAYOUTS:
        for count in links:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), layout, count)
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    row = pool.submit(measure, folder).result()
            rows.append({"layout": layout, "links": count, **row})
    of_layout = {n: [r for r in rows if r["layout"] == n] for n in LAYOUTS}
    slopes = {n: planning.slope(r, "links", "seconds") for n, r in of_layout.items()}
    return {"month": MONTH, "rows": rows, "slopes": slopes}
