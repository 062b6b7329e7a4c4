"""Paths of a source: the files of a variable, and a check of which may be opened."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from geomiam.errors import SourceError
from geomiam.geo.longitude import lonlat_bounds
from geomiam.outputs.paths import expand
from geomiam.schema.source import TILE_KEYS, Source
from geomiam.schema.variable import Label, Variable
from geomiam.sources.tile_index import tiles_under
from geomiam.sources.web.allow_list import REMOTE, scheme, scrub

MOST_TILES = 2_000
BESIDE = (".aux.xml", ".msk", ".ovr")
"""Endings of files beside a GeoTIFF that hold its nodata, scale, mask or overviews."""
MOST_FILES = 100_000
"""Most files of one variable."""
MOST_PATH = 4_096
FIELD = re.compile(r"{(\w+)(?::(0?)(\d{0,2})d?)?}")
"""A field of a path: ``{name}``, or ``{name:02d}`` with up to 99 digits."""
MONTHS = tuple(range(1, 13))


@dataclass(frozen=True)
class Files:
    """Files of a variable.

    ``steps`` are the dims and labels in the path, as (dim, labels). ``paths`` has, for each
    combination of labels, the files that together cover the grid.
    """

    steps: tuple[tuple[str, tuple[Label, ...]], ...]
    paths: tuple[tuple[str, ...], ...]
    tiled: bool

    @property
    def flat(self) -> list[str]:
        """All files in one list."""
        return [path for step in self.paths for path in step]


def files_of(variable: Variable, source: Source, *, base: Path, box: GeoBox) -> Files:
    """Return the paths of the files of a variable on a grid; only an index of tiles is opened."""
    if not source.path and not source.index:
        raise SourceError(f"'{variable.name}': source '{source.name}' has no path; add 'path:'")
    path = source.index.path if source.index else source.path
    path_templates = (path,) if isinstance(path, str) else tuple(path or ())
    templates = [_absolute(p, source, base) for p in path_templates]
    names = {f for t in templates for f in re.findall(r"{(\w+)[^}]*}", t)}
    steps = _steps(variable, names - {"variable", *TILE_KEYS})
    tiles = list(_tiles(source, box)) if source.tiles else [{}]
    count = len(templates) * len(tiles) * math.prod(len(labels) for _, labels in steps)
    if count > MOST_FILES:
        raise SourceError(
            f"'{variable.name}' has {count:,} files, more than {MOST_FILES:,}: give it "
            "fewer labels, or build a smaller region"
        )
    paths = []
    for labels in itertools.product(*(values for _, values in steps)):
        values: dict[str, Any] = dict(zip((d for d, _ in steps), labels, strict=True))
        values["variable"] = values.get("variable", source.variable or variable.name)
        texts = [_fill(t, {**values, **tile}, source) for t in templates for tile in tiles]
        files = [p for f in texts for p in _matches(f)]
        if source.index:
            files = [p for f in files for p in tiles_under(f, source, box=box, stamp=stamp(f))]
        paths.append(tuple(files))
    return Files(steps, tuple(paths), bool(source.tiles))


def _absolute(path: str, source: Source, base: Path) -> str:
    if source.root and not scheme(path) and not os.path.isabs(path):
        path = f"{source.root.rstrip('/')}/{path}"
    if path.startswith("/vsi"):
        raise SourceError(
            f"{path} is a virtual path, which is not opened; give a file or an https URL"
        )
    kind = scheme(path)
    if kind == "file" or path.startswith("~"):
        path, kind = expand(path), ""
    if kind and kind not in REMOTE:
        raise SourceError(
            f"source '{source.name}': scheme '{kind}' is not opened; allowed: {', '.join(REMOTE)}, file"
        )
    return path if kind or os.path.isabs(path) else str(base / path)


def _steps(variable: Variable, fields: set[str]) -> tuple[tuple[str, tuple[Label, ...]], ...]:
    """Return the dims in the path and their labels, in the order of the variable."""
    if variable.dims and (unknown := sorted(fields - set(variable.dims))):
        raise SourceError(
            f"'{variable.name}': path names {{{unknown[0]}}}, which is not a dim of it; allowed: variable, "
            f"{', '.join((*variable.dims, *TILE_KEYS))}"
        )
    steps = []
    for dim in [d for d in variable.dims if d in fields] or sorted(fields):
        labels = variable.labels.get(dim) or (MONTHS if dim == "month" else ())
        if not labels:
            raise SourceError(
                f"'{variable.name}': path names {{{dim}}}, which has no labels; "
                f"add labels: {{{dim}: [...]}} to the variable, or {dim}: [...] to 'parameters:' of the catalog"
            )
        steps.append((dim, labels))
    return tuple(steps)


def _fill(template: str, values: Mapping[str, Any], source: Source) -> str:
    try:
        text = FIELD.sub(partial(_field, values=values), template)
        if "{" in text or "}" in text:
            raise ValueError("a field is {name} or {name:02d}")
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"source '{source.name}': path {scrub(template)[:200]} cannot be filled in: {error}; {{lat}} "
            "and {lon} need 'tiles:', numbers {month:02d}"
        ) from None
    if len(text) > MOST_PATH or "\0" in text:
        raise SourceError(
            f"source '{source.name}': the path {scrub(text)[:80]}… has {len(text):,} characters, or "
            "a NUL; shorten it"
        )
    return text


def _field(match: re.Match[str], *, values: Mapping[str, Any]) -> str:
    """Return the text of one field; ``str.format`` accepts any width and reads attributes."""
    name, zero, width = match.groups()
    value = values[name]
    if not width:
        return str(value)
    return f"{int(value):{zero}{width}d}" if float(value) == int(value) else str(value)


def _matches(path: str) -> list[str]:
    """Return the files that match a local pattern; other paths are unchanged."""
    if scheme(path) or not glob.has_magic(path):
        return [path]
    return sorted(glob.glob(path)) or [path]


def _tiles(source: Source, box: GeoBox) -> Iterator[dict[str, Any]]:
    """Yield the south-west corners of the tiles under a grid in degrees, or the UTM zones."""
    if source.tiles == "utm":
        spans_of_zones = [(w, e) for w, _, e, _ in lonlat_bounds(box)]
        yield from ({"zone": zone} for zone in utm_zones(spans_of_zones))
        return
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


def utm_zones(spans: Iterable[tuple[float, float]]) -> list[int]:
    """Return the UTM zones, 1 to 60, that touch spans of longitude between -180 and 180 degrees."""
    zones = [range(int((w + 180) // 6), math.ceil((e + 180) / 6)) for w, e in spans]
    return sorted({min(z, 59) + 1 for z in itertools.chain.from_iterable(zones)})


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def stamp(path: str) -> list[Any]:
    """Return size and time of a local file and of the files beside it; for a URL only its name."""
    parts: list[Any] = [path]
    for suffix in ("", *BESIDE):
        try:
            status = os.stat(path + suffix)
        except OSError:
            continue
        parts += [*([suffix] if suffix else []), status.st_size, status.st_mtime_ns]
    return parts
