"""Predictors: matched by name, order and label; what does not fit is refused with the remedy."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers_small import schema_of, variable

from geomiam.data.grid.location import add_location
from geomiam.data.infer import infer_schema
from geomiam.data.kinds import guess_kind
from geomiam.data.predictors import bind, labels_of, predictors
from geomiam.errors import (
    GridError,
    MissingLabels,
    MissingModality,
    MissingVariable,
    SchemaError,
    VariableMismatch,
)

MONTHS = list(range(1, 13))


def array(*own_names: str, name: str = "v", size: int = 3, coords: dict | None = None, **attrs):
    """Zeros at four sites with own dims of a size."""
    dims = ("site", *own_names)
    shape = [4] + [size] * len(own_names)
    return xr.DataArray(np.zeros(shape), dims=dims, name=name, coords=coords or {}, attrs=attrs)


def site_data(n: int = 6) -> xr.Dataset:
    """Sites with three modalities: two scalars, a monthly series, chips with bands."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return xr.Dataset(
        {
            "bio1": ("site", numbers(n), {"modality": "climate", "units": "degC"}),
            "bio12": ("site", numbers(n), {"modality": "climate", "units": "mm"}),
            "ndvi": (("site", "month"), numbers(n, 12), {"modality": "greenness"}),
            "chip": (("site", "band", "v", "u"), numbers(n, 2, 4, 4), {"modality": "optical"}),
        },
        coords={"month": MONTHS, "band": ["red", "nir"]},
    )


@pytest.fixture
def sites() -> xr.Dataset:
    return site_data()


@pytest.fixture
def schema(sites):
    return infer_schema(sites)


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        (array(units="degrees", name="slope"), "scalar"),
        (array(units="degrees", name="aspect"), "circular"),
        (array(units="deg", name="v", long_name="Wind direction"), "circular"),
        (array(units="m", name="aspect"), "scalar"),
        (array(flag_values=[1, 2]), "categorical"),
        (array(type="categorical"), "categorical"),
        (array("month"), "series"),
        (array("time"), "series"),
        (array("band", "year"), "series"),
        (array("when", coords={"when": np.array(["2018", "2019", "2020"], "M8[ns]")}), "series"),
        (array("v", "u"), "image"),
        (array("band", "v", "u"), "image"),
        (array("embedding"), "vector"),
        (array("feature"), "vector"),
        (array("band"), "vector"),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join([str(x.name), *map(str, x.dims[1:])]),
)
def test_the_kind_is_inferred_from_dims_attributes_and_name(candidate, kind):
    assert guess_kind(candidate).kind == kind
    on_a_grid = candidate.isel(site=0, drop=True).expand_dims(y=2, x=2)
    assert guess_kind(on_a_grid).kind == kind


@pytest.mark.parametrize("own_names", [("depth",), ("a", "b", "c")])
def test_a_kind_that_cannot_be_inferred_is_requested(own_names):
    odd = array(*own_names, name="odd", size=3 if len(own_names) == 1 else 1)
    with pytest.raises(
        SchemaError, match=r"cannot infer the kind of 'odd'.*pass kinds=\{'odd': 'series'\}"
    ):
        guess_kind(odd)
    schema = infer_schema(odd.to_dataset(), kinds={"odd": "series"})
    assert schema.variables["odd"].kind == "series"


def test_infer_schema_reads_modalities_units_dims_and_labels(schema):
    assert {m.name: list(m.variables) for m in schema.modalities.values()} == {
        "climate": ["bio1", "bio12"],
        "greenness": ["ndvi"],
        "optical": ["chip"],
    }
    assert schema.bound
    assert schema.variables["bio1"].units == "degC"
    assert schema.variables["ndvi"].labels == {"month": tuple(MONTHS)}
    assert schema.variables["chip"].dims == ("band", "v", "u")
    assert schema.variables["chip"].labels["band"] == ("red", "nir")
    assert schema.variables["chip"].labels["v"] == (0, 1, 2, 3)


