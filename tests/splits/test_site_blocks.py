"""Blocks of sites: their size follows from the data, is reported, and separates neighbours in every CRS."""

import numpy as np
import pytest
import xarray as xr
from pyproj import Transformer
from scipy.optimize import nnls

import geomiam as gm
from geomiam.errors import BlockError, CRSAssumed, GridError, LargerBlocks, SmallerBlocks
from geomiam.geo.places import places
from geomiam.splits import (
    Blocks,
    BufferedLeaveOut,
    SpatialBlocks,
    hold_out_blocks,
    site_blocks,
    spatial_folds,
)
from geomiam.splits.variogram import autocorrelation_ranges, nonnegative_fit


def field(xy, *, reach, seed=0, count=6):
    """Gaussian random fields ``(n, count)`` with the exponential covariance exp(-3 h / reach)."""
    h = np.linalg.norm(xy[:, None] - xy, axis=2)
    root = np.linalg.cholesky(np.exp(-3 * h / reach) + 1e-9 * np.eye(len(xy)))
    return root @ np.random.default_rng(seed).normal(size=(len(xy), count))


def sites_of(xy, predictors, *, crs="EPSG:3035", labels=None):
    names = [f"bio{i}" for i in range(predictors.shape[1])]
    data = {n: ("site", predictors[:, i]) for i, n in enumerate(names)}
    rng = np.random.default_rng(0)
    presence = rng.integers(0, 2, (len(xy), 1)).astype("f4") if labels is None else labels
    return xr.Dataset(
        {**data, "presence": (("site", "species"), presence)},
        {"x": ("site", xy[:, 0]), "y": ("site", xy[:, 1]), "species": ["a"]},
        {"crs": crs} if crs else {},
    )


EUROPE = np.array([4_321_000, 3_210_000])
KM = np.random.default_rng(3).uniform(0, 1000, (400, 2))


@pytest.mark.parametrize("reach", [60, 150, 400])
def test_the_range_of_a_field_is_recovered(reach):
    ranges = autocorrelation_ranges(
        places(KM * 1000, 'LOCAL_CS["p",UNIT["metre",1]]'), field(KM, reach=reach, count=12)
    )
    assert 0.6 * reach < np.median(ranges) < 1.6 * reach


def test_the_fit_of_a_variogram_is_scipys_non_negative_least_squares():
    rng = np.random.default_rng(0)
    for _ in range(40):
        y, weight = rng.normal(0.5, 0.5, 12).clip(0), rng.integers(1, 50, 12).astype(float)
        shape = rng.random((3, 12))
        actual = np.stack(nonnegative_fit(shape, y, weight), 1)
        root = np.sqrt(weight)
        expected = [nnls(np.stack([root, row * root], 1), y * root)[0] for row in shape]
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_noise_has_no_range_and_gaps_and_constants_do_not_count():
    table = np.random.default_rng(0).normal(size=(400, 5))
    table[:, 3], table[::2, 0] = 7.0, np.nan
    plane = places(KM * 1000, 'LOCAL_CS["p",UNIT["metre",1]]')
    assert np.median(autocorrelation_ranges(plane, table)) == 0
    assert len(autocorrelation_ranges(plane, table)) == 4
    smooth = field(KM, reach=200, count=2)
    gappy = np.where(np.random.default_rng(1).random(smooth.shape) < 0.3, np.nan, smooth)
    np.testing.assert_allclose(
        autocorrelation_ranges(plane, gappy), autocorrelation_ranges(plane, smooth), rtol=0.5
    )


def test_the_default_size_is_the_range_whatever_the_crs():
    sites = sites_of(EUROPE + KM * 1000, field(KM, reach=150))
    blocks = site_blocks(sites)
    assert 90 <= blocks.km <= 230 and blocks.count == len(np.unique(blocks.number)) >= 20
    assert "median range of spatial autocorrelation of 6 predictors" in str(blocks)
    to = Transformer.from_crs("EPSG:3035", "EPSG:4326", always_xy=True)
    lon, lat = to.transform(sites["x"].values, sites["y"].values)
    degrees = sites.assign_coords(x=("site", lon), y=("site", lat)).assign_attrs(crs="EPSG:4326")
    assert site_blocks(degrees).km == pytest.approx(blocks.km, rel=0.15)
    assert site_blocks(degrees).about()["crs"] == "EPSG:4326"


def test_the_default_leaves_blocks_enough_and_places_enough_in_each():
    trend = KM / 100  # still changes at the largest distance
    wide = site_blocks(sites_of(EUROPE + KM * 1000, trend))
    assert 20 <= wide.count < 60 and "reduced to have at least 20 blocks" in wide.reason
    noise = np.random.default_rng(0).normal(size=(400, 3))
    fine = site_blocks(sites_of(EUROPE + KM * 1000, noise))
    assert 60 < fine.count <= 140 and "enlarged to hold at least 3 places" in fine.reason
    few_sites = site_blocks(sites_of((EUROPE + KM * 1000)[:12], noise[:12]))
    assert 2 <= few_sites.count <= 8


