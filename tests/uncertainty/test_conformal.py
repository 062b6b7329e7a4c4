"""Prediction sets are those of split conformal prediction, apart for each pattern, species and label."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
from helpers_small import schema_of, untrained, variable
from safetensors.numpy import load_file, save_file

import geomiam as gm
from geomiam.errors import ArtifactError, GeomiamError, LabelError, SettingError
from geomiam.inference.conformal import class_bounds, lower_bound

GROUPS = {"climate": ["bio1", "bio12"], "soil": ["clay"], "satellite": ["ndvi"]}
SCHEMA = schema_of(**{m: [variable(v) for v in names] for m, names in GROUPS.items()})


def make_sites(n: int, *, seed: int, gaps: float = 0.3) -> xr.Dataset:
    """Sites whose presence follows all predictors; whole groups are missing at random."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (4, n))
    presence = (x.sum(0)[:, None] + rng.normal(0, 3, (n, 2)) > 12).astype(float)
    presence[rng.random((n, 2)) < 0.1] = np.nan
    ds = xr.Dataset({k: ("site", v) for k, v in zip(("bio1", "bio12", "clay", "ndvi"), x)})
    for names in GROUPS.values():
        lacking = xr.DataArray(rng.random(n) < gaps, dims="site")
        ds = ds.assign({k: ds[k].where(~lacking).astype("f4") for k in names})
    ds["presence"] = (("site", "species"), presence)
    return ds.assign_coords(species=["species 0", "species 1"])


@pytest.fixture(scope="module")
def model() -> gm.Model:
    model = untrained(SCHEMA, seed=3, fusion="sum")
    return gm.calibrate(model, make_sites(150, seed=1))


def by_hand(model, sites, calibration, *, level: str) -> np.ndarray:
    """Sets ``(n, s)`` by sorting, with exact arithmetic, one site and species at a time."""
    alpha = 1 - Fraction(level)
    has = {m: calibration[v[0]].notnull().values for m, v in GROUPS.items()}
    suitability = gm.predict(sites, model)["suitability"].transpose("site", "species").values
    sets, scores_of = np.full(suitability.shape, np.nan), {}
    for i in range(sites.sizes["site"]):
        groups = [m for m, v in GROUPS.items() if np.isfinite(sites[v[0]].values[i])]
        if not groups:
            continue
        rows = np.flatnonzero(np.all([has[g] for g in groups], 0))
        if (key := "+".join(groups)) not in scores_of:
            maps = gm.predict(calibration.isel(site=rows), model, using=groups)
            scores_of[key] = maps["suitability"].transpose("species", "site").values
        scores = scores_of[key]
        for s in range(2):
            y = calibration["presence"].values[rows, s]
            present, absent = (np.sort(scores[s, y == label]) for label in (1, 0))
            k1, k0 = (int(alpha * (len(v) + 1)) for v in (present, absent))
            can_be_present = k1 == 0 or suitability[i, s] >= present[k1 - 1]
            can_be_absent = k0 == 0 or suitability[i, s] <= absent[-k0]
            sets[i, s] = 2 * can_be_present + can_be_absent
    return sets


@pytest.mark.parametrize("level", ["0.9", "0.5"])
def test_sets_are_those_of_split_conformal_prediction_by_hand(model, level):
    sites = make_sites(40, seed=2)
    maps = gm.predict(sites, model, interval=float(level))
    sets = maps["prediction_set"].transpose("site", "species").values
    expected = by_hand(model, sites, make_sites(150, seed=1), level=level)
    np.testing.assert_array_equal(sets, expected)
    assert len(np.unique(sets[np.isfinite(sets)])) >= 2 and np.isnan(sets).any()
    logits = gm.predict(sites, model, interval=float(level), scale="logit")["prediction_set"]
    np.testing.assert_array_equal(logits, maps["prediction_set"])
    attrs = maps["prediction_set"].attrs
    assert attrs["flag_meanings"].split() == ["neither", "absent", "present", "both"]


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (19, 0.9), (30, 0.9), (8, 0.9), (49, 0.75)])
def test_the_coverage_of_exchangeable_scores_is_exact(n, level):
    """A further score is not rejected with probability 1 − k / (n + 1), at least the level."""
    rng, repeats = np.random.default_rng(n), 4000
    scores = rng.normal(size=(n + 6, repeats))
    labels = np.ones((n + 6, repeats))
    labels[n : n + 5] = 0
    labels[-1] = np.nan
    further = rng.normal(size=(2, repeats))
    lowest, highest = class_bounds(scores, labels, level=level)
    k = int((1 - Fraction(str(level))) * (n + 1))
    exact = 1 - k / (n + 1)
    share = (further[0] >= lowest).mean()
    assert exact >= level and abs(share - exact) < 4 * np.sqrt(
        max(exact * (1 - exact), 1e-4) / repeats
    )
    assert np.isneginf(lowest).all() == (k == 0)
    k0 = int((1 - Fraction(str(level))) * 6)
    expected = np.sort(scores[n : n + 5], 0)[-k0] if k0 else np.full(repeats, np.inf)
    np.testing.assert_array_equal(highest, expected)


