"""Maps for other programs: GeoTIFF, netCDF, and Zarr as plain xarray opens it."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import rasterio
import xarray as xr
from conftest import train_small

import geomiam as gm
from geomiam.errors import GridError, OutputExists, OutputRefused
from geomiam.maps.write import make_map


@pytest.fixture(scope="module")
def small(sites) -> gm.Model:
    """One model is enough: what is written does not depend on the fusion."""
    return train_small(sites, "group")


def test_a_geotiff_has_species_as_bands_a_crs_and_nodata(small, cube, tmp_path):
    cube = cube.assign(bio1=3 * cube["bio1"])  # some cells are outside the training range
    written = gm.write_map(cube.chunk(y=5, x=6), small, tmp_path / "map.tif", progress=False)
    eager = gm.predict(cube, small)
    expected, beyond = eager["suitability"], eager["outside_range"]
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.descriptions == small.species
        assert file.crs.to_epsg() == 4326 and np.isnan(file.nodata)
        assert file.transform.almost_equals(cube.odc.geobox.affine)
        assert file.dtypes == ("float32",) * 3
        np.testing.assert_allclose(file.read(), expected, atol=2e-6)
        assert file.tags()["model_id"] == small.id
        assert float(file.tags()["outside_range_mean"]) == pytest.approx(
            float(beyond.mean()), abs=1e-4
        )
        cells = float(file.tags()["outside_range_cells"])
        assert cells == pytest.approx(float((beyond > 0).mean()), abs=1e-4) and cells > 0
        assert file.tags()["TIFFTAG_SOFTWARE"].startswith("geomiam")
    np.testing.assert_allclose(written["suitability"], expected, atol=2e-6)
    assert written["species"].values.tolist() == list(small.species)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_geotiff_of_an_explanation_adds_up(small, cube, tmp_path):
    """A reader without geomiam finds each band by its name, and the sum by the tags."""
    import json

    species = list(small.species)[:2]
    written = gm.write_map(
        cube, small, tmp_path / "why.tiff", shapley=True, species=species, progress=False
    )
    groups = list(small.schema.groups)
    with rasterio.open(tmp_path / "why.tiff") as file:
        bands = {name: file.read(i) for i, name in enumerate(file.descriptions, 1)}
        base = json.loads(file.tags()["base_value"])
    assert list(bands) == [n for s in species for n in (s, *(f"{s}: {g}" for g in groups))]
    for name in species:
        total = base[name] + sum(bands[f"{name}: {g}"] for g in groups)
        np.testing.assert_allclose(total, bands[name], atol=1e-5)
    explanation = gm.shapley(cube, small, species=species)
    for name in ("suitability", "shapley"):
        np.testing.assert_allclose(written[name], explanation[name], atol=2e-6)


@pytest.mark.parametrize("flip", [{"y": slice(None, None, -1)}, {"x": slice(None, None, -1)}])
def test_rows_go_from_north_to_south_and_columns_from_west_to_east(small, cube, tmp_path, flip):
    gm.write_map(cube.isel(flip), small, tmp_path / "map.tif", progress=False)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.transform.almost_equals(cube.odc.geobox.affine)
        np.testing.assert_allclose(file.read(), gm.predict(cube, small)["suitability"], atol=2e-6)


def test_a_geotiff_of_many_windows_is_whole(small, tmp_path):
    """Windows of the file are not those of the map."""
    from geomiam.maps import geotiff

    rng = np.random.default_rng(0)
    values = rng.random((2, 600, 300)).astype("f4")
    place = {"y": 9000.0 - 10 * np.arange(600), "x": 10.0 * np.arange(300)}
    maps = xr.Dataset({"suitability": (("species", "y", "x"), values)}, coords=place)
    maps = maps.assign_coords(species=["a", "b & <b>"]).odc.assign_crs("EPSG:32631")
    geotiff.write_geotiff(maps, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.descriptions == ("a", "b & <b>") and file.crs.to_epsg() == 32631
        np.testing.assert_array_equal(file.read(), values)


def test_a_stopped_geotiff_goes_on_and_leaves_nothing(small, cube, tmp_path, monkeypatch):
    from geomiam.maps import job as jobs

    answer, count = jobs.Job.__call__, []

    def fail_late(job, part, index, session=None):
        count.append(index)
        if len(count) == 6:
            raise OSError("the disk is full")
        return answer(job, part, index, session)

    options = {"chunks": {"y": 4, "x": 5}, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(jobs.Job, "__call__", fail_late)
        with pytest.raises(OSError, match="the disk is full"):
            gm.write_map(cube, small, tmp_path / "map.tif", **options)
    assert not (tmp_path / "map.tif").exists()
    report = make_map(cube, small, tmp_path / "map.tif", **options)
    assert 0 < report.blocks < report.of == 9
    assert report.path == str(tmp_path / "map.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_geotiff_replaces_a_geotiff_of_geomiam_only(small, cube, sites, tmp_path):
    path = tmp_path / "map.tif"
    gm.write_map(cube, small, path, progress=False)
    with pytest.raises(OutputExists, match="overwrite=True"):
        gm.write_map(cube, small, path, progress=False)
    gm.write_map(cube, small, path, overwrite=True, progress=False)
    cube["bio1"].rio.to_raster(tmp_path / "elevation.tif")
    before = (tmp_path / "elevation.tif").read_bytes()
    with pytest.raises(OutputRefused, match="not written by geomiam"):
        gm.write_map(cube, small, tmp_path / "elevation.tif", overwrite=True, progress=False)
    assert (tmp_path / "elevation.tif").read_bytes() == before
    with pytest.raises(GridError, match="sites have no grid"):
        gm.write_map(sites, small, tmp_path / "sites.tif", progress=False)
    with pytest.raises(OutputExists, match="URL"):
        gm.write_map(cube, small, "memory://maps/map.tif", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elevation.tif", "map.tif"]


@pytest.fixture(scope="module")
def stored_map(small, cube, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "why.zarr"
    odd = cube.assign_coords(x=cube.x.assign_attrs(made={"by": "us", "on": None}, good=True))
    gm.write_map(odd.chunk(y=5), small, path, shapley=True, progress=False)
    return path


def test_a_plain_open_of_a_map_has_its_crs(cube, stored_map):
    import rioxarray  # noqa: F401

    for plain in (
        xr.open_zarr(stored_map, consolidated=False),
        xr.open_dataset(stored_map, engine="zarr", consolidated=False),
    ):
        assert plain.rio.crs.to_epsg() == 4326
        assert plain.odc.crs.epsg == 4326
        assert "spatial_ref" in plain["suitability"].coords
        assert plain.odc.geobox == cube.odc.geobox


def test_a_plain_open_of_a_built_cube_has_its_crs(tmp_path):
    import json

    import rioxarray  # noqa: F401

    place = {"y": 50 - 0.25 * np.arange(8), "x": 5 + 0.25 * np.arange(8)}
    source = xr.Dataset({"a": (("y", "x"), np.ones((8, 8), "f4"))}, place)
    source = source.odc.assign_crs("EPSG:4326")
    gm.write_cube(source, tmp_path / "source.zarr")
    catalog = {
        "name": "c",
        "sources": {"s": {"kind": "zarr", "path": "source.zarr"}},
        "modalities": {"m": {"from": "s", "variables": {"a": {}}}},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(catalog))
    gm.build_cube(tmp_path / "c.yaml", source, out=tmp_path / "built.zarr", progress=False)
    for name in ("source", "built"):
        plain = xr.open_zarr(tmp_path / f"{name}.zarr", consolidated=False)
        assert plain.rio.crs.to_epsg() == 4326, name
        assert "grid_mapping" in plain["a"].attrs


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize("kind", ["plain", "opened", "predicted", "explained"])
def test_maps_become_netcdf(small, cube, stored_map, tmp_path, engine, kind):
    """Attributes are numbers, text, or lists of numbers: also netCDF 3 holds them."""
    pytest.importorskip(engine)
    maps = {
        "plain": lambda: xr.open_zarr(stored_map, consolidated=False),
        "opened": lambda: gm.open_cube(stored_map),
        "predicted": lambda: gm.predict(cube, small),
        "explained": lambda: gm.shapley(cube, small),
    }[kind]()
    maps.to_netcdf(tmp_path / "map.nc", engine=engine)
    again = xr.open_dataset(tmp_path / "map.nc", engine=engine)
    np.testing.assert_array_equal(again["suitability"], maps["suitability"])
    assert [str(s) for s in again["species"].values] == list(small.species)
    assert again.attrs["model_id"] == small.id


def test_attributes_that_json_lacks_become_text(cube, tmp_path):
    odd = {
        "created": datetime.datetime(2024, 6, 1, 12),
        "path": Path("/data/bio1.tif"),
        "seen": {2, 1},
        "raw": b"abc",
        "when": np.datetime64("2024-06-01", "ns"),
        "crs": cube.odc.crs,
        "nested": {"path": Path("a"), 1: [np.float32(0.5), None]},
        "count": np.int64(3),
        5: "a number as the key",
    }
    gm.write_cube(cube.assign_attrs(odd), tmp_path / "cube.zarr")
    opened_map = gm.open_cube(tmp_path / "cube.zarr").attrs
    assert opened_map["created"] == "2024-06-01T12:00:00" and opened_map["path"] == str(
        Path("/data/bio1.tif")
    )
    assert (
        opened_map["seen"] == ["1", "2"] and opened_map["raw"] == "abc" and opened_map["count"] == 3
    )
    assert opened_map["when"].startswith("2024-06-01") and "4326" in opened_map["crs"]
    assert (
        opened_map["nested"] == {"path": "a", "1": [0.5, None]}
        and opened_map["5"] == "a number as the key"
    )
