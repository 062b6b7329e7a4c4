"""Spatial blocks of sites: their size, from the data unless it is set, and the checks on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.errors import BlockError, LargerBlocks, SmallerBlocks, warn
from geomiam.geo.lengths import Length, as_text, block_side
from geomiam.geo.places import Places
from geomiam.splits.blocks import hold_out, site_labels
from geomiam.splits.reading import places_of, sampled_predictors
from geomiam.splits.variogram import autocorrelation_ranges

PLACES_PER_BLOCK = 3
"""Places per block on average, at least, if the size follows from the data."""
BLOCKS = 20
"""Blocks at least, if the size follows from the data and the places allow it."""
FEWEST = 10
"""Blocks of an area that is smaller than one block of the requested size."""
NEARLY_SINGLE = 0.8
"""Blocks per place from which blocks count as single places."""
CHECKED = 10
"""Smallest number of places for which blocks are compared with single places."""
STEP = 2**0.25
"""Factor between sizes that are tried."""
Sample = tuple[np.ndarray, np.ndarray]
"""Rows of some sites and their predictors."""


@dataclass(frozen=True)
class Blocks:
    """Spatial blocks of sites.

    Examples
    --------
    >>> gm.splits.site_blocks(sites, "100 km").km
    100.0
    """

    number: np.ndarray
    """Block of each site ``(n,)``."""
    km: float
    """Side of a block."""
    reason: str
    """Reason for the size."""
    crs: str
    """CRS of the coordinates."""

    @property
    def count(self) -> int:
        """Number of blocks with sites."""
        return int(self.number.max()) + 1

    def about(self) -> dict[str, Any]:
        """Return size, number, reason and CRS as plain types."""
        return {"km": self.km, "blocks": self.count, "reason": self.reason, "crs": self.crs}

    def __str__(self) -> str:
        return f"{self.count} blocks of {as_text(self.km)} ({self.reason}; {self.crs})"


def site_blocks(
    sites: xr.Dataset | Any,
    size: Length | None = None,
    *,
    groups: Any = None,
    crs: Any = None,
    min_blocks: int = 2,
) -> Blocks:
    """Return the square spatial blocks of sites.

    Parameters
    ----------
    sites : xarray.Dataset or (n, 2) array_like
        Sites with coordinates, or the coordinates.
    size : float or str, optional
        Side of a block: km, or text such as ``"100 km"``. Default: the median range of spatial
        autocorrelation of the predictors at the sites, as far as that leaves at least 20 blocks and
        three places per block.
    groups : (n, 2) array_like, optional
        The coordinates, when ``sites`` is a table of predictors.
    crs : any, optional
        CRS of coordinates given as an array; sites carry theirs.
    least : int
        Number of blocks that are needed.

    Returns
    -------
    Blocks
        Numbers of the blocks, their side in km and the reason for it.

    Raises
    ------
    GridError
        If there are no coordinates, some are not finite, or they have no CRS and are no degrees.
    BlockError
        If there are fewer places than blocks needed.
    LengthError
        If the size is no length.

    Warns
    -----
    SmallerBlocks
        If the area has fewer blocks of that size than needed: smaller ones are used.
    LargerBlocks
        If blocks of that size are nearly single places, which would hold out at random: the default
        size is used.

    Examples
    --------
    >>> blocks = gm.splits.site_blocks(sites, "100 km")
    >>> blocks.number.shape == (sites.sizes["site"],)
    True
    """
    places = places_of(sites, groups, crs)
    distinct = places.distinct()
    if len(distinct) < min_blocks:
        raise BlockError(
            f"all {len(places)} sites lie at {len(distinct)} place(s), which cannot be dealt into {min_blocks} "
            "spatial blocks: add sites elsewhere, use fewer folds, or pass gm.fit(..., validation=<boolean per site>)"
        )
    sample = sampled_predictors(sites, groups)
    if size is None:
        km, reason = default_size(places, distinct, sample)
    else:
        km, reason = _size_as_set(places, distinct, sample, size=size, min_blocks=min_blocks)
    return Blocks(
        np.unique(places.squares(km), axis=0, return_inverse=True)[1].ravel(),
        km,
        reason,
        places.crs,
    )


def default_size(places: Places, distinct: Places, sample: Sample) -> tuple[float, str]:
    """Return the side of blocks that suits the data, in km, and the reason."""
    rows, table = sample
    ranges = autocorrelation_ranges(places.take(rows), table)
    max_blocks = max(2, len(distinct) // PLACES_PER_BLOCK)
    min_blocks = min(BLOCKS, max_blocks)
    if len(ranges):
        reach = float(np.median(ranges))
        reason = f"median range of spatial autocorrelation of {len(ranges)} predictors: {as_text(_rounded(reach))}"
    else:
        reach, reason = float(distinct.span().max()), "no predictors with one number per site"
    widest = float(distinct.span().max())
    km = _rounded(max(reach, widest / 1e4))
    while _count(distinct, km) < min_blocks:
        km = _rounded(km / STEP)
    while _count(distinct, km) > max_blocks and km < widest:
        km = _rounded(km * STEP)
    if km < 0.9 * reach:
        reason += f"; reduced to have at least {min_blocks} blocks"
    elif km > 1.1 * reach:
        reason += f"; enlarged to hold at least {PLACES_PER_BLOCK} places per block"
    return km, reason


def _size_as_set(
    places: Places, distinct: Places, sample: Sample, *, size: Length, min_blocks: int
) -> tuple[float, str]:
    """Return the requested size, or another with a warning where it gives no spatial blocks."""
    km = block_side(size)
    count = _count(distinct, km)
    if len(distinct) >= CHECKED and count > NEARLY_SINGLE * len(distinct):
        default_km, reason = default_size(places, distinct, sample)
        warn(
            f"{count} blocks of {as_text(km)} for {len(distinct)} places are nearly single places: neighbours of "
            f"the test sites would train, as in a random split. Blocks of {as_text(default_km)} are used ({reason}); "
            "pass a larger size, in km or with its unit, or none for one that follows from the data",
            LargerBlocks,
        )
        return default_km, f"{reason}; {as_text(km)} as set would be nearly single places"
    if count >= min_blocks:
        return km, "as set"
    smaller, enough = km, max(min_blocks, min(FEWEST, len(distinct) // PLACES_PER_BLOCK))
    while _count(distinct, smaller) < enough:
        smaller = _rounded(smaller / STEP)
    warn(
        f"the sites lie in {count} block(s) of {as_text(km)}, and {min_blocks} are needed: blocks of "
        f"{as_text(smaller)} are used; pass a smaller size, or none for one that follows from the data",
        SmallerBlocks,
    )
    return smaller, f"{as_text(km)} as set; reduced, since the area has {count} such block(s)"


def _count(places: Places, km: float) -> int:
    return len(np.unique(places.squares(km), axis=0))


def _rounded(km: float) -> float:
    """Return a length with two significant digits, rounded down."""
    if km <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(km)) - 1)
    return float(f"{np.floor(km / unit) * unit:.2g}")


def hold_out_blocks(
    sites: xr.Dataset,
    *,
    share: float = 0.15,
    block: Length | None = None,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Draw the validation sites of :func:`geomiam.fit`: whole spatial blocks, as a mask.

    ``gm.fit(sites, training={"validation": hold_out_blocks(sites, rng=0)})`` keeps a hold-out fixed between
    trainings; ``sites.isel(site=~mask)`` and ``sites.isel(site=mask)`` make a test set.

    Parameters
    ----------
    sites : xarray.Dataset
        With coordinates ``x`` and ``y`` (or ``lon``, ``lat``). With ``presence(site, species)``, of which
        every species then gets about ``share`` of its presences held out, or without.
    share : float
        Share of the sites to hold out, in (0, 1).
    block : float or str, optional
        Side of a block: km, or text such as ``"100 km"``. Default: from the data, as
        :func:`geomiam.splits.site_blocks`, which also reports it.
    rng : int, numpy.random.Generator or None
        With the seed, share and block of a fit, the mask that it draws (its first member, if it has
        several).

    Returns
    -------
    numpy.ndarray
        Boolean ``(site,)``: True = held out.

    Raises
    ------
    GridError
        If the sites have no coordinates.
    BlockError
        If all sites lie at one place.
    ValueError
        If the share is not in (0, 1), or the block is no length.

    See Also
    --------
    geomiam.splits.hold_out : from blocks that exist.

    Examples
    --------
    >>> is_test = gm.splits.hold_out_blocks(sites, share=0.3, block="50 km", rng=0)
    >>> train, test = sites.isel(site=~is_test), sites.isel(site=is_test)
    >>> train.sizes["site"] + test.sizes["site"] == sites.sizes["site"]
    True
    """
    check_number(
        "share",
        share,
        requirement="must be in (0, 1)",
        accepts=lambda x: 0 < x < 1,
        hint="the default of fit is share=0.15",
    )
    blocks = site_blocks(sites, block)
    draws = np.random.default_rng(rng)
    return hold_out(site_labels(sites), blocks.number, share=share, rng=draws)
