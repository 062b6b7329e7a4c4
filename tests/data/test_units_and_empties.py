"""What a layer seems to be and is not: units, empty variables, classes under other codes."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
import xarray as xr
from helpers_build import FINE, UTM, catalog, field, labelled, one, tif

import geomiam as gm
from geomiam.data.predictors import predictors
from geomiam.errors import DoubtfulSource, NeverObserved, VariableMismatch
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Modality, Variable
from geomiam.sources.build_report import summary
from geomiam.tokens.scaler import fit_scaler


def in_kelvin(folder):
    ds = labelled(FINE)
    ds["v"].attrs["units"] = "K"
    ds.to_netcdf(folder / "n.nc", engine="h5netcdf")
    return {"kind": "netcdf", "path": "n.nc", "variable": "v"}


def test_units_other_than_those_of_the_file_are_named(tmp_path):
    source = in_kelvin(tmp_path)
    with pytest.warns(
        DoubtfulSource, match=r"'layer' is in 'K'.*units 'degC' and neither 'scale:'"
    ):
        gm.build_cube(one(tmp_path, source, {"units": "degC"}), UTM)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubtfulSource)
        celsius = gm.build_cube(
            one(tmp_path, {**source, "offset": -273.15}, {"units": "degC"}), UTM
        )
        assert celsius.layer.attrs["units"] == "degC"
        bare = gm.build_cube(one(tmp_path, {**source, "offset": -273.15}), UTM)
        assert "units" not in bare.layer.attrs  # those of the file are no longer true
        assert gm.build_cube(one(tmp_path, source), UTM).layer.attrs["units"] == "K"


def test_units_of_a_geotiff_are_kept(tmp_path):
    tif(tmp_path / "a.tif", field(FINE), FINE)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.set_band_unit(1, "metre")
    assert gm.build_cube(one(tmp_path, {"path": "a.tif"}), UTM).layer.attrs["units"] == "metre"
    with pytest.warns(DoubtfulSource, match="'metre'.*'mm'"):
        gm.build_cube(one(tmp_path, {"path": "a.tif"}, {"units": "mm"}), UTM)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubtfulSource)
        gm.build_cube(
            one(tmp_path, {"path": "a.tif"}, {"units": "m"}), UTM
        )  # one unit, two spellings


def test_an_empty_variable_does_not_hide_behind_its_modality(tmp_path):
    tif(tmp_path / "good.tif", field(FINE), FINE)
    tif(tmp_path / "bad.tif", np.full((1, *FINE.shape), -1, "f4"), FINE, nodata=-1)
    half = field(FINE)
    half[0, 40:] = -1
    tif(tmp_path / "half.tif", half, FINE, nodata=-1)
    names = ("good", "bad", "half")
    document = catalog(
        tmp_path,
        {"s": {"path": "{variable}.tif"}},
        {"m": {"from": "s", "variables": {n: {} for n in names}}},
    )
    with pytest.warns(DoubtfulSource, match="1 variables are NaN in every cell: bad; check"):
        cube = gm.build_cube(document, UTM, out=tmp_path / "c.zarr", progress=False)
    assert json.loads(cube.attrs["coverage"]) == {"m": 1.0}
    shares = json.loads(cube.attrs["variable_coverage"])
    assert shares["good"] == 1 and shares["bad"] == 0 and 0.4 < shares["half"] < 0.6
    lines = summary(cube).splitlines()
    at = lines.index("  m: data in 100.0% of the cells that have any")
    assert lines[at + 1] == "    bad: 0.0%" and lines[at + 2].startswith("    half: ")


def test_a_predictor_without_a_value_at_any_site_is_named():
    variables = {n: Variable(name=n, kind="scalar") for n in ("a", "b")}
    schema = Schema(name="s", modalities={"m": Modality(name="m", variables=variables)})
    arrays = {"a": np.arange(3.0), "b": np.full(3, np.nan)}
    with pytest.warns(NeverObserved, match="1 of 2 predictors .* any training site: b;"):
        fit_scaler(arrays, schema)


def covers(codes, meanings):
    values = np.ones((2, 3), "f4")
    attrs = {"flag_values": codes, "flag_meanings": meanings}
    return xr.Dataset({"lc": (("y", "x"), values, attrs)}, {"y": [1.0, 0], "x": [0.0, 1, 2]})


def test_classes_under_other_codes_are_refused():
    schema = gm.infer_schema(covers([1, 2, 3], "forest water town"))
    for same in (covers([1, 2], "forest water"), covers([1, 9], "Forest ice"), covers([1], "wood")):
        predictors(same, schema)
    with pytest.raises(VariableMismatch, match=r"none of the class codes.*1, 2, 3, found 51, 52"):
        predictors(covers([51, 52], "forest water"), schema)
    with pytest.raises(VariableMismatch, match="'water' is 1, in the schema it is 2"):
        predictors(covers([1, 2], "water forest"), schema)
