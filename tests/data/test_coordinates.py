"""Names and coordinates that xarray takes and a store does not; and one CRS in several spellings."""

from __future__ import annotations

import numpy as np
import odc.geo.xr  # noqa: F401
import pandas as pd
import pyproj
import pytest
import xarray as xr
from helpers_small import quick, tiny_sites
from odc.geo.crs import CRS

import geomiam as gm
from geomiam.errors import GridError
from geomiam.geo.crs import same_crs

SMALL = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0)


def small_cube(**coords) -> xr.Dataset:
    """A cube of one layer with extra coordinates."""
    place = {"y": 50 - 0.5 * np.arange(4), "x": 5 + 0.5 * np.arange(4)}
    layer = (("y", "x"), np.arange(16, dtype="f4").reshape(4, 4))
    return xr.Dataset({"bio1": layer}, coords=place | coords).odc.assign_crs("EPSG:4326")


@pytest.mark.parametrize("value", [None, {"scale": 0.1}, pd.Timestamp("2020-01-01", tz="UTC")])
def test_a_coordinate_of_objects_is_left_out_by_name(tmp_path, value):
    cube = small_cube(instrument=((), np.array(value, dtype=object)), day=((), "monday"))
    with pytest.warns(UserWarning, match=r"\['instrument'\].*ds\.drop_vars\(\['instrument'\]\)"):
        gm.write_cube(cube, tmp_path / "cube.zarr")
    read_back = gm.open_cube(tmp_path / "cube.zarr")
    assert "instrument" not in read_back.coords
    assert str(read_back["day"].values) == "monday"
    np.testing.assert_array_equal(read_back["bio1"], cube["bio1"])


def test_labels_that_are_objects_are_written_as_text(tmp_path):
    sites = tiny_sites(4).assign_coords(
        species=pd.period_range("2000-01", periods=2, freq="M").astype(object)
    )
    gm.write_sites(sites, tmp_path / "sites.zarr")
    read_back = gm.open_sites(tmp_path / "sites.zarr")
    assert read_back["species"].values.tolist() == ["2000-01-01", "2000-02-01"]


def test_the_levels_of_a_multiindex_are_written_as_coordinates(tmp_path):
    sites = small_cube().stack(site=("y", "x")).transpose("site", ...)
    gm.write_sites(sites, tmp_path / "sites.zarr")
    read_back = gm.open_sites(tmp_path / "sites.zarr")
    np.testing.assert_array_equal(read_back["x"], sites["x"].values)


def test_bands_as_variables_are_called_by_their_number_as_text(tmp_path):
    numbered_sites = tiny_sites().rename(bio1=1, clay=2)
    model = gm.fit(numbered_sites, network=SMALL, training=quick(epochs=1))
    assert {"1", "2"} < set(model.schema.variables)
    as_text = gm.predict(tiny_sites().rename(bio1="1", clay="2"), model)
    xr.testing.assert_identical(gm.predict(numbered_sites, model), as_text)
    gm.write_cube(small_cube().rename(bio1=1), tmp_path / "cube.zarr")
    assert list(gm.open_cube(tmp_path / "cube.zarr").data_vars) == ["1"]


def test_a_number_and_its_text_are_two_names_for_one_and_refused():
    cube = small_cube()
    with pytest.raises(
        GridError, match=r"names \['1'\] occur twice.*ds\.rename\(\{1: 'band_1'\}\)"
    ):
        gm.open_cube(cube.assign({1: cube["bio1"], "1": cube["bio1"]}))


@pytest.mark.parametrize("code", [4326, 3035, 32633, 27700, 2193, 4269])
@pytest.mark.parametrize("version", ["WKT1_ESRI", "WKT1_GDAL", "WKT2_2019"])
def test_a_crs_is_the_same_in_every_spelling(code, version):
    assert same_crs(CRS(code), CRS(pyproj.CRS(code).to_wkt(version)))


def test_crs_of_another_place_or_datum_are_different():
    codes = [4326, 4267, 3035, 32633, 32634, 25833, 27700, 3857, 6933, 2193]
    same = [(a, b) for a in codes for b in codes if a < b and same_crs(CRS(a), CRS(b))]
    assert same == []
    assert same_crs(CRS("EPSG:4326"), CRS("OGC:CRS84"))
    assert not same_crs(CRS("EPSG:4326"), None)
    laea = "+proj=laea +lat_0=1 +lon_0=2"  # one projection and ellipsoid, two datums
    assert not same_crs(CRS(f"{laea} +datum=NAD83"), CRS(f"{laea} +ellps=GRS80 +towgs84=99,9,9"))


def test_modalities_in_two_crs_are_refused_with_both_named():
    soil = small_cube().rename(bio1="soil").drop_vars("spatial_ref").odc.assign_crs("EPSG:4267")
    tree = xr.DataTree.from_dict({"/climate": small_cube(), "/ground": soil})
    with pytest.raises(GridError, match=r"EPSG:4267.*EPSG:4326"):
        gm.open_cube(tree)
