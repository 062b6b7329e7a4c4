"""Stores: what is written is read; nothing half-written looks done; CRS survives Zarr and GDAL."""

import subprocess
import sys
import warnings
import zipfile

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import rasterio
import xarray as xr
import zarr
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import geobox, same_grid
from geomiam.data.store.store import as_cube, open_zarr, write_cube, write_zarr
from geomiam.errors import GridError, OutputExists, SourceError

BOX = GeoBox.from_bbox((500000, 4000000, 530000, 4020000), crs="EPSG:32630", resolution=1000)
MAPS = SHARED / "maps"


def computes_nothing(*args, **kwargs):
    raise AssertionError("something was computed")


def cube(box=BOX, *, dims=("y", "x")):
    rng = np.random.default_rng(0)
    rain = rng.normal(size=(4, *box.shape)).astype("float32")
    rain[:, :3] = np.nan
    soil = rng.normal(size=box.shape).astype("float32")
    soil[:, 7:9] = np.nan
    ds = xr.Dataset(
        {
            "rain": (("month", *dims), rain, {"units": "mm", "modality": "climate"}),
            "soil": (dims, soil, {"modality": "soil", "flag_values": [1, 2]}),
        },
        coords={**xr_coords(box, dims=dims), "month": [1, 2, 3, 4]},
        attrs={"title": "test"},
    )
    return ds


@pytest.mark.parametrize("dims", [("y", "x"), ("lat", "lon"), ("latitude", "longitude")])
def test_what_is_written_is_read(tmp_path, dims):
    box = BOX if dims == ("y", "x") else GeoBox.from_bbox((1, 2, 3, 4), "EPSG:4326", shape=(20, 30))
    before = cube(box, dims=dims)
    after = as_cube(write_cube(before, tmp_path / "c.zarr"))
    xr.testing.assert_identical(before, after.compute())
    assert same_grid(geobox(after), box)


