"""Raster files without a catalog: mixed CRS, resolution, extent, nodata, classes and series in one call."""

from __future__ import annotations

import json

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from helpers_build import FINE, UTM, field, labelled, tif
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.data.grid.grid import geobox, same_grid
from geomiam.errors import (
    DoubtfulKind,
    DoubtfulSource,
    GridAssumed,
    GridError,
    InputNotFound,
    NameRefused,
    SchemaError,
    SourceError,
)

DEGREES = GeoBox.from_bbox(
    UTM.extent.to_crs("EPSG:4326").boundingbox.buffered(0.001, 0.001),
    crs="EPSG:4326",
    resolution=0.0004,
)
ASSUMED = "ignore::geomiam.errors.GridAssumed"


@pytest.fixture
def folder(tmp_path):
    """A folder as an ecologist has it."""
    heights = (30 * field(DEGREES)).astype("int16")
    heights[0, :4, :4] = -9999
    cover = np.random.default_rng(0).integers(1, 5, FINE.shape.yx).astype("uint8")
    cover[:5] = 255
    tif(tmp_path / "bio1.tif", field(UTM), UTM)
    tif(tmp_path / "bio12.tif", field(UTM, seed=1), UTM)
    tif(tmp_path / "elevation.tif", heights, DEGREES, nodata=-9999)
    tif(tmp_path / "landcover.tif", cover, FINE, nodata=255)
    tif(tmp_path / "soil.tif", field(FINE, bands=2), FINE, names=["clay", "sand"])
    wide = GeoBox.from_bbox((499000, 5499000, 502000, 5502000), crs="EPSG:32631", resolution=100)
    labelled(wide, "ndvi", times=4).to_netcdf(tmp_path / "ndvi.nc")
    (tmp_path / "notes.txt").write_text("not a raster")
    return tmp_path


def test_a_mixed_folder_becomes_one_lazy_cube(folder):
    cube = gm.open_cube(folder, grid=UTM)
    assert list(cube) == "bio1 bio12 elevation landcover ndvi clay sand".split()
    assert same_grid(geobox(cube), UTM)
    assert all(dask.is_dask_collection(v) and v.dtype == "float32" for v in cube.values())
    schema = gm.infer_schema(cube)
    assert {n: v.kind for n, v in schema.variables.items() if v.kind != "scalar"} == {
        "landcover": "categorical",
        "ndvi": "series",
    }
    assert {n: list(m.variables) for n, m in schema.modalities.items()} == {
        "bioclim": ["bio1", "bio12"],
        "elevation": ["elevation"],
        "landcover": ["landcover"],
        "ndvi": ["ndvi"],
        "soil": ["clay", "sand"],
    }
    np.testing.assert_array_equal(cube.bio1, field(UTM)[0])
    assert float(cube.elevation.min()) > 2000  # the nodata value has no weight
    assert pd.DatetimeIndex(cube.time).year.tolist() == [2019, 2020, 2021, 2022]


def test_the_result_equals_a_build_from_a_catalog(folder):
    cube = gm.open_cube(folder, grid=UTM)
    catalog = gm.Schema(
        sources={"files": {"path": str(folder / "{variable}.tif")}},
        modalities={
            "all": {
                "from": "files",
                "variables": {
                    "elevation": {},
                    "landcover": {
                        "kind": "categorical",
                        "from": {"source": "files", "resampling": "mode"},
                    },
                },
            }
        },
    )
    built = gm.build_cube(catalog, UTM)
    for name in built:
        np.testing.assert_array_equal(cube[name], built[name])


def test_classes_are_taken_by_majority_where_their_cells_are_finer(folder):
    with rasterio.open(folder / "landcover.tif") as file:
        codes = file.read(1)[10:-10, 10:-10].reshape(30, 2, 30, 2).swapaxes(1, 2).reshape(900, 4)
    cube = gm.open_cube(folder / "landcover.tif", grid=UTM)
    counts = np.stack([(codes == c).sum(1) for c in range(6)], 1)
    one_winner = (np.sort(counts)[:, -1] > np.sort(counts)[:, -2]).reshape(30, 30)
    majority = counts.argmax(1).reshape(30, 30)
    np.testing.assert_array_equal(cube.landcover.values[one_winner], majority[one_winner])
    assert cube.landcover.resampling == "mode"


def test_the_default_grid_is_the_finest_and_is_stated(folder):
    with pytest.warns(GridAssumed, match=r"'landcover'.*80 × 80 cells of 10 m in EPSG:32631"):
        cube = gm.open_cube(folder)
    assert same_grid(geobox(cube), FINE)


