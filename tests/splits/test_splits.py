"""Splits: what lies on both sides, what is too near, and what scikit-learn makes of them."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

import geomiam as gm
from geomiam.errors import BlockError, GridError, LabelError, MissingVariable
from geomiam.splits import (
    BufferedLeaveOut,
    Checkerboard,
    EnvironmentalBlocks,
    SpatialBlocks,
    hold_out_blocks,
    site_coordinates,
    spatial_blocks,
    spatial_folds,
)
from geomiam.splits.environment import environment

PLANE = 'LOCAL_CS["plane",UNIT["kilometre",1000]]'
"""Coordinates of a plane in km."""


def places(n=120, *, seed=0, extent=10.0):
    return np.random.default_rng(seed).uniform(-extent / 2, extent / 2, (n, 2))


def squares(xy, size):
    return [tuple(c) for c in np.floor(xy / size).astype(int)]


def assert_partition(splits, n, *, all_train=True):
    """Every row is tested once; with ``all_train``, all others train."""
    test_rows = np.concatenate([test for _, test in splits])
    assert sorted(test_rows) == list(range(n))
    for train, test in splits:
        assert len(train) and len(test)
        assert not set(train) & set(test)
        assert not all_train or len(train) + len(test) == n


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for p, q in zip(first, second, strict=True) for a, b in zip(p, q)
    )


some_places = st.tuples(st.integers(40, 150), st.integers(0, 10**6)).map(
    lambda v: places(v[0], seed=v[1])
)


@given(some_places, st.integers(2, 4), st.sampled_from([2.5, 3.1, 4.0]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_block_is_on_both_sides_and_every_site_is_tested_once(xy, folds, size, seed):
    cv = SpatialBlocks(folds, size=f"{size} km", rng=seed, crs=PLANE)
    splits = list(cv.split(xy))
    assert len(splits) == cv.get_n_splits() == folds
    assert_partition(splits, len(xy))
    names = np.array([f"{a} {b}" for a, b in squares(xy, size)])
    for train, test in splits:
        assert not set(names[train]) & set(names[test])


@given(some_places, st.sampled_from([0.0, 0.4, 1.7]), st.sampled_from([None, 2.5, 3.1]))
@settings(max_examples=60, deadline=None)
def test_the_buffer_drops_exactly_the_sites_within_it(xy, buffer, size):
    cv = BufferedLeaveOut(f"{buffer} km", size=size, crs=PLANE)
    splits = list(cv.split(xy))
    assert len(splits) == cv.get_n_splits(xy)
    assert_partition(splits, len(xy), all_train=False)
    for train, test in splits:
        nearest = cdist(xy, xy[test]).min(1)
        np.testing.assert_array_equal(train, np.flatnonzero(nearest > buffer))
        if size is None:
            assert len(test) == 1
        else:
            inside = squares(xy[test], size)
            assert len(set(inside)) == 1 and squares(xy, size).count(inside[0]) == len(test)


def test_folds_of_blocks_can_have_a_buffer_too():
    xy = places(200)
    cv = BufferedLeaveOut("0.8 km", size=2.0, folds=4, rng=3, crs=PLANE)
    plain = list(SpatialBlocks(4, size=2.0, rng=3, crs=PLANE).split(xy))
    for (train, test), (wide, same_test) in zip(cv.split(xy), plain, strict=True):
        np.testing.assert_array_equal(test, same_test)
        assert len(train) < len(wide)
        assert cdist(xy[train], xy[test]).min() > 0.8
    assert cv.get_n_splits() == 4


def test_sites_at_one_place_never_face_each_other_even_without_a_buffer():
    xy = np.repeat(places(15), 3, axis=0)
    for train, test in BufferedLeaveOut(0, crs=PLANE).split(xy):
        assert len(train) == 42
        assert not (xy[train] == xy[test]).all(1).any()


def test_a_checkerboard_trains_on_one_colour_and_tests_on_the_other():
    xy = places(150)
    colour = np.array([(a + b) % 2 for a, b in squares(xy, 1.3)])
    splits = list(Checkerboard(1.3, crs=PLANE).split(xy))
    assert len(splits) == Checkerboard(1.3, crs=PLANE).get_n_splits() == 2
    assert_partition(splits, 150)
    for number, (train, test) in enumerate(splits):
        assert (colour[test] == number).all() and (colour[train] != number).all()


def environments(n=150, *, seed=0):
    """Three far environments, one of whose variables is a thousand times larger; and gaps."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    table = np.stack([kind == 0, 1000.0 * (kind == 1), rng.normal(0, 0.01, n)], 1)
    table[:, :2] += rng.normal(0, 0.02, (n, 2)) * [1, 1000]
    return kind, table


