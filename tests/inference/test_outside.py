"""Law 15: outside the training range is visible, in every prediction."""

from __future__ import annotations

import json
import re
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers_small import every_kind, quick, random_arrays, tiny_sites, untrained

import geomiam as gm
from geomiam.errors import OutsideTrainingRange
from geomiam.tokens.encode import encode
from geomiam.tokens.scaler import Scaler, limits_of, outside, widened, with_limits

pytestmark = pytest.mark.filterwarnings("ignore::geomiam.errors.OutsideTrainingRange")
SMALL = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0)


def labelled(n: int = 120) -> xr.Dataset:
    """Sites with two numbers, an angle, classes 1 to 3 and a monthly series."""
    rng = np.random.default_rng(0)
    sites = tiny_sites(n, gaps=0.0)
    sites["aspect"] = ("site", rng.uniform(0, 360, n).astype("f4"), {"kind": "circular"})
    sites["cover"] = ("site", rng.integers(1, 4, n).astype("f4"), {"kind": "categorical"})
    return sites


@pytest.fixture(scope="module")
def sites() -> xr.Dataset:
    return labelled()


@pytest.fixture(scope="module")
def model(sites) -> gm.Model:
    is_held_out = np.arange(sites.sizes["site"]) % 4 == 0
    return gm.fit(sites, network=SMALL, training=quick(epochs=1), validation=is_held_out)


def grid_like(sites: xr.Dataset, **chunks) -> xr.Dataset:
    """The predictors of 120 sites as a cube of 10 × 12 cells."""
    values = {}
    for name in ("bio1", "clay", "aspect", "cover", "ndvi"):
        own_share = ("month",) if name == "ndvi" else ()
        array = sites[name].values.reshape(10, 12, *sites[name].shape[1:])
        values[name] = (("y", "x", *own_share), array, sites[name].attrs)
    place = {"y": 50 - 0.5 * np.arange(10), "x": 5 + 0.5 * np.arange(12), "month": sites["month"]}
    cube = xr.Dataset(values, coords=place).odc.assign_crs("EPSG:4326")
    return cube.chunk(chunks) if chunks else cube


def share_by_hand(sites: xr.Dataset, train: xr.Dataset, names: list[str]) -> np.ndarray:
    """Share per site, by a plain loop over sites and predictors."""
    shares = []
    for i in range(sites.sizes["site"]):
        is_observed = beyond = 0
        for name in names:
            x = np.atleast_1d(sites[name].values[i])
            x = x[np.isfinite(x)]
            in_range = train[name].values
            in_range = in_range[np.isfinite(in_range)]
            if name == "cover":
                far = any(v not in set(in_range.tolist()) for v in x)
            else:
                far = name != "aspect" and any((x < in_range.min()) | (x > in_range.max()))
            is_observed += x.size > 0
            beyond += bool(far)
        shares.append(beyond / is_observed if is_observed else np.nan)
    return np.array(shares)


NAMES = ["bio1", "clay", "aspect", "cover", "ndvi"]


def disturbed(sites: xr.Dataset) -> xr.Dataset:
    """Sites of which some are far outside, some have gaps, and one has nothing."""
    more_cells = sites.copy(deep=True)
    more_cells["bio1"][:20] *= 1000
    more_cells["cover"][10:30] = 9
    more_cells["aspect"][:5] = 725
    more_cells["ndvi"][40:50, 2] = -99
    more_cells["clay"][15:45] = np.nan
    more_cells["ndvi"][20:25, 1] = np.nan
    for name in NAMES:
        more_cells[name][60] = np.nan
    return more_cells


def test_the_share_is_that_of_a_plain_loop(model, sites):
    train = sites.isel(site=np.arange(120) % 4 != 0)
    for data in (sites, disturbed(sites)):
        warnings_found = gm.predict(data, model)["outside_range"]
        np.testing.assert_allclose(warnings_found, share_by_hand(data, train, NAMES), rtol=1e-6)
        assert (warnings_found.dtype, warnings_found.dims) == (np.float32, ("site",))


def test_sites_that_trained_are_inside_and_held_out_ones_may_be_outside(model, sites):
    train = np.arange(120) % 4 != 0
    share = gm.predict(sites, model)["outside_range"].values
    assert (share[train] == 0).all()
    assert (share[~train] > 0).any()


def test_an_altitude_of_99999_is_visible(model, sites):
    high = sites.isel(site=[1, 2]).assign(bio1=("site", np.float32([0, 99_999])))
    np.testing.assert_allclose(gm.predict(high, model)["outside_range"], [0, 0.2])


