"""Weights of test sites by distance to the prediction area."""

import numpy as np
import pytest
from pyproj import Geod
from scipy.stats import wasserstein_distance
from test_neighbours import clustered, random_folds, spread

import geomiam as gm
from geomiam.errors import GridError, LabelError, SettingError
from geomiam.splits.weights import density_ratio


def pairs_of(fold):
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(fold.max() + 1)]


def geodesic_distances(xy, pairs, area):
    """Distances of test sites to training sites and of the area to sites, by geodesics of PROJ and loops."""
    geod = Geod(ellps="WGS84")

    def nearest(point, places):
        return geod.inv(*np.broadcast_to(point, places.shape).T, *places.T)[2].min() / 1000

    to_training = np.full(len(xy), np.nan)
    for train, test in pairs:
        to_training[test] = [nearest(p, xy[train]) for p in xy[test]]
    return to_training, np.array([nearest(p, xy) for p in area])


def test_weighted_test_sites_are_as_far_from_training_sites_as_the_area_is_from_sites():
    rng = np.random.default_rng(0)
    xy, area = np.vstack([clustered(rng), spread(rng, 120)]), spread(rng)
    buffer_splits = gm.splits.BufferedLeaveOut(
        folds=6, size="100 km", buffer="10 km", crs="EPSG:4326"
    )
    for splits in (pairs_of(random_folds(len(xy), 4, 0)), buffer_splits):
        pairs = list(splits.split(xy)) if hasattr(splits, "split") else splits
        weights = gm.splits.prediction_weights(xy, splits, area=area, crs="EPSG:4326")
        to_training, to_sites = geodesic_distances(xy, pairs, area)
        plain_distance = wasserstein_distance(to_training, to_sites)
        weighted_distance = wasserstein_distance(to_training, to_sites, u_weights=weights)
        assert weighted_distance < 0.35 * plain_distance
        assert weights.mean() == pytest.approx(1)


def test_a_weight_counts_how_often_a_site_is_among_the_nearest_distances():
    values, target = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 17.0, 30.0, 30.0, 50]), [1.2, 7.9, 29.0]
    count = 3  # the root of 9
    expected = np.zeros(9)
    for t in target:
        expected[np.argsort(np.abs(values - t), kind="stable")[:count]] += 9 / (count * 3)
    np.testing.assert_allclose(density_ratio(values, target), expected)


def test_the_ratio_is_that_of_the_densities():
    """Exponential distributions, whose ratio is known, and the mean of the one by weights of the other."""
    rng = np.random.default_rng(1)
    values, target = rng.exponential(1, 4000), rng.exponential(1.3, 4000)
    ratio = density_ratio(values, target)
    inner = (values > 0.2) & (values < 3)
    expected = np.exp(values * (1 - 1 / 1.3)) / 1.3
    assert np.abs(ratio[inner] / expected[inner] - 1).mean() < 0.15
    assert np.average(values, weights=ratio) == pytest.approx(1.3, rel=0.05)


def test_sites_like_the_area_keep_their_weight():
    rng = np.random.default_rng(2)
    values = rng.exponential(1, 500)
    weights = density_ratio(values, rng.exponential(1, 2000))
    assert weights.sum() ** 2 / (weights**2).sum() > 400


@pytest.mark.filterwarnings("ignore:.*of the prediction area is farther")
def test_untested_sites_have_no_weight_and_sites_at_one_place_equal_ones(cube, sites):
    sparse_sites = sites.isel(site=np.repeat(np.arange(0, 168, 7), 2))
    pairs = pairs_of(np.arange(48) // 2 // 6)
    weights = gm.splits.prediction_weights(sparse_sites, pairs[:3], area=cube)
    is_tested = np.isin(np.arange(48), np.concatenate([test for _, test in pairs[:3]]))
    assert (weights[~is_tested] == 0).all() and weights[is_tested].mean() == pytest.approx(1)
    np.testing.assert_allclose(weights[::2], weights[1::2], rtol=1e-12)
    again = gm.splits.prediction_weights(sparse_sites, pairs[:3], area=cube.chunk())
    np.testing.assert_array_equal(weights, again)


def test_a_far_area_is_reported_and_bad_input_is_refused(cube, sites):
    corner = sites.isel(site=slice(0, 40))
    with pytest.warns(UserWarning, match=r"of the prediction area is farther from the sites"):
        gm.splits.prediction_weights(corner, pairs_of(np.arange(40) % 4), area=cube)
    for splits, match in (
        ([], "without training or test sites"),
        ("blocks", "are no folds"),
        ([(np.arange(5), [9]), (np.arange(5), [9])], "tests 1 sites more than once"),
        ([(np.arange(5), [40])], "rows outside 0 to 39"),
    ):
        with pytest.raises(LabelError, match=match):
            gm.splits.prediction_weights(corner, splits, area=cube)
    with pytest.raises(GridError, match="the prediction area has no place"):
        gm.splits.prediction_weights(corner, pairs_of(np.arange(40) % 4), area=np.zeros((0, 2)))
    with pytest.raises(SettingError, match="points must be at least 1"):
        gm.splits.prediction_weights(corner, [], area=cube, points=0)
    with pytest.raises(GridError, match="no coordinates"):
        gm.splits.prediction_weights(corner.drop_vars(["x", "y"]), [], area=cube)