def test_infer_schema_leaves_labels_and_text_out(sites):
    sites["presence"] = (("site", "species"), np.zeros((6, 2)))
    sites["place"] = ("site", list("abcdef"))
    sites["background"] = ("site", np.zeros(6, bool))
    assert list(infer_schema(sites).variables) == ["bio1", "bio12", "ndvi", "chip"]


def test_without_modality_attribute_a_variable_is_its_own(sites):
    del sites["bio12"].attrs["modality"]
    assert list(infer_schema(sites).modalities) == ["climate", "bio12", "greenness", "optical"]


def test_patterns_sort_variables_into_modalities_and_the_others_stay(sites):
    schema = infer_schema(sites, modalities={"rain": ["bio12"], "sight": "chip"})
    assert {m.name: list(m.variables) for m in schema.modalities.values()} == {
        "climate": ["bio1"],
        "rain": ["bio12"],
        "greenness": ["ndvi"],
        "sight": ["chip"],
    }


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"bio": "circular"}, "kinds= has 'bio', which is not a predictor.*did you mean 'bio1'"),
        ({"bio1": "angle"}, r"kinds=\{'bio1': 'angle'\}: this kind does not exist; use scalar"),
    ],
)
def test_kinds_of_unknown_names_are_refused(sites, kinds, message):
    with pytest.raises(SchemaError, match=message):
        infer_schema(sites, kinds=kinds)


def test_the_first_pattern_that_matches_has_the_variable(sites):
    schema = infer_schema(sites, modalities={"rain": ["bio12"], "weather": ["bio*"]})
    assert list(schema.modalities["rain"].variables) == ["bio12"]
    assert list(schema.modalities["weather"].variables) == ["bio1"]


def test_a_pattern_that_matches_nothing_is_refused(sites):
    with pytest.raises(SchemaError, match=r"modality 'soil': 'clay\*' matches none of bio1, bio12"):
        infer_schema(sites, modalities={"soil": ["clay*"]})


def test_kinds_overrule_what_would_be_inferred(sites):
    schema = infer_schema(sites, kinds={"bio1": "circular", "ndvi": "vector"})
    assert (schema.variables["bio1"].kind, schema.variables["ndvi"].kind) == ("circular", "vector")


def test_bind_fills_dims_labels_and_classes(sites):
    sites["when"] = (("site", "time"), np.zeros((6, 2)))
    sites = sites.assign_coords(time=np.array(["2018-01", "2018-02"], "M8[ns]"))
    cover = {"flag_values": [1, 7], "flag_meanings": "wood open_field"}
    sites["cover"] = ("site", np.ones(6), cover)
    loose = schema_of(
        m=[variable("when", "series", window=1), variable("cover", "categorical"), variable("bio1")]
    )
    loose = loose.replace({"when": loose.variables["when"].model_copy(update={"dims": ("time",)})})
    assert not loose.bound
    bound = bind(loose, sites)
    assert bound.bound
    assert bound.variables["when"].labels == {"time": ("2018-01-01", "2018-02-01")}
    assert bound.variables["when"].window == 1
    assert bound.variables["cover"].classes == {1: "wood", 7: "open_field"}
    assert bound.variables["bio1"].dims == ()


def test_classes_without_meanings_are_called_by_their_code():
    ds = xr.Dataset({"c": ("site", np.ones(3), {"flag_values": [4, 5], "flag_meanings": "one"})})
    assert infer_schema(ds).variables["c"].classes == {4: "4", 5: "5"}


def test_labels_are_plain_types_and_dates_are_text_as_short_as_they_can_be():
    def labels(values) -> tuple:
        values = np.asarray(values)
        return labels_of(xr.DataArray(np.zeros(len(values)), {"t": values}, ["t"]), "t")

    assert labels(np.array(["2018-01-01", "2018-07-01"], "M8[ns]")) == ("2018-01-01", "2018-07-01")
    assert labels(np.array(["2018-01-01T06"], "M8[ns]")) == ("2018-01-01T06:00:00",)
    assert [type(v) for v in labels([1, 2])] == [int, int]
    assert [type(v) for v in labels([1.5])] == [float]
    assert labels(["a", "b"]) == ("a", "b")
    assert labels_of(xr.DataArray(np.zeros(2), dims="t"), "t") == (0, 1)


