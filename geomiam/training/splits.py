"""Spatial blocks: neighbours must not sit on both sides of a split."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomiam.errors import GridError, LabelError

AXES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"))
DRAWS = 25


def site_coordinates(sites: xr.Dataset) -> np.ndarray:
    """Return ``(site, 2)``: x and y of each site.

    Raises
    ------
    GridError
        If the sites carry no pair of coordinates, or some are NaN.
    """
    for x, y in AXES:
        if x in sites.variables and y in sites.variables:
            xy = np.stack([np.asarray(sites[n].values, float) for n in (x, y)], 1)
            if lost := int((~np.isfinite(xy)).any(1).sum()):
                raise GridError(
                    f"{lost} of {len(xy)} sites have NaN as '{x}' or '{y}': leave them out with "
                    f"sites.where(sites['{x}'].notnull(), drop=True), or pass validation=<boolean per site>"
                )
            return xy
    raise GridError(
        f"sites have no coordinates (looked for {AXES}; found {list(sites.coords)}): add them with "
        "sites.assign_coords(x=('site', ...), y=('site', ...)), or pass validation=<boolean per site>"
    )


def spatial_blocks(xy: np.ndarray, *, size: float) -> np.ndarray:
    """Number the square blocks of a grid anchored at the CRS origin, so that they do not move with the data.

    Parameters
    ----------
    xy : numpy.ndarray
        ``(n, 2)``.
    size : float
        Side of a block in the units of the CRS.

    Returns
    -------
    numpy.ndarray
        Integer block of each row ``(n,)``.
    """
    cells = np.floor(xy / size).astype(np.int64)
    return np.unique(cells, axis=0, return_inverse=True)[1].ravel()


def hold_out(
    labels: np.ndarray, blocks: np.ndarray, *, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole blocks to hold out, with about ``share`` of every species' presences in them.

    Species live in few blocks, so one draw may leave a species out altogether. The best of a few
    draws is taken: the one in which most species keep both classes on both sides and whose shares of
    presences are nearest to ``share``. Only labels are looked at, never a model.

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
    """
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(DRAWS, test_size=share, random_state=int(rng.integers(2**31)))
    draws = []
    for _, rows in splitter.split(blocks, groups=blocks):
        held = np.zeros(len(blocks), bool)
        held[rows] = True
        draws.append(held)
    return max(draws, key=lambda held: _quality(labels, held, share))


def spatial_folds(
    labels: np.ndarray, blocks: np.ndarray, *, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Deal whole blocks into folds of about equal size and share of presences.

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
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(blocks)) < folds:
        raise LabelError(
            f"{len(np.unique(blocks))} spatial blocks cannot be dealt into {folds} folds: "
            "use fewer folds or a smaller block"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    anywhere = (labels == 1).any(1)
    fold = np.empty(len(blocks), np.int64)
    for number, (_, rows) in enumerate(splitter.split(blocks, anywhere, blocks)):
        fold[rows] = number
    return fold


def _quality(labels: np.ndarray, held: np.ndarray, share: float) -> float:
    present, absent = labels == 1, labels == 0
    total = np.maximum(present.sum(0), 1)
    both = [(present[side].any(0) & absent[side].any(0)).mean() for side in (held, ~held)]
    return (
        sum(both) - np.abs(present[held].sum(0) / total - share).mean() - abs(held.mean() - share)
    )
