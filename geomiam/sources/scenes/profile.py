"""Profiles of collections of scenes: bands, mask, and which scenes are one step in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.stac.stac_source import StacSource


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band, of which the value is DN * scale + offset where DN > 0; other DN are no data."""

    scale: float
    offset: float
    units: str = "1"
    long_name: str = "surface reflectance"
    aliases: tuple[str, ...] = ()  # other names of the band and of its asset


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """The asset by which pixels are hidden: its codes are classes, or numbers of bits."""

    asset: str
    title: str
    codes: Sequence[int]  # that a user may name
    bits: bool = False
    hidden: tuple[int, ...] = ()  # codes that are hidden by default
    snow: tuple[int, ...] = ()  # codes that are hidden with snow="mask"
    nodata: tuple[int, ...] = ()  # codes of pixels without data, which do not grow
    aliases: tuple[str, ...] = ()  # other names of the asset
    shares: Mapping[int, str] = field(
        default_factory=dict
    )  # property with the percentage of a code

    def matches(self, values: np.ndarray, codes: Sequence[int]) -> np.ndarray:
        """Return where the asset has one of the codes; NaN has none."""
        if not self.bits:
            return np.isin(values, codes)
        flags = np.nan_to_num(values).astype("uint16")
        matches: np.ndarray = flags & sum(1 << c for c in codes) != 0
        return matches

    def missing(self, values: np.ndarray) -> np.ndarray:
        """Return where the asset has no data."""
        missing: np.ndarray = np.isnan(values) | self.matches(values, self.nodata)
        return missing


@dataclass(frozen=True, kw_only=True, eq=False)
class CollectionProfile:
    """A collection of scenes.

    ``labels`` are properties of items by column of the plan. Scenes of one day with different values of
    the label ``split`` are separate steps in time.
    """

    title: str
    modality: str
    bands: Mapping[str, Band]
    mask: MaskRule
    presets: Mapping[str, StacSource]
    collections: tuple[str, ...]  # to choose from a STAC catalog with several, the best first
    first: pd.Timestamp  # start of a period without a start
    bytes: int = 2  # of a pixel in the files, before compression
    by_baseline: bool = False  # items decide on scale and offset, as those of Sentinel-2 do
    one_grid: bool = False  # proj:transform and proj:shape of the item are those of all assets
    coords: tuple[str, ...] = ("cloud_cover",)  # columns of the plan that become coordinates
    labels: Mapping[str, str] = field(default_factory=dict)
    split: str = ""

    def names(self, name: str) -> frozenset[str]:
        """Return all names of a band or of the mask, none if the collection has no such band."""
        pairs = [*((b, band.aliases) for b, band in self.bands.items())]
        pairs.append((self.mask.asset, self.mask.aliases))
        groups = (frozenset((key, *aliases)) for key, aliases in pairs)
        lower = name.lower()
        return next((g for g in groups if lower in map(str.lower, g)), frozenset())

    def band(self, name: str) -> Band:
        """Return a band by any of its names.

        A collection that states the conversion of each asset may have further bands; others may not.
        """
        names = self.names(name)
        matches = [band for key, band in self.bands.items() if key in names]
        if not matches and not self.by_baseline:
            raise SourceError(
                f"'{name}' is not a band of {self.title}; its bands are {list(self.bands)}"
            )
        return matches[0] if matches else next(iter(self.bands.values()))

    def twins(self) -> dict[str, str]:
        """Return another name for each name of a band."""
        pairs = {b: band.aliases[0] for b, band in self.bands.items() if band.aliases}
        if self.mask.aliases:
            pairs[self.mask.asset] = self.mask.aliases[0]
        return {**pairs, **{second: first for first, second in pairs.items()}}