def test_a_date_has_the_same_label_whatever_stands_beside_it():
    times = np.array(["2018-01-01T00", "2018-01-01T12"], "M8[ns]")
    days = xr.DataArray(np.zeros(2), {"t": times}, ["t"])
    assert labels_of(days.isel(t=[0]), "t") == labels_of(days, "t")[:1]


def test_a_bind_that_misses_variables_states_how_to_go_on_without(sites, schema):
    with pytest.raises(MissingVariable, match=r"\['ndvi'\] are not in the data.*schema\.subset"):
        bind(schema, sites.drop_vars("ndvi"))


def test_a_kind_that_the_dims_contradict_is_refused(sites):
    with pytest.raises(VariableMismatch, match=r"'ndvi' is of kind scalar.*correct the kind"):
        bind(schema_of(m=[variable("ndvi")]), sites)
    with pytest.raises(VariableMismatch, match=r"'bio1' is of kind series.*have none"):
        bind(schema_of(m=[variable("bio1", "series")]), sites)


def test_predictors_follow_the_schema_with_own_dims_last(sites, schema):
    shuffled_sites = sites[["chip", "ndvi", "bio12", "bio1"]].transpose(
        "u", "month", "site", "band", "v"
    )
    result = predictors(shuffled_sites, schema)
    assert list(result) == ["bio1", "bio12", "ndvi", "chip"]
    assert result["chip"].dims == ("site", "band", "v", "u")
    for name, values in result.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, sites[name])


def test_place_dims_of_a_grid_come_first(schema):
    grid = site_data(6).assign_coords(site=range(6))
    grid = grid.expand_dims(y=2).rename(site="x").transpose("x", ..., "y")
    result = predictors(grid, schema)
    assert set(result["ndvi"].dims[:2]) == {"x", "y"}
    assert result["chip"].dims[2:] == ("band", "v", "u")


def test_numbers_of_any_type_become_float32(sites, schema):
    sites["bio1"] = sites["bio1"].astype("float64")
    sites["bio12"] = xr.full_like(sites["bio12"], 7, dtype="int16")
    result = predictors(sites, schema)
    assert result["bio1"].dtype == result["bio12"].dtype == np.float32
    assert (result["bio12"] == 7).all()


def test_shuffled_months_give_equal_predictors(sites, schema):
    order = np.random.default_rng(1).permutation(12)
    shuffled_sites = predictors(sites.isel(month=order, band=[1, 0]), schema)
    for name, values in predictors(sites, schema).items():
        np.testing.assert_array_equal(shuffled_sites[name], values)


def test_labels_that_are_not_there_are_nan_and_labels_too_many_are_left_out(sites, schema):
    with pytest.warns(MissingLabels, match="no data for 10 of 12 labels of 'month'"):
        result = predictors(sites.sel(month=[11, 3]), schema)["ndvi"]
    assert result.shape == (6, 12)
    for i, month in enumerate(MONTHS):
        if month in (3, 11):
            np.testing.assert_array_equal(result[:, i], sites["ndvi"].sel(month=month))
        else:
            assert np.isnan(result[:, i]).all()
    longer_sites = xr.concat(
        [sites, sites.assign_coords(month=range(13, 25))], "month", data_vars="minimal"
    )
    np.testing.assert_array_equal(predictors(longer_sites, schema)["ndvi"], sites["ndvi"])


def test_matching_labels_stays_lazy(sites, schema):
    with pytest.warns(MissingLabels):
        lazy = predictors(sites.chunk(site=2).sel(month=[11, 3]), schema)
    assert all(v.chunks is not None for v in lazy.values())
    assert lazy["ndvi"].compute().notnull().sum() == 12


