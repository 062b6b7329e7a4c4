"""The plan of a call: scenes, offsets, bytes and clear shares, from metadata only."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from geomiam.errors import NoScenes, SourceError
from geomiam.outputs.text import table_html
from geomiam.progress import progress_bar
from geomiam.sources.scenes.profile import CollectionProfile
from geomiam.sources.scenes.scene import (
    Scene,
    SceneRequest,
    check_query,
    read_items,
)
from geomiam.sources.scenes.windows import PlacedScene, Window, windows
from geomiam.sources.stac.search import Search, search_items
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web.allow_list import allow_list_of, host_of, scrub
from geomiam.sources.web.ranges import Access


@dataclass(frozen=True)
class Plan:
    """Scenes that a call would read.

    Attributes
    ----------
    scenes
        A row for each scene, with columns id, collection, time, day, cloud_cover, clear (share, from
        metadata), baseline, offset, rule, bytes (not compressed), lost (bands that cannot be read), and
        those of the collection, such as platform and orbit.
    windows
        The scenes by day and lattice, with their places on the grid.
    lost
        Lines on scenes and bands that cannot be read, from metadata.
    notes
        Notes on the search.
    mask_offered
        Whether a scene has the asset of the mask.
    offsets_by_item
        Whether items decide on the offset, as those of Sentinel-2 do.
    """

    scenes: pd.DataFrame
    windows: tuple[Window, ...] = field(repr=False)
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mask_offered: bool = True
    offsets_by_item: bool = True

    @property
    def dates(self) -> list[str]:
        """Solar days, in order."""
        return sorted(set(self.scenes["day"]))

    @property
    def steps(self) -> list[tuple[Window, ...]]:
        """Windows by step in time: a solar day or, for some collections, the scenes of a day with one orbit."""
        groups = itertools.groupby(self.windows, key=lambda w: (w.day, w.part))
        return [tuple(group) for _, group in groups]

    @property
    def bytes(self) -> int:
        """Bytes of the pixels under the grid, before compression."""
        return int(self.scenes["bytes"].sum())

    def __repr__(self) -> str:
        shares = self.scenes["clear"].dropna()
        clear = f"{shares.mean():.0%} clear by metadata" if len(shares) else "clear share unknown"
        head = (
            f"{len(self.scenes)} scenes on {len(self.dates)} dates "
            f"({self.dates[0]} to {self.dates[-1]}), {clear}, "
            f"{self.bytes / 1e6:,.1f} MB before compression"
        )
        if self.offsets_by_item:
            counts = self.scenes.groupby("offset", dropna=False).size()
            head += f"; offsets: {', '.join(f'{n} × {o:g}' for o, n in counts.items())}"
        return "\n".join([head, *self.notes, *self.lost])

    def _repr_html_(self) -> str:
        by_item = ["baseline", "offset"] if self.offsets_by_item else []
        table = self.scenes[["id", "day", "cloud_cover", "clear", *by_item]]
        return table_html(repr(self), list(table.columns), table.itertuples(index=False))


def access_of(source: StacSource | Iterable[Any], hosts: Sequence[str] = ()) -> Access:
    """Return the settings for opening files of a source, or of items."""
    if not isinstance(source, StacSource):
        return Access(allow_list_of("", hosts))
    allow_list = allow_list_of("" if source.local else source.url, (*source.hosts, *hosts))
    return Access(allow_list, source.sign, dict(source.headers), host_of(source.url))


def make_plan(request: SceneRequest, stac: StacSource | Iterable[Any], access: Access) -> Plan:
    """Search, and return the scenes that would be read."""
    try:
        import odc.stac  # noqa: F401
        import pystac_client  # noqa: F401
    except ImportError as error:
        title = request.profile.title
        raise SourceError(f"{title} needs {error.name}; pip install 'geomiam[stac]'") from error
    source = stac if isinstance(stac, StacSource) else None
    items: Any = stac
    notes: list[str] = []
    if source:
        source = replace(source, query={**source.query, **request.query})
        check_query(source.query)
        items = search_items(source, request.search, access.allow_list, notes)
    scenes, unusable, more_notes = read_items(
        progress_bar(items, desc="scenes", unit="item", leave=False),
        request,
        source=source,
        access=access,
    )
    notes += more_notes
    _check_bands(scenes, request)
    mask = request.profile.mask.asset
    mask_offered = not all(mask in s.absent for s in scenes)
    if not mask_offered:  # a function as mask= uses the bands alone
        scenes = [replace(s, lost={b: t for b, t in s.lost.items() if b != mask}) for s in scenes]
    without_grid = [_gridless(s) for s in scenes if s.box is None]
    split, overview = request.profile.split, request.overview
    by_day = windows(scenes, request.grid, split=split, overview=overview)
    if not by_day:
        lines = [*notes, *unusable, *without_grid]
        raise NoScenes(_no_scenes(request.search, source, lines[:10]))
    placed_scenes = [p for w in by_day for p in w.scenes]
    notes += _overview_notes(placed_scenes)
    lost_bands = [
        f"{p.scene.id} / {p.scene.key(b)}: {text}"
        for p in placed_scenes
        for b, text in p.scene.lost.items()
    ]
    profile = request.profile
    table = pd.DataFrame([_row(w.day, p, profile) for w in by_day for p in w.scenes])
    lost_lines = (*unusable, *without_grid, *lost_bands)
    return Plan(
        table,
        tuple(by_day),
        lost_lines,
        tuple(notes),
        mask_offered,
        offsets_by_item=profile.by_baseline,
    )


def _gridless(scene: Scene) -> str:
    """Return the line of a scene without a grid."""
    if scene.files:
        return f"{scene.id}: its grid cannot be determined: {scene.gridless}"
    reason = next((f"{b}: {text}" for b, text in scene.lost.items()), "")
    return f"{scene.id}: no asset can be read: {reason}"


def _check_bands(scenes: Sequence[Scene], request: SceneRequest) -> None:
    """Refuse a band that no item has, since its variable would be NaN everywhere."""
    if not scenes:
        return
    for band in request.bands:
        if all(band in s.absent for s in scenes):
            asset_keys = sorted({name for s in scenes for name in s.offered})
            twins = request.profile.twins()
            by_lower = {n.lower(): n for name in asset_keys for n in (name, twins.get(name, name))}
            near = difflib.get_close_matches(band.lower(), by_lower, n=1, cutoff=0.5)
            hint = f"; did you mean '{by_lower[near[0]]}'?" if near else ""
            raise SourceError(
                f"band '{scrub(band)}': none of {len(scenes)} items has it; they have {asset_keys[:30]}{hint}"
            )
    mask = request.profile.mask
    if request.clouds.codes and all(mask.asset in s.absent for s in scenes):
        raise SourceError(
            f"none of {len(scenes)} items has {mask.title} ({mask.asset}); they have "
            f"{list(scenes[0].offered[:20])}: pass mask=None, or a function as mask="
        )


def _no_scenes(search: Search, source: StacSource | None, lines: Sequence[str]) -> str:
    place = "the items given"
    if source:
        place = f"{scrub(source.url)}, collection {source.collection or 'of this product'}"
    cloud, settings = "", "time="
    if search.max_cloud is not None:
        cloud, settings = f", at most {search.max_cloud:g} % cloud", "time= or max_cloud="
    box = ", ".join(f"{v:.4f}" for v in search.bbox)
    details = "".join(f"\n{line}" for line in lines)
    return (
        f"no scene overlaps the grid: searched {place}, from {search.start} to {search.end}, in lon/lat "
        f"({box}){cloud}; widen {settings}, or check the collection{details}"
    )


def _overview_notes(placed_scenes: Sequence[PlacedScene]) -> list[str]:
    """Return a note for each size of the pixels of overviews."""
    counts = Counter(p.place.overview for p in placed_scenes)
    return [
        f"bands of {count} of {len(placed_scenes)} scenes are read from overviews of {step} × {step} pixels"
        for step, count in sorted(counts.items())
        if step > 1
    ]


def _row(day: str, placed_scene: PlacedScene, profile: CollectionProfile) -> dict[str, Any]:
    scene = placed_scene.scene
    offsets = {r.offset for b, r in scene.rules.items() if b not in scene.lost}
    return {
        "id": scene.id,
        "collection": scene.collection,
        "time": scene.time,
        "day": day,
        "cloud_cover": scene.cloud_cover,
        "clear": scene.clear,
        "baseline": scene.baseline,
        "offset": offsets.pop() if len(offsets) == 1 else np.nan,
        "rule": "; ".join(sorted({r.reason or r.doubt for r in scene.rules.values()})),
        "bytes": int(_pixels(placed_scene, profile.mask.asset) * profile.bytes),
        "lost": ", ".join(scene.lost),
        **scene.labels,
    }


def _pixels(placed_scene: PlacedScene, mask: str) -> float:
    """Return the pixels of a scene under the grid, each file in its resolution, bands in that of overviews."""
    scene, place = placed_scene.scene, placed_scene.place
    coarsest = abs(place.box.resolution.x)
    finest = coarsest / place.overview
    pixel_sizes = {b: f.size for b, f in scene.files.items() if b not in scene.lost}
    # NaN and implausible values count as the finest
    sizes = {b: s if s >= finest else finest for b, s in pixel_sizes.items()}
    return sum(place.area / (s if b == mask else max(s, coarsest)) ** 2 for b, s in sizes.items())
