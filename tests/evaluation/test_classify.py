"""Thresholds of a cross-validation and of a fit, stored with the model, and the classes of a map."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from helpers_small import quick, tiny_sites
from sklearn.metrics import balanced_accuracy_score, recall_score

import geomiam as gm
from geomiam.errors import ArtifactError, LabelError, SelectionError, SettingError
from geomiam.metrics.thresholds import KINDS


@pytest.fixture
def table():
    """The table of a cross-validation of 200 sites, two species, of which the second has gaps."""
    rng = np.random.default_rng(0)
    presence = (rng.random((200, 2)) < [0.3, 0.6]).astype(float)
    scores = (presence * 0.3 + rng.random((200, 2)) * 0.7).astype(np.float32)
    presence[:50, 1] = np.nan
    fold = rng.integers(-1, 4, 200)
    scores[fold < 0] = np.nan
    return xr.Dataset(
        {
            "presence": (("site", "species"), presence),
            "suitability": (("subset", "site", "species"), np.stack([scores, scores / 2])),
            "fold": ("site", fold),
        },
        coords={"subset": ["all", "climate"], "species": ["oak", "elm"]},
    )


def test_thresholds_are_those_of_the_tested_sites(table):
    limits = gm.evaluation.thresholds(table)
    assert limits["threshold"].dims == ("kind", "species")
    assert list(limits["kind"].values) == list(KINDS)
    assert limits.attrs["source"] == "out-of-fold predictions of 4 folds"
    rows = table["fold"].values >= 0
    y, z = table["presence"].values[rows], table["suitability"].values[0, rows]
    for kind in KINDS:
        np.testing.assert_array_equal(
            limits["threshold"].sel(kind=kind), gm.metrics.threshold(y, z, kind=kind)
        )
    half = gm.evaluation.thresholds(table, subset="climate", kinds=["max-tss"])
    np.testing.assert_allclose(
        half["threshold"].values[0], limits["threshold"].sel(kind="max-tss") / 2, rtol=1e-6
    )


def test_the_skill_of_each_fold_is_by_the_threshold_of_the_others(table):
    limits = gm.evaluation.thresholds(table, kinds=["omission-10"])
    for k, name in enumerate(table["species"].values):
        labels, classes = [], []
        for number in range(4):
            y, z = table["presence"].values[:, k], table["suitability"].values[0, :, k]
            fold, is_scored = table["fold"].values, ~np.isnan(table["presence"].values[:, k])
            is_other, test = (
                is_scored & (fold >= 0) & (fold != number),
                is_scored & (fold == number),
            )
            limit = gm.metrics.threshold(y[is_other], z[is_other], kind="omission-10")
            labels, classes = np.r_[labels, y[test]], np.r_[classes, z[test] >= limit]
        skill = limits.sel(species=name, kind="omission-10")
        assert float(skill["sensitivity"]) == pytest.approx(recall_score(labels, classes))
        assert float(skill["tss"]) == pytest.approx(
            balanced_accuracy_score(labels, classes, adjusted=True)
        )


def test_other_tables_and_unknown_names_are_refused(table):
    with pytest.raises(LabelError, match=r"has no fold: pass the table of gm.cross_validate"):
        gm.evaluation.thresholds(table.drop_vars("fold"))
    with pytest.raises(SelectionError, match=r"no subset 'soil' .* \['all', 'climate'\]"):
        gm.evaluation.thresholds(table, subset="soil")
    with pytest.raises(SelectionError, match="no threshold 'best'"):
        gm.evaluation.thresholds(table, kinds=["best"])


def maps_of(species=("oak", "elm"), **attrs):
    values = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    values[:, 0, 0] = np.nan
    coords = {"species": list(species), "y": [3, 2, 1], "x": [0, 1, 2, 3]}
    return xr.Dataset({"suitability": (("species", "y", "x"), values, attrs)}, coords=coords)


def test_classes_are_matched_by_name_and_state_their_threshold(table):
    limits, maps = gm.evaluation.thresholds(table), maps_of(("elm", "oak"))
    classes = gm.classify(maps, limits, kind="prevalence")
    assert classes["presence"].dims == ("species", "y", "x")
    assert classes["presence"].dtype == np.float32
    for name in ("oak", "elm"):
        limit = float(limits["threshold"].sel(kind="prevalence", species=name))
        z = maps["suitability"].sel(species=name).values
        expected = np.where(np.isnan(z), np.nan, z >= limit)
        np.testing.assert_array_equal(classes["presence"].sel(species=name), expected)
        assert float(classes["threshold"].sel(species=name)) == limit
    attrs = classes["presence"].attrs
    assert attrs["threshold_kind"] == "prevalence"
    assert attrs["threshold_source"] == "out-of-fold predictions of 4 folds"
    assert (attrs["flag_values"], attrs["flag_meanings"]) == ([0, 1], "absent present")


def test_classes_of_numbers_of_dask_and_of_nothing():
    maps = maps_of()
    presence = gm.classify(maps, 0.5)["presence"]
    assert presence.attrs["threshold_kind"] == "as set"
    lazy = gm.classify(maps.chunk({"x": 2}), {"oak": 0.5, "elm": 0.5, "ash": 0.1})["presence"]
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, presence)
    none = gm.classify(maps, {"oak": 0.5, "elm": np.nan})["presence"]
    assert none.sel(species="elm").isnull().all()
    with pytest.raises(SelectionError, match=r"no threshold of 1 of 2 species \(elm\)"):
        gm.classify(maps, {"oak": 0.5})
    with pytest.raises(SettingError, match="scale of log-odds"):
        gm.classify(maps_of(scale="logit"), 0.5)
    with pytest.raises(SettingError, match="need the variable 'suitability'"):
        gm.classify(maps.rename(suitability="x1"), 0.5)


def test_thresholds_are_stored_with_the_model_and_older_models_have_none(model, tmp_path):
    about = {k: v for k, v in model.about.items() if k != "thresholds"}
    model = replace(model, about=about)
    with pytest.raises(SelectionError, match=r"no thresholds.*: choose them with gm.evaluation"):
        gm.classify(maps_of(model.species[:2]), model)
    assert model.thresholds.sizes == {"kind": 0, "species": len(model.species)}
    values = [[0.25, np.nan], [0.5, 0.75]]
    names = [model.species[2], model.species[0]]
    limits = xr.Dataset(
        {"threshold": (("kind", "species"), values)},
        coords={"kind": ["max-tss", "prevalence"], "species": names},
        attrs={"source": "out-of-fold predictions of 4 folds"},
    )
    with_limits = model.with_thresholds(limits)
    assert "thresholds" not in model.about
    assert with_limits.id == model.id
    with_limits.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["about"]["thresholds"]["values"]["max-tss"] == [None, None, 0.25]
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Thresholds, chosen on out-of-fold predictions of 4 folds:" in card
    assert "| prevalence | 0.750 | nan | 0.500 |" in card
    back = gm.load_model(tmp_path / "model").thresholds
    np.testing.assert_array_equal(back.values, [[np.nan, np.nan, 0.25], [0.75, np.nan, 0.5]])
    assert back.attrs["source"] == "out-of-fold predictions of 4 folds"
    classes = gm.classify(maps_of(names), str(tmp_path / "model"))
    assert classes["presence"].attrs["threshold_source"] == "out-of-fold predictions of 4 folds"
    assert float(classes["threshold"][0]) == 0.25
    with pytest.raises(SelectionError, match="there is no threshold 'omission-10'; choose from"):
        gm.classify(maps_of(names), with_limits, kind="omission-10")
    with pytest.raises(SelectionError, match="species \\['yew'\\] are not in the model"):
        model.with_thresholds(limits.assign_coords(species=["yew", names[0]]))
    with_limits.about["thresholds"]["values"]["max-tss"] = [1, "x"]
    with pytest.raises(ArtifactError, match="one number per kind and species"):
        _ = with_limits.thresholds


def test_the_default_fit_stores_thresholds_of_its_validation_folds():
    data = tiny_sites(150)
    model = gm.fit(
        data,
        network={"fusion": "linear", "members": 1},
        training={"steps": 20, "batch": 64},
    )
    limits = model.thresholds
    assert list(limits["kind"].values) == list(KINDS)
    assert limits.attrs["source"] == "validation predictions of the fit on a spatial hold-out"
    assert ((limits > 0) & (limits < 1)).all()
    classes = gm.classify(gm.predict(data, model), model)["presence"]
    assert set(np.unique(classes.values[np.isfinite(classes.values)])) == {0, 1}
    changed_model = gm.finetune(model, data, train="all", training={"epochs": 1, "epoch_steps": 1})
    assert changed_model.thresholds.sizes["kind"] == 0


@pytest.mark.parametrize("validation", [None, np.arange(120) % 4 == 0])
def test_a_config_by_hand_stores_thresholds_of_the_sites_that_it_holds_out(validation, monkeypatch):
    """Each site counts with the mean logit of the members that it did not train."""
    fitting = importlib.import_module("geomiam.training.fit")
    members = []
    original = fitting.held_out_thresholds
    monkeypatch.setattr(fitting, "held_out_thresholds", lambda m: members.extend(m) or original(m))
    data = tiny_sites(120)
    network = gm.NetworkConfig(fusion="linear", members=2, width=8, heads=2)
    training = quick(block=200, holdout=0.4)
    model = gm.fit(data, network=network, training=training, validation=validation, rng=3)
    logits = np.full((2, 120, 2), np.nan)
    for i, member in enumerate(members):
        rows = np.setdiff1d(np.arange(120), member.run.table.train)
        maps = gm.predict(data.isel(site=rows), member.run.model, scale="logit")["suitability"]
        logits[i, rows] = maps.transpose("site", "species")
    held_out = np.isfinite(logits).any(2)
    assert (validation is None) == bool((held_out[0] != held_out[1]).any())
    rows = held_out.any(0)
    scores = 1 / (1 + np.exp(-np.nanmean(logits[:, rows], 0)))
    limits = model.thresholds
    assert limits.attrs["source"] == "validation predictions of the fit on sites that are held out"
    for kind in KINDS:
        expected = gm.metrics.threshold(data["presence"].values[rows], scores, kind=kind)
        np.testing.assert_allclose(limits.sel(kind=kind), expected, rtol=1e-5)
    unseen = gm.fit(data, network=network, training=quick(holdout=0, keep="last"))
    assert unseen.thresholds.sizes["kind"] == 0


@pytest.mark.slow
def test_the_command_writes_classes(tmp_path, sites, cube, model):
    from typer.testing import CliRunner

    from geomiam.cli.app import app
    from geomiam.data.store.store import open_zarr

    limits = xr.Dataset(
        {"threshold": (("kind", "species"), np.full((1, len(model.species)), 0.5))},
        coords={"kind": ["max-tss"], "species": list(model.species)},
        attrs={"source": "out-of-fold predictions of 4 folds"},
    )
    with_limits = model.with_thresholds(limits)
    with_limits.save(tmp_path / "model")
    gm.write_map(cube, with_limits, tmp_path / "map.zarr")
    words = ["classify", str(tmp_path / "model"), str(tmp_path / "map.zarr")]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "classes.zarr")])
    assert result.exit_code == 0, result.output
    assert "thresholds max-tss, from the out-of-fold predictions of 4 folds" in result.output
    written = open_zarr(tmp_path / "classes.zarr")
    expected = gm.classify(gm.predict(cube, with_limits), with_limits)
    np.testing.assert_array_equal(written["presence"], expected["presence"])
    assert gm.open_cube(written).odc.crs == cube.odc.crs
    result = CliRunner().invoke(
        app, [*words, "--kind", "best", "--out", str(tmp_path / "other.zarr")]
    )
    assert result.exit_code != 0