def test_no_label_in_common_is_refused_showing_both(sites, schema):
    names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    with pytest.raises(
        VariableMismatch,
        match=r"'ndvi' has none of the labels of 'month': expected 1, 2.*found jan",
    ):
        predictors(sites.assign_coords(month=names), schema)


def test_steps_without_labels_must_be_as_many(sites, schema):
    with pytest.raises(VariableMismatch, match=r"11 steps along 'month' without labels.*assign_co"):
        predictors(sites.isel(month=slice(11)).drop_vars("month"), schema)


def test_units_of_another_kind_are_refused_with_the_fix(sites, schema):
    sites["bio1"].attrs["units"] = "K"
    with pytest.raises(
        VariableMismatch, match=r"'bio1' has units 'K', expected 'degC'.*attrs\['units'\] = 'degC'"
    ):
        predictors(sites, schema)


@pytest.mark.parametrize("units", [("m", "metres"), ("1", ""), ("1", "Dimensionless"), ("m", "m ")])
def test_units_that_mean_the_same_are_equal(units):
    ds = xr.Dataset({"a": ("site", np.zeros(2), {"units": units[1]})})
    assert "a" in predictors(ds, schema_of(m=[variable("a", units=units[0])]))


def test_units_that_are_not_given_are_not_compared(sites, schema):
    del sites["bio1"].attrs["units"]
    assert "bio1" in predictors(sites, schema)


def test_other_dims_are_refused(sites, schema):
    with pytest.raises(
        VariableMismatch, match=r"'ndvi' has dims.*expected \('month',\).*ds\.rename"
    ):
        predictors(sites.rename(month="step"), schema)


def test_a_part_of_a_modality_missing_is_an_error_with_the_rename(sites, schema):
    with pytest.raises(
        MissingVariable, match=r"\['bio1'\] are not in the data.*rename\(\{'bio_1': 'bio1'\}\)"
    ):
        predictors(sites.rename(bio1="bio_1"), schema)
    with pytest.raises(
        MissingVariable, match=r"leave them out with using=.*'climate'.*set them to NaN"
    ):
        predictors(sites.drop_vars("bio1"), schema)


def test_a_near_miss_is_an_error_although_the_whole_modality_is_missing(sites, schema):
    for near in ("ndvi_", "NDVI"):
        with pytest.raises(MissingVariable, match=rf"rename\(\{{'{near}': 'ndvi'\}}\)"):
            predictors(sites.rename(ndvi=near), schema)


def test_no_rename_is_offered_of_a_variable_that_the_schema_has(sites, schema):
    with pytest.raises(MissingVariable, match=r"not in the data \(found [^)]*\): leave them out"):
        predictors(sites.drop_vars("bio1"), schema)  # bio12 is near, and itself


def test_a_modality_missing_as_a_whole_is_a_warning_that_names_it(sites, schema):
    with pytest.warns(
        MissingModality, match=r"1 of 3 modalities .*'climate' \(bio1, bio12\).*using="
    ):
        result = predictors(sites.drop_vars(["bio1", "bio12"]), schema)
    assert list(result) == ["ndvi", "chip"]


def test_a_like_name_in_another_modality_is_no_typing_error():
    schema = schema_of(y2018=[variable("ndvi_2018")], y2019=[variable("ndvi_2019")])
    ds = xr.Dataset({"ndvi_2018": ("site", np.zeros(2))})
    with pytest.warns(MissingModality, match="'y2019'"):
        assert list(predictors(ds, schema)) == ["ndvi_2018"]


def test_data_without_any_predictor_are_refused(sites, schema):
    with pytest.raises(
        MissingVariable, match=r"none of the predictors; expected bio1, bio12.*found z"
    ):
        predictors(xr.Dataset({"z": ("site", np.zeros(2))}), schema)


