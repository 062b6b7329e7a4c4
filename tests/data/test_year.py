"""The year of embeddings and images: stored with a model, and compared with that of a map."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from helpers_build import UTM
from helpers_small import schema_of, untrained, variable
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.data.predictors import bind, predictors
from geomiam.errors import OtherYear


def embedding(**attrs) -> xr.Dataset:
    return xr.Dataset({"v": (("site", "feature"), np.zeros((4, 3)), attrs)})


def bound_to(**attrs):
    return bind(schema_of(m=[variable("v", "vector")]), embedding(**attrs))


def test_embeddings_of_another_year_are_named_with_both_years():
    schema = bound_to(period="2024")
    assert schema.variables["v"].year == 2024
    schema_read_back = type(schema).from_dict(schema.to_dict())
    for ds in (
        embedding(period="2020"),
        embedding(time="2020-01-01/2020-12-31"),
        embedding().assign_coords(time=np.datetime64("2020-07-01")),
    ):
        with pytest.warns(OtherYear, match=r"'v' is of 2020 in the data and of 2024.*'year': 2024"):
            predictors(ds, schema_read_back)


@pytest.mark.parametrize("period", ["2024", "2024-01/2024-12", "1981-2010", "", "12024"])
def test_the_same_year_a_period_of_several_and_none_are_no_other_year(period):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictors(embedding(period=period), bound_to(period="2024"))
        predictors(embedding(period="2020"), bound_to(period="" if "2024" in period else period))


def test_the_weather_of_another_year_is_no_other_year():
    schema = bind(
        schema_of(m=[variable("v", "series")]),
        xr.Dataset({"v": (("site", "month"), np.zeros((4, 3)), {"period": "2024"})}),
    )
    assert schema.variables["v"].year is None


def test_a_map_of_another_year_is_predicted_with_a_warning():
    model = untrained(bound_to(period="2024"))
    values = np.zeros((3, *UTM.shape.yx), "float32")
    cube = xr.Dataset({"v": (("feature", "y", "x"), values)}, coords=xr_coords(UTM))
    cube["v"].attrs["period"] = "2019"
    with pytest.warns(OtherYear, match=r"of 2019 in the data and of 2024"):
        maps = gm.predict(cube, model)
    assert maps.suitability.notnull().all()
