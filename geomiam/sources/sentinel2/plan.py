"""What a call would read, before any pixel: scenes, offsets, bytes, clear shares."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.errors import NoScenes, SourceError
from geomiam.outputs.html import table_html
from geomiam.progress import progress_bar
from geomiam.sources.sentinel2.clouds import Clouds, clear_share
from geomiam.sources.sentinel2.load import header
from geomiam.sources.sentinel2.windows import Placed, Window, place, windows
from geomiam.sources.stac.extent import of_grid
from geomiam.sources.stac.items import BANDS, SCL, Scene, check_query, holds, scene, unique
from geomiam.sources.stac.plain import level_1, number, plain
from geomiam.sources.stac.search import find
from geomiam.sources.stac.stac_source import Search, StacSource, as_source
from geomiam.sources.stac.times import period
from geomiam.sources.stac.tree import Unread
from geomiam.sources.web.allowed import Reach, host_of, reach_of
from geomiam.sources.web.ranges import Access
from geomiam.sources.web.text import scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

BYTES = 2
"""Bytes of a number in Sentinel-2's files, before compression."""


@dataclass(frozen=True)
class Request:
    """What is asked for, understood and checked."""

    grid: GeoBox
    search: Search
    bands: tuple[str, ...]
    clouds: Clouds

    @property
    def wanted(self) -> tuple[str, ...]:
        """The bands, and SCL where it is used."""
        scl = self.clouds.needs_scl or self.clouds.function is not None
        return (*self.bands, SCL) if scl else self.bands


@dataclass(frozen=True)
class Plan:
    """What a call would read.

    Attributes
    ----------
    scenes
        One row a scene: id, collection, time, day, cloud_cover, clear (share, from metadata),
        baseline, offset, rule, bytes (not compressed), lost (what cannot be read).
    windows
        The scenes by day and lattice, with the pixels that are needed.
    lost
        Lines on what cannot be read, known before any pixel.
    notes
        What was noteworthy in the search.
    """

    scenes: pd.DataFrame
    windows: tuple[Window, ...] = field(repr=False)
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dates(self) -> list[str]:
        """Solar days, in order."""
        return sorted(set(self.scenes["day"]))

    @property
    def bytes(self) -> int:
        """Bytes of the pixels under the grid, before compression."""
        return int(self.scenes["bytes"].sum())

    def __repr__(self) -> str:
        known = self.scenes["clear"].dropna()
        clear = f"{known.mean():.0%} clear by metadata" if len(known) else "clear share unknown"
        rules = self.scenes.groupby("offset", dropna=False).size()
        offsets = ", ".join(f"{n} × {o:g}" for o, n in rules.items())
        head = (
            f"{len(self.scenes)} scenes on {len(self.dates)} dates "
            f"({self.dates[0]} to {self.dates[-1]}), {clear}, "
            f"{self.bytes / 1e6:,.1f} MB before compression; offsets: {offsets}"
        )
        return "\n".join([head, *self.notes, *self.lost])

    def _repr_html_(self) -> str:
        table = self.scenes[["id", "day", "cloud_cover", "clear", "baseline", "offset"]]
        return table_html(repr(self), list(table.columns), table.itertuples(index=False))


def prepare(request: Request, source: Any, *, hosts: Sequence[str] = ()) -> Plan:
    """Search, and say what would be read.

    Raises
    ------
    NoScenes
        When nothing was found, with what was searched for.
    SourceError
        When the catalogue cannot be asked, or no item has a band.
    """
    _need_libraries()
    stac = as_source(source)
    source = stac if isinstance(stac, StacSource) else None
    check_query(source.query if source else {})
    access = access_of(source, hosts)
    items, notes = _searched(stac, request, access)
    raw = progress_bar(items, desc="scenes", unit="item", leave=False)
    scenes, lost = _scenes(raw, request, source=source, reach=access.reach, notes=notes)
    _check_bands(scenes, request)
    placed = list(_place(scenes, access=access, lost=lost))
    cut = tuple(windows(placed, request.grid))
    if not cut:
        raise NoScenes(_nothing(request, source, lost=[*notes, *lost]))
    lost += _lost(cut)
    return Plan(_table(cut, request), cut, tuple(lost), tuple(notes))


def _searched(
    stac: StacSource | list[Any], request: Request, access: Access
) -> tuple[Iterator[Any], list[str]]:
    if isinstance(stac, StacSource):
        return find(stac, request.search, access.reach)
    return iter(stac), []


def access_of(source: StacSource | None, hosts: Sequence[str] = ()) -> Access:
    """Return how the files of a source are opened; None stands for a list of items."""
    if source is None:
        return Access(reach_of("", hosts))
    reach = reach_of("" if source.local else source.url, (*source.hosts, *hosts))
    return Access(reach, source.sign, dict(source.headers), host_of(source.url))


def _check_bands(scenes: Sequence[Scene], request: Request) -> None:
    """Refuse a band that no item has: its variable would be empty."""
    if not scenes:
        return
    for band in request.bands:
        if all(band in s.absent for s in scenes):
            raise SourceError(_no_band(band, scenes))
    if request.clouds.needs_scl and all(SCL in s.absent for s in scenes):
        raise SourceError(
            f"none of {len(scenes)} items has a scene classification ({SCL}); they have "
            f"{list(scenes[0].offered[:20])}: pass mask=None, or a function as mask="
        )


def _no_band(band: str, scenes: Sequence[Scene]) -> str:
    offered = sorted({name for s in scenes for name in s.offered})
    twins = {**BANDS, **{v: k for k, v in BANDS.items()}}
    by_lower = {n.lower(): n for name in offered for n in (name, twins.get(name, name))}
    near = difflib.get_close_matches(band.lower(), by_lower, n=1, cutoff=0.5)
    meant = f"; did you mean '{by_lower[near[0]]}'?" if near else ""
    return (
        f"band '{scrub(band)}': none of {len(scenes)} items has it; they have {offered[:30]}{meant}"
    )


