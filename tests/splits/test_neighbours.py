"""Nearest-neighbour distance matching against plain loops, on clustered and regular sites."""

import numpy as np
import pytest
import xarray as xr
from pyproj import Geod
from scipy.stats import wasserstein_distance

import geomiam as gm
from geomiam.errors import BlockError, GridError, SettingError

Matching = gm.splits.NearestNeighbourMatching


def clustered(rng, groups=12, size=20, width=10.0):
    """Coordinates in tight groups over a square of degrees."""
    centres = rng.uniform(0, width, (groups, 2)) + np.array([0, 40])
    return np.repeat(centres, size, 0) + rng.normal(0, 0.05, (groups * size, 2))


def spread(rng, n=600, width=10.0):
    return rng.uniform(0, width, (n, 2)) + np.array([0, 40])


def random_folds(n, folds, seed):
    return np.random.default_rng(seed).permutation(np.arange(n) % folds)


def geodesic_w(xy, fold, area):
    """W by geodesics of PROJ and a loop over sites."""
    geod = Geod(ellps="WGS84")

    def nearest(point, places):
        return geod.inv(*np.broadcast_to(point, places.shape).T, *places.T)[2].min() / 1000

    inside = [nearest(p, xy[fold != f]) for p, f in zip(xy, fold, strict=True)]
    return wasserstein_distance(inside, [nearest(p, xy) for p in area])


def test_on_clustered_sites_w_is_far_below_that_of_random_folds():
    rng = np.random.default_rng(0)
    xy, area = clustered(rng), spread(rng)
    splitter = Matching(area, folds=5, crs="EPSG:4326")
    matching = splitter.match(xy)
    at_random = [splitter.statistic(xy, random_folds(len(xy), 5, s)) for s in range(3)]
    assert matching.statistic < 0.35 * min(at_random)
    blocks = np.empty(len(xy), int)
    for number, (_, test) in enumerate(
        gm.splits.SpatialBlocks(5, size="5 km", crs="EPSG:4326").split(xy)
    ):
        blocks[test] = number
    assert matching.statistic < splitter.statistic(xy, blocks)
    assert matching.clusters >= 5
    assert "are clustered" in matching.reason
    assert np.bincount(matching.fold).max() <= 0.5 * len(xy)
    assert set(matching.fold) == set(range(5))


def test_on_sites_like_the_area_folds_are_random():
    rng = np.random.default_rng(1)
    xy, area = spread(rng, 300), spread(rng)
    splitter = Matching(area, folds=4, crs="EPSG:4326")
    matching = splitter.match(xy)
    assert matching.clusters == 0
    assert "not clustered" in matching.reason
    at_random = splitter.statistic(xy, random_folds(300, 4, 9))
    assert matching.statistic == pytest.approx(at_random, rel=0.5)
    grid = np.stack(np.meshgrid(np.arange(12.0), np.arange(40.0, 52.0)), -1).reshape(-1, 2)
    assert Matching(spread(rng, width=11), folds=4, crs="EPSG:4326").match(grid).clusters == 0


def test_w_is_that_of_geodesics_and_a_loop_over_sites():
    rng = np.random.default_rng(2)
    xy, area = clustered(rng, 6, 8), spread(rng, 50)
    splitter = Matching(area, folds=3, crs="EPSG:4326")
    matching = splitter.match(xy)
    assert matching.statistic == pytest.approx(geodesic_w(xy, matching.fold, area), rel=2e-3)
    fold = random_folds(len(xy), 3, 0)
    assert splitter.statistic(xy, fold) == pytest.approx(geodesic_w(xy, fold, area), rel=2e-3)
    assert matching.statistic == wasserstein_distance(
        matching.test_to_training, matching.area_to_sites
    )


def test_no_other_tried_number_of_clusters_is_better():
    rng = np.random.default_rng(3)
    xy, area = clustered(rng, 8, 6), spread(rng, 200)
    from scipy.cluster.hierarchy import fcluster, linkage

    splitter = Matching(area, folds=4, crs="EPSG:4326", max_share=1)
    best = splitter.match(xy)
    lon, lat = np.deg2rad(xy).T
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    four = fcluster(linkage(points, "ward"), 4, "maxclust") - 1
    assert best.statistic <= splitter.statistic(xy, four) + 1e-9


def test_folds_are_equal_at_every_call_and_sites_at_one_place_stay_together():
    rng = np.random.default_rng(4)
    xy = np.repeat(clustered(rng, 6, 5), 3, 0)
    splitter = Matching(spread(rng), folds=3, crs="EPSG:4326")
    first, second = splitter.match(xy).fold, splitter.match(xy).fold
    np.testing.assert_array_equal(first, second)
    assert (first.reshape(-1, 3) == first.reshape(-1, 3)[:, :1]).all()
    tests = np.concatenate([test for _, test in splitter.split(xy)])
    assert sorted(tests) == list(range(len(xy)))
    assert splitter.get_n_splits() == 3
    predictors = rng.normal(size=(len(xy), 4))
    np.testing.assert_array_equal(splitter.match(predictors, groups=xy).fold, first)


def test_the_area_is_a_cube_sites_or_coordinates_in_any_crs(cube, sites):
    splitter = Matching(cube, folds=3, points=50)
    assert splitter.match(sites).area_to_sites.max() < 1e-9  # every cell is a site
    sparse = sites.isel(site=slice(0, None, 7))
    of_sites = Matching(sites, folds=3).match(sparse)
    xy = np.stack([sites["x"], sites["y"]], 1)
    of_points = Matching(xy, folds=3, crs="EPSG:4326").match(sparse)
    np.testing.assert_array_equal(of_sites.fold, of_points.fold)
    equal_area = cube.odc.reproject("EPSG:3035", resolution=20_000)
    of_grid = Matching(equal_area, folds=3, points=400).match(sparse)
    lonlat = Matching(cube, folds=3, points=400).match(sparse)
    assert np.median(of_grid.area_to_sites) == pytest.approx(
        np.median(lonlat.area_to_sites), rel=0.5
    )
    table = Matching(cube.chunk(), folds=3, points=400).match(sparse)
    np.testing.assert_array_equal(table.area_to_sites, lonlat.area_to_sites)


def test_more_places_than_are_clustered_one_by_one(monkeypatch):
    from geomiam.splits import neighbours

    rng = np.random.default_rng(5)
    xy, area = clustered(rng, 10, 40), spread(rng)
    splitter = Matching(area, crs="EPSG:4326")
    exact = splitter.match(xy).statistic
    monkeypatch.setattr(neighbours, "MOST_PLACES", 150)
    assert splitter.match(xy).statistic < 1.5 * exact


def test_what_cannot_be_matched_is_refused(cube, sites):
    with pytest.raises(BlockError, match=r"1 place\(s\) of sites cannot be dealt into 5 folds"):
        Matching(cube).match(sites.isel(site=[0, 0, 0]))
    with pytest.raises(GridError, match="no cell with a value"):
        Matching(xr.full_like(cube, np.nan)).match(sites)
    with pytest.raises(SettingError, match="max_share must be from 1 / folds to 1"):
        Matching(cube, max_share=0.1)
    with pytest.raises(SettingError, match="points must be at least 1"):
        Matching(cube, points=0)
    with pytest.raises(SettingError, match="folds must be at least 2"):
        Matching(cube, folds=1)
