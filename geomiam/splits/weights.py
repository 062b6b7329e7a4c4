"""Weights of test sites, so that distances to training sites are those from the prediction area to the sites."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count
from geomiam.errors import warn
from geomiam.geo.places import Places
from geomiam.splits.area import site_and_area_places
from geomiam.splits.blocks import Seed
from geomiam.splits.reading import Where, rows_of_folds

FARTHER = 0.1
"""Share of the prediction area beyond the largest distance of a test site from which on to warn."""


def prediction_weights(
    sites: Where,
    splits: Any,
    *,
    area: Where,
    points: int = 1000,
    rng: Seed = 0,
    crs: Any = None,
) -> np.ndarray:
    """Weight the test sites of a cross-validation by distance to the prediction area.

    Sites are near each other and most cells of a map are farther away, so the mean score over test sites is
    higher than the skill of the map. With these weights, the distances from test to training sites are distributed like
    those from the prediction area to the sites, as the folds of :class:`NearestNeighbourMatching` aim at.
    They suit any folds, and another area needs no new training.

    Parameters
    ----------
    sites : xarray.Dataset or (n, 2) array_like
        The cross-validated sites with coordinates, or the coordinates.
    splits : splitter or iterable of (train, test)
        The splitter of :mod:`geomiam.splits` that made the folds, or their row numbers; each site is
        tested once at most.
    area : xarray.Dataset or (m, 2) array_like
        The prediction area: a cube, whose cells with any value count, sites, or coordinates.
    points : int
        Number of random points of the area that distances are measured from.
    rng : int, numpy.random.Generator or None
        Seed or generator of the points.
    crs : any, optional
        CRS of coordinates that are passed as arrays, of the area too; sites and cubes carry theirs.

    Returns
    -------
    numpy.ndarray
        Weight of each site ``(n,)``: mean 1 over the tested sites, 0 for others. Sites at equal
        distances have equal weights. ``w.sum() ** 2 / (w**2).sum()`` is the effective number of sites.

    Raises
    ------
    GridError
        If there are no coordinates, some are not finite, or the area has no cell with a value.
    LabelError
        If ``splits`` are no folds of the sites, as for :func:`geomiam.cross_validate`.

    Warns
    -----
    UserWarning
        If more than a tenth of the area is farther from the sites than any test site from its training
        sites, which no weights can make up for.

    See Also
    --------
    geomiam.evaluation.confidence : metrics of a cross-validation, with ``weights=``.

    Notes
    -----
    The weight is the ratio of the densities of both distributions at the distance of the site, which
    corrects a covariate shift (Shimodaira 2000). It is estimated by nearest neighbours (Lin, Ding and Han
    2023): each point of the area gives equal parts to the √n tested sites of the nearest distances, of n in
    all.

    Examples
    --------
    >>> few, blocks = sites.isel(site=slice(0, None, 7)), gm.splits.SpatialBlocks(3, size="50 km")
    >>> weights = gm.splits.prediction_weights(few, blocks, area=cube)
    >>> weights.shape == (few.sizes["site"],), round(float(weights.mean()), 6)
    (True, 1.0)
    """
    check_count("points", points, minimum=1, hint="1000 are usual")
    places, area_places = site_and_area_places(sites, None, area, points=points, rng=rng, crs=crs)
    is_splitter = hasattr(splits, "split") and not isinstance(splits, str)
    pairs = splits.split(sites) if is_splitter else splits
    test_to_training = _test_to_training(places, rows_of_folds(pairs, splits, len(places)))
    is_tested = np.isfinite(test_to_training)
    distances = test_to_training[is_tested]
    area_to_sites = _nearest(places, area_places)
    farther = float((area_to_sites > distances.max()).mean())
    if farther > FARTHER:
        warn(
            f"{farther:.0%} of the prediction area is farther from the sites than any test site from its "
            f"training sites (at most {distances.max():.3g} km): the weighted skill does not hold there; "
            "cross-validate with larger blocks, or with gm.splits.NearestNeighbourMatching(area)"
        )
    weights = np.zeros(len(places))
    weights[is_tested] = density_ratio(distances, area_to_sites)
    return weights


def density_ratio(values: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Return the density of ``target`` over that of ``values``, at each of the values ``(n,)``; mean 1."""
    from scipy.spatial import cKDTree

    values, target = np.asarray(values, float), np.asarray(target, float)
    count = round(len(values) ** 0.5)  # more would smooth the few far sites away
    _, neighbours = cKDTree(values[:, None]).query(target[:, None], count)
    parts = np.bincount(neighbours.ravel(), minlength=len(values)) * len(values) / neighbours.size
    _, number, size = np.unique(values, return_inverse=True, return_counts=True)
    of_value = np.bincount(number, parts) / size  # which of equal values is nearer is arbitrary
    return of_value[number]


def _test_to_training(places: Places, folds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the distance of each test site to the nearest training site in km ``(n,)``; NaN = not tested."""
    distances = np.full(len(places), np.nan)
    for train, test in folds:
        distances[test] = _nearest(places.take(train), places.take(test))
    return distances


def _nearest(places: Places, of: Places) -> np.ndarray:
    """Return the distance of other places to the nearest of the places, in km."""
    from scipy.spatial import cKDTree

    return places.along_surface(cKDTree(places.points()).query(of.points())[0])
