"""The range of spatial autocorrelation of predictors, from empirical variograms."""

from __future__ import annotations

import numpy as np

from geomiam.geo.places import Places

SITES, LAGS, RANGES = 500, 20, 24
"""Largest number of sites of a variogram, number of its lags, and number of ranges that are tried."""
STRUCTURED = 0.1
"""Share of the variance that depends on distance, below which a predictor has no structure."""


def autocorrelation_ranges(places: Places, table: np.ndarray) -> np.ndarray:
    """Return the range of spatial autocorrelation in km of each predictor of ``(m, p)`` that varies.

    The practical range (95 % of the sill) of an exponential model with a nugget, fitted to the
    semivariances of pairs of places up to half of the largest distance (Cressie 1993; the use for
    block sizes follows Valavi et al. 2019, blockCV). A predictor without spatial structure has range 0;
    one that still changes at the largest lag has twice that lag.
    """
    first, second = np.triu_indices(len(places), 1)
    points = places.points()
    distance = places.along_surface(np.linalg.norm(points[first] - points[second], axis=1))
    longest = distance.max(initial=0) / 2
    near = (distance > 0) & (distance <= longest)
    first, second, distance = first[near], second[near], distance[near]
    lag = np.minimum((distance / longest * LAGS).astype(int), LAGS - 1)
    centres = (np.arange(LAGS) + 0.5) * longest / LAGS
    ranges = []
    for column in table.T:
        spread = np.nanstd(column) if np.isfinite(column).any() else 0
        if spread > 0:
            squares = (column[first] - column[second]) ** 2 / (2 * spread**2)
            ranges.append(_fitted_range(squares, lag, centres))
    return np.array(ranges)


def _fitted_range(squares: np.ndarray, lag: np.ndarray, centres: np.ndarray) -> float:
    """Fit the model to squared differences by lag: non-negative least squares for each range tried."""
    is_finite = np.isfinite(squares)
    pairs = np.bincount(lag[is_finite], minlength=len(centres))
    total = np.bincount(lag[is_finite], weights=squares[is_finite], minlength=len(centres))
    has_pairs = pairs > 0
    if has_pairs.sum() < 3:
        return 0.0
    weight, h = pairs[has_pairs].astype(float), centres[has_pairs]
    semivariance = total[has_pairs] / weight
    reach = np.geomspace(centres[0], 4 * centres[-1], RANGES)
    shape = 1 - np.exp(-3 * h / reach[:, None])
    nugget, sill = nonnegative_fit(shape, semivariance, weight)
    model_values = nugget[:, None] + sill[:, None] * shape
    best = int(np.argmin((weight * (semivariance - model_values) ** 2).sum(1)))
    is_structured = sill[best] > STRUCTURED * (nugget[best] + sill[best])
    return float(reach[best]) if is_structured else 0.0


def nonnegative_fit(
    shape: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return intercept and slope ``(r,)`` of y on each row of ``shape (r, l)``, neither below 0."""
    n, x, xx = weight.sum(), shape @ weight, shape**2 @ weight
    sum_y, xy = y @ weight, shape @ (weight * y)
    slope = (n * xy - x * sum_y) / np.maximum(n * xx - x**2, 1e-12)
    slope = np.maximum(slope, 0)
    intercept = (sum_y - slope * x) / n
    slope = np.where(intercept < 0, xy / xx, slope)
    return np.maximum(intercept, 0), slope
