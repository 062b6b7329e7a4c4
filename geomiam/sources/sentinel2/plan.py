"""The plan of a call: scenes, offsets, bytes and clear shares, from metadata only."""

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
from geomiam.sources.sentinel2.asset_reader import grid_of_file
from geomiam.sources.sentinel2.clouds import CloudMask, clear_share
from geomiam.sources.sentinel2.windows import GriddedScene, Window, windows, with_grid
from geomiam.sources.stac.extent import extent_of_grid
from geomiam.sources.stac.item_checks import checked_item, is_level_1, number
from geomiam.sources.stac.scene import (
    BANDS,
    SCL,
    Scene,
    check_query,
    matches,
    scene_of,
    without_duplicates,
)
from geomiam.sources.stac.search import search_items
from geomiam.sources.stac.stac_source import Search, StacSource, as_source
from geomiam.sources.stac.times import period
from geomiam.sources.stac.tree import Unread
from geomiam.sources.web.allow_list import AllowList, allow_list_of, host_of
from geomiam.sources.web.ranges import Access
from geomiam.sources.web.scrub import scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

BYTES = 2
"""Bytes of a pixel in Sentinel-2's files, before compression."""


@dataclass(frozen=True)
class SceneRequest:
    """Checked arguments of a call."""

    grid: GeoBox
    search: Search
    bands: tuple[str, ...]
    clouds: CloudMask

    @property
    def wanted(self) -> tuple[str, ...]:
        """The bands, and SCL if it is used."""
        scl = self.clouds.needs_scl or self.clouds.function is not None
        return (*self.bands, SCL) if scl else self.bands


