"""Confidence intervals over spatial blocks against plain loops, and null models of random presences."""

import numpy as np
import pytest
import xarray as xr
from helpers_scores import auc_of_folds
from helpers_small import tiny_sites
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import LabelError, SelectionError, SettingError
from geomiam.splits import site_blocks

QUICK = {
    "network": gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4),
    "training": gm.TrainingConfig(epoch_steps=2, epochs=1, batch=64, holdout=0, keep="last"),
}


def table_of(n=400, *, seed=0, groups=40, shared=0.0, species=2):
    """Out-of-fold predictions of groups of sites; ``shared`` is the deviation that a group has in common."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    chance = np.full((groups, species), 0.4)
    if shared:  # presences are clustered too
        chance = np.where(rng.random((groups, species)) < 0.5, 0.9, 0.1)
    presence = (rng.random((n, species)) < chance[group]).astype(float)
    noise = rng.normal(0, 1, (n, species)) + shared * rng.normal(size=(groups, species))[group]
    scores = 1 / (1 + np.exp(-(presence + noise)))
    scores = np.stack([scores, 1 - scores])
    xy = rng.uniform(0, 20, (groups, 2))[group] + rng.normal(0, 0.01, (n, 2))
    return xr.Dataset(
        {
            "presence": (("site", "species"), presence),
            "suitability": (("subset", "site", "species"), scores),
            "fold": ("site", group % 4),
        },
        coords={
            "subset": ["all", "climate"],
            "species": list("abcd")[:species],
            "lon": ("site", xy[:, 0]),
            "lat": ("site", xy[:, 1] + 30),
        },
    )


def test_the_interval_is_that_of_a_loop_over_chosen_blocks_blocks():
    table = table_of()
    table["presence"][:30, 0] = np.nan
    result = gm.evaluation.confidence(
        table, metrics=["auc", roc_auc_score], samples=40, level=0.8, block="50 km", rng=3
    )
    blocks, fold = site_blocks(table, "50 km"), table["fold"].values
    rng, values, all_pairs = np.random.default_rng(3), [], []
    y, z = table["presence"].values[:, 0], table["suitability"].values[0, :, 0]
    for _ in range(40):
        chosen_blocks = rng.integers(0, blocks.count, blocks.count)
        rows = np.concatenate([np.flatnonzero(blocks.number == b) for b in chosen_blocks])
        rows = rows[np.isfinite(y[rows])]
        values.append(auc_of_folds(y[rows], z[rows], fold[rows]))
        all_pairs.append(roc_auc_score(y[rows], z[rows]))
    species_result = result.sel(subset="all", species="a")
    for name, of_samples in (("auc", values), ("roc_auc_score", all_pairs)):
        bounds = [float(species_result[f"{name}_lower"]), float(species_result[f"{name}_upper"])]
        np.testing.assert_allclose(bounds, np.quantile(of_samples, [0.1, 0.9]), rtol=1e-12)
    assert float(species_result["auc"]) == pytest.approx(auc_of_folds(y, z, fold))
    np.testing.assert_allclose(result["mean_auc"], result["auc"].mean("species"))
    assert (
        (result["mean_auc_lower"] < result["mean_auc"])
        & (result["mean_auc"] < result["mean_auc_upper"])
    ).all()
    assert result.attrs == {
        "level": 0.8,
        "samples": 40,
        "block_km": 50.0,
        "block_count": blocks.count,
    }


def test_intervals_over_blocks_hold_the_true_value_where_those_over_sites_do_not():
    exact = []
    for seed in range(60):
        table = table_of(400, seed=seed, shared=1.5, groups=30, species=1)
        exact.append(
            float(gm.metrics.auc(table["presence"].values, table["suitability"].values[0])[0])
        )
    true = np.mean(exact)
    inside = {"blocks": 0, "sites": 0}
    for seed in range(12):
        table = table_of(400, seed=seed, shared=1.5, groups=30, species=1).sel(subset=["all"])
        y, z = table["presence"].values[:, 0], table["suitability"].values[0, :, 0]
        rows = np.random.default_rng(0).integers(0, 400, (400, 100))  # of single sites
        low, high = np.quantile(gm.metrics.auc(y[rows], z[rows]), [0.05, 0.95])
        inside["sites"] += low <= true <= high
        skill = gm.evaluation.confidence(table, level=0.9, samples=60, block="50 km")
        inside["blocks"] += skill["auc_lower"].item() <= true <= skill["auc_upper"].item()
    assert inside["blocks"] >= 9
    assert inside["sites"] <= 7


def test_weights_count_in_the_value_and_in_every_draw():
    table = table_of(species=1)
    table["fold"][:30] = -1
    y, z = table["presence"].values[:, 0], table["suitability"].values[0, :, 0]
    weights = np.where(np.arange(400) % 3 == 0, 0, np.arange(400) % 5 + 0.5)
    skill = gm.evaluation.confidence(table, weights=weights, block="100 km", samples=20)
    expected = auc_of_folds(y[30:], z[30:], table["fold"].values[30:], weights[30:])
    assert float(skill["auc"].sel(subset="all", species="a")) == pytest.approx(expected)
    is_right = (y == 1) == (z > 0.5)  # sites that the score separates
    only_right = gm.evaluation.confidence(table, weights=is_right, block="100 km", samples=20)
    assert float(only_right["auc_lower"].sel(subset="all", species="a")) == 1
    with pytest.raises(SettingError, match=r"expected one per site of the table \(400,\)"):
        gm.evaluation.confidence(table, weights=weights[30:])
    with pytest.raises(SettingError, match="no weights for tss"):
        gm.evaluation.confidence(table, metrics=["auc", "tss"], weights=weights)


def test_the_default_block_is_that_of_the_folds_and_bad_input_is_refused():
    table = table_of().assign_attrs(block_km=80.0)
    skill = gm.evaluation.confidence(table, metrics="tss", samples=5)
    assert skill.attrs["block_km"] == 80.0
    again = gm.evaluation.confidence(table, metrics="tss", samples=5)
    xr.testing.assert_identical(skill, again)
    one_class = table.copy(deep=True)
    one_class["presence"][:, 1] = 1.0
    values = gm.evaluation.confidence(one_class, samples=5)
    assert values["auc_lower"].sel(species="b").isnull().all()
    assert values["mean_auc_lower"].notnull().all()
    with pytest.raises(LabelError, match=r"pass the table of gm\.cross_validate"):
        gm.evaluation.confidence(table.drop_vars("suitability"))
    with pytest.raises(SelectionError, match="no metric"):
        gm.evaluation.confidence(table, metrics="auk")
    with pytest.raises(SettingError, match=r"level must be in \(0, 1\)"):
        gm.evaluation.confidence(table, level=95)


def test_a_cross_validation_has_intervals_and_its_crs():
    data = tiny_sites(150)
    table = gm.cross_validate(
        data, splits=gm.splits.SpatialBlocks(3, size="150 km"), subsets="all", **QUICK
    )
    skill = gm.evaluation.confidence(table, metrics=["auc", "brier"], samples=20)
    np.testing.assert_allclose(skill["auc"], table["auc"], atol=1e-3)
    assert skill.attrs["block_km"] == 150.0


def test_a_null_model_has_random_presences_of_the_same_number(monkeypatch):
    from geomiam.evaluation import random_presences as module

    data = tiny_sites(150)
    data["presence"][:20, 1] = np.nan
    tables = []
    cross_validate = module.cross_validate

    def watched(sites, *args, **options):
        tables.append((sites["presence"].values, options["splits"]))
        return cross_validate(sites, *args, **options)

    monkeypatch.setattr(module, "cross_validate", watched)
    linear = {"network": {"fusion": "linear", "members": 1}, "training": {"steps": 30, "batch": 64}}
    splits = gm.splits.SpatialBlocks(2, size="150 km")
    null = gm.evaluation.null_model(data, repeats=4, splits=splits, **linear)
    assert len(tables) == 5
    first = tables[0][0]
    for labels, _ in tables[1:]:
        np.testing.assert_array_equal(np.isnan(labels), np.isnan(first))
        np.testing.assert_array_equal(np.nansum(labels, 0), np.nansum(first, 0))
        assert (labels != first).any()
    fold = [np.concatenate([t for _, t in s]) for _, s in tables[1:]]
    assert all((f == fold[0]).all() for f in fold)
    assert null["null_auc"].dims == ("repeat", "species")
    share = ((null["null_auc"].values >= null["auc"].values).sum(0) + 1) / 5
    np.testing.assert_allclose(null["p_value"], share)
    assert (null["auc"] > null["null_auc"].max("repeat")).all()  # presence follows bio1
    np.testing.assert_allclose(null["null_auc_95"], np.quantile(null["null_auc"], 0.95, axis=0))


def test_null_models_of_other_metrics():
    with pytest.raises(SelectionError, match="metric='brier' is lower for better models"):
        gm.evaluation.null_model(tiny_sites(60), metric="brier")
    with pytest.raises(SelectionError, match="no metric 'auk'"):
        gm.evaluation.null_model(tiny_sites(60), metric="auk")
    with pytest.raises(SettingError, match="repeats must be at least 1"):
        gm.evaluation.null_model(tiny_sites(60), repeats=0)


def test_every_sample_compares_pairs_within_folds():
    """The predictions of fold 1 are higher; only fold 0 has presences, and one block of it has its absence."""
    presence = np.array([1.0, 1, 1, 0, 0, 0, 0])[:, None]
    scores = np.array([0.2, 0.2, 0.2, 0.1, 0.9, 0.9, 0.9])[:, None]
    table = xr.Dataset(
        {
            "presence": (("site", "species"), presence),
            "suitability": (("subset", "site", "species"), scores[None]),
            "fold": ("site", [0, 0, 0, 0, 1, 1, 1]),
        },
        coords={
            "subset": ["all"],
            "species": ["oak"],
            "lon": ("site", 5.0 * np.arange(7)),
            "lat": ("site", np.full(7, 45.0)),
        },
    )
    skill = gm.evaluation.confidence(table, samples=100, block="10 km")
    assert (skill["auc_lower"] == 1).all() and (skill["mean_auc_upper"] == 1).all()