def test_environmental_folds_are_the_environments_whatever_the_units():
    kind, table = environments()
    table = table[:, :2]
    for scale in (1, [1e-6, 1e6]):
        splits = list(EnvironmentalBlocks(3).split(table * scale))
        assert_partition(splits, 150)
        assert sorted(sorted(set(kind[test])) for _, test in splits) == [[0], [1], [2]]


def test_clusters_can_be_dealt_into_folds_of_even_size():
    table = np.random.default_rng(0).normal(size=(300, 3))
    splits = list(EnvironmentalBlocks(3, clusters=20).split(table))
    assert_partition(splits, 300)
    assert max(len(test) for _, test in splits) < 1.3 * min(len(test) for _, test in splits)
    rows = np.repeat(np.arange(30), 10)  # equal environments stay together
    for train, test in EnvironmentalBlocks(3, clusters=20).split(table[rows]):
        assert not set(rows[train]) & set(rows[test])


def test_gaps_count_as_the_mean_and_constants_as_nothing():
    table = environments()[1]
    table[:, 2] = 7.0
    table[np.random.default_rng(1).random(table.shape) < 0.1] = np.nan
    table[0], table[1, 0] = np.nan, np.inf
    valid = np.isfinite(table)
    flat = environment(table, None)
    assert (flat[~valid] == 0).all() and (flat[:, 2] == 0).all()
    for column, column_valid in zip(flat.T[:2], valid.T):
        assert column[column_valid].mean() == pytest.approx(0, abs=1e-12)
        assert column[column_valid].std() == pytest.approx(1)
    assert same(
        list(EnvironmentalBlocks(3).split(table)), list(EnvironmentalBlocks(3).split(flat[:, :2]))
    )


