"""Novelty as layers of a map: the laws of predictions hold, and the model stores what it needs."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from helpers_novelty import compare, model_of, sites_of
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.errors import (
    ArtifactError,
    LabelError,
    MemoryRefused,
    ResumeRefused,
    SelectionError,
    SettingError,
)
from geomiam.model.reference import FILE, MOST_SITES, Reference, scaling_of
from geomiam.uncertainty.cache import PatternCache
from geomiam.uncertainty.design import Design, by_pattern
from geomiam.uncertainty.nearest import squared_distances

FLOATS = ["dissimilarity", "inside", "point_density", "mess", "exdet"]


@pytest.fixture(scope="module")
def model(small_model):
    return small_model("group")


@pytest.fixture(scope="module")
def new(cube, model) -> xr.Dataset:
    return gm.novelty(cube, model)


def test_a_number_where_anything_is_observed_and_nan_elsewhere(cube, model, new):
    observed = gm.predict(cube, model)["observed"] > 0
    assert 0 < float(observed.mean()) < 1
    for name in FLOATS:
        assert new[name].dtype == np.float32
        np.testing.assert_array_equal(new[name].notnull(), observed)
    assert (new["most_dissimilar"] >= 0).equals(observed)
    assert new.odc.crs == cube.odc.crs


def test_chunks_do_not_matter_and_no_chunk_is_read_before_compute(cube, model, new):
    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        lazy = cube.chunk(y=5, x=3).miam.novelty(model)
    assert all(lazy[name].chunks is not None for name in new)
    xr.testing.assert_identical(lazy.compute(), new)
    window = {"y": slice(3, 8), "x": slice(2, 9)}
    xr.testing.assert_equal(gm.novelty(cube.isel(window), model), new.isel(window))


def test_hidden_is_left_out_is_missing(cube, model):
    groups = ["climate", "cover", "landsat"]
    left_out = gm.novelty(cube, model, using=groups)
    missing = cube.copy()
    for name in ("slope", "aspect", "chip", "embedding"):
        missing[name] = cube[name] * np.nan
    xr.testing.assert_identical(gm.novelty(missing, model), left_out)
    with pytest.warns(gm.errors.MissingModality):
        without = gm.novelty(cube.drop_vars(["slope", "aspect", "chip", "embedding"]), model)
    xr.testing.assert_identical(without, left_out)


def test_hidden_values_are_inert(cube, model):
    wild = cube.assign(slope=cube["slope"] * 0 + 1e30, chip=cube["chip"] * 0 - 1e30)
    xr.testing.assert_identical(
        gm.novelty(wild, model, using=["climate", "cover"]),
        gm.novelty(cube, model, using=["climate", "cover"]),
    )


def test_sites_and_trees_are_measured_like_cubes(cube, sites, model, new):
    flat = gm.novelty(sites, model)
    for name in new:
        np.testing.assert_array_equal(flat[name].values, new[name].values.ravel())
    tree = xr.DataTree.from_dict(
        {"/": cube[["bio1", "bio12"]], "/more": cube.drop_vars(["bio1", "bio12"])}
    )
    of_tree = tree.miam.novelty(model)
    for name in new:
        np.testing.assert_array_equal(of_tree[name], new[name])


def test_training_sites_are_not_new_and_far_cells_are(sites, cube, small_model):
    model = small_model("group")
    sample = Reference.of(model.reference.values)
    assert len(sample) == len(model.reference)
    near = gm.novelty(sites, model, reference=sites)
    assert float(near["dissimilarity"].max()) == 0
    assert float(near["inside"].min()) == 1
    far = gm.novelty(cube.assign(bio1=cube["bio1"] + 50), model)
    is_shown = cube["bio1"].notnull()
    assert (far["inside"].where(is_shown, 0) == 0).all()
    assert (far["mess"].where(is_shown, -1) < 0).all()
    bio1 = far["most_dissimilar"].attrs["flag_meanings"].split().index("bio1") - 1
    assert (far["most_dissimilar"].where(is_shown, bio1) == bio1).all()
    assert (far["most_influential"].where(is_shown, bio1) == bio1).all()


def test_mess_is_negative_where_a_number_is_outside_the_range(cube, model):
    numbers = ["bio1", "bio12", "slope"]
    wide = cube[numbers] * 2
    maps, new = gm.predict(wide, model, using=numbers), gm.novelty(wide, model, using=numbers)
    outside = maps["outside_range"] > 0
    assert 0.05 < float(outside.mean()) < 0.95
    np.testing.assert_array_equal(new["mess"] < 0, outside)
    np.testing.assert_array_equal(new["exdet"] < 0, outside)


def test_with_few_complete_sites_predictors_are_compared_in_several_sets():
    rng = np.random.default_rng(0)
    table = {k: rng.normal(size=100) for k in "abc"}
    table["a"][:45] = np.nan  # 55 sites have a, 60 have c, 15 both
    table["c"][60:] = np.nan
    sites = sites_of(table, a="one", b="two", c="three")
    cells = sites_of({k: rng.normal(size=20) for k in "abc"}, a="one", b="two", c="three")
    new = compare(cells, sites)
    first, second = (compare(cells, sites, using=u) for u in (["two", "three"], ["one", "two"]))
    for name, function in {
        "dissimilarity": np.maximum,
        "inside": np.minimum,
        "exdet": np.maximum,
    }.items():
        expected = function(first[name], second[name])
        np.testing.assert_array_equal(
            new[name].where(new["mess"] >= 0), expected.where(new["mess"] >= 0)
        )
    assert float(new["mess"].max()) >= 0


def test_a_predictor_that_no_site_has_is_new():
    sites = sites_of({"a": np.arange(40.0), "b": np.full(40, np.nan)}, a="one", b="one")
    with pytest.warns(gm.errors.NeverObserved):
        model = model_of(sites, gm.infer_schema(sites, kinds={"b": "scalar"}))
    cells = sites_of({"a": [3.0, np.nan], "b": [np.nan, 2.0]}, a="one", b="one")
    new = gm.novelty(cells, model, reference=sites)
    np.testing.assert_array_equal(new["mess"], [20, -100])
    np.testing.assert_array_equal(new["exdet"] < 0, [False, True])
    assert new["dissimilarity"].notnull().values.tolist() == [True, False]


def test_coordinates_are_not_compared_and_not_stored(cube):
    with_place = gm.add_location(cube[["bio1", "bio12"]])
    model = model_of(with_place.stack(site=("y", "x")).reset_index("site").transpose("site", ...))
    sample = with_place.stack(site=("y", "x")).reset_index("site").transpose("site", ...)
    new = gm.novelty(with_place, model, reference=sample)
    east = with_place.assign(longitude=with_place["longitude"] + 40)
    xr.testing.assert_identical(gm.novelty(east, model, reference=sample), new)
    with pytest.raises(SelectionError, match="coordinates"):
        gm.novelty(with_place, model, reference=sample, using="location")


def test_the_model_stores_a_sample_without_labels_or_order():
    sites, settings = tiny_sites(), {"holdout": 0, "keep": "last"}
    other_order = sites.isel(site=np.random.default_rng(0).permutation(100))
    first, second = (
        gm.fit(s, network=TINY_NETWORK, training=quick(**settings)) for s in (sites, other_order)
    )
    assert first.reference.values.shape == (100, 3) and first.reference.values.dtype == np.float32
    np.testing.assert_allclose(first.reference.values, second.reference.values, atol=1e-6)
    none = gm.fit(sites, network=TINY_NETWORK, training=quick(**settings, reference_sites=0))
    assert none.reference is None
    with pytest.raises(SelectionError, match="reference=sites"):
        gm.novelty(sites, none)


def test_a_sample_has_the_extremes_and_a_limited_size():
    values = np.random.default_rng(0).normal(size=(2 * MOST_SITES, 3)).astype(np.float32)
    values[7, 1] = np.nan
    sample = Reference.of(values, np.arange(len(values)) % 3)
    assert sample.values.shape == (MOST_SITES, 3)
    np.testing.assert_array_equal(np.nanmin(sample.values, 0), np.nanmin(values, 0))
    np.testing.assert_array_equal(np.nanmax(sample.values, 0), np.nanmax(values, 0))
    again = Reference.of(values[::-1], (np.arange(len(values)) % 3)[::-1])
    np.testing.assert_array_equal(sample.values, again.values)
    np.testing.assert_array_equal(sample.fold, again.fold)


def test_spatial_folds_of_the_fit_give_the_threshold(cube, sites):
    model = gm.fit(sites, training={"steps": 4}, network={"fusion": "linear", "members": 1}, rng=0)
    assert np.unique(model.reference.fold).tolist() == [-1, 0]  # one hold-out of spatial blocks
    loo = replace(model, reference=Reference.of(model.reference.values))
    climate = {"using": ["bio1", "bio12"]}  # more distant neighbours need more predictors than one
    folds, alone = (gm.novelty(cube, m, **climate) for m in (model, loo))
    np.testing.assert_array_equal(folds["dissimilarity"], alone["dissimilarity"])
    assert float(folds["point_density"].mean()) > float(alone["point_density"].mean())


def test_a_saved_model_keeps_its_sites(cube, model, new, tmp_path):
    path = model.save(tmp_path / "model")
    xr.testing.assert_identical(gm.novelty(cube, path), new)
    assert FILE in (path / "README.md").read_text(encoding="utf-8")
    (path / FILE).unlink()  # a model of an earlier version
    old = gm.load_model(path)
    assert old.reference is None and old.id == model.id
    replace(old, about={}).save(tmp_path / "other")
    assert not (tmp_path / "other" / FILE).exists()


@pytest.mark.parametrize("damage", ["other", "shape", "truncated", "infinite"])
def test_a_file_of_other_sites_is_refused(sites, model, tmp_path, damage):
    path = model.save(tmp_path / "model")
    values, fold = model.reference.values.copy(), model.reference.fold
    if damage == "other":
        model.reference.save(path, "another")
    elif damage == "shape":
        Reference(values[:, 1:], fold).save(path, scaling_of(model))
    elif damage == "truncated":
        (path / FILE).write_bytes((path / FILE).read_bytes()[:-8])
    else:
        values[0, 0] = np.inf
        Reference(values, fold).save(path, scaling_of(model))
    with pytest.raises(ArtifactError, match=FILE):
        gm.load_model(path)


def test_fine_tuning_adds_its_sites():
    model = gm.fit(tiny_sites(), network=TINY_NETWORK, training=quick())
    longer = gm.finetune(model, tiny_sites(seed=1), train="all", training=quick())
    rows = {row.tobytes() for row in longer.reference.values}
    assert len(longer.reference) > len(model.reference)
    assert {row.tobytes() for row in model.reference.values} <= rows
    with_none = gm.finetune(
        replace(model, reference=None), tiny_sites(), train="all", training=quick()
    )
    assert with_none.reference is None


def test_the_space_of_the_network_uses_all_sites_and_only_shown_predictors(cube, sites, model):
    names = ["bio1", "bio12", "slope"]
    options = gm.NoveltyOptions(space="tokens", measures=["dissimilarity"])
    shared = {"reference": sites.isel(site=slice(0, 60)), "options": options}
    new = gm.novelty(cube, model, using=names, **shared)
    assert list(new) == FLOATS[:3]
    first = new.stack(site=("y", "x"))["dissimilarity"][:60]
    assert float(first.max()) < 1e-5 < float(new["dissimilarity"].max())  # these cells are sites
    hidden = cube.assign(bio1=cube["bio1"] * np.nan, bio12=cube["bio12"] * np.nan)
    left_out = gm.novelty(cube, model, using="slope", **shared)
    missing = gm.novelty(hidden, model, using=names, **shared)
    lazy = gm.novelty(hidden.chunk(y=5), model, using=names, **shared).compute()
    for result in (missing, lazy):
        np.testing.assert_allclose(result["dissimilarity"], left_out["dissimilarity"], atol=1e-5)


def test_cells_that_lack_a_requirement_or_a_mask_are_nan(cube, model, new):
    options = gm.NoveltyOptions(require="climate", measures=["mess"])
    with_climate = gm.novelty(cube, model, options=options)["mess"]
    climate = cube["bio1"].notnull() | cube["bio12"].notnull()
    xr.testing.assert_equal(with_climate, new["mess"].where(climate))
    with_mask = cube.assign(land=(("y", "x"), np.eye(12, 14, dtype=np.float32)))
    on_land = gm.novelty(with_mask, model, options=gm.NoveltyOptions(mask="land"))
    is_land = with_mask["land"] > 0
    xr.testing.assert_equal(on_land["exdet"], new["exdet"].where(is_land))
    for name in ("most_dissimilar", "most_influential"):
        expected = new[name].where(is_land, -1).astype(np.int16)
        xr.testing.assert_identical(on_land[name].drop_attrs(), expected.drop_attrs())


def test_a_written_map_has_the_layers_and_resumes(cube, model, new, tmp_path, monkeypatch):
    from geomiam.maps.job import Job

    options = gm.MapOptions(novelty=True)
    chunks, compute = {"y": 6, "x": 7}, Job._computed
    calls = []

    def interrupted(job, part):
        calls.append(part.sizes)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return compute(job, part)

    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(Job, "_computed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gm.write_map(cube, model, tmp_path / "map.zarr", chunks=chunks, options=options)
    reference = model.reference
    fewer = replace(model, reference=Reference(reference.values[:20], reference.fold[:20]))
    with pytest.raises(ResumeRefused, match="another settings"):
        gm.write_map(cube, fewer, tmp_path / "map.zarr", chunks=chunks, options=options)
    maps = gm.write_map(cube, model, tmp_path / "map.zarr", chunks=chunks, options=options)
    for name in new:
        np.testing.assert_allclose(maps[name], new[name], rtol=1e-6)
    of_file = gm.write_map(cube, model, tmp_path / "map.tif", options=options)
    np.testing.assert_allclose(of_file["mess"], new["mess"], rtol=1e-6)
    assert (
        maps["most_dissimilar"].attrs["flag_meanings"]
        == new["most_dissimilar"].attrs["flag_meanings"]
    )
    np.testing.assert_allclose(
        maps["suitability"], gm.predict(cube, model)["suitability"], atol=1e-6
    )


def test_wrong_options_are_refused(cube, sites, model):
    def refused(error, match, **options):
        using = options.pop("using", None)
        with pytest.raises(error, match=match):
            gm.novelty(cube, model, using=using, options=gm.NoveltyOptions(**options))

    refused(SettingError, "measures=", measures=["mahalanobis"])
    refused(SettingError, "measures=", measures=[])
    refused(SettingError, "space=", space="pixels")
    refused(SettingError, "weights= has no effect", space="tokens", weights={"bio1": 1})
    refused(SelectionError, "reference=sites", space="tokens")
    refused(SelectionError, "bio13", weights={"bio13": 1})
    refused(SettingError, "pass a number", weights={"bio1": -1})
    refused(SettingError, "are 0", weights={"bio1": 0})
    refused(SettingError, "reference=sites", folds=np.zeros(3, int))
    refused(SelectionError, "parts of", using="landsat[time=2012]")
    refused(SelectionError, "mask=", mask="sea")
    with pytest.raises(LabelError, match="one whole number"):
        options = gm.NoveltyOptions(folds=np.zeros(3))
        gm.novelty(cube, model, reference=sites, options=options)
    with pytest.raises(SelectionError, match="dim 'site'"):
        gm.novelty(cube, model, reference=cube)
    with pytest.raises(SettingError, match="NoveltyOptions"):
        gm.novelty(cube, model, options=gm.PredictOptions())
    with pytest.raises(MemoryRefused):
        gm.novelty(cube.chunk(), model, options=gm.NoveltyOptions(memory_limit=100))


def test_results_of_patterns_stay_within_the_bytes_of_the_cache():
    cache, keys = PatternCache(most_bytes=100), []
    for key in [1, 2, 3, 1, 3, 3]:
        cache.get(key, lambda key=key: keys.append(key) or key, lambda _: 40)
    assert keys == [1, 2, 3, 1]  # 1 was removed when 3 came, and 2 after that
    assert len(cache) == 2


def test_distances_are_computed_in_tiles_of_bounded_size(monkeypatch):
    monkeypatch.setattr("geomiam.uncertainty.nearest.TILE", 50)
    rows, sites = np.random.default_rng(0).normal(size=(2, 23, 3))
    tiles = list(squared_distances(rows, sites))
    assert all(t.numel() <= 50 for _, t in tiles)
    expected = ((rows[:, None] - sites) ** 2).sum(-1)
    np.testing.assert_allclose(np.concatenate([t for _, t in tiles]), expected, atol=1e-12)


def test_rows_are_grouped_by_pattern():
    table = np.array([[1, 0], [0, 0], [1, 0], [1, 1]], bool)
    groups = {tuple(p.tolist()): rows.tolist() for p, rows in by_pattern(table)}
    assert groups == {(True, False): [0, 2], (True, True): [3]}


def test_every_predictor_has_the_same_variance(model):
    from geomiam.tokens.features import features_of
    from geomiam.uncertainty.block import class_counts

    sites, features = model.reference, features_of(model.layout)
    design = Design.of(
        features, sites.values, sites.fold, classes=class_counts(model), weights={"bio1": 3.0}
    )
    for entry in features:
        columns = (design.owner >= entry.start) & (design.owner < entry.start + entry.size)
        variance = float(np.nanvar(design.sites[:, columns], axis=0).sum())
        assert variance == pytest.approx(9 if entry.variable == "bio1" else 1, rel=1e-5)