def test_a_resolution_and_a_crs_set_the_grid(folder, recwarn):
    cube = gm.open_cube(folder, crs="EPSG:3035", resolution="50 m")
    assert geobox(cube).crs.epsg == 3035 and geobox(cube).resolution.x == 50
    assert float(cube.ndvi.notnull().mean()) > 0.9
    assert not [w for w in recwarn.list if w.category is GridAssumed]
    assert geobox(gm.open_cube(folder, resolution=25)).resolution.x == 25
    assert geobox(gm.open_cube(folder, crs="EPSG:4326")).crs.epsg == 4326
    with pytest.raises(GridError, match=r"in degrees: pass degrees, e.g. resolution=0.00449"):
        gm.open_cube(folder, crs="EPSG:4326", resolution="500 m")
    with pytest.raises(GridError, match="grid= alone"):
        gm.open_cube(folder, grid=UTM, crs="EPSG:4326")
    with pytest.raises(GridError, match="above 0"):
        gm.open_cube(folder, resolution=-3)


@pytest.mark.filterwarnings(ASSUMED)
def test_patterns_lists_and_mappings(folder):
    assert list(gm.open_cube(f"{folder}/bio*.tif")) == ["bio1", "bio12"]
    files = [folder / "bio12.tif", str(folder / "ndvi.nc")]
    assert list(gm.open_cube(files)) == ["bio12", "ndvi"]
    cube = gm.open_cube({"temperature": folder / "bio1.tif", "ground": folder / "soil.tif"})
    assert list(cube) == ["temperature", "clay", "sand"]
    assert cube.clay.modality == "ground" and cube.temperature.source == "bio1.tif"


def test_tiles_of_one_layer(tmp_path):
    values = field(UTM)
    for side, columns in {"west": slice(0, 12), "east": slice(12, 30)}.items():
        tif(tmp_path / f"{side}.tif", values[:, :, columns], UTM[:, columns])
    cube = gm.open_cube({"height": f"{tmp_path}/*.tif"})
    np.testing.assert_array_equal(cube.height, values[0])


def test_the_report_states_what_was_inferred(folder):
    text = gm.sources.summary(gm.open_cube(folder, grid=UTM))
    assert "bio1 from bio1.tif (raster, 1 file, EPSG:32631, 20 m, resampling none)" in text
    assert "elevation.tif (raster, 1 file, EPSG:4326, 0.0004 degrees, resampling" in text
    assert "landcover is read as categorical: name, and 4 whole numbers" in text
    assert "ndvi is read as series" in text
    with pytest.raises(GridError, match="states no sources"):
        gm.sources.summary(xr.Dataset())


def test_kinds_can_be_corrected_and_doubts_are_stated(tmp_path):
    codes = np.random.default_rng(0).integers(1, 5, UTM.shape.yx).astype("uint8")
    tif(tmp_path / "zones_a.tif", codes, UTM)
    with pytest.warns(DoubtfulKind, match=r"gm.open_cube\(files, kinds="):
        gm.open_cube(tmp_path)
    cube = gm.open_cube(tmp_path, kinds={"zones_a": "categorical"})
    assert cube.zones_a.kind == "categorical"
    with pytest.raises(SchemaError, match="no layer; there are"):
        gm.open_cube(tmp_path, kinds={"zone": "categorical"})
    with pytest.raises(SchemaError, match="no such kind"):
        gm.open_cube(tmp_path, kinds={"zones_a": "classes"})


def test_series_with_different_dates_get_dims_of_their_file(tmp_path):
    for name, times in {"ndvi": 3, "snow": 2}.items():
        labelled(UTM, name, times=times).to_netcdf(tmp_path / f"{name}.nc")
    cube = gm.open_cube(tmp_path)
    assert cube.ndvi.dims[0] == "ndvi_time" and cube.snow.sizes["snow_time"] == 2
    assert {v.kind for v in gm.infer_schema(cube).variables.values()} == {"series"}


def test_a_series_with_one_date_is_a_number(tmp_path):
    labelled(UTM, "ndvi", times=1).to_netcdf(tmp_path / "ndvi.nc")
    assert gm.open_cube(tmp_path).ndvi.dims == ("y", "x")


def test_files_without_a_crs_are_read_in_the_crs_of_the_call(tmp_path):
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "transform": UTM.affine}
    with rasterio.open(tmp_path / "bio1.tif", "w", width=30, height=30, **profile) as file:
        file.write(field(UTM))
    with pytest.raises(SourceError, match=r"has no CRS; pass crs= .*crs='EPSG:4326'"):
        gm.open_cube(tmp_path)
    cube = gm.open_cube(tmp_path, crs="EPSG:32631")
    assert same_grid(geobox(cube), UTM)
    np.testing.assert_array_equal(cube.bio1, field(UTM)[0])


def test_degrees_without_a_crs_are_refused_in_a_projected_crs(tmp_path):
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "transform": DEGREES.affine}
    rows, cols = DEGREES.shape.yx
    with rasterio.open(tmp_path / "bio1.tif", "w", width=cols, height=rows, **profile) as file:
        file.write(field(DEGREES))
    with pytest.raises(
        SourceError, match=r"are degrees: .*rio edit-info --crs EPSG:4326 .*bio1.tif"
    ):
        gm.open_cube(tmp_path, crs="EPSG:3035")
    assert gm.open_cube(tmp_path, crs="EPSG:4326").bio1.shape == DEGREES.shape


