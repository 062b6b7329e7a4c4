"""Paths of a catalog's sources: which files a variable is made of, and which may be opened."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomiam.errors import SourceError
from geomiam.geo.longitude import lonlat_bounds
from geomiam.outputs.paths import expand
from geomiam.schema.data_source import Source
from geomiam.schema.schema import Label, Variable
from geomiam.sources.stac.stac_source import REMOTE, scheme, scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

TILE_KEYS = ("ns", "lat", "ew", "lon")
MOST_TILES = 2_000
BESIDE = (".aux.xml", ".msk", ".ovr")
"""Endings of files beside a GeoTIFF that hold its nodata, scale, mask or overviews."""
MOST_FILES = 100_000
"""Of one variable."""
MOST_PATH = 4_096
FIELD = re.compile(r"{(\w+)(?::(0?)(\d{0,2})d?)?}")
"""A field of a path: ``{name}``, or ``{name:02d}`` with up to 99 digits."""
MONTHS = tuple(range(1, 13))


@dataclass(frozen=True)
class Files:
    """What a variable is made of.

    ``steps`` are own dims and labels that stand in the path, as (dim, labels); ``paths`` has, for
    each combination of labels, the files that together cover the place.
    """

    steps: tuple[tuple[str, tuple[Label, ...]], ...]
    paths: tuple[tuple[str, ...], ...]
    tiled: bool


def files_of(variable: Variable, source: Source, *, base: Path, box: GeoBox) -> Files:
    """Return the files of a variable on a grid, named but not opened.

    Raises
    ------
    SourceError
        Without a path, with a path that names what is not known, or one that may not be opened.
    """
    if not source.path:
        raise SourceError(f"'{variable.name}': source '{source.name}' has no path; add 'path:'")
    given = (source.path,) if isinstance(source.path, str) else source.path
    templates = [_rooted(p, source, base) for p in given]
    fields = {f for t in templates for f in _fields(t)} - {"variable", *TILE_KEYS}
    steps = tuple((d, _labels(variable, d)) for d in _ordered(variable, fields))
    tiles = list(_tiles(source, box)) if source.tiles else [{}]
    _check_count(variable, steps, len(templates) * len(tiles))
    name = {"variable": source.variable or variable.name}
    paths = []
    for labels in itertools.product(*(values for _, values in steps)):
        known = {**name, **dict(zip((d for d, _ in steps), labels, strict=True))}
        filled = [_fill(t, {**known, **tile}, source) for t in templates for tile in tiles]
        paths.append(tuple(p for f in filled for p in _found(f)))
    return Files(steps, tuple(paths), bool(source.tiles))


def _rooted(path: str, source: Source, base: Path) -> str:
    root = source.root or ""
    joined = (
        path
        if scheme(path) or os.path.isabs(path)
        else f"{root.rstrip('/')}/{path}"
        if root
        else path
    )
    if joined.startswith("/vsi"):
        raise SourceError(
            f"{joined} is a virtual path, which is not opened; give a file or an https URL"
        )
    kind = scheme(joined)
    if kind == "file" or joined.startswith("~"):
        joined, kind = expand(joined), ""
    if kind and kind not in REMOTE:
        raise SourceError(
            f"source '{source.name}': scheme '{kind}' is not opened; allowed: {', '.join(REMOTE)}, file"
        )
    return joined if kind or os.path.isabs(joined) else str(base / joined)


def _fields(template: str) -> set[str]:
    return set(re.findall(r"{(\w+)[^}]*}", template))


def _ordered(variable: Variable, fields: set[str]) -> list[str]:
    """Own dims first, as the variable orders them; a typing error is told, not taken for a dim."""
    if variable.dims and (unknown := sorted(fields - set(variable.dims))):
        raise SourceError(
            f"'{variable.name}': path names {{{unknown[0]}}}, no own dim; known: variable, "
            f"{', '.join((*variable.dims, *TILE_KEYS))}"
        )
    return [d for d in variable.dims if d in fields] or sorted(fields)


def _labels(variable: Variable, dim: str) -> tuple[Label, ...]:
    if labels := variable.labels.get(dim):
        return labels
    if dim == "month":
        return MONTHS
    raise SourceError(
        f"'{variable.name}': path names {{{dim}}} but its values are not known; "
        f"add labels: {{{dim}: [...]}} to the variable"
    )


def _fill(template: str, known: Mapping[str, Any], source: Source) -> str:
    try:
        filled = FIELD.sub(partial(_field, known=known), template)
        if "{" in filled or "}" in filled:
            raise ValueError("a field is {name} or {name:02d}")
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"source '{source.name}': path {scrub(template)[:200]} cannot be filled in: {error}; {{lat}} "
            "and {lon} need 'tiles:', numbers {month:02d}"
        ) from None
    if len(filled) > MOST_PATH or "\0" in filled:
        raise SourceError(
            f"source '{source.name}': the path {scrub(filled)[:80]}… has {len(filled):,} characters, or "
            "a NUL; shorten it"
        )
    return filled


def _field(match: re.Match[str], *, known: Mapping[str, Any]) -> str:
    """The text of one field; ``str.format`` would take any width and read attributes."""
    name, zero, width = match.groups()
    value = known[name]
    if not width:
        return str(value)
    return f"{int(value):{zero}{width}d}" if float(value) == int(value) else str(value)


def _check_count(variable: Variable, steps: Sequence[tuple[str, Sequence[Any]]], each: int) -> None:
    count = each * math.prod(len(labels) for _, labels in steps)
    if count > MOST_FILES:
        raise SourceError(
            f"'{variable.name}' would be made of {count:,} files, more than {MOST_FILES:,}: give it "
            "fewer labels, or build a smaller region"
        )


def _found(path: str) -> list[str]:
    """Local patterns become the files that there are."""
    if scheme(path) or not glob.has_magic(path):
        return [path]
    return sorted(glob.glob(path)) or [path]


def _tiles(source: Source, box: GeoBox) -> Iterator[dict[str, Any]]:
    """South-west corners of the tiles in degrees under a grid."""
    side = float(source.tiles or 1)
    spans = [
        [range(math.floor(low / side), math.ceil(high / side)) for low, high in ((s, n), (w, e))]
        for w, s, e, n in lonlat_bounds(box)
    ]
    if (count := sum(len(rows) * len(cols) for rows, cols in spans)) > MOST_TILES:
        raise SourceError(
            f"source '{source.name}' has {count:,} tiles under the grid, more than {MOST_TILES:,}: "
            "build a smaller region, or name a coarser product"
        )
    under = itertools.chain.from_iterable(itertools.product(*span) for span in spans)
    for row, col in dict.fromkeys(under):
        lat, lon = row * side, col * side
        yield {
            "ns": "S" if lat < 0 else "N",
            "lat": _plain(abs(lat)),
            "ew": "W" if lon < 0 else "E",
            "lon": _plain(abs(lon)),
        }


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def stamp(path: str) -> list[Any]:
    """Return what changes when a local file does, or what lies beside it; of a URL its name alone."""
    about = [path, *_state(path)]
    for suffix in BESIDE:
        if state := _state(path + suffix):
            about += [suffix, *state]
    return about


def _state(path: str) -> list[int]:
    try:
        about = os.stat(path)
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns]
