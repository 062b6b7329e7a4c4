"""Square spatial blocks of sites, and their assignment to a hold-out or to folds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.errors import GridError, LabelError
from geomiam.geo.dims import spatial_pair
from geomiam.geo.lengths import Length, kilometres
from geomiam.geo.places import places
from geomiam.labels import Counts, Labels, as_table, compact_labels, label_counts, take

Seed = int | np.random.Generator | None
Splits = Iterator[tuple[np.ndarray, np.ndarray]]
DRAWS, DEALS = 25, 4
"""Random hold-outs and assignments to folds, of which the best is taken."""


def site_coordinates(sites: xr.Dataset) -> np.ndarray:
    """Return ``(site, 2)``: x and y of each site.

    Raises
    ------
    GridError
        If the sites carry no pair of coordinates, or some are NaN.

    Examples
    --------
    >>> gm.splits.site_coordinates(sites).shape == (sites.sizes["site"], 2)
    True
    """
    if pair := spatial_pair(sites.variables):
        y, x = pair
        xy = np.stack([np.asarray(sites[n].values, float) for n in (x, y)], 1)
        if missing_count := int((~np.isfinite(xy)).any(1).sum()):
            raise GridError(
                f"{missing_count} of {len(xy)} sites have NaN as '{x}' or '{y}': leave them out with "
                f"sites.where(sites['{x}'].notnull(), drop=True), or pass gm.fit(..., validation=<boolean per site>)"
            )
        return xy
    raise GridError(
        "sites have no coordinates (expected x and y, lon and lat, or longitude and latitude; found "
        f"{list(sites.coords)}): add them with "
        "sites.assign_coords(x=('site', ...), y=('site', ...)), or pass gm.fit(..., validation=<boolean per site>)"
    )


def spatial_blocks(xy: np.ndarray, *, size: Length, crs: Any = None) -> np.ndarray:
    """Return the number of each site's block, on a grid that does not depend on the data.

    Parameters
    ----------
    xy : numpy.ndarray
        ``(n, 2)``.
    size : float or str
        Side of a block: km, or text such as ``"100 km"``.
    crs : any, optional
        CRS of the coordinates. Without one, numbers that can be degrees are taken as degrees.

    Returns
    -------
    numpy.ndarray
        Integer block of each row ``(n,)``.

    Raises
    ------
    LengthError, GridError
        If the size is no length, or the coordinates have no CRS and are no degrees.

    See Also
    --------
    geomiam.splits.SpatialBlocks : folds for :func:`geomiam.cross_validate`.

    Examples
    --------
    >>> places = np.array([[5.0, 50.0], [5.1, 50.0], [9.0, 52.0]])
    >>> first, second, third = gm.splits.spatial_blocks(places, size="100 km", crs="EPSG:4326")
    >>> bool(first == second), bool(first == third)
    (True, False)
    """
    squares = places(np.asarray(xy, float), crs).squares(kilometres(size, "size"))
    return np.unique(squares, axis=0, return_inverse=True)[1].ravel()


def hold_out(
    labels: Labels, blocks: np.ndarray, *, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole blocks to hold out, with about ``share`` of every species' presences in them.

    Species occur in few blocks, so a single draw may leave a species out. The best of several draws
    is taken: the one in which most species have both classes on both sides and whose shares of
    presences are nearest to ``share``. The draw depends on labels only, not on a model.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(n, S)``; 1, 0, NaN.
    blocks : numpy.ndarray
        Block of each row ``(n,)``.

    Returns
    -------
    numpy.ndarray
        Boolean ``(n,)``: held out.

    See Also
    --------
    geomiam.splits.spatial_blocks : the blocks.
    geomiam.splits.spatial_folds : several folds.

    Examples
    --------
    >>> labels = np.array([[1.0], [0.0], [1.0], [0.0], [1.0], [0.0], [1.0], [0.0]])
    >>> blocks = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    >>> is_test = gm.splits.hold_out(labels, blocks, share=0.25, rng=np.random.default_rng(0))
    >>> int(is_test.sum())  # one whole block
    2
    """
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(DRAWS, test_size=share, random_state=int(rng.integers(2**31)))
    draws = []
    for _, rows in splitter.split(blocks, groups=blocks):
        is_held_out = np.zeros(len(blocks), bool)
        is_held_out[rows] = True
        draws.append(is_held_out)
    total = label_counts(labels)
    return max(draws, key=lambda is_held_out: _quality(labels, is_held_out, share, total=total))