@dataclass(frozen=True)
class Plan:
    """Scenes that a call would read.

    Attributes
    ----------
    scenes
        A row for each scene, with columns id, collection, time, day, cloud_cover, clear (share, from
        metadata), baseline, offset, rule, bytes (not compressed), lost (bands that cannot be read).
    windows
        The scenes by day and lattice, with the pixels under the grid.
    lost
        Lines on scenes and bands that cannot be read, from metadata.
    notes
        Notes on the search.
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
        shares = self.scenes["clear"].dropna()
        clear = f"{shares.mean():.0%} clear by metadata" if len(shares) else "clear share unknown"
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


def make_plan(request: SceneRequest, source: Any, *, hosts: Sequence[str] = ()) -> Plan:
    """Search, and return the scenes that would be read.

    Raises
    ------
    NoScenes
        If there are no scenes; the message has the conditions of the search.
    SourceError
        If the STAC catalog cannot be searched, or no item has a band.
    """
    _need_libraries()
    stac = as_source(source)
    source = stac if isinstance(stac, StacSource) else None
    check_query(source.query if source else {})
    access = access_of(source, hosts)
    items, notes = _searched(stac, request, access)
    raw = progress_bar(items, desc="scenes", unit="item", leave=False)
    scenes, unusable = _scenes(
        raw, request, source=source, allow_list=access.allow_list, notes=notes
    )
    _check_bands(scenes, request)
    scenes_on_grid = list(_with_grids(scenes, access=access, unusable=unusable))
    cut = tuple(windows(scenes_on_grid, request.grid))
    if not cut:
        raise NoScenes(_no_scenes(request, source, lines=[*notes, *unusable]))
    unusable += _unreadable_bands(cut)
    return Plan(_table(cut, request), cut, tuple(unusable), tuple(notes))


def _searched(
    stac: StacSource | list[Any], request: SceneRequest, access: Access
) -> tuple[Iterator[Any], list[str]]:
    if isinstance(stac, StacSource):
        return search_items(stac, request.search, access.allow_list)
    return iter(stac), []


def access_of(source: StacSource | None, hosts: Sequence[str] = ()) -> Access:
    """Return the settings for opening files of a source; None stands for a list of items."""
    if source is None:
        return Access(allow_list_of("", hosts))
    allow_list = allow_list_of("" if source.local else source.url, (*source.hosts, *hosts))
    return Access(allow_list, source.sign, dict(source.headers), host_of(source.url))


def _check_bands(scenes: Sequence[Scene], request: SceneRequest) -> None:
    """Refuse a band that no item has, since its variable would be NaN everywhere."""
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
    asset_keys = sorted({name for s in scenes for name in s.offered})
    twins = {**BANDS, **{v: k for k, v in BANDS.items()}}
    by_lower = {n.lower(): n for name in asset_keys for n in (name, twins.get(name, name))}
    near = difflib.get_close_matches(band.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean '{by_lower[near[0]]}'?" if near else ""
    return f"band '{scrub(band)}': none of {len(scenes)} items has it; they have {asset_keys[:30]}{hint}"


def _need_libraries() -> None:
    try:
        import odc.stac  # noqa: F401
        import pystac_client  # noqa: F401
    except ImportError as error:
        raise SourceError(f"Sentinel-2 needs {error.name}; pip install 'geomiam[stac]'") from error


def _scenes(
    raw: Iterator[Any],
    request: SceneRequest,
    *,
    source: StacSource | None,
    allow_list: AllowList,
    notes: list[str],
) -> tuple[list[Scene], list[str]]:
    """Return the scenes that match the request; and lines on items that cannot be used."""
    items, unusable, count = {}, [], 0
    for entry in raw:
        try:
            if isinstance(entry, Unread):
                raise SourceError(str(entry))
            item, origin = checked_item(entry)
        except SourceError as error:
            unusable.append(str(error))
            continue
        count += 1
        if matches(item, request.search, source.query if source else {}):
            items[item.collection_id, item.id] = (item, origin)
    latest = without_duplicates(i for i, _ in items.values())
    if dropped_count := count - len(latest):
        notes.append(
            f"{dropped_count} of {count} items of the STAC catalog are duplicates or do not match the request"
        )
    if level_1_count := sum(is_level_1(i.properties) for i in latest):
        notes.append(
            f"{level_1_count} of {len(latest)} items are Level-1C, without atmospheric correction"
        )
    origins = {key: origin for key, (_, origin) in items.items()}
    scenes = []
    for i in latest:
        origin = origins[i.collection_id, i.id]
        try:
            scenes.append(
                scene_of(i, request.wanted, source=source, allow_list=allow_list, origin=origin)
            )
        except Exception as error:  # one invalid item must not end the map
            unusable.append(f"{i.id}: cannot be used: {type(error).__name__}: {scrub(error)[:200]}")
    return scenes, unusable


def _with_grids(
    scenes: Sequence[Scene], *, access: Access, unusable: list[str]
) -> Iterator[GriddedScene]:
    """Yield scenes with their grids; scenes without a grid are added to ``unusable``."""
    for scene in scenes:
        try:
            grid_scene = with_grid(scene, lambda href: grid_of_file(href, access))
        except Exception as error:  # drivers raise errors of any type
            unusable.append(f"{scene.id}: its grid cannot be determined: {scrub(error)[:300]}")
            continue
        if grid_scene is None:
            reason = next((f"{b}: {text}" for b, text in scene.lost.items()), "")
            unusable.append(f"{scene.id}: no asset can be read: {reason}")
        else:
            yield grid_scene


def _unreadable_bands(cut: Sequence[Window]) -> list[str]:
    scenes = [p.scene for w in cut for p in w.scenes]
    return [f"{s.id} / {s.assets.get(b, b)}: {text}" for s in scenes for b, text in s.lost.items()]


def _no_scenes(request: SceneRequest, source: StacSource | None, *, lines: Sequence[str]) -> str:
    s = request.search
    place = (
        f"{scrub(source.url)}, collection {source.collection or 'first known'}"
        if source
        else ("the items given")
    )
    cloud = "" if s.max_cloud is None else f", at most {s.max_cloud:g} % cloud"
    box = ", ".join(f"{v:.4f}" for v in s.bbox)
    details = "".join(f"\n{line}" for line in lines[:10])
    return (
        f"no scene overlaps the grid: searched {place}, from {s.start} to {s.end}, in lon/lat "
        f"({box}){cloud}; widen time= or max_cloud=, or check the collection{details}"
    )


def _table(cut: Sequence[Window], request: SceneRequest) -> pd.DataFrame:
    return pd.DataFrame([_row(w, p, request) for w in cut for p in w.scenes])


def _row(window: Window, grid_scene: GriddedScene, request: SceneRequest) -> dict[str, Any]:
    scene = grid_scene.scene
    rules = [r for b, r in scene.rules.items() if b not in scene.lost]
    offsets = {r.offset for r in rules}
    return {
        "id": scene.id,
        "collection": scene.item.collection_id or "",
        "time": scene.time,
        "day": window.day,
        "cloud_cover": scene.cloud_cover,
        "clear": clear_share(scene.item.properties, request.clouds),
        "baseline": scene.baseline,
        "offset": offsets.pop() if len(offsets) == 1 else np.nan,
        "rule": "; ".join(sorted({r.reason or r.doubt for r in scene.rules.values()})),
        "bytes": _bytes(window, grid_scene),
        "lost": ", ".join(scene.lost),
    }


def _bytes(window: Window, grid_scene: GriddedScene) -> int:
    """Return the bytes of a scene under the grid, each asset in its resolution."""
    shared = window.box.extent.intersection(grid_scene.box.extent)
    area = 0.0 if shared.is_empty else shared.area
    keys = [k for b, k in grid_scene.scene.assets.items() if b not in grid_scene.scene.lost]
    finest = abs(grid_scene.box.resolution.x)
    pixel_sizes = [number(grid_scene.scene.item.assets[k].extra_fields.get("gsd")) for k in keys]
    sizes = [
        s if s >= finest else finest for s in pixel_sizes
    ]  # NaN and implausible values count as the finest
    return int(sum(area / s**2 for s in sizes) * BYTES)


def scene_request(
    grid: GeoBox, time: Any, bands: Any, *, clouds: CloudMask, max_cloud: float | None
) -> SceneRequest:
    """Return the checked arguments of a call.

    Raises
    ------
    SourceError
        If there are no bands, a band occurs twice, or ``max_cloud`` is not a percentage.
    """
    names = (bands,) if isinstance(bands, str) else tuple(map(str, bands))
    if not names or len(set(names)) < len(names) or SCL in names:
        raise SourceError(
            f"bands={list(names)}: name each band once, such as ['red', 'nir'] or ['B04', 'B08']; "
            "the scene classification is not a reflectance"
        )
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise SourceError(f"max_cloud={max_cloud}: a percentage from 0 to 100")
    search = Search(extent_of_grid(grid), *period(time), max_cloud)
    return SceneRequest(grid, search, names, clouds)