@pytest.mark.parametrize("marker", [-9999, -3.4e38])
@pytest.mark.parametrize("place", [0, -1])
def test_a_usual_nodata_value_that_no_file_states_is_a_warning(tmp_path, marker, place):
    values = np.tile(field(UTM), (1, 4, 4)).astype("float32")
    values[0, place, place] = marker
    wide = GeoBox(values.shape[1:], UTM.affine, UTM.crs)
    path = tif(tmp_path / "bio1.tif", values, wide)
    with pytest.warns(DoubtfulSource, match=r"rio edit-info --nodata -[39].* .*bio1.tif"):
        gm.open_cube(path)


def test_a_stated_nodata_value_is_no_warning(tmp_path, recwarn):
    values = field(UTM).astype("float32")
    values[0, 0, 0] = -9999
    gm.open_cube(tif(tmp_path / "bio1.tif", values, UTM, nodata=-9999))
    gm.open_cube(tif(tmp_path / "bio2.tif", field(UTM), UTM))
    assert not [w for w in recwarn if w.category is DoubtfulSource]


def test_refusals_name_the_remedy(tmp_path, folder):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bio1.asc").write_text("x")
    with pytest.raises(InputNotFound, match=r"gdal_translate bio1.asc bio1.tif"):
        gm.open_cube(tmp_path / "other")
    with pytest.raises(InputNotFound, match="correct the path"):
        gm.open_cube(["nothing.tif"])
    (tmp_path / "other" / "bio1.asc").rename(tmp_path / "other" / "bio1.csv")
    with pytest.raises(InputNotFound, match="pattern such as"):
        gm.open_cube(tmp_path / "other")
    tif(tmp_path / "again" / "bio1.tif", field(UTM), UTM)
    with pytest.raises(NameRefused, match="pass a mapping"):
        gm.open_cube([folder / "bio1.tif", tmp_path / "again" / "bio1.tif"])
    tif(tmp_path / "{x}" / "bio1.tif", field(UTM), UTM)
    with pytest.raises(SourceError, match="rename"):
        gm.open_cube(tmp_path / "{x}")
    with pytest.raises(GridError, match="a setting for raster files"):
        gm.open_cube(labelled(UTM), grid=UTM)
    (tmp_path / "bad.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(SourceError, match=r"bad\.tif"):
        gm.open_cube(tmp_path / "bad.tif")


def test_square_brackets_in_a_path(tmp_path):
    tif(tmp_path / "[a]" / "bio1.tif", field(UTM), UTM)
    assert float(gm.open_cube(tmp_path / "[a]").bio1.notnull().mean()) == 1


def test_a_vector_cube_becomes_sites():
    shapely = pytest.importorskip("shapely")
    points = shapely.points(np.array([[1.0, 2.0], [3.0, 4.0]]))
    place = ("geometry", points, {"crs": "EPSG:4326"})
    data = xr.Dataset({"bio1": ("geometry", np.array([1, 2]))}, {"geometry": place})
    sites = gm.open_cube(data)
    assert sites.bio1.dims == ("site",) and sites.bio1.dtype == "float32"
    assert sites.x.values.tolist() == [1, 3] and "WGS 84" in sites.attrs["crs"]


def test_a_stack_of_named_bands_and_a_tree():
    ds = labelled(UTM, "a").assign(b=labelled(UTM, "b").b)
    stack = ds.to_dataarray("band")
    assert list(gm.open_cube(stack)) == ["a", "b"]
    tree = xr.DataTree.from_dict({"climate": ds[["a"]], "soil": ds[["b"]]})
    assert gm.open_cube(tree).b.modality == "soil"


def test_the_command_line_builds_a_store_from_a_folder(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "cube.zarr"
    options = ["--out", str(out), "--like", str(folder / "bio1.tif")]
    result = CliRunner().invoke(app, ["build", str(folder), *options, "--kind", "sand=scalar"])
    assert result.exit_code == 0, result.output
    assert "7 variables" in result.output and "elevation.tif" in result.output
    cube = gm.open_cube(out)
    assert same_grid(geobox(cube), UTM) and json.loads(cube.attrs["sources"])
    xr.testing.assert_allclose(cube.compute(), gm.open_cube(folder, grid=UTM).compute()[list(cube)])
    result = CliRunner().invoke(
        app, ["build", str(folder), "--out", str(out), "--resolution", "50"]
    )
    assert result.exit_code != 0
    options = ["--out", str(out), "--resolution", "50", "--crs", "EPSG:32631", "--overwrite"]
    assert CliRunner().invoke(app, ["build", str(folder), *options]).exit_code == 0
    assert gm.open_cube(out).sizes["x"] == 16
