"""Gaps of every pattern, exact shares, and sweeps that score what is left."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import SHARED, needs_shared
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli import app
from geomiam.cube.predictors import bind
from geomiam.errors import SelectionError
from geomiam.evaluation.masked import Masked
from geomiam.evaluation.patterns import PATTERNS, at_random, belt, by_modality, hide, region
from geomiam.evaluation.sweeps import SweepPlan, methods, split, sweeps
from geomiam.training.splits import site_coordinates

NETWORK = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=4)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=2, batch=32, warmup=2)
PLAN = SweepPlan(
    strategies=("miam",),
    imputations=("mean",),
    rivals=("maxent-like",),
    patterns=("by-modality", "belt"),
    shares=(0.0, 0.5),
    seeds=2,
    repeats=1,
    network=NETWORK,
    training=TRAINING,
)


@pytest.fixture(scope="module")
def schema(sites):
    return bind(gm.infer_schema(sites), sites)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_a_pattern_hides_the_share_that_was_asked_for(sites, schema, name, share):
    hidden = PATTERNS[name](sites, schema, share=share, rng=0)
    slack = 1.0 if name != "region" else 12.0  # a region takes whole blocks
    assert abs(float(hidden.mean()) - share) * sites.sizes["site"] <= slack
    again, other = (PATTERNS[name](sites, schema, share=share, rng=r) for r in (0, 1))
    assert bool((hidden == again).all())
    assert share in (0.0, 1.0) or not bool((hidden == other).all())


@pytest.mark.parametrize("name", PATTERNS)
def test_more_gaps_contain_fewer(sites, schema, name):
    steps = [PATTERNS[name](sites, schema, share=s, rng=3).values for s in (0.2, 0.5, 0.9)]
    for less, more in pairwise(steps):
        assert not (less & ~more).any()


def test_a_belt_is_a_band_and_a_region_is_compact(sites, schema):
    """A straight line parts a belt from the rest on either side; a region is rounder than chance."""
    xy = site_coordinates(sites)
    one = belt(sites, schema, share=0.3, rng=0, modalities=["climate"])
    assert set(one["modality"].values[one.any("site").values]) == {"climate"}
    inside = one.sel(modality="climate").values
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
                gone = hidden.sel(label).values
                before, after = (ds[name].transpose("site", ...).values for ds in (sites, gappy))
                assert np.isnan(after[gone]).all()
                np.testing.assert_array_equal(after[~gone], before[~gone])
        assert gappy["presence"].identical(sites["presence"])


def test_a_sweep_scores_the_gappy_sites_as_scikit_learn_does(sites, schema, model):
    table = gm.missingness_sweep(
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
        known = np.isfinite(truth)
        wanted = roc_auc_score(truth[known], scores[known, s])
        found = table["auc"].sel(predictor="m", species=name).item()
        assert found == pytest.approx(wanted, abs=1e-6)


def test_with_nothing_left_everybody_guesses(sites, schema, model):
    rival = gm.fit_rival("maxent-like", sites, schema, epochs=2)
    table = gm.missingness_sweep(
        sites, sites, schema, predictors={"m": Masked(model), "r": rival}, shares=[1.0]
    )
    np.testing.assert_allclose(table["mean_auc"], 0.5)
    assert (table["hidden"] == 1).all()


@pytest.mark.slow
def test_every_method_of_a_plan_is_trained_and_seeds_differ(sites, schema):
    tables = list(sweeps(sites, schema, PLAN))
    assert [t.attrs["seed"] for t in tables] == [0, 1]
    for table in tables:
        assert list(table["predictor"].values) == ["miam", "mean", "maxent-like"]
        assert table["mean_auc"].notnull().all()
    train, test = split(sites, 0)
    both = {tuple(c) for c in site_coordinates(train)} & {tuple(c) for c in site_coordinates(test)}
    assert not both and train.sizes["site"] + test.sizes["site"] == sites.sizes["site"]


def test_unknown_names_are_refused_before_anything_is_trained():
    with pytest.raises(
        SelectionError, match=r"no pattern of gaps \['swiss'\]; choose from at-random"
    ):
        SweepPlan(patterns=["swiss"])
    with pytest.raises(ValueError, match="guess"):
        SweepPlan(strategies=["guess"])


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_picture(sites, tmp_path, monkeypatch):
    from geomiam.evaluation import sweeps as module

    monkeypatch.setattr(module, "NETWORK", NETWORK)
    gm.write_sites(sites, tmp_path / "sites.zarr")
    out, picture = tmp_path / "a" / "out.json", tmp_path / "a" / "out.png"
    command = [
        "benchmark",
        "missingness",
        tmp_path / "sites.zarr",
        "--json",
        out,
        "--figure",
        picture,
    ]
    command += ["--strategies", "uniform", "--imputations", "median", "--baselines", "maxent-like"]
    command += ["--patterns", "region", "--shares", "0,0.5", "--seeds", "1"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert set(found["summary"]["region"]) == {"uniform", "median", "maxent-like"}
    assert "50%" in result.output and picture.stat().st_size > 10_000
    again = CliRunner().invoke(app, list(map(str, command)))
    assert again.exit_code != 0


@needs_shared
@pytest.mark.slow
def test_a_masked_model_loses_less_than_a_mean_filled_one_on_real_birds():
    """Blocks of the French breeding bird survey, modalities going missing at random."""
    import pandas as pd

    folder = SHARED / "maps" / "france_birds"
    cube = gm.open_cube(folder / "europe_50km.zarr", chunks=None).load()
    records = pd.read_parquet(folder / "sites.parquet")
    records = records[records["period"] == "2012-2017"]
    names = [c for c in records if "_" in c and c[0].isupper()]
    sites = gm.sample(cube, records, species=names)
    schema = gm.infer_schema(cube, kinds={"koeppen": "categorical", "aspect": "circular"})
    plan = SweepPlan(strategies=("miam",), imputations=("mean",), rivals=(), seeds=1)
    train, test = split(sites, 0)
    table = gm.missingness_sweep(
        train,
        test,
        schema,
        predictors=methods(train, schema, plan, seed=0),
        patterns=["by-modality"],
        shares=[0.6],
        repeats=3,
    )
    masked, filled = table["mean_auc"].mean(["repeat", "share", "pattern"]).values
    assert masked > filled