def test_what_is_not_needed_is_neither_missed_nor_read(sites, schema):
    def explode(block):
        raise AssertionError("a variable was read that nobody needs")

    trap = da.map_blocks(explode, da.zeros((6, 12)), meta=np.zeros((0, 0), np.float32))
    sites = sites.assign(ndvi=(("site", "month"), trap)).drop_vars("chip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = predictors(sites, schema, variables=["bio1", "bio12"])
    assert list(result) == ["bio1", "bio12"]
    for values in result.values():
        values.compute()
    with pytest.raises(AssertionError, match="nobody needs"):
        predictors(sites, schema, variables=["ndvi"])["ndvi"].compute()


def test_a_modality_of_which_a_part_is_needed_is_not_partial(sites, schema):
    result = predictors(sites.drop_vars("bio12"), schema, variables=["bio1", "ndvi"])
    assert list(result) == ["bio1", "ndvi"]


def grid(crs: str = "EPSG:4326", *, units: str | None = None) -> xr.Dataset:
    """Three rows and four columns; one cell of ``a`` empty, of ``b`` all but one."""
    import odc.geo.xr  # noqa: F401

    a, b = np.ones((3, 4), np.float32), np.full((2, 3, 4), np.nan, np.float32)
    a[1, 2] = np.nan
    a[0, 0], b[1, 0, 0] = np.nan, 5
    ds = xr.Dataset({"a": (("y", "x"), a), "b": (("month", "y", "x"), b)})
    ds = ds.assign_coords(y=[45.0, 44.0, 43.0], x=[7.0, 8.0, 9.0, 10.0], month=[1, 7])
    return ds.odc.assign_crs(crs)


def test_location_is_there_where_anything_is_and_nan_where_nothing_is():
    cube = add_location(grid())
    empty = np.zeros((3, 4), bool)
    empty[1, 2] = True
    np.testing.assert_array_equal(cube["longitude"].isnull(), empty)
    np.testing.assert_array_equal(cube["latitude"].isnull(), empty)
    np.testing.assert_array_equal(cube["longitude"][0], np.float32([7, 8, 9, 10]))
    np.testing.assert_array_equal(cube["latitude"][:, 0], np.float32([45, 44, 43]))
    assert cube["longitude"].dims == cube["latitude"].dims == ("y", "x")
    assert cube["longitude"].dtype == np.float32
    assert cube["a"].identical(grid()["a"])


def test_location_has_the_names_of_the_crs_and_one_modality():
    geographic = add_location(grid())
    projected_grid = add_location(grid("EPSG:3035"), modality="place")
    assert set(geographic) - {"a", "b"} == {"longitude", "latitude"}
    assert set(projected_grid) - {"a", "b"} == {"easting", "northing"}
    assert {projected_grid[n].attrs["modality"] for n in ("easting", "northing")} == {"place"}
    assert list(infer_schema(geographic).modalities) == ["a", "b", "location"]
    np.testing.assert_array_equal(projected_grid["easting"][2], np.float32([7, 8, 9, 10]))


def test_location_is_lazy_on_a_lazy_cube_and_numpy_on_numpy():
    def explode(block):
        raise AssertionError("computed while building the graph")

    lazy = grid().chunk(y=1)
    lazy["a"] = lazy["a"].copy(data=lazy["a"].data.map_blocks(explode, dtype=np.float32))
    lazy_grid = add_location(lazy)
    assert lazy_grid["longitude"].chunks is not None
    with pytest.raises(AssertionError, match="computed"):
        lazy_grid["longitude"].compute()
    assert isinstance(add_location(grid())["longitude"].data, np.ndarray)
    xr.testing.assert_equal(add_location(grid().chunk(x=2)).compute(), add_location(grid()))


def test_location_twice_is_location_once():
    once = add_location(grid())
    assert add_location(once).identical(once)


def test_location_needs_a_crs():
    with pytest.raises(GridError, match="no CRS"):
        add_location(grid().drop_vars("spatial_ref"))


def test_location_on_dims_called_longitude_and_latitude_states_rename():
    renamed_grid = grid().rename(x="longitude", y="latitude")
    with pytest.raises(GridError, match=r"ds\.rename\(longitude='x', latitude='y'\)"):
        add_location(renamed_grid)