@pytest.mark.parametrize("size", ["500 m", "0.5 km", 0.5])
def test_blocks_that_are_nearly_single_places_become_larger_with_the_numbers(size):
    sites = sites_of(EUROPE + KM * 1000, field(KM, reach=150))
    default = site_blocks(sites)
    message = (
        rf"400 blocks of 500 m for 400 places are nearly single places.* {default.km:g} km are used"
    )
    quick = gm.TrainingConfig(block=size, epoch_steps=1, epochs=1)
    small = gm.NetworkConfig(fusion="linear", width=8)
    for call in (
        lambda: site_blocks(sites, size),
        lambda: hold_out_blocks(sites, block=size),
        lambda: next(SpatialBlocks(size=size).split(sites)),
        lambda: next(BufferedLeaveOut(0, size=size).split(sites)),
        lambda: gm.fit(sites, training=quick, network=small),
    ):
        with pytest.warns(LargerBlocks, match=message):
            call()
    with pytest.warns(LargerBlocks):
        blocks = site_blocks(sites, size)
    assert blocks.km == default.km and (blocks.number == default.number).all()
    assert "500 m as set would be nearly single places" in blocks.reason
    fine = sites_of(EUROPE + KM * 10, field(KM, reach=150))  # 10 km across: 0.5 km fits
    assert site_blocks(fine, size).km == 0.5


def test_an_area_smaller_than_a_block_gets_smaller_blocks():
    sites = sites_of(EUROPE + KM * 30, field(KM, reach=150))  # 30 km across
    with pytest.warns(SmallerBlocks, match=r"block\(s\) of 500 km.*are used"):
        blocks = site_blocks(sites, "500 km")
    assert 10 <= blocks.count < 40 and blocks.km < 15
    assert "500 km as set; reduced" in blocks.reason
    assert site_blocks(sites).count >= 20  # and the default needs no warning
    with pytest.warns(SmallerBlocks):
        assert hold_out_blocks(sites, block=500).any()
    with pytest.warns(SmallerBlocks, match=r"and 5 are needed"):
        assert len(list(SpatialBlocks(5, size=500).split(sites))) == 5


def test_sites_at_one_place_are_refused():
    sites = sites_of(np.repeat(EUROPE[None], 30, 0), np.random.default_rng(0).normal(size=(30, 2)))
    with pytest.raises(BlockError, match=r"all 30 sites lie at 1 place"):
        hold_out_blocks(sites)


def test_sites_without_crs_are_degrees_or_refused():
    sites = sites_of(KM / 100, field(KM, reach=150), crs=None)
    with pytest.warns(CRSAssumed, match="taken as degrees"):
        assert site_blocks(sites).crs == "degrees (assumed: no CRS)"
    with pytest.raises(GridError, match=r"no CRS and are not degrees.*crs='EPSG"):
        site_blocks(sites_of(EUROPE + KM * 1000, field(KM, reach=150), crs=None))


def test_a_model_states_its_blocks(tmp_path):
    sites = sites_of(EUROPE + KM * 1000, field(KM, reach=150, count=2))
    small = gm.NetworkConfig(fusion="linear", width=8)
    model = gm.fit(
        sites, network=small, training=gm.TrainingConfig(epoch_steps=1, epochs=1, batch=512)
    )
    blocks = site_blocks(sites)
    assert isinstance(blocks, Blocks)
    assert (
        model.about["blocks"]
        == blocks.about()
        == gm.load_model(model.save(tmp_path / "m")).about["blocks"]
    )
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert f"Validated on spatial blocks: {blocks.count} blocks of {blocks.km:g} km a side" in card
    held_out = hold_out_blocks(sites)
    assert not set(blocks.number[held_out]) & set(blocks.number[~held_out])


def test_another_seed_is_another_deal_and_every_deal_is_even():
    """Few unequal blocks of five rare species, as surveys have them."""
    rng = np.random.default_rng(0)
    size = np.sort(rng.integers(5, 120, 12))[::-1]
    blocks = np.repeat(np.arange(12), size)
    labels = (rng.random((len(blocks), 5)) < 0.1).astype(np.float32)
    deals = set()
    for seed in range(8):
        fold = spatial_folds(labels, blocks, folds=3, rng=np.random.default_rng(seed))
        for block in range(12):
            assert len(set(fold[blocks == block])) == 1
        shares = np.bincount(fold) / len(fold)
        assert len(shares) == 3 and shares.min() > 0.2 and shares.max() < 0.5
        present = np.stack([labels[fold == f].sum(0) for f in range(3)]) / labels.sum(0)
        assert present.min() > 0.05
        deals.add(frozenset(frozenset(blocks[fold == f]) for f in range(3)))
    assert len(deals) >= 5