def site_labels(sites: xr.Dataset) -> Labels:
    """Return the labels ``(n, S)`` of sites, or one column of zeros if they have none."""
    if "presence" not in sites:
        return np.zeros((sites.sizes["site"], 1))
    if sites["presence"].chunks is not None:
        return compact_labels(sites["presence"])
    return np.asarray(sites["presence"].transpose("site", ...).values, float)


def spatial_folds(
    labels: Labels, blocks: np.ndarray, *, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Assign whole blocks to folds of about equal size and share of every species' presences.

    In random order, each block goes to the fold with the fewest similar sites and presences; the most
    even of several assignments is taken. Other seeds give other assignments.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(n, S)``; 1, 0, NaN.
    blocks : numpy.ndarray
        Block of each row ``(n,)``.

    Returns
    -------
    numpy.ndarray
        Fold of each row ``(n,)``.

    Raises
    ------
    LabelError
        If there are fewer blocks than folds.

    See Also
    --------
    geomiam.splits.hold_out : a single hold-out.

    Examples
    --------
    >>> labels = np.tile([[1.0], [0.0]], (6, 1))
    >>> blocks = np.repeat(np.arange(6), 2)
    >>> folds = gm.splits.spatial_folds(labels, blocks, folds=3, rng=np.random.default_rng(0))
    >>> np.unique(folds, return_counts=True)[1].tolist()
    [4, 4, 4]
    """
    names, number = np.unique(blocks, return_inverse=True)
    if len(names) < folds:
        raise LabelError(
            f"{len(names)} spatial blocks cannot be dealt into {folds} folds: "
            "use fewer folds or a smaller block"
        )
    shares = _block_shares(as_table(labels), number.ravel(), len(names))
    deals = [_one_deal(shares, folds, rng) for _ in range(DEALS)]
    return min(deals, key=lambda deal: deal[1])[0][number.ravel()]


def _block_shares(labels: np.ndarray, number: np.ndarray, blocks: int) -> np.ndarray:
    """Return the share of all sites, of those with a presence, and of each species, by block.

    ``(blocks, 2 + S)``, weighted so that sites, presences and all species together count the same.
    """
    present = labels == 1
    columns = [np.ones(len(labels)), present.any(1), *present.T]
    counts = np.stack([np.bincount(number, column, blocks) for column in columns], 1)
    shares = counts / np.maximum(counts.sum(0), 1)
    shares[:, 2:] /= np.sqrt(max(1, labels.shape[1]))
    return shares


def _one_deal(shares: np.ndarray, folds: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Assign blocks in random order, each to the fold with the fewest similar sites, and measure unevenness."""
    totals, fold = np.zeros((folds, shares.shape[1])), np.empty(len(shares), np.int64)
    for block in rng.permutation(len(shares)):
        fold[block] = np.argmin(totals @ shares[block])
        totals[fold[block]] += shares[block]
    totals = np.zeros_like(
        totals
    )  # summed in the order of blocks, so that equal folds compare equal
    np.add.at(totals, fold, shares)
    return fold, float((totals**2).sum())


def _quality(labels: Labels, is_held_out: np.ndarray, share: float, *, total: Counts) -> float:
    apart = label_counts(take(labels, is_held_out))
    has_both = (apart.present > 0) & (apart.absent > 0)
    leaves_both = (apart.present < total.present) & (apart.absent < total.absent)
    return float(
        has_both.mean()
        + leaves_both.mean()
        - np.abs(apart.present / np.maximum(total.present, 1) - share).mean()
        - abs(is_held_out.mean() - share)
    )


def check_folds(folds: int) -> None:
    """Refuse fewer than two folds."""
    check_count("folds", folds, minimum=2, hint="5 are usual")


def deal(labels: Labels, blocks: np.ndarray, folds: int, rng: Seed) -> np.ndarray:
    """Return the fold of each row ``(n,)``; blocks stay whole."""
    return spatial_folds(labels, blocks, folds=folds, rng=np.random.default_rng(rng))


def each_fold(fold: np.ndarray) -> Splits:
    """Yield rows outside and inside each fold."""
    for number in range(fold.max() + 1):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
