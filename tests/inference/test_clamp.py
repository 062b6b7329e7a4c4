"""Clamping: predictions of values beyond the training range are those of its nearest limit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from helpers_small import every_kind, plain_scaler, random_arrays

import geomiam as gm
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import NEVER, clamped, with_limits

WARNINGS = pytest.mark.filterwarnings("ignore::geomiam.errors.OutsideTrainingRange")


@WARNINGS
def test_clamping_equals_clipping_the_input_by_hand(cube, small_model):
    model = small_model("group")
    numbers = ["bio1", "bio12", "slope", "landsat", "chip", "embedding"]
    wide = cube.assign({n: (cube[n] * 3).assign_attrs(cube[n].attrs) for n in numbers})
    by_numpy = wide.copy()
    for name in numbers:
        limits = model.scaler.limits[name]
        dims = model.schema.variables[name].dims[: limits.ndim - 1]
        low, high = (xr.DataArray(limits[..., i].astype("f4"), dims=dims) for i in (0, 1))
        by_numpy[name] = wide[name].clip(low, high).transpose(*wide[name].dims)
        by_numpy[name].attrs = wide[name].attrs
    by_option = gm.predict(wide, model, options=gm.PredictOptions(clamp=True))
    by_hand, without = gm.predict(by_numpy, model), gm.predict(wide, model)
    np.testing.assert_array_equal(by_option["suitability"], by_hand["suitability"])
    assert float(abs(by_option["suitability"] - without["suitability"]).max()) > 0.01
    # the layer shows where values were moved
    xr.testing.assert_identical(by_option["outside_range"], without["outside_range"])
    assert float(by_hand["outside_range"].max()) == 0
    lazy = gm.predict(wide.chunk(y=5), model, options=gm.PredictOptions(clamp=True))
    np.testing.assert_allclose(lazy["suitability"], by_option["suitability"], atol=1e-6)


@WARNINGS
def test_shapley_values_add_up_to_the_clamped_prediction(cube, small_model):
    model, wide = small_model("group"), cube.isel(y=slice(0, 3)).assign(bio1=cube["bio1"] * 5)
    groups = ["climate", "cover"]
    values = gm.shapley(wide, model, using=groups, options=gm.explain.ShapleyOptions(clamp=True))
    total = values["base_value"] + values["shapley"].sum("group")
    maps = gm.predict(wide, model, using=groups, options=gm.PredictOptions(clamp=True))
    observed = maps["suitability"].notnull()
    difference = (total - maps["suitability"]).where(observed)
    assert float(abs(difference).max()) < 1e-5


def test_missing_values_classes_angles_and_symbols_are_not_moved():
    schema = every_kind()
    arrays = random_arrays(schema, 40)
    scaler = with_limits(plain_scaler(schema), arrays, schema)
    wide = {k: v * 10 for k, v in arrays.items()}
    wide["bio1"][0] = np.inf  # missing
    plain, clamped_tokens = (
        encode(wide, layout=Layout.of(schema), scaler=scaler, clamp=c) for c in (0, 1)
    )
    np.testing.assert_array_equal(clamped_tokens.observed, plain.observed)
    np.testing.assert_array_equal(clamped_tokens.saturated, plain.saturated)
    names = {p.name: i for i, p in enumerate(Layout.of(schema).parts)}
    for name, is_moved in {
        "bio1": True,
        "landsat": True,
        "aspect": False,
        "landcover": False,
        "rain": False,
    }.items():
        pair = plain.values[names[name]], clamped_tokens.values[names[name]]
        assert np.array_equal(*pair, equal_nan=True) is not is_moved, name
    never = scaler.limits | {"bio12": np.array(NEVER)}
    values = clamped(
        wide["bio12"], schema.variables["bio12"], type(scaler)({}, {}, {}, limits=never)
    )
    np.testing.assert_array_equal(values, wide["bio12"])
