"""Zarr stores with a group for each UTM zone and a factor for each pixel, such as that of TESSERA."""

import dask
import numpy as np
import pytest
import xarray as xr
from helpers_build import labelled, one, tif, zone_store
from helpers_stac import serve
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam.errors import SchemaError, SourceError
from geomiam.sources.paths import utm_zones
from geomiam.sources.rasters import netcdf_zarr

ZONES = {
    31: GeoBox.from_bbox((705000, 5605000, 713000, 5611000), crs="EPSG:32631", resolution=100),
    32: GeoBox.from_bbox((286800, 5605000, 294000, 5611000), crs="EPSG:32632", resolution=100),
}
"""Both sides of 6 degrees east."""
SEAM = GeoBox.from_bbox((5.95, 50.58, 6.05, 50.6), crs="EPSG:4326", resolution=0.005)
SOURCE = {
    "kind": "zarr",
    "path": "utm{zone:02d}",
    "tiles": "utm",
    "variable": "embeddings",
    "scale_variable": "scales",
    "select": {"time": "2024"},
}
BANDS = 8
EXPECTED = np.clip(np.arange(1, BANDS + 1) * 24, 0, 127) * 0.5


def build(folder, root, box=SEAM, **source):
    source = {k: v for k, v in {**SOURCE, "root": str(root), **source}.items() if v is not None}
    return gm.build_cube(one(folder, source, {"kind": "vector", "dims": ["band"]}), box).layer


def test_a_grid_across_two_zones_reads_both_of_a_store_on_the_web(tmp_path):
    zone_store(tmp_path / "v.zarr", ZONES, bands=BANDS)
    with serve(tmp_path) as base:
        vectors = build(tmp_path, f"{base}/v.zarr").compute()
    assert vectors.sizes["band"] == BANDS and vectors.notnull().all()
    np.testing.assert_allclose(vectors, EXPECTED[:, None, None] + 0 * vectors.values)


def test_a_factor_that_is_not_finite_is_no_data(tmp_path):
    zone_store(tmp_path / "v.zarr", ZONES, bands=BANDS)
    box = ZONES[31][20:40, :20]
    vectors = build(tmp_path, tmp_path / "v.zarr", box).values
    assert np.isnan(vectors[:, :, :2]).all() and np.isfinite(vectors[:, :, 2:]).all()
    np.testing.assert_allclose(vectors[:, 0, 2], EXPECTED)
    raw = build(tmp_path, tmp_path / "v.zarr", box, scale_variable=None).values
    np.testing.assert_allclose(raw[:, 0, 0], EXPECTED * 2)


def test_of_a_large_store_only_the_chunks_near_the_grid_are_opened(tmp_path, monkeypatch):
    box = GeoBox.from_bbox((500000, 5500000, 540000, 5540000), crs="EPSG:32631", resolution=100)
    place = GeoBox.from_bbox((3.2, 49.72, 3.24, 49.75), crs="EPSG:4326", resolution=0.004)
    ds = labelled(box, "layer")
    ds["factor"] = 1 + ds.layer / 1000
    for name in ds.data_vars:
        ds[name].encoding["chunks"] = (32, 32)
    ds.to_zarr(tmp_path / "v.zarr")
    source = {"kind": "zarr", "root": str(tmp_path), "path": "v.zarr", "scale_variable": "factor"}

    def read(box=place):
        return gm.build_cube(one(tmp_path, source), box).layer

    monkeypatch.setattr(netcdf_zarr, "SIDE", 32)
    entire = read()
    monkeypatch.setattr(netcdf_zarr, "LARGE", 1000)
    near = read()
    np.testing.assert_array_equal(near, entire)
    assert near.notnull().all()
    counts = [len(a.__dask_graph__()) for a in (near, entire)]
    assert counts[0] < counts[1]
    other_place = GeoBox.from_bbox((3.3, 49.8, 3.34, 49.83), crs="EPSG:4326", resolution=0.004)
    near, far = dask.compute(read(), read(other_place))  # in one graph
    np.testing.assert_array_equal(near, entire)
    assert not np.array_equal(near, far)


def test_a_store_without_the_year_and_one_without_factors_are_named(tmp_path):
    zone_store(tmp_path / "v.zarr", ZONES, bands=BANDS)
    with pytest.raises(SourceError, match=r"'select: {'time': '2019'}' finds nothing"):
        build(tmp_path, tmp_path / "v.zarr", select={"time": "2019"})
    with pytest.raises(
        SourceError, match=r"no variable 'weights'.*choose one by 'scale_variable:'"
    ):
        build(tmp_path, tmp_path / "v.zarr", scale_variable="weights")


def test_zones_that_do_not_exist_are_absent_and_a_store_without_any_is_an_error(tmp_path):
    zone_store(tmp_path / "v.zarr", {31: ZONES[31]}, bands=BANDS)
    vectors = build(tmp_path, tmp_path / "v.zarr").compute()
    west = vectors.longitude < 6
    assert vectors[:, :, west].notnull().all() and vectors[:, :, -1].isnull().all()
    with serve(tmp_path) as base, pytest.raises(SourceError, match=r"none of 2 tiles.*exists"):
        build(tmp_path, f"{base}/w.zarr")


def test_files_of_other_years_are_left_out(tmp_path):
    box = GeoBox.from_bbox((500000, 5500000, 502000, 5502000), crs="EPSG:32631", resolution=100)
    for year in (2019, 2020):
        ds = labelled(box, "layer", times=2, seed=year)
        ds["time"] = np.array([f"{year}-01", f"{year}-07"], "M8[ns]")
        ds.to_netcdf(tmp_path / f"{year}.nc", engine="h5netcdf")
    source = {"kind": "netcdf", "path": "*.nc", "select": {"time": ["2020-01", "2020-12"]}}
    cube = gm.build_cube(one(tmp_path, source, {"kind": "series", "dims": ["time"]}), box)
    np.testing.assert_allclose(cube.layer, xr.open_dataset(tmp_path / "2020.nc").layer, rtol=1e-6)
    source["select"] = {"time": ["2021-01", "2021-12"]}
    with pytest.raises(SourceError, match="finds nothing between the two"):
        gm.build_cube(one(tmp_path, source, {"kind": "series", "dims": ["time"]}), box)


def test_keys_of_zones_and_factors_belong_to_their_kinds(tmp_path):
    tif(tmp_path / "a.tif", np.ones(SEAM.shape.yx, "float32"), SEAM)
    for key, value in (("scale_variable", "scales"), ("tiles", "mgrs")):
        with pytest.raises(SchemaError, match=key):
            gm.build_cube(one(tmp_path, {"path": str(tmp_path / "a.tif"), key: value}), SEAM)


@pytest.mark.parametrize(
    ("spans", "zones"),
    [
        ([(5.9, 6.1)], [31, 32]),
        ([(0, 6)], [31]),
        ([(6, 6.5)], [32]),
        ([(179, 180), (-180, -179)], [1, 60]),
        ([(-180, 180)], list(range(1, 61))),
    ],
)
def test_utm_zones_of_longitudes(spans, zones):
    assert utm_zones(spans) == zones