def test_a_bound_of_blocks_is_the_quantile_of_their_weights():
    """By exact arithmetic: blocks share the weight alike, and −∞ has one of K + 1 parts."""
    rng = np.random.default_rng(0)
    for level in ("0.9", "0.6"):
        for count in (3, 9, 25):
            blocks = np.repeat(np.arange(count), rng.integers(1, 6, count))
            scores = rng.normal(size=len(blocks)).round(2)
            part = Fraction(1, count + 1)
            weight = {b: part / int((blocks == b).sum()) for b in range(count)}
            mass, expected = part, -np.inf if part > 1 - Fraction(level) else None
            for i in np.argsort(scores, kind="stable"):
                mass += weight[blocks[i]]
                if expected is None and mass > 1 - Fraction(level):
                    expected = scores[i]
            assert lower_bound(scores, blocks, level=float(level)) == expected


def test_blocks_keep_the_coverage_of_a_further_block_and_sites_do_not():
    """Scores of a block are alike: 30 blocks of 20 sites, and one site of a further block."""
    rng, hits = np.random.default_rng(1), np.zeros(2)
    repeats, number = 2000, np.repeat(np.arange(30), 20)
    for _ in range(repeats):
        level_of_block = rng.normal(size=31)
        scores = level_of_block[number] + rng.normal(0, 0.1, 600)
        further = level_of_block[30] + rng.normal(0, 0.1)
        bounds = [lower_bound(scores, b, level=0.9) for b in (number, np.arange(600))]
        hits += further >= np.array(bounds)
    by_blocks, by_sites = hits / repeats
    assert 0.895 < by_blocks < 0.95 and by_sites < by_blocks - 0.01


def test_sites_of_a_model_are_exchanged_by_blocks(model):
    calibration = make_sites(150, seed=1, gaps=0.0)
    blocks = np.arange(150) // 5
    by_blocks = gm.calibrate(model, calibration, blocks=blocks)
    assert by_blocks.about["calibration"]["blocks"] == 30
    sites = make_sites(60, seed=2, gaps=0.0)
    maps = gm.predict(sites, by_blocks, interval=0.8)
    scores = gm.predict(calibration, model)["suitability"].values
    for s in range(2):
        present = calibration["presence"].values[:, s] == 1
        bound = lower_bound(scores[s, present], blocks[present], level=0.8)
        expected = maps["suitability"][s].values >= bound
        np.testing.assert_array_equal(maps["prediction_set"][s].values >= 2, expected)
    with pytest.raises(SettingError, match=r"blocks= has the shape \(3,\) for 150 sites"):
        gm.calibrate(model, calibration, blocks=[1, 2, 3])


def test_routes_chunks_and_copies_on_disk_give_one_set(model, tmp_path):
    sites = make_sites(60, seed=4)
    x = {"y": -np.arange(6.0), "x": np.arange(10.0)}
    cube = xr.Dataset(
        {k: (("y", "x"), sites[k].values.reshape(6, 10)) for v in GROUPS.values() for k in v}, x
    ).odc.assign_crs("EPSG:3035")
    without = cube.assign(clay=cube["clay"] * np.nan)
    settings = {"interval": 0.8, "using": ["climate", "satellite"]}
    by_using = gm.predict(cube, model, **settings)["prediction_set"]
    by_nan = gm.predict(without, model, interval=0.8)["prediction_set"]
    np.testing.assert_array_equal(by_nan, by_using)
    lazy = cube.chunk(y=4, x=3).miam.predict(model, **settings)["prediction_set"]
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, by_using)
    read = gm.load_model(model.save(tmp_path / "model"))
    assert read.id == model.id and len(read.calibration) == len(model.calibration)
    options = gm.MapOptions(interval=0.8)
    kwargs = {"using": settings["using"], "options": options}
    store = gm.write_map(cube, read, tmp_path / "m.zarr", chunks={"x": 4}, **kwargs)
    np.testing.assert_array_equal(store["prediction_set"], by_using)
    assert json.loads(store.attrs["geomiam_made_from"])["settings"].count(read.calibration.digest)
    tif = gm.write_map(cube, read, tmp_path / "m.tif", **kwargs)
    np.testing.assert_array_equal(tif["prediction_set"], by_using)


