"""Spatial blocks of sites, what is held out of them, and how they are dealt into folds."""

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


def hold_out_blocks(
    sites: xr.Dataset,
    *,
    share: float = 0.15,
    block: float = 1.0,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Draw the validation sites of :func:`geomiam.fit`: whole spatial blocks, as a mask.

    ``gm.fit(sites, validation=hold_out_blocks(sites, rng=0))`` keeps a hold-out fixed between
    trainings; ``sites.isel(site=~mask)`` and ``sites.isel(site=mask)`` make a test set.

    Parameters
    ----------
    sites : xarray.Dataset
        With coordinates ``x`` and ``y`` (or ``lon``, ``lat``). With ``presence(site, species)``, of which
        every species then gets about ``share`` of its presences held out, or without.
    share : float
        Share of the sites to hold out, in (0, 1).
    block : float
        Side of a block in CRS units: degrees on a geographic CRS, metres on most projected ones.
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
        If the sites have no coordinates, or all lie in one block.
    ValueError
        If the share is not in (0, 1), or the block not larger than 0.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), found {share}; fit's own is share=0.15")
    blocks = spatial_blocks(site_coordinates(sites), size=positive(block, "block"))
    if blocks.max() == 0:
        raise GridError(
            f"all {len(blocks)} sites lie in one block of {block} CRS units, so none can be held out: "
            "pass a smaller block=..."
        )
    return hold_out(site_labels(sites), blocks, share=share, rng=np.random.default_rng(rng))


def site_labels(sites: xr.Dataset) -> np.ndarray:
    """Return the labels ``(n, S)`` of sites, or one column of zeros if they have none."""
    if "presence" not in sites:
        return np.zeros((sites.sizes["site"], 1))
    return np.asarray(sites["presence"].transpose("site", ...).values, float)


def positive(number: float, name: str) -> float:
    """Return a length, if it is one."""
    if not 0 < number < np.inf:
        raise ValueError(f"{name} must be a length in CRS units above 0, found {number}")
    return number


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
