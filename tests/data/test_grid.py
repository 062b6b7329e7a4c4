"""The grid: found with or without common names, compared as a whole, put back, and aligned to."""

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.transform import from_origin

import geomiam as gm
from geomiam.data.grid import grid
from geomiam.data.grid.align import align
from geomiam.data.grid.grid import geobox, restore, same_grid, spatial_dims
from geomiam.errors import GridError, MissingModality, UnreadableFile
from geomiam.geo.crs import crs_of
from geomiam.splits.blocks import site_coordinates

UTM = GeoBox.from_bbox((500000, 4000000, 560000, 4060000), crs="EPSG:32630", shape=(60, 60))
BARE = {"y": np.arange(60.0), "x": np.arange(60.0)}
WGS = GeoBox.from_bbox((-2.9, 36.2, -2.5, 36.6), crs="EPSG:4326", shape=(37, 43))


def computes_nothing(*args, **kwargs):
    raise AssertionError("something was computed")


def array(box=UTM, *, dims=("y", "x"), lead=(), seed=0, name="v"):
    rng = np.random.default_rng(seed)
    shape = (*[n for _, n in lead], *box.shape)
    data = rng.normal(size=shape).astype("float32")
    data[..., 5:20, 10:30] = np.nan
    coords = xr_coords(box, dims=dims)
    return xr.DataArray(data, dims=(*[d for d, _ in lead], *dims), coords=coords, name=name)


@pytest.mark.parametrize("dims", [("y", "x"), ("lat", "lon"), ("latitude", "longitude")])
def test_spatial_dims_keep_the_users_names(dims):
    ds = array(WGS, dims=dims, lead=[("month", 12)]).to_dataset()
    assert spatial_dims(ds) == dims
    assert geobox(ds) == WGS
    assert crs_of(ds).epsg == 4326


def test_dims_in_any_order_are_found():
    ds = array(lead=[("month", 2)]).transpose("x", "month", "y").to_dataset()
    assert spatial_dims(ds) == ("y", "x")


def test_a_missing_crs_is_an_error_with_the_call_that_sets_it():
    with pytest.raises(GridError, match=r'no CRS.*assign_crs\("EPSG:4326"\)'):
        geobox(xr.Dataset({"v": array().drop_vars(["spatial_ref", "y", "x"])}).assign_coords(BARE))


def test_missing_spatial_dims_and_sites_are_errors():
    with pytest.raises(GridError, match=r"no spatial dims.*rename"):
        spatial_dims(xr.Dataset({"v": (("a", "b"), np.zeros((2, 3)))}))
    with pytest.raises(GridError, match="no spatial dims"):
        spatial_dims(xr.Dataset({"v": (("site", "month"), np.zeros((2, 3)))}))


def test_dims_without_coordinates_are_an_error():
    with pytest.raises(GridError, match="no coordinates"):
        geobox(xr.Dataset({"v": (("y", "x"), np.zeros((2, 3)))}))


def test_uneven_coordinates_are_an_error_that_names_them():
    ds = array().to_dataset()
    ds = ds.assign_coords(x=ds.x.values + np.linspace(0, 30, 60) ** 2)
    with pytest.raises(GridError, match="'x' is not evenly spaced"):
        geobox(ds)


def test_float32_coordinates_are_still_even():
    ds = array(WGS, dims=("lat", "lon")).to_dataset()
    ds = ds.assign_coords(lat=ds.lat.astype("float32"), lon=ds.lon.astype("float32"))
    assert same_grid(geobox(ds), WGS)


def test_coordinates_rounded_to_float32_are_one_grid_with_exact_ones():
    exact = 150 + 0.00025 * np.arange(400)
    box = GeoBox((400, 400), Affine(0.00025, 0, 149.999875, 0, -0.00025, -29.999875), "EPSG:4326")
    values = np.random.default_rng(0).random((400, 400)).astype("f4")
    fine = xr.Dataset({"v": (("y", "x"), values)}, {"y": -exact + 120, "x": exact})
    fine = fine.odc.assign_crs("EPSG:4326")
    coarse = fine.assign_coords(x=fine.x.astype("f4"), y=fine.y.astype("f4"))
    coarse_box = geobox(coarse)
    step = ~box.affine * coarse_box.affine
    assert abs(step.a - 1) * 400 < 0.05 and abs(step.c) < 0.05  # of a cell; from two cells: 8 cells
    got = align({"v": coarse.v}, like=fine, resampling="bilinear").v
    np.testing.assert_array_equal(got, values)
    part = align({"v": coarse.v}, like=fine.isel(x=slice(30, 90)), resampling="bilinear").v
    np.testing.assert_allclose(part, values[:, 30:90], atol=1e-6)