SPLITTERS = {
    "blocks": lambda rng: SpatialBlocks(3, size=1.1, rng=rng, crs=PLANE),
    "buffered": lambda rng: BufferedLeaveOut("0.3 km", size=1.1, folds=3, rng=rng, crs=PLANE),
    "environment": lambda rng: EnvironmentalBlocks(3, clusters=12, rng=rng),
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_seed_is_the_same_folds_and_another_seed_others(name):
    xy, make = places(200), SPLITTERS[name]
    first = list(make(5).split(xy))
    assert same(first, list(make(5).split(xy)))
    assert same(first, list(make(np.random.default_rng(5)).split(xy)))
    assert not same(first, list(make(6).split(xy)))
    cv, moving = make(5), make(np.random.default_rng(5))
    assert same(list(cv.split(xy)), list(cv.split(xy)))
    assert not same(list(moving.split(xy)), list(moving.split(xy)))


@pytest.mark.parametrize("name", SPLITTERS)
def test_presences_are_spread_over_the_folds(name):
    xy = places(600, seed=2)
    y = (xy[:, 0] > 3).astype(int)  # one corner only
    shares = [y[test].sum() / y.sum() for _, test in SPLITTERS[name](0).split(xy, y)]
    assert min(shares) > 0.1 and sum(shares) == pytest.approx(1)


def test_sites_split_as_their_coordinates_and_labels_do(sites):
    xy, y = site_coordinates(sites), sites["presence"].values
    for cv in (
        SpatialBlocks(3, size=50, crs="EPSG:4326"),
        Checkerboard("50 km", crs="EPSG:4326"),
        BufferedLeaveOut("30 km", size=50, folds=3, crs="EPSG:4326"),
    ):
        assert same(list(cv.split(sites)), list(cv.split(xy, y)))
    lonlat_sites = sites.rename(x="lon", y="lat").transpose("species", ...)
    cv = SpatialBlocks(3, size=50)
    assert same(list(cv.split(lonlat_sites)), list(cv.split(sites)))


def test_sites_are_clustered_by_numbers_and_not_by_labels_and_classes(sites):
    names = ["bio1", "bio12", "slope", "aspect"]
    table, y = np.stack([sites[v].values for v in names], 1), sites["presence"].values
    cv = EnvironmentalBlocks(3)
    assert same(list(cv.split(sites)), list(cv.split(table, y)))
    splitter = EnvironmentalBlocks(3, variables=["landsat", "slope"])
    flat = np.column_stack([sites["landsat"].values.reshape(len(table), -1), table[:, 2]])
    assert same(list(splitter.split(sites)), list(splitter.split(flat, y)))


@pytest.mark.parametrize("name", [*SPLITTERS, "checkerboard"])
def test_scikit_learn_takes_them_as_cv(name):
    xy = places(150)
    predictors = np.column_stack([np.sin(xy), xy[:, 0] ** 2])
    y = (predictors[:, 0] + 0.3 * predictors[:, 1] > 0).astype(int)
    cv = Checkerboard(1.1, crs=PLANE) if name == "checkerboard" else SPLITTERS[name](0)
    model = LogisticRegression()
    actual = cross_val_score(model, predictors, y, groups=xy, cv=cv, scoring="roc_auc")
    by_hand = [
        gm.metrics.auc(
            y[test][:, None],
            model.fit(predictors[train], y[train]).decision_function(predictors[test])[:, None],
        )[0]
        for train, test in cv.split(predictors, y, groups=xy)
    ]
    np.testing.assert_allclose(actual, by_hand, rtol=1e-12)
    search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=cv).fit(predictors, y, groups=xy)
    assert search.n_splits_ == len(actual)


def test_blocks_unmask_a_model_that_only_remembers_its_neighbours():
    xy = places(500, extent=8)
    level = np.random.default_rng(0).normal(size=(20, 20))
    y = (level[tuple((np.floor(xy).astype(int) + 10).T)] > 0).astype(int)
    forest = RandomForestClassifier(20, random_state=0)
    near = cross_val_score(forest, xy, y, cv=KFold(4, shuffle=True, random_state=0)).mean()
    far = cross_val_score(forest, xy, y, cv=SpatialBlocks(4, size="1 km", crs=PLANE)).mean()
    assert near > 0.75 and far < near - 0.15


def test_the_hold_out_is_that_of_a_fit_and_a_fit_takes_it(sites, monkeypatch):
    from geomiam.training import members as training

    masks, config = (
        [],
        gm.TrainingConfig(epoch_steps=1, epochs=1, batch=64, block=50, holdout=0.3, warmup=1),
    )
    monkeypatch.setattr(
        training, "make_tables", lambda *a, held_out, **k: masks.append(held_out[0]) or 1 / 0
    )
    mask = hold_out_blocks(sites, share=0.3, block=50, rng=7)
    for validation in (None, mask):
        with pytest.raises(ZeroDivisionError):
            gm.fit(sites, training=config, validation=validation, rng=7)
    np.testing.assert_array_equal(masks[0], mask)
    np.testing.assert_array_equal(masks[1], mask)


