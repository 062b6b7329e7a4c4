"""Whether a model was fitted on the sites that it is scored on."""

from __future__ import annotations

import base64
import warnings

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.errors import TrainedOnTheseSites
from geomiam.training.provenance import fingerprint, shared_with


def places(n: int, seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    coords = {"x": ("site", rng.uniform(0, 10, n)), "y": ("site", rng.uniform(40, 50, n))}
    return xr.Dataset(coords=coords)


@pytest.mark.parametrize("n", [12, 500, 20_000])
def test_the_share_of_known_sites_is_estimated(n):
    training_sites, fresh = places(n, 0), places(n, 1)
    about = {"fingerprint": fingerprint(training_sites)}
    assert shared_with(about, training_sites) == 1
    assert shared_with(about, training_sites.isel(site=slice(None, None, -1))) == 1
    assert shared_with(about, fresh) == 0
    if n > 12:
        mixed = xr.concat(
            [training_sites.isel(site=slice(n // 2)), fresh.isel(site=slice(n // 2))], "site"
        )
        assert shared_with(about, mixed) == pytest.approx(0.5, abs=0.08)


def test_a_single_place_cannot_be_looked_up():
    training_sites, fresh = places(5000, 0), places(4000, 1)
    about = {"fingerprint": fingerprint(training_sites)}
    assert shared_with(about, training_sites.isel(site=slice(5))) == 0
    table = np.unpackbits(np.frombuffer(base64.b64decode(about["fingerprint"]), np.uint8))
    assert 0.12 < table.mean() < 0.26  # so many places that were never seen are in the filter too
    assert shared_with(about, fresh) == 0


def test_precision_sign_of_zero_and_time_are_those_of_places():
    training_sites = places(300, 0)
    single = training_sites.assign_coords(
        x=training_sites["x"].astype("f4"), y=training_sites["y"].astype("f4")
    )
    assert shared_with({"fingerprint": fingerprint(training_sites)}, single) == 1
    zeros = xr.Dataset(coords={"x": ("site", np.zeros(40)), "y": ("site", np.arange(40.0))})
    minus = zeros.assign_coords(x=-zeros["x"])
    assert shared_with({"fingerprint": fingerprint(zeros)}, minus) == 1
    year = np.datetime64("2001-01-01")
    first_year = training_sites.assign_coords(time=("site", np.full(300, year)))
    later = training_sites.assign_coords(time=("site", np.full(300, year + 365)))
    assert shared_with({"fingerprint": fingerprint(first_year)}, first_year) == 1
    assert shared_with({"fingerprint": fingerprint(first_year)}, later) == 0


@pytest.mark.parametrize(
    "text", [None, 5, "not base64!", "", "AAA=", [], base64.b64encode(b"abc").decode()]
)
def test_a_damaged_fingerprint_is_no_fingerprint(text):
    assert shared_with({"fingerprint": text, "finetuning": text}, places(50, 0)) == 0


def test_sites_without_coordinates_have_none():
    bare = xr.Dataset({"a": ("site", np.arange(3.0))})
    assert fingerprint(bare) is None
    assert shared_with({"fingerprint": fingerprint(places(50, 0))}, bare) == 0


def test_evaluate_warns_on_training_sites_and_on_no_others(tmp_path):
    sites, new_sites, fresh = tiny_sites(120), tiny_sites(100, seed=5), tiny_sites(80, seed=9)
    model = gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1), rng=0)
    path = model.save(tmp_path / "model")
    with pytest.warns(TrainedOnTheseSites, match=r"about 100% of these sites.*hold_out_blocks"):
        gm.evaluate(path, sites, subsets="all")
    tuned_model = gm.finetune(model, new_sites, train="all", training=quick(epochs=1))
    for data in (sites, new_sites):
        with pytest.warns(TrainedOnTheseSites):
            gm.evaluate(tuned_model, data, subsets="all")
    with pytest.warns(TrainedOnTheseSites):
        gm.evaluate(gm.evaluation.probe(model, new_sites), new_sites, subsets="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainedOnTheseSites)
        gm.evaluate(tuned_model, fresh, subsets="all")
        gm.cross_validate(
            sites,
            splits=gm.splits.SpatialBlocks(2),
            subsets="all",
            network=TINY_NETWORK,
            training=quick(epochs=1),
        )
    card = (path / "README.md").read_text(encoding="utf-8")
    assert model.about["fingerprint"] not in card
