"""A cloudy series of NDVI as sites: how dates are lost, and how gaps are filled.

The parts of ``geomiam-bench cloud-gaps``. Functions of sites keep everything but ``ndvi``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.splits import site_blocks, spatial_folds

FOLDS, BLOCK = 4, "200 m"
"""Folds of spatial blocks, and the side of the blocks: 20 pixels."""
TESTS = {fold: [f for f in range(FOLDS) if f != fold] for fold in (2, 3)}
TUNING = {0: [1], 1: [0]}
"""Fold that is scored → folds that train. Settings were chosen by ``--tune``, which sees no test fold."""
PIXELS = 100
"""Classes with fewer are left out."""
PER_CLASS = 750
"""Sites of a class at most, drawn at random."""
Change = Callable[..., xr.Dataset]
"""Sites, and for a loss ``share=`` and ``rng=`` → sites with another series."""


# Data -------------------------------------------------------------------------------------------


def read_cube(folder: Path) -> xr.Dataset:
    """Read the cube; NaN where a cloud or nothing was seen."""
    cube = xr.open_zarr(folder, consolidated=False).load()
    clear = (cube["cloud"] == 0) & (cube["has_data"] == 1)
    return cube.assign(ndvi=cube["ndvi"].where(clear))


def make_sites(cube: xr.Dataset, *, per_class: int = PER_CLASS, rng: int = 0) -> xr.Dataset:
    """Draw pixels as sites; ``row`` and ``column`` say where clouds find them."""
    cover = cube["land_cover"].values
    codes, counts = np.unique(cover[cover > 0], return_counts=True)
    class_codes, draws = codes[counts >= PIXELS], np.random.default_rng(rng)
    pixels = [np.flatnonzero(cover == code) for code in class_codes]
    pixel_rows = np.sort(np.concatenate([draws.permutation(p)[:per_class] for p in pixels]))
    row, column = (
        xr.DataArray(at, dims="site") for at in np.unravel_index(pixel_rows, cover.shape)
    )
    sites = cube[["ndvi", "elevation"]].isel(y=row, x=column).transpose("site", "time")
    return sites.assign(
        presence=(
            ("site", "species"),
            (cover.flat[pixel_rows][:, None] == class_codes).astype(np.float32),
        )
    ).assign_coords(species=[f"class {code}" for code in class_codes], row=row, column=column)


def fold_of(sites: xr.Dataset) -> np.ndarray:
    """Deal the sites into folds of spatial blocks, always the same ``(site,)``."""
    blocks = site_blocks(sites, BLOCK).number
    draws = np.random.default_rng(0)
    return spatial_folds(sites["presence"].values, blocks, folds=FOLDS, rng=draws)


def losses(cube: xr.Dataset) -> dict[str, Change]:
    """Return the ways to lose dates, by name."""
    clouds = partial(lose_to_clouds, masks=cloud_masks(cube))
    return {"whole dates": lose_dates, "clouds": clouds}


def cloud_masks(cube: xr.Dataset) -> np.ndarray:
    """Return the masks of dates that were cloudy in part ``(k, y, x)``."""
    masks = cube["cloud"].values == 1
    share = masks.mean((1, 2))
    return masks[(share > 0.05) & (share < 0.95)]


# Gaps -------------------------------------------------------------------------------------------


def lose_dates(sites: xr.Dataset, *, share: float, rng: np.random.Generator) -> xr.Dataset:
    """Lose a share of the dates on which anything was seen, for all sites."""
    observed_dates = np.flatnonzero(sites["ndvi"].notnull().any("site"))
    lost_dates = rng.permutation(observed_dates)[: round(share * len(observed_dates))]
    keep = ~np.isin(np.arange(sites.sizes["time"]), lost_dates)
    return sites.assign(ndvi=sites["ndvi"].where(xr.DataArray(keep, dims="time")))


def lose_to_clouds(
    sites: xr.Dataset, masks: np.ndarray, *, share: float, rng: np.random.Generator
) -> xr.Dataset:
    """Lay real cloud masks, shifted and flipped, over clear dates until a share of what was seen is lost."""
    ndvi = sites["ndvi"].transpose("site", "time").values.copy()
    remaining = round(share * np.isfinite(ndvi).sum())
    at = sites["row"].values, sites["column"].values
    while remaining > 0:
        date = rng.choice(np.flatnonzero(np.isfinite(ndvi).any(0)))
        hit = np.flatnonzero(_moved(masks[rng.integers(len(masks))], rng)[at])
        hit = hit[np.isfinite(ndvi[hit, date])][
            :remaining
        ]  # the last cloud ends where the share is met
        ndvi[hit, date] = np.nan
        remaining -= len(hit)
    return sites.assign(ndvi=(("site", "time"), ndvi))


def _moved(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flipped_mask = mask[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
    return np.roll(flipped_mask, rng.integers(mask.shape), axis=(0, 1))


# Fillings ---------------------------------------------------------------------------------------


def as_it_is(sites: xr.Dataset) -> xr.Dataset:
    """Keep the gaps."""
    return sites


def linear(sites: xr.Dataset) -> xr.Dataset:
    """Interpolate each site in time; before its first and after its last clear date, the nearest."""
    series = sites["ndvi"].transpose("time", "site").to_pandas()
    filled_series = series.interpolate("time", limit_direction="both")
    return sites.assign(ndvi=(("site", "time"), filled_series.to_numpy().T))


def monthly(sites: xr.Dataset) -> xr.Dataset:
    """Median of the clear dates of each month; months with none are NaN."""
    months = sites["ndvi"].resample(time="1MS").median()
    return sites.drop_vars(["ndvi", "time"]).assign(ndvi=months.transpose("site", "time"))
