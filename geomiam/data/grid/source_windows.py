"""Windows of a source: the pixels that one tile of a grid needs, also across the antimeridian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geomiam.geo.crs import same_crs
from geomiam.geo.longitude import full_turn, middle, unwrapped

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

MARGIN = 8  # source cells read around a tile; the widest kernel (lanczos) uses three
CLOSED = 0.01  # a full turn counts as a whole number of columns up to this part of a column


@dataclass(frozen=True)
class Half:
    """The cells of a tile whose longitude in the source's CRS is within a quarter turn of a middle."""

    middle: float
    turn: float  # A full turn in units of the CRS
    closed: bool  # whether cells at exactly a quarter turn belong to this half


@dataclass(frozen=True)
class Part:
    """Pixels of a source that a tile needs."""

    rows: slice
    cols: tuple[slice | int, ...]
    """Column ranges of the source, from west to east. An integer is a number of columns without data."""
    box: GeoBox  # Grid of these pixels. Longitudes are in the same turn as those of the tile.
    half: Half | None = None  # the cells of the tile that this part fills; None for all
    seam: float | None = None
    """Cells whose corners are more columns apart than this lie across the edge of a world map."""

    @property
    def pixels(self) -> int:
        """Number of pixels that are read from the source."""
        width = sum(c.stop - c.start for c in self.cols if isinstance(c, slice))
        return int(self.rows.stop - self.rows.start) * width

    def take(self, data: Any, module: Any) -> Any:
        """Return the pixels ``(..., rows, columns)`` of a numpy or dask array."""
        gap = (*data.shape[:-2], self.rows.stop - self.rows.start)
        pieces = [
            data[..., self.rows, c]
            if isinstance(c, slice)
            else module.full((*gap, c), np.float32(np.nan), dtype="float32")
            for c in self.cols
        ]
        return pieces[0] if len(pieces) == 1 else module.concatenate(pieces, axis=-1)


def reach(src: GeoBox, tile: GeoBox) -> list[Part]:
    """Return the pixels of a source that a tile, a part of a grid in any CRS, needs; none without overlap.

    Longitudes of a geographic source repeat after a full turn.
    """
    turn, points = full_turn(src.crs), sample(src, tile)
    all_finite = np.isfinite(points).all()
    rows = _span(points[:, 0], src.shape.y) if all_finite else slice(0, src.shape.y)
    if turn is None or src.affine.b or src.affine.d:  # columns do not repeat
        # Where a part of the tile cannot be projected into the source's CRS, all of it may be needed.
        cols = _span(points[:, 1], src.shape.x) if all_finite else slice(0, src.shape.x)
        if rows is None or cols is None:
            return []
        far = src.shape.x / 2
        seam = None if np.ptp(points[:, 1]) < far else far  # NaN counts as far
        return [Part(rows, (cols,), src[rows, cols], seam=seam)]
    if rows is None or not np.isfinite(points).any():
        return []
    turn = turn / abs(src.affine.a)
    positions = columns(src, tile, points[:, 1], turn=turn)
    start, stop = _padded(positions)
    if not same_crs(src.crs, tile.crs) and (not all_finite or stop - start > turn / 2):
        return _halves(src, rows, middle=middle(positions, turn), turn=turn)
    return _parts(src, rows, (start, stop), turn=turn)


def sample(src: GeoBox, tile: GeoBox) -> np.ndarray:
    """Return rows and columns ``(points, 2)`` of the source under points of a tile."""
    # Points inside are needed too: a tile around a pole has its highest latitude inside.
    cols, rows = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n, 17) for n in tile.shape.xy)))
    x, y = _transformed(src, tile, cols, rows)
    inverse = ~src.affine
    row, col = inverse.d * x + inverse.e * y + inverse.f, inverse.a * x + inverse.b * y + inverse.c
    points = np.stack([row, col], axis=1)
    return np.where(np.isfinite(points), points, np.nan)


def _span(values: np.ndarray, size: int) -> slice | None:
    start, stop = _padded(values)
    start, stop = max(0, start), min(size, stop)
    return slice(start, stop) if stop > start else None


def _padded(values: np.ndarray) -> tuple[int, int]:
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 0
    low, high = float(values.min()), float(values.max())
    pad = MARGIN + (high - low) / 16
    return int(np.floor(low - pad)), int(np.ceil(high + pad))


