"""Draw the rooms of the package and the path of the data: docs/images/architecture.svg.

``python -m tools.draw_architecture`` writes the drawing; the architecture page shows it.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "architecture.svg"
WIDTH, HEIGHT = 980, 640
BLUE, GREEN, ORANGE, GREY = "#2b6cb0", "#2f855a", "#c05621", "#4a5568"


class Room(NamedTuple):
    """One box: its corner, its size, its title and the lines below it."""

    x: int
    y: int
    width: int
    title: str
    lines: tuple[str, ...]
    colour: str
    height: int = 78


ROOMS = {
    "files": Room(20, 20, 290, "files", ("GeoTIFF · NetCDF · Zarr · STAC", "described by a catalog"), GREY),
    "table": Room(690, 20, 270, "records", ("GBIF, CSV, Parquet, GeoPackage",), GREY),
    "sources": Room(20, 140, 290, "sources/", ("build · rasters/ · scenes/ · stac/ · web/",), GREEN),
    "schema": Room(350, 140, 300, "schema/", ("variables, modalities, groups", "catalogs (YAML)"), GREEN),
    "data": Room(20, 260, 630, "data/", ("grid, store, records, sites, background, coverage:", "a cube is a Dataset (y, x), sites a Dataset (site); NaN = missing"), GREEN),
    "tokens": Room(20, 380, 200, "tokens/", ("layout, scaler, encode", "values → tokens, observed"), BLUE),
    "networks": Room(240, 380, 200, "networks/", ("attention, pooling", "fusion/ · extras/"), BLUE),
    "training": Room(460, 380, 190, "training/", ("fit, finetune, pretrain", "loop, losses"), BLUE),
    "ground": Room(690, 260, 270, "masking/ · splits/ · metrics/", ("numpy only: no cube, no model", "geo/: lengths, CRS · checks/ · outputs/"), GREY),
    "model": Room(690, 380, 270, "model/", ("weights, schema, scaler, species;", "save and load, model card"), BLUE),
    "inference": Room(20, 500, 200, "inference/", ("engine, predict, cells:", "all coalitions of a block"), ORANGE),
    "explain": Room(240, 500, 200, "explain/", ("Shapley values, responses;", "uncertainty/: sets, novelty"), ORANGE),
    "maps": Room(460, 500, 190, "maps/", ("plan, write, resume, cluster", "ranges/: areas, change"), ORANGE),
    "evaluation": Room(690, 500, 270, "evaluation/ · baselines/", ("skill from every subset, imputation", "plot/ · reports/ · cli/ · demo/"), ORANGE),
}  # fmt: skip

ARROWS = (
    ("files", "sources"), ("schema", "data"), ("sources", "data"), ("data", "tokens"), ("tokens", "networks"),
    ("networks", "training"), ("training", "model"), ("inference", "explain"), ("explain", "maps"),
    ("maps", "evaluation"),
)  # fmt: skip
"""From the first room to the second, straight down or straight to the right."""


def box(room: Room) -> str:
    """Return the SVG of one room."""
    text = "".join(
        f'<text x="{room.x + 12}" y="{room.y + 46 + 18 * i}" class="line">{escape(line)}</text>'
        for i, line in enumerate(room.lines)
    )
    return (
        f'<rect x="{room.x}" y="{room.y}" width="{room.width}" height="{room.height}" rx="8" '
        f'fill="{room.colour}" fill-opacity="0.10" stroke="{room.colour}" stroke-width="1.5"/>'
        f'<text x="{room.x + 12}" y="{room.y + 24}" class="title" fill="{room.colour}">'
        f"{escape(room.title)}</text>{text}"
    )


def arrow(start: Room, end: Room) -> str:
    """Return the SVG of an arrow between two rooms that share a column or a row."""
    if start.y == end.y:
        y = start.y + start.height // 2
        points = (start.x + start.width, y, end.x, y)
    else:
        left, right = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
        x = (left + right) // 2
        points = (x, start.y + start.height, x, end.y)
    return '<line x1="{}" y1="{}" x2="{}" y2="{}" class="arrow"/>'.format(*points)


def path(*points: tuple[int, int]) -> str:
    """Return the SVG of an arrow along points."""
    return '<polyline points="{}" class="arrow"/>'.format(" ".join(f"{x},{y}" for x, y in points))


def drawing() -> str:
    """Return the drawing as SVG text."""
    style = (
        "text{font-family:Helvetica,Arial,sans-serif}.title{font-size:16px;font-weight:bold}"
        ".line{font-size:13px;fill:#2d3748}"
        ".arrow{stroke:#4a5568;stroke-width:1.6;fill:none;marker-end:url(#head)}"
    )
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#4a5568"/></marker>'
    )
    parts = [arrow(ROOMS[a], ROOMS[b]) for a, b in ARROWS]
    parts.append(path((825, 98), (825, 120), (670, 120), (670, 290), (650, 290)))  # records → data
    parts.append(path((825, 458), (825, 480), (120, 480), (120, 500)))  # model → inference
    parts.append(path((20, 300), (8, 300), (8, 540), (20, 540)))  # a cube → inference
    parts.append(path((690, 310), (670, 310), (670, 400), (650, 400)))  # masks and folds → training
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Rooms of the package and the path of the data">'
        f"<style>{style}</style><defs>{head}</defs>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        + "".join(map(box, ROOMS.values()))
        + "".join(parts)
        + f'<text x="20" y="{HEIGHT - 20}" class="line">Arrows are the path of the data. Green: labelled data. '
        "Blue: the model. Orange: results. Grey: files, and rooms without a cube or a model.</text></svg>\n"
    )


if __name__ == "__main__":
    IMAGE.write_text(drawing(), encoding="utf-8")