def test_coordinates_too_coarse_for_their_cells_are_refused_with_the_remedy():
    x = (150 + 0.00002 * np.arange(40)).astype("f4")
    ds = array(WGS, dims=("lat", "lon")).to_dataset().isel(lon=slice(40)).assign_coords(lon=x)
    with pytest.raises(GridError, match=r"'lon' is float32.*too coarse.*linspace"):
        geobox(ds)


def test_rounded_coordinates_do_not_drift_over_many_cells():
    x = np.round(5 + np.arange(2000) / 120, 4)
    ds = xr.Dataset(coords={"lat": np.arange(3.0), "lon": x}).odc.assign_crs("EPSG:4326")
    last = geobox(ds).affine * (1999.5, 0)
    assert abs(last[0] - x[-1]) < 1e-4  # the first two alone: 0.06 degrees, 8 cells


def test_degrees_beyond_the_poles_are_refused():
    ds = array().to_dataset()
    ds = ds.drop_vars("spatial_ref").odc.assign_crs("EPSG:4326")
    with pytest.raises(GridError, match=r"'y' runs from .* degrees as its unit: set the CRS"):
        geobox(ds)
    poles = xr.Dataset(coords={"lat": np.linspace(90, -90, 721), "lon": np.arange(1440) / 4})
    assert geobox(poles.odc.assign_crs("EPSG:4326")).shape == (721, 1440)  # ERA5: centred on poles


@pytest.mark.parametrize(
    "dims", [("Y", "X"), ("Latitude", "Longitude"), ("rlat", "rlon"), ("LAT", "LON")]
)
def test_other_spellings_of_dims_work_in_every_verb(dims):
    ds = array(WGS, dims=("lat", "lon")).to_dataset().rename(lat=dims[0], lon=dims[1])
    schema = gm.infer_schema(ds)
    assert [v.kind for v in schema.variables.values()] == ["scalar"]
    assert spatial_dims(ds) == dims and geobox(ds) == WGS
    assert int(gm.coverage(ds, schema).cells) == int(ds.v.notnull().sum())
    lat, lon = (ds[d].values[30:36] for d in dims)
    table = pd.DataFrame({"lon": lon, "lat": lat, "species": "a"})
    assert site_coordinates(gm.sample(ds, table)).shape == (6, 2)


def test_bounds_and_grid_mappings_are_no_predictors(tmp_path):
    lat, lon = 50 - 0.5 * np.arange(4), 5 + 0.5 * np.arange(5)
    time = np.array(["2000-01-16", "2000-02-15"], "M8[ns]")
    ds = xr.Dataset(
        {
            "tas": (("time", "lat", "lon"), np.ones((2, 4, 5), "f4")),
            "lat_bnds": (("lat", "bnds"), np.stack([lat + 0.25, lat - 0.25], 1)),
            "time_bnds": (("time", "bnds"), np.stack([time, time + 1], 1)),
            "corners": (("lat", "lon", "vertex"), np.ones((4, 5, 4))),
            "crs": ((), 0, {"crs_wkt": "EPSG:4326", "grid_mapping_name": "latitude_longitude"}),
        },
        {"lat": lat, "lon": ("lon", lon, {"bounds": "corners"}), "time": time},
    )
    assert list(gm.infer_schema(ds).variables) == ["tas"]
    read_back = gm.open_cube(gm.write_cube(ds, tmp_path / "c.zarr"))
    assert list(gm.infer_schema(read_back).variables) == ["tas"]
    np.testing.assert_array_equal(read_back.time_bnds, ds.time_bnds)