def _need_libraries() -> None:
    try:
        import odc.stac  # noqa: F401
        import pystac_client  # noqa: F401
    except ImportError as error:
        raise SourceError(f"Sentinel-2 needs {error.name}; pip install 'geomiam[stac]'") from error


def _scenes(
    raw: Iterator[Any],
    request: Request,
    *,
    source: StacSource | None,
    reach: Reach,
    notes: list[str],
) -> tuple[list[Scene], list[str]]:
    """Return the scenes that were searched for; and lines on items that cannot be used."""
    items, lost, seen = {}, [], 0
    for one in raw:
        try:
            if isinstance(one, Unread):
                raise SourceError(str(one))
            item, origin = plain(one)
        except SourceError as error:
            lost.append(str(error))
            continue
        seen += 1
        if holds(item, request.search, source.query if source else {}):
            items[item.collection_id, item.id] = (item, origin)
    latest = unique(i for i, _ in items.values())
    if more := seen - len(latest):
        notes.append(
            f"{more} of {seen} items of the catalogue are double or not what was asked for"
        )
    if count := sum(level_1(i.properties) for i in latest):
        notes.append(f"{count} of {len(latest)} items are of Level-1C: not corrected for the air")
    origins = {key: origin for key, (_, origin) in items.items()}
    scenes = []
    for i in latest:
        origin = origins[i.collection_id, i.id]
        try:
            scenes.append(scene(i, request.wanted, source=source, reach=reach, origin=origin))
        except Exception as error:  # one odd item must not end the map
            lost.append(f"{i.id}: cannot be used: {type(error).__name__}: {scrub(error)[:200]}")
    return scenes, lost


def _place(scenes: Sequence[Scene], *, access: Access, lost: list[str]) -> Iterator[Placed]:
    """Yield scenes with their grids; a scene without any is reported, as it is nowhere."""
    for one in scenes:
        try:
            placed = place(one, lambda href: header(href, access))
        except Exception as error:  # whatever a file's driver raises
            lost.append(f"{one.id}: its grid is not known: {scrub(error)[:300]}")
            continue
        if placed is None:
            lost.append(f"{one.id}: no asset can be read: {_first(one)}")
        else:
            yield placed


def _first(one: Scene) -> str:
    return next((f"{b}: {why}" for b, why in one.lost.items()), "")


def _lost(cut: Sequence[Window]) -> list[str]:
    scenes = [p.scene for w in cut for p in w.scenes]
    return [f"{s.id} / {s.assets.get(b, b)}: {why}" for s in scenes for b, why in s.lost.items()]


def _nothing(request: Request, source: StacSource | None, *, lost: Sequence[str]) -> str:
    s = request.search
    where = (
        f"{scrub(source.url)}, collection {source.collection or 'first known'}"
        if source
        else ("the items given")
    )
    cloud = "" if s.max_cloud is None else f", at most {s.max_cloud:g} % cloud"
    box = ", ".join(f"{v:.4f}" for v in s.bbox)
    told = "".join(f"\n{line}" for line in lost[:10])
    return (
        f"no scene that meets the grid: searched {where}, from {s.start} to {s.end}, in lon/lat "
        f"({box}){cloud}; widen time= or max_cloud=, or check the collection{told}"
    )


def _table(cut: Sequence[Window], request: Request) -> pd.DataFrame:
    return pd.DataFrame([_row(w, p, request) for w in cut for p in w.scenes])


def _row(window: Window, placed: Placed, request: Request) -> dict[str, Any]:
    one = placed.scene
    rules = [r for b, r in one.rules.items() if b not in one.lost]
    offsets = {r.offset for r in rules}
    return {
        "id": one.id,
        "collection": one.item.collection_id or "",
        "time": one.time,
        "day": window.day,
        "cloud_cover": one.cloud_cover,
        "clear": clear_share(one.item.properties, request.clouds),
        "baseline": one.baseline,
        "offset": offsets.pop() if len(offsets) == 1 else np.nan,
        "rule": "; ".join(sorted({r.why or r.doubt for r in one.rules.values()})),
        "bytes": _bytes(window, placed),
        "lost": ", ".join(one.lost),
    }


def _bytes(window: Window, placed: Placed) -> int:
    """Pixels of the scene under the grid, for each asset on its own resolution."""
    shared = window.box.extent.intersection(placed.box.extent)
    area = 0.0 if shared.is_empty else shared.area
    keys = [k for b, k in placed.scene.assets.items() if b not in placed.scene.lost]
    finest = abs(placed.box.resolution.x)
    stated = [number(placed.scene.item.assets[k].extra_fields.get("gsd")) for k in keys]
    sizes = [s if s >= finest else finest for s in stated]  # NaN and nonsense count as the finest
    return int(sum(area / s**2 for s in sizes) * BYTES)


def request(
    grid: GeoBox, time: Any, bands: Any, *, clouds: Clouds, max_cloud: float | None
) -> Request:
    """Check what is asked for.

    Raises
    ------
    SourceError
        Without bands, or with one twice, or with a percentage that is none.
    """
    names = (bands,) if isinstance(bands, str) else tuple(map(str, bands))
    if not names or len(set(names)) < len(names) or SCL in names:
        raise SourceError(
            f"bands={list(names)}: name each band once, such as ['red', 'nir'] or ['B04', 'B08']; "
            "the scene classification is no reflectance"
        )
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise SourceError(f"max_cloud={max_cloud}: a percentage from 0 to 100")
    search = Search(of_grid(grid), *period(time), max_cloud)
    return Request(grid, search, names, clouds)