def columns(src: GeoBox, tile: GeoBox, cols: np.ndarray, *, turn: float) -> np.ndarray:
    """Return columns of the source that continue across its seam, as those of the tile do."""
    tile_turn = full_turn(tile.crs)
    if tile_turn is None:
        return unwrapped(cols, middle(cols, turn), turn)
    if same_crs(src.crs, tile.crs):
        return cols
    ys, xs = (np.linspace(0, n, 17) for n in tile.shape.yx)
    lon = tile.affine.c + tile.affine.a * xs[None, :] + tile.affine.b * ys[:, None]
    near = (lon.ravel() * turn * abs(src.affine.a) / tile_turn - src.affine.c) / src.affine.a
    return unwrapped(cols, near, turn)


def _halves(src: GeoBox, rows: slice, *, middle: float, turn: float) -> list[Part]:
    """Split a tile around a pole or the world into halves, so that no cell lies on the seam of its half."""
    parts = []
    for at, is_closed in ((middle, True), (middle + turn / 2, False)):
        side = turn / 3 + MARGIN  # a cell at the edge of a half extends beyond it
        span = round(at - side), round(at + side)
        half = Half(src.affine.c + src.affine.a * at, turn * abs(src.affine.a), is_closed)
        parts += [Part(p.rows, p.cols, p.box, half) for p in _parts(src, rows, span, turn=turn)]
    return parts


def _parts(src: GeoBox, rows: slice, span: tuple[int, int], *, turn: float) -> list[Part]:
    """Return the pixels of a source within a span of columns; each turn has a copy of the source."""
    first = int(np.floor((span[0] - src.shape.x) / turn))
    last = int(np.ceil(span[1] / turn))
    if abs(turn - round(turn)) > CLOSED:
        copies = [(k, _copy(src, span, k * turn)) for k in range(first, last + 1)]
        return [_moved(src, rows, (c,), k * turn + c.start) for k, c in copies if c is not None]
    turn, cols, end = round(turn), [], None
    start = 0.0
    for k in range(first, last + 1):
        piece = _copy(src, span, k * turn, max_columns=int(turn))
        if piece is None:
            continue
        begins = k * int(turn) + piece.start
        if end is None:
            start = begins
        elif begins > end:
            cols.append(begins - end)
        cols.append(piece)
        end = begins + piece.stop - piece.start
    return [_moved(src, rows, tuple(cols), start)] if cols else []


def _copy(
    src: GeoBox, span: tuple[int, int], offset: float, *, max_columns: int | None = None
) -> slice | None:
    size = src.shape.x if max_columns is None else min(src.shape.x, max_columns)
    start, stop = max(0, int(span[0] - offset)), min(size, int(np.ceil(span[1] - offset)))
    return slice(start, stop) if stop > start else None


def _moved(src: GeoBox, rows: slice, cols: tuple[slice | int, ...], start: float) -> Part:
    from odc.geo.geobox import GeoBox

    width = sum(c if isinstance(c, int) else c.stop - c.start for c in cols)
    affine = src.affine * type(src.affine).translation(start, rows.start)
    return Part(rows, cols, GeoBox((rows.stop - rows.start, width), affine, src.crs))


def cells_of_half(half: Half, src: GeoBox, dst: GeoBox) -> np.ndarray:
    """Return whether a half fills each cell of a tile ``(y, x)``."""
    cols, rows = np.meshgrid(*(np.arange(n) + 0.5 for n in dst.shape.xy))
    lon, _ = _transformed(src, dst, cols, rows)
    away = np.abs(unwrapped(lon, half.middle, half.turn) - half.middle)
    return away <= half.turn / 4 if half.closed else away < half.turn / 4


def cells_across(far: float, src: GeoBox, dst: GeoBox) -> np.ndarray:
    """Return whether each cell of a tile has corners at both edges of a world map ``(y, x)``."""
    corners = np.meshgrid(*(np.arange(n + 1.0) for n in dst.shape.xy))
    x, y = _transformed(src, dst, *corners)
    inverse = ~src.affine
    at = inverse.a * x + inverse.b * y + inverse.c
    four = np.stack([at[:-1, :-1], at[1:, :-1], at[:-1, 1:], at[1:, 1:]])
    return np.ptp(np.where(np.isfinite(four), four, np.nan), axis=0) > far


def _transformed(
    src: GeoBox, tile: GeoBox, cols: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and rows of a tile as x and y in the CRS of a source."""
    a = tile.affine
    x, y = a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
    if same_crs(src.crs, tile.crs):
        return x, y
    assert tile.crs is not None and src.crs is not None
    return tile.crs.transformer_to_crs(src.crs, always_xy=True)(x, y)