def test_the_store_is_version_three_without_consolidated_metadata(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    assert group.metadata.consolidated_metadata is None
    assert group["soil"].attrs["grid_mapping"] == "spatial_ref"
    assert np.isnan(group["soil"].fill_value)


def test_fill_and_grid_mapping_are_in_encoding_only(tmp_path):
    ds = cube()
    ds.soil.attrs |= {"_FillValue": np.nan, "grid_mapping": "spatial_ref"}
    after = as_cube(write_cube(ds, tmp_path / "c.zarr"))
    assert not {"_FillValue", "grid_mapping"} & set(after.soil.attrs)
    assert after.soil.encoding["grid_mapping"] == "spatial_ref"
    assert ds.soil.attrs["grid_mapping"] == "spatial_ref", "the input is left alone"


def test_opening_reads_nothing_and_the_crs_is_no_dask_array(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    with dask.config.set(scheduler=computes_nothing):
        ds = as_cube(path)
    assert ds.rain.chunks and ds.soil.chunks
    assert isinstance(ds.spatial_ref.variable._data, np.ndarray)
    assert as_cube(path, chunks=None).rain.chunks is None
    assert as_cube(path, chunks={"x": 5}).soil.chunks[1][0] == 5
    assert as_cube(path, chunks="auto").soil.chunks


def test_without_dask_values_are_read_when_requested(tmp_path):
    ds = as_cube(write_cube(cube(), tmp_path / "c.zarr"), chunks=None)
    assert not ds.rain.variable._in_memory
    np.testing.assert_array_equal(ds.rain[0].values, cube().rain[0].values)


def test_integers_and_doubles_become_float32(tmp_path):
    ds = cube().assign(
        n=(("y", "x"), np.full(BOX.shape, -1, "int16"), {"_FillValue": -1}),
        d=(("y", "x"), np.ones(BOX.shape)),
    )
    out = as_cube(ds)
    assert {v.dtype for v in out.data_vars.values()} == {np.dtype("float32")}
    assert out.n.isnull().all()


def test_a_zip_is_opened(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    with zipfile.ZipFile(tmp_path / "c.zarr.zip", "w") as archive:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(path))
    xr.testing.assert_identical(as_cube(tmp_path / "c.zarr.zip").compute(), cube())


def test_consolidated_stores_are_opened(tmp_path):
    cube().to_zarr(tmp_path / "c.zarr", consolidated=True, zarr_format=2)
    assert list(as_cube(tmp_path / "c.zarr").data_vars) == ["rain", "soil"]


def test_no_store_is_an_error_that_names_the_way(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no file or folder at .*correct the path"
    ):
        as_cube(tmp_path / "nothing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no Zarr group at .*write_cube"):
        as_cube(tmp_path / "empty.zarr")
    for name, advice in {
        "a.txt": r"is a file, not a Zarr store.*ds = xr\.open_dataset",
        "a.csv": r"is a table of points, not a cube: gm\.sample",
    }.items():
        (tmp_path / name).write_text("text")
        with pytest.raises(FileNotFoundError, match=advice):
            gm.open_cube(tmp_path / name)


def test_a_missing_crs_is_an_error_unless_given():
    bare = (
        cube()
        .drop_vars(["spatial_ref", "y", "x"])
        .assign_coords(y=cube().y.values, x=cube().x.values)
    )
    with pytest.raises(GridError, match=r"no CRS.*assign_crs"):
        as_cube(bare)
    assert same_grid(geobox(as_cube(bare, crs="EPSG:32630")), BOX)
    assert geobox(as_cube(cube(), crs="EPSG:32631")).crs.epsg == 32631


def test_a_crs_stored_as_a_variable_is_found():
    ds = cube().reset_coords("spatial_ref")
    assert same_grid(geobox(as_cube(ds)), BOX)


def test_a_crs_in_attributes_becomes_a_coordinate():
    bare = cube().drop_vars(["spatial_ref", "y", "x"]).assign_attrs(crs="EPSG:32630")
    out = as_cube(bare.assign_coords(y=cube().y.values, x=cube().x.values))
    assert out.spatial_ref.attrs["grid_mapping_name"] == "transverse_mercator"


def test_the_children_of_a_tree_are_modalities(tmp_path):
    ds = cube()
    tree = xr.DataTree.from_dict(
        {"climate": ds[["rain"]], "ground": ds[["soil"]].assign(ph=ds.soil.drop_attrs())}
    )
    flat = as_dataset(tree)
    assert list(flat.data_vars) == ["rain", "soil", "ph"]
    assert [v.attrs["modality"] for v in flat.data_vars.values()] == ["climate", "soil", "ground"]
    tree.to_zarr(tmp_path / "t.zarr", consolidated=False)
    read_back = as_cube(tmp_path / "t.zarr")
    xr.testing.assert_equal(read_back.compute(), flat)
    assert read_back.ph.attrs["modality"] == "ground" and read_back.ph.chunks


def test_an_inherited_grid_is_found():
    ds = cube()
    tree = xr.DataTree.from_dict(
        {
            "/": ds.drop_vars(["rain", "soil"]),
            "a": ds[["rain"]].drop_vars(["y", "x", "spatial_ref"]),
        }
    )
    assert same_grid(geobox(as_cube(tree)), BOX)


def test_name_clashes_and_other_grids_in_a_tree_are_errors():
    ds = cube()
    with pytest.raises(GridError, match=r"\['soil'\] are in two modalities"):
        as_dataset(xr.DataTree.from_dict({"a": ds[["soil"]], "b": ds[["soil"]]}))
    moved_ds = cube(BOX.translate_pix(3, 0))[["rain"]]
    with pytest.raises(GridError, match=r"another grid.*align"):
        as_dataset(xr.DataTree.from_dict({"a": ds[["soil"]], "b": moved_ds}))
    with pytest.raises(GridError, match="one level"):
        as_dataset(xr.DataTree.from_dict({"a/b": ds}))
    with pytest.raises(GridError, match="no variables"):
        as_dataset(xr.DataTree())


def test_grids_that_differ_in_the_last_digit_are_one():
    ds, noisy = cube()[["soil"]], cube()[["rain"]]
    noisy = noisy.assign_coords(x=noisy.x + 1e-6)
    assert as_dataset(xr.DataTree.from_dict({"a": ds, "b": noisy})).sizes["x"] == 30


def test_an_existing_store_is_kept_unless_overwritten(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    with pytest.raises(OutputExists, match="overwrite=True"):
        write_cube(cube() + 1, path)
    xr.testing.assert_equal(as_cube(path).compute(), cube())
    write_cube(cube() + 1, path, overwrite=True)
    xr.testing.assert_equal(as_cube(path).compute(), cube() + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_what_is_no_zarr_store_is_never_deleted(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(OutputExists, match="not a Zarr directory"):
        write_cube(cube(), tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "mother.txt").exists()
    with pytest.raises(OutputExists, match="URL"):
        write_cube(cube(), "s3://bucket/c.zarr")


def test_a_store_can_be_overwritten_with_a_view_of_itself(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    write_cube(as_cube(path) * 2, path, overwrite=True)
    xr.testing.assert_equal(as_cube(path).compute(), cube() * 2)


def test_a_failed_write_leaves_nothing_and_keeps_the_old(tmp_path):
    def fail(block):
        raise RuntimeError("disk is on fire")

    path = write_cube(cube(), tmp_path / "c.zarr")
    good = da.ones((20, 30), chunks=5, dtype="float32")
    bad = good.map_blocks(fail, dtype="float32", meta=np.empty((0, 0), "float32"))
    bad_cube = cube().assign(soil=(("y", "x"), bad), fine=(("y", "x"), good))
    for target, overwrite in ((tmp_path / "new.zarr", False), (path, True)):
        with pytest.raises(RuntimeError, match="on fire"):
            write_cube(bad_cube, target, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]
    xr.testing.assert_equal(as_cube(path).compute(), cube())


def test_a_killed_write_leaves_nothing_that_looks_done(tmp_path):
    code = (
        "import os, sys, numpy as np, dask.array as da, xarray as xr\n"
        "from geomiam.data.store.store import write_zarr\n"
        "a = da.ones((8, 8), chunks=4).map_blocks(lambda b: os._exit(9), meta=np.empty((0, 0)))\n"
        "write_zarr(xr.Dataset({'a': (('y', 'x'), a)}), sys.argv[1])\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.zarr")])
    assert process.returncode == 9
    assert not (tmp_path / "m.zarr").exists()
    left = {p.suffix for p in tmp_path.iterdir() if p.name.startswith(".m.zarr.")}
    assert left == {".partial", ".lock"} and len(list(tmp_path.iterdir())) == 2
    write_cube(cube(), tmp_path / "m.zarr")  # the lock of a killed process is free


@settings(max_examples=8, deadline=None)
@given(old=st.integers(6, 31), new=st.integers(6, 31), drop=st.integers(0, 5))
@pytest.mark.slow
def test_rechunked_and_cropped_cubes_are_written(tmp_path_factory, old, new, drop):
    path = tmp_path_factory.mktemp("w")
    first = write_cube(cube(), path / "a.zarr", chunks={"y": old, "x": old})
    again = as_cube(first).isel(x=slice(drop, None), y=slice(0, 20 - drop))
    write_cube(again, path / "b.zarr", chunks={"y": new})
    write_cube(again, path / "c.zarr")
    expected = cube().isel(x=slice(drop, None), y=slice(0, 20 - drop))
    for name in ("b.zarr", "c.zarr"):
        xr.testing.assert_equal(as_cube(path / name).compute(), expected)
        assert same_grid(geobox(as_cube(path / name)), BOX[0 : 20 - drop, drop:])


def test_chunks_on_disk_are_those_requested(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr", chunks={"y": 6, "x": 7})
    assert zarr.open_group(path, mode="r")["soil"].chunks == (6, 7)


def test_progress_is_silent_for_quick_writes(tmp_path, capsys):
    write_cube(cube().chunk(x=3), tmp_path / "c.zarr")
    assert capsys.readouterr().out.strip() == ""


def test_text_coordinates_and_booleans_survive(tmp_path):
    maps = cube().assign_coords(species=["Quercus ilex", "Ænys"])
    warnings.filterwarnings("error", message=".*Zarr V3 specification")
    maps = maps.assign(seen=(("species",), [True, False]))
    path = write_zarr(maps, tmp_path / "m.zarr")
    after = xr.open_zarr(path, consolidated=False, decode_coords="all").compute()
    assert list(after.species.values) == ["Quercus ilex", "Ænys"]
    assert after.seen.dtype == bool
    assert open_zarr(path).species.dtype.kind == "U"


def test_variables_come_in_the_same_order_from_every_disk(tmp_path):
    ds = cube()
    path = write_cube(ds.assign({k: ds.soil for k in "zabc"}), tmp_path / "c.zarr")
    assert list(as_cube(path).data_vars) == sorted([*"zabc", "rain", "soil"])


def test_gdal_reads_the_right_place_through_a_geotiff(tmp_path):
    import rioxarray  # noqa: F401

    ds = as_cube(write_cube(cube().isel(y=slice(4, 12), x=slice(3, 30)), tmp_path / "c.zarr"))
    ds.soil.rio.to_raster(tmp_path / "soil.tif")
    with rasterio.open(tmp_path / "soil.tif") as file:
        assert file.crs.to_epsg() == 32630
        assert tuple(file.transform)[:6] == tuple(BOX[4:12, 3:30].transform)[:6]
        np.testing.assert_array_equal(file.read(1), ds.soil.values)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_opens_the_zarr_store(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr")
    try:
        file = rasterio.open(f'ZARR:"{path}":/soil')
    except rasterio.errors.RasterioIOError as error:
        pytest.skip(f"GDAL {rasterio.__gdal_version__} does not read Zarr v3 as published: {error}")
    with file:
        assert file.crs.to_epsg() == 32630
        assert file.transform.almost_equals(BOX.transform)
        np.testing.assert_array_equal(file.read(1), cube().soil.values)


@pytest.mark.skipif(not MAPS.is_dir(), reason="real maps are not beside the repository")
@pytest.mark.parametrize(
    "name", ["pypi_western_usa/predictors", "neotropics/predictors", "france_birds/europe_50km"]
)
def test_real_cubes_survive_a_round_trip(tmp_path, name):
    if not (MAPS / f"{name}.zarr").is_dir():
        pytest.skip(f"{name}.zarr is not beside the repository")
    real = as_cube(MAPS / f"{name}.zarr")
    assert geobox(real).crs.epsg == 4326
    after = as_cube(write_cube(real, tmp_path / "c.zarr", chunks={"lat": 50, "lon": 60}))
    xr.testing.assert_identical(real.compute(), after.compute())


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ({"Y": 4}, "did you mean 'y'"),
        ({"z": 4}, "dims are"),
        ({"y": 0}, "from 1, -1"),
        ({"y": 2.5}, "from 1, -1"),
        ({"y": True}, "from 1, -1"),
        (7, "pass a mapping"),
    ],
)
def test_chunks_that_mean_nothing_are_refused(chunks, message):
    from geomiam.data.store.encoding import chunk_sizes

    with pytest.raises(GridError, match=message):
        chunk_sizes(chunks, {"y": 20, "x": 30}, automatic=512)


def test_chunks_as_xarray_takes_them():
    from geomiam.data.store.encoding import chunk_sizes

    sizes = {"y": 20, "x": 3000}
    assert chunk_sizes({"y": -1, "x": "auto"}, sizes, automatic=512) == {"y": 20, "x": 512}
    assert chunk_sizes("auto", sizes, automatic=512) == {"y": 20, "x": 512}
    assert chunk_sizes({"y": np.int64(7), "x": None}, sizes, automatic=1) == {"y": 7, "x": 3000}
    assert chunk_sizes(None, sizes, automatic=512) == {}
    assert chunk_sizes({"latitude": 7}, sizes, automatic=512) == {"y": 7}


@pytest.mark.parametrize("kind", ["a.nc", "a.tif"])
def test_a_file_without_a_crs_is_read_in_the_crs_of_the_call(tmp_path, kind):
    path, like = tmp_path / kind, gm.open_cube(_without_crs(), crs="EPSG:32631")
    if kind == "a.nc":
        _without_crs().to_netcdf(path)
    else:
        like.drop_vars("spatial_ref").v.rio.to_raster(path)
    cube = gm.open_cube(path, crs="EPSG:32631")
    np.testing.assert_array_equal(next(iter(cube.data_vars.values())), like.v)
    with pytest.raises(SourceError, match=r"no CRS; pass crs="):
        gm.open_cube(path)
    with pytest.raises(GridError, match=r"no CRS.*gm\.open_cube\(ds, crs="):
        gm.open_cube(_without_crs())
    with pytest.raises(GridError, match=f"{kind} has no CRS; pass it with one") as refusal:
        gm.align([path], like)
    names = {"xr": xr, "gm": gm, "rioxarray": pytest.importorskip("rioxarray"), "like": like}
    text = str(refusal.value).replace("EPSG:4326", "EPSG:32631").partition("one: ")[2]
    np.testing.assert_array_equal(next(iter(eval(text, names).data_vars.values())), like.v)


def _without_crs():
    values = np.arange(20.0, dtype="f4").reshape(4, 5)
    coords = {"y": 5500000 - 20.0 * np.arange(4), "x": 500000 + 20.0 * np.arange(5)}
    return xr.Dataset({"v": (("y", "x"), values)}, coords)


def test_text_of_variables_with_text_labels_has_no_fixed_width(tmp_path):
    ds = xr.Dataset({"direction": ("species", ["N", "SSE"])}, coords={"species": ["a", "bcd"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zarr warns of data types without a specification
        path = write_zarr(ds, tmp_path / "t.zarr")
    assert open_zarr(path)["direction"].values.tolist() == ["N", "SSE"]
