"""Files of a scene, and its grid: that of its finest file, by metadata or, without them, from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geomiam.sources.stac.extent import Box, extent_of_grid, grown, overlap
from geomiam.sources.stac.item_checks import CheckedItem, number
from geomiam.sources.web.allow_list import scrub
from geomiam.sources.web.ranges import Access

LARGEST = 10**6
"""Most rows or columns of a scene; Sentinel-2's have 10,980."""
NEAR = 0.2
"""Most degrees between an item's bbox and its grid."""
GRIDS = 2**14
"""Grids that are remembered: the items of one tile have the same, and their geometry takes most time."""

_EXTENTS: dict[tuple[Any, ...], Box] = {}


@dataclass(frozen=True, eq=False)
class AssetFile:
    """One file: its link, and its grid as its metadata state it."""

    key: str  # of the asset
    href: str
    transform: Any = None  # proj:transform, not checked
    shape: Any = None  # proj:shape, not checked
    size: float = np.nan  # of a pixel in metres; NaN if unknown


def asset_file(
    key: str, href: str, asset: Mapping[str, Any], of_item: Mapping[str, Any]
) -> AssetFile:
    """Return the file of an asset, with the grid ``of_item`` if the asset states none.

    Equal grids are one object, which makes many files small.
    """
    keys = ("proj:transform", "proj:shape")
    transform, shape = (_tuple(asset.get(k, of_item.get(k))) for k in keys)
    return AssetFile(key, href, transform, shape, number(asset.get("gsd")))


def _tuple(value: Any) -> Any:
    try:
        return _one(tuple(value)) if isinstance(value, list) else value
    except TypeError:  # a list of lists
        return value


@lru_cache(GRIDS, typed=True)
def _one(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values


def scene_grid(
    item: CheckedItem, files: Mapping[str, AssetFile], access: Access
) -> tuple[GeoBox | None, str, dict[str, AssetFile]]:
    """Return the grid of a scene, or the reason why there is none; and its files.

    If metadata have no valid grid, those of the files are dropped, so that files are not compared
    with them.
    """
    files = dict(files)
    if not files:
        return None, "", files
    try:
        boxes = _stated_boxes(item, list(files.values()))
        if not boxes:
            files = {b: replace(f, transform=None, shape=None) for b, f in files.items()}
            with access.open(next(iter(files.values())).href) as file:
                boxes = [_sound(GeoBox(file.shape, file.transform, file.crs))]
        return _near(_finest(boxes), item.bbox), "", files
    except Exception as error:  # drivers raise errors of any type
        return None, scrub(error)[:300], files


def _stated_boxes(item: CheckedItem, files: Sequence[AssetFile]) -> list[GeoBox]:
    """Return the grids that metadata state, none without valid ones."""
    properties = item.properties
    try:
        boxes = []
        for file in files:
            asset = item.assets[file.key]
            crs = _crs(asset) or _crs(properties)
            if crs is None or file.transform is None or file.shape is None:
                return _parsed_boxes(item, [f.key for f in files])
            boxes.append(_box(crs, file.transform, file.shape))
        return boxes
    except Exception:  # metadata are untrusted; the file has a grid as well
        return []


def _crs(fields: Mapping[str, Any]) -> str | None:
    """Return the CRS that an item or an asset states by a code."""
    code, number_of_code = fields.get("proj:code"), fields.get("proj:epsg")
    if isinstance(code, str):
        return code
    is_number = isinstance(number_of_code, int) and not isinstance(number_of_code, bool)
    return f"EPSG:{number_of_code}" if is_number else None


@lru_cache(GRIDS)
def _box(crs: str, transform: tuple[float, ...], shape: tuple[int, int]) -> GeoBox:
    if len(transform) not in (6, 9) or transform[6:] not in ((), (0, 0, 1)):
        raise ValueError(f"a transform of {len(transform)} numbers")
    rows, columns = shape
    return _sound(GeoBox((rows, columns), Affine(*transform[:6]), crs))


def _parsed_boxes(item: CheckedItem, keys: list[str]) -> list[GeoBox]:
    """Return the grids of an item with less common metadata, such as WKT, or a grid of the item."""
    import odc.stac

    boxes = odc.stac.parse_item(item.as_pystac(keys)).geoboxes(keys)
    return [_sound(b) for b in boxes if b.crs is not None]


def _sound(box: GeoBox) -> GeoBox:
    """Return a grid; refuse one that is rotated, or has far too many or too fine pixels, or no CRS."""
    a = box.affine
    finest = 1e-6 if box.crs is not None and box.crs.geographic else 0.1
    sides = [abs(a.a), abs(a.e)]
    right = box.crs is not None and np.isfinite(list(a)).all() and a.b == a.d == 0
    if not right or min(sides) < finest or not all(0 < n <= LARGEST for n in box.shape.yx):
        raise ValueError(
            f"a grid of {box.shape.yx} pixels with transform {tuple(a)[:6]} and CRS {box.crs} cannot "
            "be read"
        )
    return box


def _finest(boxes: Sequence[GeoBox]) -> GeoBox:
    """Return the finest grid; of several, that of most files."""
    size = min(abs(b.affine.a) for b in boxes)
    finest = {key_of(b): b for b in boxes if abs(b.affine.a) == size}
    counts = Counter(key_of(b) for b in boxes if abs(b.affine.a) == size)
    return finest[counts.most_common(1)[0][0]]


def key_of(box: GeoBox) -> tuple[Any, ...]:
    """Return a key of a grid. The hash of a GeoBox writes its CRS as WKT, which takes a third of a millisecond."""
    return box.shape.yx, box.affine[:6], str(box.crs)


def _near(box: GeoBox, bbox: Box) -> GeoBox:
    """Return a grid; refuse one that is far from the item's bbox, since one of the two is wrong."""
    key = key_of(box)
    if key not in _EXTENTS:
        if len(_EXTENTS) >= GRIDS:
            _EXTENTS.clear()
        _EXTENTS[key] = extent_of_grid(box)
    extent = _EXTENTS[key]
    if not overlap(grown(extent, NEAR), bbox):
        raise ValueError(
            f"its grid (proj:transform, proj:shape, CRS {box.crs}) is at longitude {extent[0]:.2f}, "
            f"latitude {extent[1]:.2f}, its bbox at {bbox[0]:.2f}, {bbox[1]:.2f}"
        )
    return box