def test_the_hold_out_keeps_blocks_whole_and_needs_no_labels(sites):
    bare = sites.drop_vars("presence")
    for given_sites in (sites, bare, sites.transpose("species", ...)):
        mask = hold_out_blocks(given_sites, share=0.25, block=50, rng=1)
        assert mask.dtype == bool and mask.shape == (sites.sizes["site"],)
        assert 0.1 < mask.mean() < 0.4
        blocks = spatial_blocks(site_coordinates(sites), size=50, crs="EPSG:4326")
        assert not {h for h, m in zip(blocks, mask) if m} & {
            h for h, m in zip(blocks, mask) if not m
        }
        again = hold_out_blocks(given_sites, share=0.25, block=50, rng=np.random.default_rng(1))
        np.testing.assert_array_equal(mask, again)


def test_what_cannot_be_split_is_refused_with_the_call_that_mends_it(sites):
    xy = places(40)
    with pytest.raises(GridError, match=r"found shape \(40, 3\): .* groups= when X holds"):
        next(SpatialBlocks(crs=PLANE).split(np.zeros((40, 3))))
    with pytest.raises(GridError, match=r"1 of 40 coordinates are not finite"):
        next(Checkerboard(crs=PLANE).split(np.where(np.arange(80).reshape(40, 2) == 5, np.nan, xy)))
    with pytest.raises(GridError, match=r"sites have no coordinates"):
        next(SpatialBlocks(crs=PLANE).split(sites.drop_vars(["x", "y"])))
    diagonal = np.array([[0.5, 0.5], [1.5, 1.5]] * 20)
    with pytest.raises(GridError, match=r"squares of one colour with size='1 km'"):
        next(Checkerboard("1 km", crs=PLANE).split(diagonal))
    with pytest.raises(GridError, match=r"farther than buffer='50 km' .* use a smaller buffer"):
        next(BufferedLeaveOut(50, crs=PLANE).split(xy))
    with pytest.raises(BlockError, match=r"all 40 sites lie at 1 place.* into 3 spatial blocks"):
        next(SpatialBlocks(3, size=99, crs=PLANE).split(np.ones((40, 2))))
    with pytest.raises(LabelError, match=r"1 spatial blocks cannot be dealt into 3 folds"):
        spatial_folds(np.ones((4, 1)), np.zeros(4), folds=3, rng=np.random.default_rng(0))
    with pytest.raises(LabelError, match=r"one row per site \(40\), found 39"):
        next(SpatialBlocks(crs=PLANE).split(xy, np.zeros(39)))
    with pytest.raises(LabelError, match=r"2 distinct environments, too few for 3 folds"):
        next(EnvironmentalBlocks(3).split(np.repeat([[0.0], [1.0]], 20, axis=0)))
    with pytest.raises(MissingVariable, match=r"no variable \['bio99'\] to cluster by"):
        next(EnvironmentalBlocks(3, variables=["bio1", "bio99"]).split(sites))
    with pytest.raises(MissingVariable, match=r"'with one number per site'|with one number per"):
        next(EnvironmentalBlocks(3).split(xr.Dataset({"a": (("site", "time"), np.zeros((4, 2)))})))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpatialBlocks(1, crs=PLANE), r"folds must be at least 2, found 1"),
        (
            lambda: SpatialBlocks(size=0, crs=PLANE),
            r"size must be a length above 0 in km, .* found 0:",
        ),
        (lambda: Checkerboard(-1, crs=PLANE), r"size must be a length .* found -1"),
        (
            lambda: BufferedLeaveOut(-0.1, crs=PLANE),
            r"buffer must be a length of at least 0 in km, .* found -0.1:",
        ),
        (lambda: BufferedLeaveOut("1 km", folds=3, crs=PLANE), r"pass their side as size="),
        (lambda: EnvironmentalBlocks(4, clusters=3), r"pass clusters=4 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_share_outside_0_and_1_is_refused(sites):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), found 1.5"):
        hold_out_blocks(sites, share=1.5)