def test_a_single_row_needs_a_transform():
    row = array().to_dataset().isel(y=slice(0, 1))
    assert geobox(row).shape == (1, 60)
    del row.spatial_ref.attrs["GeoTransform"]
    with pytest.raises(GridError, match="write_transform"):
        geobox(row)


def test_grids_are_compared_to_a_hundredth_of_a_cell():
    assert same_grid(UTM, UTM.translate_pix(0.001, 0))
    assert not same_grid(UTM, UTM.translate_pix(0.1, 0))
    assert not same_grid(UTM, UTM.flipy())
    assert not same_grid(UTM, UTM[:-1, :])


def test_restore_puts_back_coordinates_and_crs_without_dask():
    like = array(WGS, dims=("lat", "lon")).to_dataset().chunk(lat=7)
    maps = xr.Dataset({"s": (("species", "lat", "lon"), np.zeros((2, 37, 43), "float32"))})
    maps.s.attrs["grid_mapping"] = "gone"
    with dask.config.set(scheduler=computes_nothing):
        out = restore(maps, like)
    assert same_grid(geobox(out), WGS)
    assert isinstance(out.spatial_ref.variable._data, np.ndarray)
    assert out.s.encoding["grid_mapping"] == "spatial_ref" and "grid_mapping" not in out.s.attrs
    assert "grid_mapping" in maps.s.attrs, "the input is left alone"


def test_restore_heals_a_crs_coordinate_that_became_a_dask_array():
    like = array().to_dataset()
    bad_ds = like.chunk(y=10).assign_coords(spatial_ref=like.spatial_ref.chunk())
    out = restore(bad_ds, like)
    assert isinstance(out.spatial_ref.variable._data, np.ndarray)
    assert out.spatial_ref.attrs == like.spatial_ref.attrs


def test_restore_renews_the_transform_of_a_crop():
    crop = array().to_dataset().isel(y=slice(10, 30), x=slice(5, 15))
    out = restore(crop, crop)
    assert out.spatial_ref.attrs["GeoTransform"].startswith("505000 1000 0 4050000")
    assert geobox(out) == UTM[10:30, 5:15]


def test_restore_works_without_any_crs():
    like = xr.Dataset({"v": (("y", "x"), np.ones((3, 4)))}, {"y": [3.0, 2, 1], "x": np.arange(4.0)})
    out = restore(like.v.drop_vars(["y", "x"]), like)
    assert list(out.y) == [3, 2, 1] and "spatial_ref" not in out.coords


def test_restore_keeps_the_name_of_the_crs_coordinate():
    like = array().rename(spatial_ref="crs").to_dataset()
    like.v.encoding["grid_mapping"] = "crs"
    assert restore(like, like).v.encoding["grid_mapping"] == "crs"


def test_a_source_on_the_grid_passes_through_untouched():
    source = array()
    out = align([source], source.to_dataset())
    np.testing.assert_array_equal(out.v.values, source.values)
    lazy = array().chunk(y=17)
    assert align([lazy], UTM).v.data.name == lazy.data.name


def test_a_source_on_the_grid_takes_the_dim_names_of_the_grid():
    like = array(WGS, dims=("lat", "lon"), name="a").to_dataset()
    out = align({"b": array(WGS, dims=("y", "x"), lead=[("month", 3)])}, like)
    assert out.b.dims == ("month", "lat", "lon")
    xr.testing.assert_identical(out.lat, like.lat)
    assert out.spatial_ref.attrs == like.spatial_ref.attrs


def test_a_flipped_source_is_turned_over():
    source = array()
    out = align([source.isel(y=slice(None, None, -1))], UTM)
    np.testing.assert_array_equal(out.v.values, source.values)


def test_nearest_equals_a_plain_loop_in_one_crs():
    dst = UTM.zoom_out(3).translate_pix(0.2, -0.3)
    source, out = array(), align([array()], dst).v.values
    for (i, j), value in np.ndenumerate(out):
        col, row = ~UTM.affine * (dst.affine * (j + 0.5, i + 0.5))
        inside = 0 <= row < 60 and 0 <= col < 60
        np.testing.assert_array_equal(
            value, source.values[int(row), int(col)] if inside else np.nan
        )