def test_a_calibration_that_does_not_belong_to_the_model_is_refused(model, tmp_path):
    path = model.save(tmp_path / "model")
    file = path / "calibration.safetensors"
    arrays = load_file(file)
    assert arrays["labels"].dtype == np.uint8 and not {"x", "y"} & set(arrays)

    def refused(match: str, **changes) -> None:
        content = {k: v for k, v in (arrays | changes).items() if v is not None}
        save_file(content, file)
        with pytest.raises(ArtifactError, match=match):
            gm.load_model(path)

    refused(r"\['labels'\] are not the arrays", labels=arrays["labels"][:, :1].copy())
    refused(r"\['observed'\] are not the arrays", observed=None)
    refused(r"\['further'\] are not the arrays", further=arrays["labels"])
    refused("labels other than 0, 1 and 255", labels=arrays["labels"] + np.uint8(2))
    refused("predictors are infinite", **{"values.0": arrays["values.0"] * np.float32(np.inf)})
    refused(
        "not the calibration that the model was saved with", labels=arrays["labels"][::-1].copy()
    )
    file.unlink()
    with pytest.raises(ArtifactError, match=r"calibration\.safetensors is missing"):
        gm.load_model(path)


@pytest.mark.filterwarnings("ignore")
def test_calibration_sites_must_be_new_and_labelled(small_model, sites, model):
    network = small_model("group")
    with pytest.raises(SettingError, match=r"fitted on about .*hold_out_blocks"):
        gm.calibrate(network, sites)
    with pytest.raises(SettingError, match=r"interval=0\.9 needs calibration sites.*gm\.calibrate"):
        gm.predict(sites, network, interval=0.9)
    with pytest.raises(SettingError, match="interval must lie between 0 and 1, found 90"):
        gm.predict(make_sites(3, seed=0), model, interval=90)
    unknown = make_sites(20, seed=5).assign_coords(species=["fern", "moss"])
    with pytest.raises(LabelError, match=r"no label of the model's species .* found .*fern"):
        gm.calibrate(model, unknown)
    with pytest.raises(LabelError, match="there are no sites"):
        gm.calibrate(model, make_sites(0, seed=5))
    with pytest.raises(GeomiamError, match="limit must be at least 1"):
        gm.calibrate(model, make_sites(20, seed=5), limit=0)
    small = gm.calibrate(model, make_sites(150, seed=1), limit=12)
    assert len(small.calibration) == 12 == small.about["calibration"]["sites"]
    with pytest.warns(UserWarning, match=r"2 of 2 species have presences in fewer than 9 blocks"):
        maps = gm.predict(make_sites(30, seed=6), small, interval=0.9)
    assert not np.isin(maps["prediction_set"], [0, 1]).any()


def test_a_model_that_is_trained_further_loses_its_calibration(model):
    further = make_sites(60, seed=8).assign_coords(
        x=("site", np.arange(60.0)), y=("site", np.arange(60.0)), crs="EPSG:3035"
    )
    new_model = gm.finetune(
        model,
        further.assign_attrs(crs="EPSG:3035"),
        train="all",
        training={"epochs": 1, "loss": "weighted-bce", "holdout": 0, "keep": "last"},
    )
    assert new_model.calibration is None and "calibration" not in new_model.about


def test_the_coverage_counts_sites_by_pattern_species_and_label(model):
    sites = make_sites(80, seed=9)
    table = gm.evaluation.set_coverage(model, sites, interval=0.7, fewest=5)
    sets = gm.predict(sites, model, interval=0.7)["prediction_set"].values
    has = {m: sites[v[0]].notnull().values for m, v in GROUPS.items()}
    assert "climate+satellite" in table["pattern"].values and "" not in table["pattern"].values
    shares = []
    for name in table["pattern"].values:
        rows = np.all([has[m] == (m in name.split("+")) for m in GROUPS], 0)
        for s, species in enumerate(("species 0", "species 1")):
            for label, value, values in (("present", 1, (2, 3)), ("absent", 0, (1, 3))):
                of_label = rows & (sites["presence"].values[:, s] == value)
                cell = table.sel(pattern=name, species=species, label=label)
                assert cell["count"] == of_label.sum()
                share = np.isin(sets[s, of_label], values).mean() if of_label.any() else np.nan
                np.testing.assert_allclose(cell["coverage"], share)
                if of_label.sum() >= 5 and label == "present":
                    shares.append(share)
        np.testing.assert_allclose(
            table["share"].sel(pattern=name, set="both"), (sets[:, rows] == 3).mean()
        )
    assert table["worst"].sel(label="present") == min(shares)
    mean = (table["coverage"] * table["count"]).sum("pattern") / table["count"].sum("pattern")
    np.testing.assert_allclose(table["of_species"], mean)
