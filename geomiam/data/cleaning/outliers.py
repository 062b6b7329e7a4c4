"""Outliers of species: in space by distances between places, in the environment by quartiles."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomiam.data.cleaning.rules import CleaningRules
from geomiam.geo.places import Places

MOST_PLACES = 5000
"""Largest number of places to which mean distances are computed; beyond it, every k-th place in order counts."""
ROWS = 1000
CLASSES = ("flag_values", "flag_meanings")


def spatial_outliers(places: Places, rules: CleaningRules) -> np.ndarray:
    """Return whether each place of one species is an outlier ``(n,)``.

    Places with equal coordinates count once.
    """
    xy, number = np.unique(places.xy, axis=0, return_inverse=True)
    number = number.ravel()
    if len(xy) < rules.outlier_places:
        return np.zeros(len(number), bool)
    distinct = Places(xy, places.geodesic, places.crs)
    if rules.outliers == "distance":
        return (nearest_km(distinct) > rules.km("outlier_distance"))[number]
    mean = mean_km(distinct)
    if rules.outliers == "mad":
        center = np.median(mean)
        limit = center + rules.outlier_factor * 1.4826 * np.median(np.abs(mean - center))
    else:
        lower, upper = np.quantile(mean, [0.25, 0.75])
        limit = upper + rules.outlier_factor * (upper - lower)
    return (mean > limit)[number]


def nearest_km(places: Places) -> np.ndarray:
    """Return the distance of each place to the nearest other one in km ``(n,)``."""
    from scipy.spatial import cKDTree

    points = places.points()
    return places.along_surface(cKDTree(points).query(points, k=2)[0][:, 1])


def mean_km(places: Places) -> np.ndarray:
    """Return the mean distance of each place to the others in km ``(n,)``."""
    from scipy.spatial.distance import cdist

    points = places.points()
    step = -(-len(points) // MOST_PLACES)
    targets = points[::step]
    is_target = np.zeros(len(points), bool)
    is_target[::step] = True
    total = np.concatenate(
        [
            places.along_surface(cdist(points[start : start + ROWS], targets)).sum(axis=1)
            for start in range(0, len(points), ROWS)
        ]
    )
    return total / (len(targets) - is_target)


def environmental_outliers(values: np.ndarray, rules: CleaningRules) -> np.ndarray:
    """Return whether each record of one species is outside the quartiles of a variable by the factor ``(n,)``.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n, variable)``; NaN is missing. Variables with an interquartile range of 0 are left out.
    """
    out = np.zeros(len(values), bool)
    for column in values.T:
        observed = np.unique(column[np.isfinite(column)])
        if len(observed) < rules.outlier_places:
            continue
        lower, upper = np.nanquantile(column, [0.25, 0.75])
        reach = float(rules.environment_factor or np.inf) * (upper - lower)
        if reach > 0:
            with np.errstate(invalid="ignore"):
                out |= (column < lower - reach) | (column > upper + reach)
    return out


def continuous_variables(cube: xr.Dataset, dims: tuple[str, str]) -> list[str]:
    """Return the variables of a cube that have one number in each cell and are no classes."""
    return [
        str(k)
        for k, v in cube.data_vars.items()
        if set(v.dims) == set(dims)
        and not set(CLASSES) & set(v.attrs)
        and v.attrs.get("type") != "categorical"
    ]