def test_predictors_hidden_by_using_do_not_count(model, sites):
    data = disturbed(sites)
    warnings_found = gm.predict(data, model, using=["bio1", "aspect"])["outside_range"]
    train = sites.isel(site=np.arange(120) % 4 != 0)
    np.testing.assert_allclose(
        warnings_found, share_by_hand(data, train, ["bio1", "aspect"]), rtol=1e-6
    )
    one_month = gm.predict(data, model, using=["ndvi[month=1]"])["outside_range"]
    assert one_month[40:50].max() == 0  # month 7 is outside, month 1 is not
    assert gm.predict(data, model, using=["ndvi[month=7]"])["outside_range"][40:50].min() == 1


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_missing_not_outside(model, sites, poison):
    dirty = sites.assign(bio1=xr.full_like(sites["bio1"], poison))
    clean = sites.assign(bio1=xr.full_like(sites["bio1"], np.nan))
    a, b = (gm.predict(s, model)["outside_range"] for s in (dirty, clean))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("chunks", [{"y": 3, "x": 5}, {"y": 10, "x": 1}])
def test_chunks_do_not_matter_and_nothing_is_read_to_build_the_graph(model, sites, chunks):
    cube = grid_like(disturbed(sites))
    expected = gm.predict(cube, model)["outside_range"]
    lazy = gm.predict(cube.chunk(chunks), model)["outside_range"]
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.values, expected.values)

    def refuse(block):
        raise AssertionError("a block was read")

    unread = cube.chunk(chunks).map(
        lambda v: v.copy(data=v.data.map_blocks(refuse, dtype=v.dtype, meta=v.data._meta))
    )
    assert isinstance(gm.predict(unread, model)["outside_range"].data, da.Array)


@pytest.mark.parametrize("shapley", [False, True])
def test_a_written_map_and_an_explanation_have_the_layer(model, sites, tmp_path, shapley):
    cube = grid_like(disturbed(sites), y=4, x=4)
    expected = (gm.shapley if shapley else gm.predict)(cube.compute(), model)["outside_range"]
    stored_limits = gm.write_map(cube, model, tmp_path / "map", shapley=shapley, progress=False)
    np.testing.assert_array_equal(stored_limits["outside_range"].values, expected.values)
    assert stored_limits["outside_range"].attrs["long_name"].startswith("share of the observed")


def test_the_range_travels_with_the_saved_model(model, sites, tmp_path):
    model.save(tmp_path / "model")
    loaded_model = gm.load_model(tmp_path / "model")
    assert loaded_model.id == model.id
    xr.testing.assert_identical(gm.predict(sites, loaded_model), gm.predict(sites, model))
    stored_limits = json.loads((tmp_path / "model" / "config.json").read_text())["scaler"]["limits"]
    train = np.arange(120) % 4 != 0
    bio1 = sites["bio1"].values[train]
    assert stored_limits["bio1"] == [float(bio1.min()), float(bio1.max())]
    assert set(stored_limits) == {"bio1", "clay", "ndvi"}


def test_a_model_without_stored_ranges_loads_keeps_its_id_and_has_no_layer(model, sites):
    saved_scaler = model.scaler.to_dict()
    del saved_scaler["limits"]
    scaler = Scaler.from_dict(saved_scaler)
    scaler.check(model.schema)
    assert scaler.to_dict() == saved_scaler
    old = gm.Model(model.schema, scaler, model.species, model.config, model.network, model.link)
    assert "outside_range" not in gm.predict(sites, old)
    np.testing.assert_array_equal(
        gm.predict(sites, old)["suitability"], gm.predict(sites, model)["suitability"]
    )


@pytest.mark.parametrize(
    "limits", [{"bio1": [0, float("nan")]}, {"bio1": [0.0]}, {"aspect": [0.0, 1.0]}]
)
def test_ranges_that_do_not_fit_are_refused(model, limits):
    saved_scaler = model.scaler.to_dict()
    with pytest.raises(ValueError, match="training range"):
        Scaler.from_dict(saved_scaler | {"limits": limits}).check(model.schema)


# Warnings.


def warnings_of(ds: xr.Dataset, model: gm.Model, **options) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gm.predict(ds, model, **options)
    return "\n".join(str(w.message) for w in caught if w.category is OutsideTrainingRange)


