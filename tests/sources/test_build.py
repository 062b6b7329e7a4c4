"""Cubes from catalogs: every kind of source against numpy and rasterio, and what may not be read."""

import warnings

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from helpers_build import FINE, UTM, catalog, field, labelled, one, static, tif, warped
from helpers_stac import GRID, JUNE, scene, serve, sky
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.errors import GridError, MissingModality, SchemaError, SourceError
from geomiam.sources.variable_reader import EARTH

EUROPE = GeoBox.from_bbox((3900000, 3000000, 3900800, 3000800), crs="EPSG:3035", resolution=40)


def halves(values):
    """Means of 2 × 2 cells."""
    return values.reshape(*values.shape[:-2], values.shape[-2] // 2, 2, -1, 2).mean((-3, -1))


def test_finer_pixels_are_averaged_and_packing_is_undone(tmp_path):
    raw = (field(FINE) * 10).astype("int16")
    raw[0, 30:34, 40:44] = -9
    tif(tmp_path / "a.tif", raw, FINE, nodata=-9, scales=(0.1,), offsets=(-20.0,))
    cube = gm.build_cube(one(tmp_path, {"path": "a.tif"}, {"units": "degC"}), UTM)
    truth = np.where(raw[0] == -9, np.nan, raw[0] * 0.1 - 20)[10:-10, 10:-10]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmean(truth.reshape(30, 2, 30, 2), (1, 3))
    assert np.isnan(expected).sum() == 4
    np.testing.assert_allclose(cube.layer, expected, atol=1e-4)
    assert (cube.layer.dtype, cube.layer.units, cube.layer.modality) == ("float32", "degC", "m")
    assert (cube.layer.resampling, cube.layer.source_crs, cube.layer.source_resolution) == (
        "average",
        "EPSG:32631",
        "10 m",
    )
    assert cube.odc.geobox == UTM


def test_the_catalog_goes_before_the_file(tmp_path):
    raw = np.full(UTM.shape, 7, "uint8")
    raw[0] = 255
    tif(tmp_path / "a.tif", raw, UTM, nodata=0, scales=(0.1,))
    cube = gm.build_cube(
        one(tmp_path, {"path": "a.tif", "nodata": [255, 254], "scale": 2, "offset": 1}), UTM
    )
    assert np.isnan(cube.layer[0]).all() and (cube.layer[1:] == 15).all()
    assert cube.layer.resampling == "none"


@pytest.mark.parametrize("method", ["average", "bilinear", "nearest"])
def test_another_projection_equals_rasterio(tmp_path, method):
    wide = GeoBox.from_bbox((485000, 5485000, 515000, 5515000), crs="EPSG:32631", resolution=100)
    grid = GeoBox.from_bbox(wide.to_crs("EPSG:3035").boundingbox, resolution=400)
    values = field(wide)[0]
    tif(tmp_path / "a.tif", values, wide)
    cube = gm.build_cube(one(tmp_path, {"path": "a.tif", "resampling": method}), grid)
    expected = warped(values, wide, grid, method)
    assert np.isfinite(expected).mean() > 0.5
    np.testing.assert_array_equal(np.isnan(cube.layer), np.isnan(expected))
    np.testing.assert_allclose(cube.layer, expected, atol=0.02)


def test_classes_and_angles_are_never_mixed(tmp_path):
    codes = np.random.default_rng(0).choice([10, 20, 95], FINE.shape).astype("uint8")
    tif(tmp_path / "a.tif", codes, FINE)
    classes = {"kind": "categorical", "classes": {10: "wood", 20: "open land", 95: "mangroves"}}
    cube = gm.build_cube(one(tmp_path, {"path": "a.tif"}, classes), UTM)
    assert set(np.unique(cube.layer)) == {10, 20, 95}
    assert list(cube.layer.flag_values) == [10, 20, 95]
    assert cube.layer.flag_meanings == "wood open_land mangroves"
    mode = gm.build_cube(one(tmp_path, {"path": "a.tif", "resampling": "mode"}, classes), UTM)
    four = codes[10:-10, 10:-10].reshape(30, 2, 30, 2).transpose(0, 2, 1, 3).reshape(30, 30, 4)
    counts = np.stack([(four == c).sum(-1) for c in (10, 20, 95)])
    clear = (counts == counts.max(0)).sum(0) == 1
    assert 0.3 < clear.mean() < 1
    winner = np.array([10, 20, 95])[counts.argmax(0)]
    np.testing.assert_array_equal(mode.layer.values[clear], winner[clear])
    with pytest.raises(SchemaError, match=r"would mix.*nearest or mode"):
        gm.build_cube(one(tmp_path, {"path": "a.tif", "resampling": "average"}, classes), UTM)


def quarters(tmp_path, values, box):
    """Write a field as four files."""
    rows, cols = (n // 2 + 3 for n in box.shape.yx)
    for i, r in enumerate((slice(0, rows), slice(rows, None))):
        for j, c in enumerate((slice(0, cols), slice(cols, None))):
            tif(tmp_path / f"tile{i}{j}.tif", values[..., r, c], box[r, c])


def test_files_of_one_grid_equal_one_file(tmp_path):
    values = field(FINE)
    tif(tmp_path / "whole.tif", values, FINE)
    quarters(tmp_path, values, FINE)
    full_result = gm.build_cube(one(tmp_path, {"path": "whole.tif"}), EUROPE_OF_FINE)
    parts = gm.build_cube(one(tmp_path, {"path": "tile*.tif"}), EUROPE_OF_FINE)
    assert np.isfinite(full_result.layer.values).mean() > 0.7  # the corners lie outside
    np.testing.assert_array_equal(full_result.layer, parts.layer)


EUROPE_OF_FINE = GeoBox.from_bbox(FINE.to_crs("EPSG:3035").boundingbox, resolution=33)


def test_files_of_two_projections_are_joined(tmp_path):
    values = field(FINE)
    tif(tmp_path / "a1.tif", values[..., :50], FINE[:, :50])
    east = GeoBox.from_bbox(FINE[:, 45:].to_crs("EPSG:32632").boundingbox, resolution=10)
    tif(tmp_path / "a2.tif", warped(values[0], FINE, east, "nearest"), east, nodata=np.nan)
    cube = gm.build_cube(one(tmp_path, {"path": "a?.tif"}), UTM)
    expected = halves(values[0, 10:-10, 10:-10])
    assert np.isfinite(cube.layer).all()
    assert np.abs(cube.layer - expected).mean() < 0.4 and np.abs(cube.layer - expected).max() < 4
    np.testing.assert_allclose(cube.layer[:, :12], expected[:, :12], atol=1e-4)


def test_tiles_of_degrees_and_those_that_are_not_there(tmp_path):
    degrees = GeoBox.from_bbox((2, -1, 5, 2), crs="EPSG:4326", resolution=0.1)
    path = "{ns}{lat:02d}{ew}{lon:03d}.tif"
    values = field(degrees)
    for r, lat in ((slice(0, 20), "N00"), (slice(20, 30), "S02")):
        for c, lon in ((slice(0, 20), "E002"), (slice(20, 30), "E004")):
            if (lat, lon) != ("S02", "E004"):
                tif(tmp_path / f"{lat}{lon}.tif", values[..., r, c], degrees[r, c])
    cube_result = one(tmp_path, {"path": path, "tiles": 2})
    cube = gm.build_cube(cube_result, degrees)
    np.testing.assert_allclose(cube.layer[:20], values[0, :20])
    np.testing.assert_allclose(cube.layer[20:, :20], values[0, 20:, :20])
    assert np.isnan(cube.layer[20:, 20:]).all()
    row = gm.plan_cube(cube_result, degrees).table.iloc[0]
    assert (row["files"], row["absent"]) == (3, 1)
    sea = GeoBox.from_bbox((20, 20, 21, 21), crs="EPSG:4326", resolution=0.1)
    with pytest.raises(SourceError, match="none of 1 tiles"):
        gm.build_cube(cube_result, sea)
    world = GeoBox.from_bbox((-180, -90, 180, 90), crs="EPSG:4326", resolution=1)
    with pytest.raises(SourceError, match="16,200 tiles"):
        gm.build_cube(cube_result, world)


def test_a_series_of_files_and_bands_as_a_dim(tmp_path):
    months = field(UTM, bands=12)
    for m in range(12):
        tif(tmp_path / f"tas_{m + 1:02d}.tif", months[m], UTM)
    tif(tmp_path / "all.tif", months[:3], UTM, names=("red", "green", "blue"))
    files = {"monthly": {"path": "{variable}_{month:02d}.tif"}, "image": {"path": "all.tif"}}
    variables = {
        "tas": {"kind": "series", "dims": ["month"], "from": "monthly"},
        "rgb": {"kind": "vector", "dims": ["band"], "from": {"source": "image", "band": "all"}},
        "blue": {"from": {"source": "image", "band": "blue"}},
        "second": {"from": {"source": "image", "band": 2}},
        "two": {"kind": "vector", "dims": ["c"], "from": {"source": "image", "band": [3, 1]}},
    }
    cube = gm.build_cube(catalog(tmp_path, files, {"m": {"variables": variables}}), UTM)
    np.testing.assert_array_equal(cube.tas, months)
    assert list(cube.month) == list(range(1, 13))
    np.testing.assert_array_equal(cube.rgb, months[:3])
    np.testing.assert_array_equal(cube.blue, months[2])
    np.testing.assert_array_equal(cube.second, months[1])
    np.testing.assert_array_equal(cube.two, months[[2, 0]])
    schema = gm.infer_schema(cube)
    assert schema.variables["tas"].kind == "series"


def test_labels_of_the_catalog_name_the_files(tmp_path):
    years = {2001: field(UTM, seed=1), 2005: field(UTM, seed=5)}
    for year, values in years.items():
        tif(tmp_path / f"{year}.tif", values, UTM)
    series = {"kind": "series", "dims": ["year"], "labels": {"year": [2005, 2001]}}
    cube = gm.build_cube(one(tmp_path, {"path": "{year}.tif"}, series), UTM)
    np.testing.assert_array_equal(cube.layer.sel(year=2001), years[2001][0])
    np.testing.assert_array_equal(cube.layer[0], years[2005][0])
    del series["labels"]
    with pytest.raises(SourceError, match=r"add labels: \{year:"):
        gm.build_cube(one(tmp_path, {"path": "{year}.tif"}, series), UTM)


def test_embeddings_are_decoded_before_averages(tmp_path):
    raw = np.random.default_rng(0).integers(-127, 128, (4, *FINE.shape)).astype("int8")
    raw[:, 20, 20] = -128
    for interleave in ("band", "pixel"):
        tif(tmp_path / "e.tif", raw, FINE, interleave=interleave)
        source = {"path": "e.tif", "band": "all", "nodata": -128, "scale": 1 / 127.5, "offset": 0}
        cube_result = one(
            tmp_path, source | {"decode": "signed-square"}, {"kind": "vector", "dims": ["feature"]}
        )
        cube = gm.build_cube(cube_result, UTM)
        wide = raw.astype("float64")
        unit = np.where(wide == -128, np.nan, np.sign(wide) * (wide / 127.5) ** 2)[
            :, 10:-10, 10:-10
        ]
        np.testing.assert_allclose(
            cube.layer, np.nanmean(unit.reshape(4, 30, 2, 30, 2), (2, 4)), atol=1e-6
        )


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_netcdf_packed_with_years_in_files(tmp_path, engine):
    ds = labelled(UTM, "tas", times=4)
    packed_values = ((ds.tas - 50) * 100).round().astype("int16")
    packed_values[0, 3, 3] = -32768
    packed_values.attrs = {"scale_factor": 0.01, "add_offset": 50.0, "_FillValue": np.int16(-32768)}
    packed_values.encoding["grid_mapping"] = "spatial_ref"
    full_result = packed_values.to_dataset(name="tas")
    for i in range(2):
        full_result.isel(time=slice(2 * i, 2 * i + 2)).to_netcdf(
            tmp_path / f"y{i}.nc", engine=engine
        )
    cube_result = one(
        tmp_path,
        {"kind": "netcdf", "path": "y*.nc", "variable": "tas"},
        {"kind": "series", "dims": ["time"]},
    )
    cube = gm.build_cube(cube_result, UTM)
    expected = np.where(packed_values == -32768, np.nan, packed_values * 0.01 + 50)
    np.testing.assert_allclose(cube.layer, expected, atol=1e-5)
    assert cube.time.dt.year.values.tolist() == [2019, 2020, 2021, 2022]


def test_one_step_is_selected_and_longitudes_turn(tmp_path):
    globe = GeoBox.from_bbox((0, -10, 360, 10), crs="EPSG:4326", resolution=1)
    ds = labelled(globe, "lai", times=2)
    ds.to_netcdf(tmp_path / "a.nc", engine="scipy")
    source = {"kind": "netcdf", "path": "a.nc", "variable": "lai", "crs": "EPSG:4326"}
    grid = GeoBox.from_bbox((-5, -5, 5, 5), crs="EPSG:4326", resolution=1)
    cube_result = one(tmp_path, {**source, "select": {"time": "2020-01-01"}})
    expected = np.concatenate([ds.lai[1, 5:15, 355:], ds.lai[1, 5:15, :5]], 1)
    np.testing.assert_allclose(gm.build_cube(cube_result, grid).layer, expected)
    pair = one(
        tmp_path,
        {**source, "select": {"time": ["2019", "2020-01"]}},
        {"kind": "series", "dims": ["time"]},
    )
    assert gm.build_cube(pair, grid).sizes["time"] == 2
    with pytest.raises(SourceError, match="finds nothing between"):
        gm.build_cube(one(tmp_path, {**source, "select": {"time": ["2001", "2002"]}}), grid)
    with pytest.raises(SourceError, match="finds nothing"):
        gm.build_cube(one(tmp_path, {**source, "select": {"time": "1999-01-01"}}), grid)
    with pytest.raises(SourceError, match=r"dims \('time',\).*the catalog has none.*'select:'"):
        gm.build_cube(one(tmp_path, source), grid)


def test_zarr_is_a_source(tmp_path):
    ds = labelled(FINE, "layer")
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    cube = gm.build_cube(one(tmp_path, {"kind": "zarr", "path": "a.zarr"}), UTM)
    np.testing.assert_allclose(cube.layer, halves(ds.layer.values[10:-10, 10:-10]), atol=1e-4)


def horn(z, dx, dy, row, col):
    """Slope and aspect of one cell, term by term (Horn 1981)."""
    a, b, c, d, _, f, g, h, i = z[row - 1 : row + 2, col - 1 : col + 2].astype("float64").ravel()
    east = ((c + 2 * f + i) - (a + 2 * d + g)) / (8 * dx)
    north = ((a + 2 * b + c) - (g + 2 * h + i)) / (8 * dy)
    return np.degrees(np.arctan(np.hypot(east, north))), np.degrees(np.arctan2(-east, -north)) % 360


TERRAIN = {
    "elevation": {"from": "dem"},
    "slope": {"from": "terrain"},
    "aspect": {"kind": "circular", "from": "terrain"},
}


def with_terrain(folder, **source):
    sources = {"dem": {"path": "z.tif", **source}, "terrain": {"kind": "derived"}}
    return catalog(folder, sources, {"terrain": {"variables": TERRAIN}})


def test_slope_and_aspect_equal_horn_cell_by_cell(tmp_path):
    wide = UTM.pad(5)
    z = field(wide)[0] * 3
    tif(tmp_path / "z.tif", z, wide)
    cube = gm.build_cube(
        with_terrain(tmp_path), UTM, options=gm.sources.BuildOptions(chunks={"y": 7, "x": 11})
    ).compute()
    for row, col in ((0, 0), (3, 17), (29, 29)):
        slope, aspect = horn(z, 20, 20, row + 5, col + 5)
        assert cube.slope[row, col] == pytest.approx(slope, abs=1e-4)
        assert cube.aspect[row, col] == pytest.approx(aspect, abs=1e-2)
    assert np.isfinite(cube.slope).all()


def test_a_plane_has_one_slope_in_metres_and_in_degrees(tmp_path):
    wide = UTM.pad(3)
    y, x = np.mgrid[0 : wide.shape.y, 0 : wide.shape.x] * 20.0
    tif(tmp_path / "z.tif", (0.3 * x + 0.4 * y).astype("float32"), wide)  # down to the north-west
    cube = gm.build_cube(with_terrain(tmp_path), UTM)
    np.testing.assert_allclose(cube.slope, np.degrees(np.arctan(0.5)), atol=1e-3)
    np.testing.assert_allclose(cube.aspect, 360 - np.degrees(np.arctan(0.3 / 0.4)), atol=1e-2)
    degrees = GeoBox.from_bbox((5, 60, 5.1, 60.1), crs="EPSG:4326", resolution=0.001)
    _, lon = np.mgrid[0:100, 0:100]
    east = np.radians(0.001) * EARTH * np.cos(np.radians(60.05))  # width of a cell
    tif(tmp_path / "z.tif", (lon * east * 0.1).astype("float32"), degrees)
    inner = degrees[10:-10, 10:-10]
    cube = gm.build_cube(with_terrain(tmp_path), inner)
    np.testing.assert_allclose(cube.slope, np.degrees(np.arctan(0.1)), rtol=2e-3)
    np.testing.assert_allclose(cube.aspect, 270, atol=0.01)


def test_flat_ground_has_no_aspect_and_gaps_stay(tmp_path):
    wide = UTM.pad(2)
    z = np.full(wide.shape, 5, "float32")
    z[10, 10] = np.nan
    tif(tmp_path / "z.tif", z, wide)
    cube = gm.build_cube(with_terrain(tmp_path), UTM).compute()
    missing_result = np.zeros(UTM.shape, bool)
    missing_result[7:10, 7:10] = True
    np.testing.assert_array_equal(np.isnan(cube.slope), missing_result)
    assert (cube.slope.values[~missing_result] == 0).all() and np.isnan(cube.aspect).all()


def test_slope_of_nothing_is_reported(tmp_path):
    tif(tmp_path / "z.tif", field(UTM), UTM)
    cube_result = catalog(
        tmp_path,
        {"dem": {"path": "z.tif"}, "t": {"kind": "derived", "of": "height"}},
        {"terrain": {"variables": {"elevation": {"from": "dem"}, "slope": {"from": "t"}}}},
    )
    with pytest.raises(SourceError, match=r"derived from 'height'.*of: elevation"):
        gm.build_cube(cube_result, UTM)
    cube_result = one(tmp_path, {"kind": "derived", "derive": "curvature"})
    with pytest.raises(SchemaError, match="'slope' or 'aspect'"):
        gm.build_cube(cube_result, UTM)


def test_chips_are_the_pixels_of_each_cell(tmp_path):
    values = field(FINE, bands=2)
    tif(tmp_path / "a.tif", values, FINE)
    image = {"kind": "image", "dims": ["band", "v", "u"], "patch": 2}
    cube_result = catalog(
        tmp_path,
        {"s": {"path": "a.tif", "band": "all"}},
        {"m": {"from": "s", "chips": 2, "variables": {"chip": image}}},
    )
    cube = gm.build_cube(cube_result, UTM, options=gm.sources.BuildOptions(chunks={"y": 8, "x": 8}))
    assert cube.chip.dims == ("band", "y", "x", "v", "u")
    for row, col in ((0, 0), (7, 8), (29, 29)):
        cell = np.s_[10 + 2 * row : 12 + 2 * row, 10 + 2 * col : 12 + 2 * col]
        np.testing.assert_array_equal(cube.chip[:, row, col], values[:, *cell])
    remaining = gm.build_cube(one(tmp_path, {"path": "a.tif", "band": 1}), gm_finer(UTM, 2))
    folded_cube = gm.chips(remaining, UTM)
    np.testing.assert_array_equal(folded_cube.layer, cube.chip[0])
    assert folded_cube.odc.geobox == UTM
    with pytest.raises(GridError, match=r"do not divide.*align"):
        gm.chips(remaining.isel(y=slice(0, 59)), UTM)


def gm_finer(box, times):
    return GeoBox.from_bbox(box.boundingbox, resolution=box.resolution.x / times)


def test_sentinel2_in_a_catalog_equals_sentinel2(tmp_path):
    items = [
        scene(tmp_path, f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z", bands={"scl": sky((i, i, 9))})
        for i in range(3)
    ]
    static(tmp_path, items)
    source = {"kind": "stac", "root": "stac/catalog.json", "time": JUNE, "dilate": 0}
    series = {"kind": "series", "dims": ["time"]}
    image = {"kind": "image", "dims": ["time", "band", "v", "u"], "patch": 2}
    modalities = {
        "optical": {"from": "s2", "variables": {"red": series, "nir": series}},
        "sky": {"from": "s2", "variables": {"clear_fraction": series}},
        "chips": {
            "chips": 2,
            "from": {"source": "s2", "band": ["nir", "red"]},
            "variables": {"chip": image},
        },
    }
    coarse = GeoBox.from_bbox(GRID.boundingbox, resolution=20)
    cube_result = catalog(tmp_path, {"s2": source}, modalities)
    cube = gm.build_cube(cube_result, coarse).compute()
    truth = gm.sentinel2(
        coarse, JUNE, bands=["red", "nir"], source=items, options=gm.sources.SceneOptions(dilate=0)
    ).compute()
    fine = gm.sentinel2(
        GRID, JUNE, bands=["red", "nir"], source=items, options=gm.sources.SceneOptions(dilate=0)
    ).compute()
    assert np.isnan(truth.red).any()
    np.testing.assert_array_equal(cube.red, truth.red)
    np.testing.assert_array_equal(cube.nir, truth.nir)
    np.testing.assert_array_equal(cube.clear_fraction, truth.clear_fraction)
    np.testing.assert_array_equal(cube.chip[:, 1, 4, 5], fine.red[:, 8:10, 10:12])
    assert list(cube.band) == ["nir", "red"]
    text = str(gm.plan_cube(cube_result, coarse))
    assert "3 scenes on 3 dates" in text and "20 × 20 cells of 20 m in EPSG:32631" in text
    by_month = gm.build_cube(
        catalog(
            tmp_path, {"s2": {**source, "time": "2020-05/2020-07", "composite": "1MS"}}, modalities
        ),
        coarse,
    )
    assert by_month.time.dt.month.values.tolist() == [5, 6, 7]
    assert np.isnan(by_month.red[[0, 2]]).all()
    np.testing.assert_allclose(by_month.red[1], truth.red.median("time"), atol=1e-6)


def test_building_reads_no_pixel_and_stays_lazy(tmp_path, monkeypatch):
    tif(tmp_path / "z.tif", field(FINE), FINE)
    cube_result = with_terrain(tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("pixels were read")

    with monkeypatch.context() as patch_result:
        patch_result.setattr("geomiam.sources.rasters.geotiff.Pixels.__getitem__", refuse)
        with dask.config.set(scheduler=refuse):
            cube = gm.build_cube(cube_result, UTM)
            plan = gm.plan_cube(cube_result, UTM)
    assert all(v.chunks for v in cube.data_vars.values())
    assert plan.bytes > 3 * 4 * 3600
    assert plan.missing == ()


def test_chunks_and_windows_do_not_matter(tmp_path):
    tif(tmp_path / "z.tif", field(FINE), FINE)
    cube_result = with_terrain(tmp_path)
    full_result = gm.build_cube(cube_result, EUROPE_OF_FINE).compute()
    small = gm.build_cube(
        cube_result, EUROPE_OF_FINE, options=gm.sources.BuildOptions(chunks={"y": 5, "x": 9})
    )
    assert small.slope.chunks[0][0] == 5
    xr.testing.assert_allclose(full_result, small.compute())


def test_what_is_not_on_the_grid_is_nan_and_reported(tmp_path):
    tif(tmp_path / "a.tif", field(EUROPE, bands=2), EUROPE)
    cube_result = one(
        tmp_path, {"path": "a.tif", "band": "all"}, {"kind": "vector", "dims": ["feature"]}
    )
    location = (
        r"'layer' has no data.*covers x 3.9e\+06 to .* in EPSG:3035.*grid covers x 500000 to 500600"
    )
    with pytest.warns(MissingModality, match=location):
        cube = gm.build_cube(cube_result, UTM)
    assert cube.layer.shape == (2, 30, 30) and np.isnan(cube.layer).all()
    with pytest.warns(MissingModality, match="units of its coordinates"):
        assert "do not overlap" in str(gm.plan_cube(cube_result, UTM))


def test_tiles_on_both_sides_of_the_antimeridian(tmp_path):
    for name, west in (("E178", 178), ("W180", -180)):
        tile = GeoBox.from_bbox((west, 0, west + 2, 2), crs="EPSG:4326", resolution=0.1)
        lon = np.broadcast_to(west + 0.05 + 0.1 * np.arange(20), tile.shape)
        tif(tmp_path / f"{name}.tif", lon.astype("f4"), tile)
    cube_result = one(tmp_path, {"path": "{ew}{lon:03d}.tif", "tiles": 2, "resampling": "nearest"})
    for west in (178, -182):
        grid = GeoBox.from_bbox((west, 0, west + 4, 2), crs="EPSG:4326", resolution=0.5)
        cube = gm.build_cube(cube_result, grid)
        lon = grid.affine.c + 0.5 * (np.arange(8) + 0.5)
        off = (cube.layer.values[0] - lon + 180) % 360 - 180
        assert np.abs(off).max() <= 0.06
    assert gm.plan_cube(cube_result, grid).table["files"].tolist() == [2]


@pytest.mark.parametrize("west", [-180, 0])
def test_a_geotiff_in_any_turn_of_longitudes(tmp_path, west):
    world = GeoBox((18, 36), Affine(10, 0, west, 0, -10, 90), "EPSG:4326")
    lon = west + 5 + 10.0 * np.arange(36)
    tif(tmp_path / "a.tif", np.broadcast_to(lon, world.shape).astype("f4"), world)
    cube_result = one(tmp_path, {"path": "a.tif", "resampling": "nearest"})
    for left in (-20, 170, 340):
        grid = GeoBox((2, 4), Affine(10, 0, left, 0, -10, 20), "EPSG:4326")
        expected_result = left + 5 + 10 * np.arange(4)
        np.testing.assert_array_equal(
            gm.build_cube(cube_result, grid).layer[0] % 360, expected_result % 360
        )


def test_the_grid_of_the_catalog_and_bounds(tmp_path):
    tif(tmp_path / "a.tif", field(FINE), FINE)
    grid = {"crs": "EPSG:32631", "resolution": 20}
    place = [500000, 5500000, 500600, 5500600]
    parts = {"s": {"path": "a.tif"}}, {"m": {"from": "s", "variables": {"layer": {}}}}
    cube_result = catalog(tmp_path, *parts, grid={**grid, "bounds": place})
    assert gm.build_cube(cube_result).odc.geobox == UTM
    small = gm.build_cube(cube_result, bounds=(500100, 5500000, 500200, 5500200))
    assert small.layer.shape == (10, 5)
    names_result = gm.build_cube(cube_result, xr.Dataset(coords=UTM_LATLON))
    assert names_result.layer.dims == ("latitude", "longitude")
    with pytest.raises(GridError, match="xmin, ymin, xmax, ymax"):
        gm.build_cube(cube_result, bounds=(500200, 0, 500100, 1))
    with pytest.raises(GridError, match="across the antimeridian xmax is 190"):
        gm.build_cube(cube_result, bounds=(170, -20, -170, -10))
    with pytest.raises(GridError, match="like= or bounds="):
        gm.build_cube(cube_result, UTM, bounds=place)
    with pytest.raises(GridError, match="bounds in its grid"):
        gm.build_cube(catalog(tmp_path, *parts, grid=grid))
    with pytest.raises(GridError, match="has no grid; pass like=cube"):
        gm.build_cube(catalog(tmp_path, *parts))
    with pytest.raises(SchemaError, match="bounds are"):
        gm.build_cube(catalog(tmp_path, *parts, grid={**grid, "bounds": place[::-1]}))


def latlon():
    from odc.geo.xr import xr_coords

    box = GeoBox.from_bbox((2.9, 49.6, 3.1, 49.7), crs="EPSG:4326", resolution=0.01)
    return xr_coords(box)


UTM_LATLON = latlon()


@pytest.mark.parametrize("method", ["local", "http"])
def test_only_geotiffs_at_allowed_places_are_opened(tmp_path, method):
    (tmp_path / "a.vrt").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
    with serve(tmp_path) as base:
        root = base if method == "http" else str(tmp_path)
        with pytest.raises(SourceError, match=r"a\.vrt cannot be read as GeoTIFF"):
            gm.build_cube(one(tmp_path, {"root": root, "path": "a.vrt"}), UTM)
    for bad, message in {
        "s3://bucket/a.tif": "scheme 's3' is not opened; allowed: http, https, file",
        "/vsicurl/http://127.0.0.1/a.tif": "virtual path",
        "/vsizip/a.zip": "virtual path",
    }.items():
        with pytest.raises(SourceError, match=message):
            gm.build_cube(one(tmp_path, {"path": bad}), UTM)


def test_over_http_with_ranges_and_without_secrets(tmp_path):
    values = field(FINE)
    tif(tmp_path / "N00.tif", values, FINE)
    with serve(tmp_path) as base:
        cube = gm.build_cube(one(tmp_path, {"root": base, "path": "N00.tif"}), UTM).compute()
        np.testing.assert_allclose(cube.layer, halves(values[0, 10:-10, 10:-10]), atol=1e-4)
        with pytest.raises(SourceError) as error:
            gm.build_cube(one(tmp_path, {"root": base, "path": "no.tif?sig=secret"}), UTM)
        assert "no.tif" in str(error.value) and "secret" not in str(error.value)
        degrees = GeoBox.from_bbox((2.99, 49.64, 3.02, 49.66), crs="EPSG:4326", resolution=0.01)
        cube_result = one(
            tmp_path, {"root": base, "path": "{ns}{lat:02d}{ew}{lon:03d}.tif", "tiles": 1}
        )
        with pytest.raises(SourceError, match="none of 2 tiles under the grid"):
            gm.build_cube(cube_result, degrees)


def test_errors_name_the_fix(tmp_path):
    tif(tmp_path / "a.tif", field(UTM, bands=2), UTM, names=("red", "nir"))
    cases = {
        ("path: missing",): ({}, "no path; add 'path:'"),
        ("file",): ({"path": "b.tif"}, r"b\.tif is not there; download it, or set 'root:'"),
        ("bands",): ({"path": "a.tif"}, "has 2 bands; choose one by 'band: 1'"),
        ("band",): ({"path": "a.tif", "band": 3}, "no band 3; it has 1 to 2, named red, nir"),
        ("tile",): ({"path": "{lat}.tif"}, r"path names \{lat\}|cannot be filled in"),
        ("zarr",): ({"kind": "zarr", "path": "z.zarr"}, r"z\.zarr is not there"),
        ("netcdf",): ({"kind": "netcdf", "path": "a.tif"}, "no NetCDF file"),
    }
    for source, message in cases.values():
        with pytest.raises(SourceError, match=message):
            gm.build_cube(one(tmp_path, source), UTM)
    with pytest.raises(SourceError, match=r"dims \('band',\).*'band:' or 'select:'"):
        gm.build_cube(
            one(
                tmp_path,
                {"path": "a.tif", "band": "all"},
                {"kind": "series", "dims": ["c", "time"]},
            ),
            UTM,
        )
    with pytest.raises(SourceError, match=r"roots= has.*it has s"):
        gm.build_cube(one(tmp_path, {"path": "a.tif"}), UTM, roots={"t": tmp_path})
    with pytest.raises(SourceError, match=r"no variable of catalog .* has a source"):
        gm.build_cube(gm.Schema.from_dict({"modalities": {"m": {"variables": {"layer": {}}}}}), UTM)
    with pytest.raises(SchemaError, match=r"line \d+.*did you mean 'resampling'"):
        gm.build_cube(one(tmp_path, {"path": "a.tif", "resamplin": "mode"}), UTM)
    with pytest.raises(SchemaError, match="'tiles' belongs to kind: raster"):
        gm.build_cube(one(tmp_path, {"kind": "netcdf", "path": "a.nc", "tiles": 1}), UTM)
    text = one(tmp_path, {"path": "a.tif"}).read_text().replace("from: s", "from: ss")
    (tmp_path / "catalog.yaml").write_text(text)
    with pytest.raises(SchemaError, match="from 'ss', no source; did you mean 's'"):
        gm.build_cube(tmp_path / "catalog.yaml", UTM)


def test_other_labels_along_one_dim_name_both_sources(tmp_path):
    for name, times in (("a", 2), ("b", 3)):
        labelled(UTM, name, times=times).to_netcdf(tmp_path / f"{name}.nc", engine="scipy")
    series = {"kind": "series", "dims": ["time"]}
    sources = {n: {"kind": "netcdf", "path": f"{n}.nc"} for n in "ab"}
    variables = {n: {**series, "from": n} for n in "ab"}
    with pytest.raises(
        GridError, match=r"a \(a\) and b \(b\) share the dim 'time'.*dims: \[b_time\]"
    ):
        gm.build_cube(catalog(tmp_path, sources, {"m": {"variables": variables}}), UTM)
    variables["b"] = {"kind": "series", "dims": ["b_time"], "from": "b"}
    cube = gm.build_cube(catalog(tmp_path, sources, {"m": {"variables": variables}}), UTM)
    assert (cube.a.sizes["time"], cube.b.sizes["b_time"]) == (2, 3)


def test_a_model_carries_no_paths(tmp_path):
    tif(tmp_path / "a.tif", field(FINE), FINE)
    schema = gm.Schema.from_yaml(one(tmp_path, {"path": "a.tif", "root": str(tmp_path)}))
    cube = gm.build_cube(schema, UTM)
    bound = bind(schema, cube)
    assert str(tmp_path) not in str(bound.to_dict()) and bound.sources == {}
    again = gm.Schema.from_dict(schema.to_dict())
    assert again == schema
