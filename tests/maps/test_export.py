"""Exports as other programs read them: GDAL, plain xarray with rioxarray, R terra where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from conftest import train_small
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.errors import OutputExists, OutputRefused, SelectionError, SettingError

SPECIES = ["Quercus robur", "Æsculus", "c & <d>"]
ROWS, COLUMNS = 1301, 1100
AUTHOR = {
    "title": "Oaks",
    "summary": "A test.",
    "creator_name": "A. Author",
    "creator_institution": "An institute",
    "license": "CC0",
    "date": "2020-03-01",
    "ebv_geospatial_scope": "National",
    "ebv_geospatial_description": "Belgium",
}


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    """Maps of three species that need overviews, with a corner without data."""
    values = np.random.default_rng(0).random((3, ROWS, COLUMNS)).astype("f4")
    values[:, :200, :301] = np.nan
    layers = {
        "suitability": (("species", "y", "x"), values, {"units": "1", "long_name": "suitability"}),
        "spread": (("species", "y", "x"), values / 10),
        "presence": (
            ("species", "y", "x"),
            np.where(np.isnan(values), np.nan, values > 0.5).astype("f4"),
            {"flag_values": [0, 1], "flag_meanings": "absent present"},
        ),
        "outside_range": (("y", "x"), values[0]),
    }
    place = {"y": 5500000.0 - 10 * np.arange(ROWS), "x": 500000 + 10.0 * np.arange(COLUMNS)}
    ds = xr.Dataset(layers, place, {"model_id": "abc"}).assign_coords(species=SPECIES)
    return ds.odc.assign_crs("EPSG:32631")


def mean_of_blocks(values: np.ndarray, side: int) -> np.ndarray:
    """Means of the observed cells of blocks, by numpy."""
    rows, columns = (-n % side for n in values.shape)
    whole_blocks = np.pad(values, ((0, rows), (0, columns)), constant_values=np.nan)
    blocks = whole_blocks.reshape(
        whole_blocks.shape[0] // side, side, whole_blocks.shape[1] // side, side
    )
    with np.errstate(invalid="ignore"):
        return np.nanmean(blocks, axis=(1, 3))


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_geotiff_is_cloud_optimised(maps, tmp_path):
    maps = maps[["suitability"]].isel(
        y=slice(0, 1300)
    )  # GDAL weights the cells of an overview if its size is odd
    path = gm.export(maps.chunk(y=500, x=500), tmp_path / "a.tif", metadata={"license": "CC0"})
    with rasterio.open(path) as file:
        assert file.profile["tiled"] and file.profile["interleave"] == "band"
        assert file.descriptions == tuple(SPECIES) and np.isnan(file.nodata)
        assert file.crs.to_epsg() == 32631 and file.transform == maps.odc.geobox.affine
        assert file.tags()["license"] == "CC0" and file.tags()["model_id"] == "abc"
        assert all(file.overviews(band) == [2, 4, 8] for band in file.indexes)
        np.testing.assert_array_equal(file.read(), maps["suitability"])
        image = file.tags(ns="IMAGE_STRUCTURE")
        offsets = [
            int(file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, ovr=o) or 0) for o in range(3)
        ]
        main = int(file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1))
        first = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        of_overviews = [
            int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=o)) for o in range(3)
        ]
    # the rules of a cloud-optimised GeoTIFF: all headers first, the cells of coarse overviews before finer ones
    assert image["COMPRESSION"] == "DEFLATE"
    assert main < 300 and main < offsets[0] < offsets[1] < offsets[2] < min(of_overviews)
    assert of_overviews[2] < of_overviews[1] < of_overviews[0] < first
    with rasterio.open(path, overview_level=0) as file:
        half = file.read(1)
    expected = mean_of_blocks(maps["suitability"].values[0], 2)
    np.testing.assert_allclose(half, expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_bands_of_other_layers_have_their_names(maps, tmp_path):
    part = maps.isel(y=slice(0, 40), x=slice(300, 340), species=slice(0, 2))
    layers = ["suitability", "spread", "outside_range"]
    with rasterio.open(gm.export(part, tmp_path / "a.tif", layers=layers)) as file:
        assert file.descriptions == (
            *("Quercus robur", "Quercus robur: spread", "Æsculus", "Æsculus: spread"),
            "outside_range",
        )
        assert file.overviews(1) == []
        np.testing.assert_array_equal(file.read(4), part["spread"][1])
    pairs = part["spread"].expand_dims(combination=["climate:soil"])
    on_request = part[["suitability", "outside_range"]].assign(
        interaction=pairs, mess=part["spread"][0]
    )
    with rasterio.open(gm.export(on_request.isel(species=[0]), tmp_path / "d.tif")) as file:
        names = ("Quercus robur", "Quercus robur: climate:soil: interaction", "mess")
        assert file.descriptions == names
    with rasterio.open(gm.export(part[["presence"]], tmp_path / "b.tif")) as file:
        assert file.descriptions == ("Quercus robur", "Æsculus")
    with pytest.raises(SelectionError, match="no layer 'sprad'; there are"):
        gm.export(part, tmp_path / "c.tif", layers=["sprad"])


def test_overviews_of_classes_hold_classes(maps, tmp_path):
    path = gm.export(maps[["presence"]], tmp_path / "a.tif", style=True)
    with rasterio.open(path, overview_level=0) as file:
        codes = file.read(1)
    assert set(np.unique(codes[np.isfinite(codes)])) == {0, 1}
    style = ET.parse(tmp_path / "a.qml").getroot()
    entries = [e.attrib for e in style.iter("paletteEntry")]
    assert [(e["value"], e["label"]) for e in entries] == [("0", "absent"), ("1", "present")]


def test_a_style_has_a_ramp_from_0_to_1(maps, tmp_path):
    part = maps.isel(y=slice(0, 30), x=slice(0, 30))
    gm.export(part, tmp_path / "a.tif", style=True)
    items = list(ET.parse(tmp_path / "a.qml").getroot().iter("item"))
    assert [items[0].get("value"), items[-1].get("value")] == ["0", "1"]
    with pytest.raises(OutputExists):
        gm.export(part, tmp_path / "a.tif", style=True)
    gm.export(part, tmp_path / "a.tif", style=True, overwrite=True)
    (tmp_path / "a.qml").write_text("a style of the user")
    with pytest.raises(OutputRefused, match="not written by geomiam"):
        gm.export(part, tmp_path / "a.tif", style=True, overwrite=True)
    with pytest.raises(SettingError, match=r"ends in \.tif"):
        gm.export(part, tmp_path / "a.nc", style=True)


def test_a_netcdf_file_opens_with_its_crs(maps, tmp_path):
    south_first = maps.isel(y=slice(None, None, -1)).chunk(y=400)
    path = gm.export(south_first, tmp_path / "a.nc", metadata={"license": "CC0"})
    with xr.open_dataset(path, decode_coords="all") as ds:
        assert ds.rio.crs.to_epsg() == 32631 and ds.attrs["license"] == "CC0"
        assert ds.rio.transform() == maps.odc.geobox.affine
        assert ds["y"].attrs["standard_name"] == "projection_y_coordinate"
        assert list(ds) == ["suitability", "spread"] and ds.attrs["Conventions"] == "CF-1.11"
        np.testing.assert_array_equal(ds["suitability"], maps["suitability"])
        assert [str(s) for s in ds["species"].values] == SPECIES


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_geozarr_store_has_levels_with_conventions(maps, tmp_path):
    path = gm.export(maps.chunk(y=500, x=500), tmp_path / "a.zarr")
    attrs = json.loads((path / "zarr.json").read_text())["attributes"]
    assert [c["name"] for c in attrs["zarr_conventions"]] == ["multiscales", "proj", "spatial"]
    assert attrs["proj:code"] == "EPSG:32631" and attrs["spatial:dimensions"] == ["y", "x"]
    assert not {"spatial:transform", "spatial:shape"} & set(attrs)  # these are of each level
    layout = attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["0", "1", "2"]
    assert [entry["spatial:shape"] for entry in layout] == [[1301, 1100], [651, 550], [326, 275]]
    tree = xr.open_datatree(path, engine="zarr")
    assert set(tree.children) == {"0", "1", "2"}
    for number, entry in enumerate(layout):
        level = xr.open_zarr(path, group=entry["asset"])
        assert level.rio.crs.to_epsg() == 32631
        assert list(level.rio.transform())[:6] == entry["spatial:transform"]
        assert level.attrs["spatial:transform"] == entry["spatial:transform"]
        assert [level.sizes["y"], level.sizes["x"]] == entry["spatial:shape"]
        assert entry["spatial:transform"][0] == 10 * 2**number
    expected = mean_of_blocks(maps["suitability"].values[1], 2)
    half = xr.open_zarr(path, group="1")["suitability"][1]
    np.testing.assert_allclose(half, expected, atol=1e-6)
    opened_map = gm.open_cube(path)
    np.testing.assert_array_equal(opened_map["suitability"], maps["suitability"])
    assert opened_map.attrs["model_id"] == "abc" and "proj:code" not in opened_map.attrs
    gm.export(maps.isel(y=slice(0, 9), x=slice(0, 9)), path, overwrite=True)
    assert set(xr.open_datatree(path, engine="zarr").children) == {"0"}


def test_coarser_levels_of_classes_hold_classes(maps, tmp_path):
    path = gm.export(maps[["presence"]], tmp_path / "a.zarr")
    codes = xr.open_zarr(path, group="1")["presence"].values
    assert set(np.unique(codes[np.isfinite(codes)])) == {0, 1}


def test_an_ebvcube_has_the_structure_of_the_format(maps, tmp_path):
    import h5netcdf

    part = maps.isel(y=slice(100, 300), x=slice(250, 400))
    layers = ["suitability", "spread"]
    options = {"kind": "ebvcube", "layers": layers}
    path = gm.export(part, tmp_path / "e.nc", metadata=AUTHOR, **options)
    with h5netcdf.File(path) as file:
        assert {d: n.size for d, n in file.dimensions.items()} == {
            **{"entity": 3, "time": 1, "lat": 200, "lon": 150, "nchar": 13}
        }
        assert file.dimensions["time"].isunlimited()
        assert list(file.groups) == ["metric_1", "metric_2"]
        cube = file["metric_2"]["ebv_cube"]
        assert cube.dimensions == ("entity", "time", "lat", "lon")
        assert cube.attrs["grid_mapping"] == "/crs" and cube.attrs["coordinates"] == "/entity"
        np.testing.assert_array_equal(cube[:, 0], part["spread"])
        names = [b"".join(row).decode().strip() for row in file["entity"][...]]
        assert names == SPECIES
        assert int(file["time"][0]) == (
            np.datetime64("2020-03-01") - np.datetime64("1860-01-01")
        ).astype(int)
        assert {"title", "summary", "source", "ebv_class", "geospatial_bounds"} <= set(file.attrs)
        assert file.attrs["Conventions"] == "CF-1.8, ACDD-1.3, EBV-1.0"
        assert file["crs"].attrs["GeoTransform"].split()[1] == "10.0"
    with pytest.raises(SettingError, match="needs title, summary"):
        gm.export(part, tmp_path / "f.nc", **options)
    with pytest.raises(SettingError, match="such as '2020-01-01'"):
        gm.export(part, tmp_path / "f.nc", metadata={**AUTHOR, "date": "May"}, **options)
    with pytest.raises(SettingError, match="dims species, y and x"):
        one_layer = {"kind": "ebvcube", "layers": ["outside_range"], "metadata": AUTHOR}
        gm.export(part, tmp_path / "f.nc", **one_layer)
    assert not (tmp_path / "f.nc").exists()


def test_formats_and_paths_are_checked(maps, tmp_path):
    part = maps.isel(y=slice(0, 9), x=slice(0, 9))
    with pytest.raises(SettingError, match=r"use \.tif, \.nc or \.zarr"):
        gm.export(part, tmp_path / "a.png")
    with pytest.raises(SettingError, match=r"ends in \.nc"):
        gm.export(part, tmp_path / "a.tif", kind="ebvcube")
    with pytest.raises(SettingError, match="does not exist; use cog"):
        gm.export(part, tmp_path / "a.tif", kind="png")
    part.drop_vars(["presence", "spread"]).to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    with pytest.raises(OutputRefused, match="not written by geomiam"):
        gm.export(part, tmp_path / "mine.nc", overwrite=True)


def test_a_failed_write_leaves_the_old_file(maps, tmp_path, monkeypatch):
    from geomiam.maps import netcdf

    part = maps.isel(y=slice(0, 9), x=slice(0, 9))
    path = gm.export(part, tmp_path / "a.nc")
    before = path.read_bytes()
    monkeypatch.setattr(netcdf, "_mapping", lambda box: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gm.export(part, path, overwrite=True)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.nc"]


def test_the_command_line_exports_and_predicts_to_netcdf(sites, cube, tmp_path):
    model = train_small(sites, "group")
    model.save(tmp_path / "model")
    gm.write_cube(cube, tmp_path / "cube.zarr")
    run = CliRunner().invoke
    out = tmp_path / "map.nc"
    result = run(app, ["predict", f"{tmp_path}/model", f"{tmp_path}/cube.zarr", "--out", str(out)])
    assert result.exit_code == 0, result.output
    expected = gm.predict(cube, model)["suitability"]
    with xr.open_dataset(out) as ds:
        np.testing.assert_allclose(ds["suitability"], expected, atol=2e-6)
    gm.write_map(cube, model, tmp_path / "map.zarr", progress=False)
    result = run(app, ["export", f"{tmp_path}/map.zarr", f"{tmp_path}/b.tif", "--style"])
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "b.tif") as file:
        np.testing.assert_allclose(file.read(), expected, atol=2e-6)
    words = ["--layer", "outside_range", "--metadata", "license=CC0"]
    result = run(app, ["export", f"{tmp_path}/map.zarr", f"{tmp_path}/c.nc", *words])
    assert result.exit_code == 0, result.output
    with xr.open_dataset(tmp_path / "c.nc") as ds:
        assert list(ds) == ["outside_range"] and ds.attrs["license"] == "CC0"


@pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")
def test_r_terra_reads_geotiff_and_netcdf(maps, tmp_path):
    if subprocess.run(["Rscript", "-e", "library(terra)"], capture_output=True).returncode:
        pytest.skip("R terra is not installed")
    gm.export(maps, tmp_path / "a.tif")
    gm.export(maps, tmp_path / "a.nc")
    gm.export(maps, tmp_path / "e.nc", kind="ebvcube", metadata=AUTHOR)
    script = (
        'library(terra); cat(names(rast("a.tif")), sep="|"); cat("\\n");'
        'for (f in c("a.tif", "a.nc", "e.nc")) { r <- rast(f);'
        'cat(crs(r, describe=TRUE)$code, dim(r), res(r), global(r[[1]], "mean", na.rm=TRUE)[[1]], "\\n") }'
    )
    result = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, cwd=tmp_path)
    names, *lines = result.stdout.strip().splitlines()
    assert names.split("|") == SPECIES, result.stderr
    mean = float(maps["suitability"][0].mean(dtype="f8"))
    assert len(lines) == 3, result.stderr
    for line in lines:
        code, rows, columns, layers, width, height, value = line.split()
        assert (code, rows, columns, layers) == ("32631", "1301", "1100", "3")
        assert (width, height) == ("10", "10") and abs(float(value) - mean) < 1e-5


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="GDAL's programs are not installed")
def test_gdal_reads_all_files(maps, tmp_path):
    part = maps.isel(y=slice(100, 400), x=slice(200, 500))
    gm.export(part, tmp_path / "a.tif")
    gm.export(part, tmp_path / "a.nc")
    gm.export(part, tmp_path / "e.nc", kind="ebvcube", metadata=AUTHOR)
    for name in ("a.tif", "NETCDF:a.nc:suitability", "NETCDF:e.nc:/metric_1/ebv_cube"):
        result = subprocess.run(
            ["gdalinfo", "-json", name], capture_output=True, text=True, cwd=tmp_path
        )
        gdal_info = json.loads(result.stdout)
        assert gdal_info["size"] == [300, 300] and len(gdal_info["bands"]) == 3, name
        assert "32631" in gdal_info["coordinateSystem"]["wkt"], name
        assert gdal_info["geoTransform"] == list(part.odc.geobox.affine.to_gdal()), name
