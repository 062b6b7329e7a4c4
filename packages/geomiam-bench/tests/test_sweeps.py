"""The missingness benchmark: every method is trained, and the command writes its results."""

from __future__ import annotations

import json
from functools import partial

import pytest
from conftest import SHARED, needs_shared
from typer.testing import CliRunner

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.errors import SelectionError
from geomiam.splits import site_coordinates
from geomiam_bench import sweeps as module
from geomiam_bench.cli import app
from geomiam_bench.sweeps import SweepPlan, methods, split, sweeps

NETWORK = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=4)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=2, batch=32, warmup=2)
PLAN = SweepPlan(
    strategies=("miam",),
    imputations=("mean",),
    baselines=("maxent-like",),
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


@pytest.mark.slow
def test_every_method_of_a_plan_is_trained_and_seeds_differ(sites, schema):
    tables = list(sweeps(sites, schema, PLAN))
    assert [t.attrs["seed"] for t in tables] == [0, 1]
    for table in tables:
        assert list(table["predictor"].values) == ["miam", "mean", "maxent-like"]
        assert table["mean_auc"].notnull().all()
    train, test = split(sites, 0)
    shared_places = {tuple(c) for c in site_coordinates(train)} & {
        tuple(c) for c in site_coordinates(test)
    }
    assert not shared_places and train.sizes["site"] + test.sizes["site"] == sites.sizes["site"]


def test_unknown_names_are_refused_before_anything_is_trained():
    with pytest.raises(
        SelectionError, match=r"no pattern of gaps \['swiss'\]; choose from at-random"
    ):
        SweepPlan(patterns=["swiss"])
    with pytest.raises(SelectionError, match=r"no effect \['rust'\]; choose from missing, noise"):
        SweepPlan(effects=["rust"])
    with pytest.raises(ValueError, match="guess"):
        SweepPlan(strategies=["guess"])


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_picture(sites, tmp_path, monkeypatch):
    plan = partial(SweepPlan, network=NETWORK, training=TRAINING)
    monkeypatch.setattr(module, "SweepPlan", plan)
    gm.write_sites(sites, tmp_path / "sites.zarr")
    out, picture = tmp_path / "a" / "out.json", tmp_path / "a" / "out.png"
    command = [
        "missingness",
        tmp_path / "sites.zarr",
        "--json",
        out,
        "--figure",
        picture,
    ]
    command += ["--strategies", "uniform", "--imputations", "median", "--baselines", "maxent-like"]
    command += ["--patterns", "region", "--shares", "0,0.5", "--seeds", "1"]
    command += ["--effects", "missing,noise"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    assert list(results["summary"]) == ["region", "region, noise"]
    for rows in results["summary"].values():
        assert set(rows) == {"uniform", "median", "maxent-like"}
    gaps, errors = (rows["uniform"] for rows in results["summary"].values())
    assert gaps[0] == errors[0] and gaps[1] != errors[1]
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
    sites = gm.sample(cube, records, species=names, thin=False)
    schema = gm.infer_schema(cube, kinds={"koeppen": "categorical", "aspect": "circular"})
    plan = SweepPlan(
        strategies=("miam",),
        imputations=("mean",),
        baselines=(),
        seeds=1,
        network=module.NETWORK.model_copy(update={"members": 2}),
        training=module.TRAINING.model_copy(update={"epochs": 40, "holdout": 0, "keep": "last"}),
    )
    train, test = split(sites, 0)
    table = gm.evaluation.missingness_sweep(
        train,
        test,
        schema,
        predictors=methods(train, schema, plan, seed=0),
        patterns=["by-modality"],
        shares=[0.6],
        repeats=3,
    )
    masked_auc, imputed_auc = table["mean_auc"].mean(["repeat", "share", "pattern"]).values
    assert masked_auc > imputed_auc