def test_average_equals_block_means_that_skip_nan():
    out = align([array()], UTM.zoom_out(5), resampling="average").v
    blocks = array().coarsen(y=5, x=5).mean()
    np.testing.assert_allclose(out.values, blocks.values, rtol=1e-5)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average", "mode"])
@settings(max_examples=5, deadline=None)
@given(chunks=st.tuples(st.integers(5, 60), st.integers(5, 60)))
def test_aligning_does_not_depend_on_chunks(method, chunks):
    source = array(lead=[("band", 2)])
    for dst in (WGS, UTM.zoom_out(1 / 1.7), UTM.translate_pix(0.4, 0.3)):
        lazy = align([source.chunk(y=chunks[0], x=chunks[1])], dst, resampling=method)
        assert lazy.v.chunks is not None
        xr.testing.assert_identical(lazy.compute(), align([source], dst, resampling=method))


def test_tiles_leave_no_seams(monkeypatch):
    from geomiam.data.grid import warp

    dst = UTM.zoom_out(1 / 1.7)
    numpy_result = align([array()], dst, resampling="cubic")
    monkeypatch.setattr(warp, "TILE", 16)
    xr.testing.assert_allclose(align([array()], dst, resampling="cubic"), numpy_result, rtol=1e-5)


def test_nearest_between_two_crs_is_within_a_cell_of_the_exact_place():
    x, y = xr.broadcast(
        xr.DataArray(np.arange(60.0), dims="x"), xr.DataArray(np.arange(60.0), dims="y")
    )
    place = array().copy(data=(y + 1000 * x).transpose("y", "x").values.astype("float32"))
    out = align([place], WGS).v
    lon, lat = np.meshgrid(out.longitude, out.latitude)
    east, north = WGS.crs.transformer_to_crs(UTM.crs, always_xy=True)(lon, lat)
    col, row = ~UTM.affine * (east, north)
    assert np.abs(out.values // 1000 + 0.5 - col).max() < 0.65
    assert np.abs(out.values % 1000 + 0.5 - row).max() < 0.65


def test_aligning_computes_nothing():
    lazy = array(lead=[("band", 2)]).chunk(y=20, x=20)
    with dask.config.set(scheduler=computes_nothing):
        out = align({"a": lazy, "b": lazy.astype("int16").assign_attrs(_FillValue=-1)}, WGS)
    assert out.a.chunks and out.b.chunks and out.b.dtype == np.float32


@pytest.mark.parametrize("holder_name", ["attrs", "encoding"])
@pytest.mark.parametrize("key", ["_FillValue", "nodata", "missing_value"])
def test_integer_nodata_becomes_nan(holder_name, key):
    source = array().fillna(0).astype("int16")
    source[3, 4] = -9999
    getattr(source, holder_name)[key] = -9999
    out = align([source], UTM)
    assert np.isnan(out.v[3, 4]) and int(out.v.isnull().sum()) == 1
    assert key not in out.v.attrs and out.v.dtype == np.float32
    result = align([source], UTM.zoom_out(2), resampling="bilinear").v
    assert float(result.min()) > -10


def test_a_float32_sentinel_written_as_float64_is_found():
    source = array().fillna(0)
    source[0, 0] = np.float32(-3.4e38)
    assert np.isnan(align([source.assign_attrs(_FillValue=-3.4e38)], UTM).v[0, 0])


def test_a_decoded_value_that_equals_the_packed_fill_stays():
    source = array().fillna(255.0)
    source.encoding = {"_FillValue": 255, "scale_factor": 0.5, "dtype": "uint8"}
    assert not align([source], UTM).v.isnull().any()


def test_packed_values_are_unpacked():
    source = xr.full_like(array(), 7, dtype="int16").assign_attrs(
        scale_factor=0.1, add_offset=100.0
    )
    np.testing.assert_allclose(align([source], UTM).v, 100.7, rtol=1e-6)


def test_text_is_refused():
    with pytest.raises(GridError, match=r"has the dtype <U1, which is not numeric.*drop_vars"):
        align([array().astype("U1")], UTM)


@pytest.mark.parametrize("attrs", [{"type": "categorical"}, {"flag_values": [1, 2]}])
def test_classes_are_never_mixed(attrs):
    source = array().assign_attrs(attrs)
    with pytest.raises(GridError, match=r"'v' is categorical: 'bilinear' would mix.*'mode'"):
        align([source], WGS, resampling="bilinear")
    codes = set(np.unique(align([source], WGS, resampling={"v": "mode"}).v))
    assert {c for c in codes if c == c} <= set(source.values.ravel())


def test_resampling_names_are_checked():
    with pytest.raises(GridError, match="'bilinar' is not known; use one of nearest"):
        align([array()], WGS, resampling="bilinar")
    with pytest.raises(GridError, match=r"names \['w'\].*found \['v'\]"):
        align([array()], WGS, resampling={"w": "mode"})


def test_names_are_used_once_and_needed():
    with pytest.raises(GridError, match="two sources have a variable 'v'"):
        align([array(), array()], UTM)
    with pytest.raises(GridError, match="without a name"):
        align([array().rename(None)], UTM)


def test_own_dims_with_other_labels_are_never_filled_up():
    two = array(lead=[("band", 2)]).assign_coords(band=[1, 2])
    three = array(lead=[("band", 3)], name="w").assign_coords(band=[1, 2, 3])
    with pytest.raises(GridError, match=r"labels differ.*rename"):
        align([two, three], UTM)


def test_a_source_elsewhere_is_reported():
    with pytest.warns(MissingModality, match="'v' has no data on the grid"):
        out = align([array(UTM.translate_pix(1000, 0))], UTM)
    assert out.v.isnull().all()


def test_a_datasets_variables_take_the_mappings_name_as_modality():
    parts = xr.Dataset({"a": array(), "b": array(seed=1).assign_attrs(modality="own")})
    out = align({"soil": parts}, UTM)
    assert (out.a.attrs["modality"], out.b.attrs["modality"]) == ("soil", "own")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_file_is_read_lazily_in_its_own_units(tmp_path):
    data = np.arange(3600, dtype="int16").reshape(60, 60)
    data[0, 0] = -1
    profile = dict(driver="GTiff", height=60, width=60, count=1, dtype="int16", nodata=-1)
    profile |= dict(crs="EPSG:32630", transform=from_origin(500000, 4060000, 1000, 1000))
    with rasterio.open(tmp_path / "dem.tif", "w", **profile) as file:
        file.write(data, 1)
        file.scales = (0.5,)
    with dask.config.set(scheduler=computes_nothing):
        out = align([tmp_path / "dem.tif"], UTM)
    assert out.dem.dims == ("y", "x") and out.dem.chunks
    np.testing.assert_allclose(out.dem.values[0, :3], [np.nan, 0.5, 1.0])


def test_align_equals_gdals_own_warp():
    from rasterio.warp import reproject

    source, expected = array(), np.full(WGS.shape, np.nan, "float32")
    reproject(
        source.values, expected, src_transform=UTM.affine, src_crs="EPSG:32630", src_nodata=np.nan,
        dst_transform=WGS.affine, dst_crs="EPSG:4326", dst_nodata=np.nan, resampling=rasterio.enums.Resampling.bilinear,
        XSCALE=1, YSCALE=1,
    )  # fmt: skip
    out = align([source], WGS, resampling="bilinear").v.values
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_importing_the_module_loads_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, geomiam.data.sites.sites, geomiam.data.sites.background\n"
    code += "print([m for m in ('odc.geo', 'rioxarray', 'geopandas', 'torch', 'dask.array') if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"
    assert grid.SITE == "site"


def test_the_grid_to_align_to_is_a_cube_an_array_or_a_geobox_and_nothing_else(tmp_path):
    source = array()
    expected = align([source], source.to_dataset())
    for like in (source, source.rename(None), geobox(source)):
        xr.testing.assert_allclose(align([source], like)["v"], expected["v"])
    with pytest.raises(
        GridError, match=r"found PosixPath.*open_rasterio\(path\)|found WindowsPath"
    ):
        align([source], tmp_path / "grid.tif")


def test_a_file_that_is_no_raster_is_refused(tmp_path):
    (tmp_path / "text.tif").write_text("no raster")
    for name in ("text.tif", "nowhere.tif"):
        with pytest.raises(UnreadableFile, match=f"{name} cannot be read as a raster"):
            align([tmp_path / name], geobox(array()))
