"""Sentinel-2 products in the Zarr format of EOPF: read as the same scene in GeoTIFF is."""

import shutil
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers_stac import GRID, ORIGIN, numbers, read, scene, serve, sky

import geomiam as gm
from geomiam.errors import AssetsFailed, SourceError

NAME = "S2C_MSIL2A_20200601T105031_N0511_R037_T31UFS_20200601T152216"
BANDS = {"red": numbers(1), "nir": numbers(2), "scl": sky((3, 4, 9), (10, 2, 3))}
PATHS = {
    "red": "measurements/reflectance/r10m/b04",
    "nir": "measurements/reflectance/r10m/b08",
    "scl": "conditions/mask/l2a_classification/r20m/scl",
}


def product(folder):
    """Write a product of Zarr format 2 with the attributes of ESA's, whose bbox runs from east to west."""
    path = folder / f"{NAME}.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for band, values in BANDS.items():
        res = 400.0 / len(values)
        array = root.create_array(
            PATHS[band], shape=values.shape, chunks=(16, 16), dtype=values.dtype, fill_value=0
        )
        array[:] = values
        place = [res, 0.0, ORIGIN[0], 0.0, -res, ORIGIN[1], 0.0, 0.0, 1.0]
        attrs = {"_ARRAY_DIMENSIONS": ["y", "x"], "proj:epsg": 32631, "proj:transform": place}
        if band != "scl":
            attrs |= {"scale_factor": 1e-4, "add_offset": -0.1, "units": "digital_counts"}
        array.attrs.update({**attrs, "proj:shape": list(values.shape)})
    time = "2020-06-01T10:50:31.025000+00:00"
    properties = {
        "datetime": None,
        "start_datetime": time,
        "end_datetime": time,
        "eo:cloud_cover": 12.5,
        "eopf:baseline": "05.11",
        "processing:level": "L2A",
        "processing:version": "",
        "proj:epsg": 32631,
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"{NAME}.SAFE",
        "properties": properties,
    }
    root.attrs["stac_discovery"] = {**item, "bbox": [3.01, 50.54, 2.99, 50.56], "assets": {}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, zarr_format=2)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eopf")
    product(path)
    return path


def test_a_product_is_read_as_the_same_scene_in_geotiff(folder, tmp_path):
    items = gm.sources.eopf_items(folder / f"{NAME}.zarr")
    assert [i["id"] for i in items] == [NAME] and items[0]["bbox"][0] < items[0]["bbox"][2]
    expected = read([scene(tmp_path, bands=BANDS, offset=-0.1)]).compute()
    result = read(items).compute()
    for band in ("red", "nir", "clear_fraction"):
        np.testing.assert_array_equal(result[band].values, expected[band].values)
    assert 0.9 < result.clear_fraction.mean() < 1
    assert result.offset == pytest.approx(-0.1) and result.baseline == pytest.approx(5.11)


def test_a_product_on_the_web_is_read_by_its_metadata_and_chunks(folder):
    with serve(folder) as base:
        items = gm.sources.eopf_items([f"{base}/{NAME}.zarr"])
        result = read(items, GRID[:8, :8], mask=None).compute()
    np.testing.assert_allclose(result.red[0], BANDS["red"][:8, :8] * 1e-4 - 0.1, rtol=1e-5)


def test_a_damaged_chunk_is_missing_and_named(folder, tmp_path):
    path = shutil.copytree(folder / f"{NAME}.zarr", tmp_path / f"{NAME}.zarr")
    (path / PATHS["red"] / "1.1").write_bytes(b"damaged")
    with pytest.warns(AssetsFailed, match=f"{NAME} / B04"):
        result = read(gm.sources.eopf_items(path), mask=None).compute()
    assert result.red.isnull().any() and result.nir.notnull().all()


def test_what_is_no_product_is_refused(folder, tmp_path):
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    for path in (tmp_path / "a.zarr", tmp_path / "none.zarr"):
        with pytest.raises(SourceError, match="is no Sentinel-2 Level-2A product of EOPF"):
            gm.sources.eopf_items(path)
    with pytest.raises(SourceError, match=r"is refused: scheme 'ftp'"):
        gm.sources.eopf_items("ftp://example.org/a.zarr")
