"""Gaps of every pattern, exact shares, and sweeps that score what is left."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.evaluation.evaluate import Masked
from geomiam.evaluation.patterns import PATTERNS, at_random, belt, by_modality, hide, region
from geomiam.splits import site_coordinates


@pytest.fixture(scope="module")
def model(either_model):
    return either_model


@pytest.fixture(scope="module")
def schema(sites):
    return bind(gm.infer_schema(sites), sites)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_a_pattern_hides_the_share_that_was_requested(sites, schema, name, share):
    hidden = PATTERNS[name](sites, schema, share=share, rng=0)
    slack = 1.0 if name != "region" else 12.0  # a region takes whole blocks
    assert abs(float(hidden.mean()) - share) * sites.sizes["site"] <= slack
    again, other_seed = (PATTERNS[name](sites, schema, share=share, rng=r) for r in (0, 1))
    assert bool((hidden == again).all())
    assert share in (0.0, 1.0) or not bool((hidden == other_seed).all())


@pytest.mark.parametrize("name", PATTERNS)
def test_more_gaps_contain_fewer(sites, schema, name):
    steps = [PATTERNS[name](sites, schema, share=s, rng=3).values for s in (0.2, 0.5, 0.9)]
    for smaller, larger in pairwise(steps):
        assert not (smaller & ~larger).any()


def test_a_belt_is_a_band_and_a_region_is_compact(sites, schema):
    """A straight line parts a belt from the rest on either side; a region is rounder than chance."""
    xy = site_coordinates(sites)
    hidden = belt(sites, schema, share=0.3, rng=0, modalities=["climate"])
    assert set(hidden["modality"].values[hidden.any("site").values]) == {"climate"}
    inside = hidden.sel(modality="climate").values
    gaps = []
    for angle in np.linspace(0, np.pi, 720):
        along = xy @ [np.cos(angle), np.sin(angle)]
        low, high = along[inside].min(), along[inside].max()
        gaps.append(((along[~inside] > low) & (along[~inside] < high)).sum())
    assert min(gaps) == 0
    patch = region(sites, schema, share=0.3, rng=0).values[:, 0]
    spread = np.linalg.norm(xy[patch] - xy[patch].mean(0), axis=1).mean()
    assert spread < 0.75 * np.linalg.norm(xy - xy.mean(0), axis=1).mean()


def test_hidden_is_nan_and_nothing_else_changes(sites, schema):
    for hidden in (
        at_random(sites, schema, share=0.4, rng=0),
        by_modality(sites, schema, share=0.4, rng=0),
    ):
        gappy = hide(sites, hidden, schema)
        for modality in schema.modalities.values():
            for name in modality.variables:
                label = (
                    {"variable": name} if "variable" in hidden.dims else {"modality": modality.name}
                )
                values = hidden.sel(label).values
                before, after = (ds[name].transpose("site", ...).values for ds in (sites, gappy))
                assert np.isnan(after[values]).all()
                np.testing.assert_array_equal(after[~values], before[~values])
        assert gappy["presence"].identical(sites["presence"])


def test_a_sweep_scores_the_gappy_sites_as_scikit_learn_does(sites, schema, model):
    table = gm.evaluation.missingness_sweep(
        sites,
        sites,
        schema,
        predictors={"m": Masked(model)},
        patterns=["by-modality"],
        shares=[0.5],
        rng=0,
    )
    seed = np.random.default_rng(0).integers(2**31, size=1)[0]
    from zlib import crc32

    draws = np.random.default_rng([int(seed), crc32(b"by-modality")])
    gappy = hide(sites, by_modality(sites, schema, share=0.5, rng=draws), schema)
    scores, base = Masked(model).scores(gappy), Masked(model).scores(sites)
    scores = np.where(np.isfinite(scores), scores, np.nanmean(base, 0))
    for s, name in enumerate(sites["species"].values):
        truth = sites["presence"].values[:, s]
        valid = np.isfinite(truth)
        expected = roc_auc_score(truth[valid], scores[valid, s])
        actual = table["auc"].sel(predictor="m", species=name).item()
        assert actual == pytest.approx(expected, abs=1e-6)


def test_with_nothing_left_everybody_guesses(sites, schema, model):
    baseline = gm.baselines.fit_baseline("maxent-like", sites, schema, options={"epochs": 2})
    table = gm.evaluation.missingness_sweep(
        sites, sites, schema, predictors={"m": Masked(model), "r": baseline}, shares=[1.0]
    )
    np.testing.assert_allclose(table["mean_auc"], 0.5)
    assert (table["hidden"] == 1).all()