def test_no_warning_where_few_cells_are_outside(model, sites):
    assert warnings_of(sites, model) == ""


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: x * 1000, "divided by 1000 they would lie inside"),
        (lambda x: x + 273.15, "minus 273.15 they would lie inside"),
        (lambda x: x + 1e6, None),
    ],
)
def test_wrong_units_are_named_with_the_change_that_mends_them(model, sites, change, hint):
    text = warnings_of(sites.assign(bio1=change(sites["bio1"])), model)
    assert re.search(r"1 of 5 predictors.*\(120 cells\).*'bio1' in \d+%: trained on", text, re.S)
    assert (hint in text) if hint else ("units" not in text)


def test_unknown_classes_are_named(model, sites):
    text = warnings_of(sites.assign(cover=sites["cover"] + 10), model)
    assert "'cover' in 100%: classes 11, 12, 13 were not in training and count as missing" in text


def test_hidden_predictors_are_not_warned_of(model, sites):
    wrong = sites.assign(bio1=sites["bio1"] * 1000)
    assert "'bio1'" in warnings_of(wrong, model)
    assert warnings_of(wrong, model, using=["clay", "cover"]) == ""


def test_a_map_is_warned_of_before_it_is_written(model, sites, tmp_path):
    cube = grid_like(sites.assign(bio1=sites["bio1"] * 1000), y=4, x=4)
    with pytest.warns(OutsideTrainingRange, match=r"(?s)in 5 of 9 blocks.*'bio1'"):
        gm.write_map(cube, model, tmp_path / "map", progress=False)


def test_a_lazy_prediction_has_the_layer_in_place_of_the_warning(model, sites):
    cube = grid_like(sites.assign(bio1=sites["bio1"] * 1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutsideTrainingRange)
        lazy = gm.predict(cube.chunk(y=4, x=4), model)
        layer = lazy["outside_range"].compute()
    assert "no warning" in layer.attrs["comment"]
    with pytest.warns(OutsideTrainingRange):
        xr.testing.assert_identical(layer, gm.predict(cube, model)["outside_range"])


# Ranges.


def test_limits_of_every_kind_are_those_of_a_plain_loop():
    schema = every_kind()
    arrays = random_arrays(schema, 40, gaps=0.3)
    scaler = untrained(schema).scaler
    limits = with_limits(scaler, arrays, schema).limits
    assert set(limits) == {"bio1", "bio12", "landsat", "chip", "rain", "embedding"}
    bands = [
        [np.nanmin(arrays["landsat"][:, b]), np.nanmax(arrays["landsat"][:, b])] for b in (0, 1)
    ]
    np.testing.assert_array_equal(limits["landsat"], bands)
    features = arrays["embedding"]
    np.testing.assert_array_equal(limits["embedding"][:, 1], np.nanmax(features, 0))
    block = encode(
        arrays,
        layout=untrained(schema).layout,
        scaler=with_limits(scaler, arrays, schema),
        limits=True,
    )
    assert not block.outside.any()


def test_what_was_never_observed_in_training_is_always_outside():
    schema = every_kind()
    variable = schema.variables["bio1"]
    scaler = with_limits(untrained(schema).scaler, {"bio1": np.full(5, np.nan)}, schema)
    np.testing.assert_array_equal(
        outside(np.float32([0, 0.5, 1, np.nan]), variable, scaler), [1, 1, 1, 0]
    )


def test_a_difference_of_rounding_is_inside():
    schema = every_kind()
    variable = schema.variables["bio1"]
    scaler = with_limits(untrained(schema).scaler, {"bio1": np.float32([100, 300])}, schema)
    x = np.float32([np.nextafter(np.float32(300), np.float32(301)), 300.01, 99.99])
    assert outside(x, variable, scaler).tolist() == [False, True, True]


def test_sites_learned_from_later_widen_the_range(model, sites):
    wider = labelled().assign(bio1=sites["bio1"] + 100)
    tuned_model = gm.finetune(model, wider, train="all", training=quick(epochs=1))
    low, high = tuned_model.scaler.limits["bio1"]
    assert low == model.scaler.limits["bio1"][0]
    assert high > 95
    never = {"bio1": np.full(3, np.nan)}
    assert widened(model.scaler, never, model.schema).limits["bio1"].tolist() == [
        *model.scaler.limits["bio1"]
    ]


def test_a_model_started_from_another_has_the_range_of_its_own_sites(sites):
    first = gm.pretrain(
        sites.assign(bio1=sites["bio1"] * 50), network=SMALL, training=quick(epochs=1)
    )
    model = gm.fit(sites, warm_start=first, training=quick(epochs=1))
    assert (
        limits_of(sites["bio1"].values, model.schema.variables["bio1"])[1]
        >= (model.scaler.limits["bio1"][1])
    )
