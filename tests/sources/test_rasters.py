"""GeoTIFFs of many kinds: rasterio's masks and scales, and GDAL's warp, are the reference."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio
from affine import Affine
from helpers_build import FINE, UTM, field, one, tif, warped
from helpers_stac import answering, broken, reply, serve
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

import geomiam as gm
from geomiam.errors import DoubtfulSource, GridError, SourceError, UnreadableFile
from geomiam.sources.paths import stamp

VECTOR = {"kind": "vector", "dims": ["feature"]}


def built(folder, source, variable=None, *, grid=UTM):
    return gm.build_cube(one(folder, source, variable), grid).layer


def wanted(values, *, grid=UTM, method="average"):
    return warped(np.asarray(values, "float64"), FINE, grid, method)


def as_rasterio_reads(path):
    """Bands in their units, NaN where rasterio's mask hides them."""
    with rasterio.open(path) as file:
        raw = file.read(masked=True).astype("float64")
        scaled_values = [p * s + o for p, s, o in zip(raw, file.scales, file.offsets, strict=True)]
    return np.stack([p.filled(np.nan) for p in scaled_values])


def gappy(fill, dtype="float32"):
    values = field(FINE)[0].astype(dtype)
    values[:33, :17] = fill
    return values


@pytest.mark.parametrize(
    "stored_value, text",
    [(-99.99, -99.99), (1e20, 1e20), (-3.4e38, -3.4e38), (-3.4028234663852886e38, -3.4e38)],
)
def test_the_nodata_of_a_catalog_matches_float32_data(tmp_path, stored_value, text):
    values = gappy(np.float32(stored_value))
    tif(tmp_path / "a.tif", values, FINE)
    result = built(tmp_path, {"path": "a.tif", "nodata": text})
    truth = np.where(values == np.float32(stored_value), np.nan, values)
    np.testing.assert_allclose(result, wanted(truth), rtol=1e-5)
    assert np.isnan(result).any()


def test_the_nodata_of_a_file_matches_its_data_as_loosely(tmp_path):
    values = gappy(np.finfo("f4").min)
    tif(tmp_path / "a.tif", values, FINE, nodata=-3.4e38)  # as ArcGIS rounds it
    np.testing.assert_allclose(
        built(tmp_path, {"path": "a.tif"}), wanted(np.where(values < -1e30, np.nan, values))
    )


@pytest.mark.parametrize("dtype, nodata", [("uint16", -9999), ("int16", 1e20), ("uint8", 0.5)])
def test_a_nodata_that_the_file_cannot_hold_is_named(tmp_path, dtype, nodata):
    tif(tmp_path / "a.tif", gappy(0, dtype), FINE)
    with pytest.warns(DoubtfulSource, match=rf"'layer': nodata: .* cannot occur in {dtype}"):
        built(tmp_path, {"path": "a.tif", "nodata": nodata})


def test_nodata_and_scale_beside_a_file_count(tmp_path):
    values = gappy(-32768, "int16")
    tif(tmp_path / "a.tif", values, FINE)
    xml = "<NoDataValue>-32768</NoDataValue><Scale>0.1</Scale><Offset>3</Offset>"
    (tmp_path / "a.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{xml}</PAMRasterBand></PAMDataset>'
    )
    truth = as_rasterio_reads(tmp_path / "a.tif")[0]
    assert np.isnan(truth).sum() == 33 * 17
    result = built(tmp_path, {"path": "a.tif"})
    np.testing.assert_allclose(result, wanted(truth), rtol=1e-6)
    aligned_grid = gm.align({"v": tmp_path / "a.tif"}, like=UTM, resampling="average").v
    np.testing.assert_allclose(result, aligned_grid, rtol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_masks_inside_and_beside_a_file_count(tmp_path, inside):
    values, mask = gappy(0), np.full(FINE.shape, 255, "uint8")
    mask[:33, :17] = 0
    values[50, 50] = -9  # nodata of the file, which GDAL's mask leaves out
    tif(tmp_path / "a.tif", values, FINE, nodata=-9)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(tmp_path / "a.tif", "r+") as file,
    ):
        file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() is not inside
    truth = np.where((mask == 0) | (values == -9), np.nan, values)
    np.testing.assert_allclose(built(tmp_path, {"path": "a.tif"}), wanted(truth), rtol=1e-5)
    source_names = built(tmp_path, {"path": "a.tif", "nodata": -1})  # replaces -9, not the mask
    np.testing.assert_allclose(source_names, wanted(np.where(mask == 0, np.nan, values)), rtol=1e-5)


def test_an_alpha_band_hides_pixels(tmp_path):
    values = np.stack([gappy(7, "uint8"), np.full(FINE.shape, 255, "uint8")])
    values[1, :33, :17] = 0
    tif(tmp_path / "a.tif", values, FINE, ALPHA="YES")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.colorinterp[1] is ColorInterp.alpha
    truth = as_rasterio_reads(tmp_path / "a.tif")[0]
    np.testing.assert_allclose(
        built(tmp_path, {"path": "a.tif", "band": 1}), wanted(truth), rtol=1e-5
    )


def test_each_band_has_a_scale_and_an_offset(tmp_path):
    values = np.stack([gappy(100, "int16")] * 3)
    tif(tmp_path / "a.tif", values, FINE, scales=(0.1, 10, 1), offsets=(0, -5, 273.15))
    truth = wanted(as_rasterio_reads(tmp_path / "a.tif"))
    np.testing.assert_allclose(
        built(tmp_path, {"path": "a.tif", "band": "all"}, VECTOR), truth, rtol=1e-6
    )
    subset = built(tmp_path, {"path": "a.tif", "band": [3, 1]}, VECTOR)
    np.testing.assert_allclose(subset, truth[[2, 0]], rtol=1e-6)
    np.testing.assert_allclose(built(tmp_path, {"path": "a.tif", "band": 2}), truth[1], rtol=1e-6)
    source_names = built(tmp_path, {"path": "a.tif", "band": 2, "scale": 2, "offset": 1})
    np.testing.assert_allclose(source_names, wanted(values[1] * 2.0 + 1), rtol=1e-6)


def test_codes_of_classes_beyond_float32_are_refused_when_read(tmp_path):
    values = np.full(FINE.shape, 2120000010, "int32")
    tif(tmp_path / "a.tif", values, FINE)
    lazy = built(tmp_path, {"path": "a.tif"}, {"kind": "categorical"})
    with pytest.raises(GridError, match=r"2120000010 is above 16,777,216.*renumber"):
        lazy.compute()
    assert float(built(tmp_path, {"path": "a.tif"})[0, 0]) == pytest.approx(2120000010, rel=1e-7)


def without_transform(path, *, crs="EPSG:32631", gcps=None):
    values = np.ones((8, 8), "float32")
    shape = {"count": 1, "height": 8, "width": 8, "dtype": "float32"}
    with rasterio.open(
        path, "w", driver="GTiff", **shape, **({} if gcps else {"crs": crs})
    ) as file:
        file.write(values, 1)
        if gcps:
            file.gcps = (gcps, rasterio.crs.CRS.from_string(crs))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_that_lies_nowhere_is_refused(tmp_path):
    without_transform(tmp_path / "a.tif")
    with pytest.raises(SourceError, match=r"no transform.*found: none.*gdal_translate -a_srs EPSG"):
        built(tmp_path, {"path": "a.tif"})
    with pytest.raises(SourceError, match="no transform"):
        built(tmp_path, {"path": "a.tif", "crs": "EPSG:32631"})
    with pytest.raises(SourceError, match="no transform"):
        gm.build_cube(one(tmp_path, {"path": "a.tif"}), str(tmp_path / "a.tif"))
    with pytest.raises(GridError, match=r"a.tif has no transform"):
        gm.align({"v": tmp_path / "a.tif"}, like=UTM)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_alone_are_no_transform(tmp_path):
    points = [
        rasterio.control.GroundControlPoint(r, c, 500000 + 10 * c, 5500000 - 10 * r)
        for r in (0, 8)
        for c in (0, 8)
    ]
    without_transform(tmp_path / "a.tif", gcps=points)
    with pytest.raises(SourceError, match=r"found: 4 ground control points.*gdalwarp"):
        built(tmp_path, {"path": "a.tif"})


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
def test_south_up_and_rotated_files_lie_where_gdal_puts_them(tmp_path, method):
    centered_grid = GeoBox((20, 20), UTM.affine * Affine.translation(5.25, 5.25), UTM.crs)
    a, rows = FINE.affine, FINE.shape.y
    south_up = Affine(a.a, 0, a.c, 0, -a.e, a.f + a.e * rows)
    rotated_grid = Affine.translation(500100, 5500500) * Affine.rotation(30) * Affine.scale(10, -10)
    for name, affine in (("s.tif", south_up), ("r.tif", rotated_grid)):
        box = GeoBox(FINE.shape, affine, FINE.crs)
        values = field(box)[0]
        tif(tmp_path / name, values, box)
        result = built(tmp_path, {"path": name, "resampling": method}, grid=centered_grid)
        np.testing.assert_allclose(result, warped(values, box, centered_grid, method), atol=1e-4)


def test_a_sidecar_that_is_another_kind_of_file_is_refused(tmp_path):
    tif(tmp_path / "a.tif", gappy(0), FINE)
    beside = tmp_path / "a.tif.msk"
    beside.write_text("<VRTDataset/>")  # GDAL would open it, and what it names
    with pytest.raises(SourceError, match=r"a.tif.msk is no GeoTIFF; remove it"):
        built(tmp_path, {"path": "a.tif"})
    beside.unlink()
    (tmp_path / "a.tif.aux.xml").write_text('<MDI key="OVERVIEW_FILE">/vsicurl/http://x/y</MDI>')
    with pytest.raises(SourceError, match=r"a.tif.aux.xml .* overviews in another file"):
        built(tmp_path, {"path": "a.tif"})


@pytest.mark.parametrize("ending", [".msk", ".aux.xml", ".ovr"])
def test_what_lies_beside_a_file_counts_as_a_change_of_it(tmp_path, ending):
    path = tif(tmp_path / "a.tif", gappy(5), FINE)
    before = stamp(str(path))
    beside = tmp_path / f"a.tif{ending}"
    beside.write_bytes(b"1")
    first = stamp(str(path))
    beside.write_bytes(b"12")
    assert before != first != stamp(str(path)) != before
    beside.unlink()
    assert stamp(str(path)) == before


@pytest.mark.parametrize("content", ["pipe", "damaged", "missing", "block"])
def test_align_refuses_a_path_that_is_no_raster_or_has_huge_blocks(tmp_path, content):
    path = tmp_path / "a.tif"
    if content == "pipe":
        os.mkfifo(path)
    elif content == "damaged":
        path.write_bytes(b"II*\x00damaged")
    elif content == "block":
        place = {"crs": "EPSG:32631", "transform": Affine(20, 0, 500000, 0, -20, 5500320)}
        shape = {"count": 1, "height": 16384, "width": 16384, "dtype": "float32"}
        options = {"blockysize": 16384, "compress": "deflate", "SPARSE_OK": True}
        with rasterio.open(path, "w", driver="GTiff", **shape, **place, **options):
            pass
    words = {"block": "is stored in blocks of 1,073,741,824 bytes", "pipe": "is a device or pipe"}
    with pytest.raises(UnreadableFile, match=words.get(content, "cannot be read as a raster")):
        gm.align({"v": path}, like=UTM)


def test_redirects_go_to_the_same_host_and_to_hosts_of_the_catalog(tmp_path):
    tif(tmp_path / "a.tif", field(FINE), FINE)
    with serve(tmp_path) as files:
        second = files.replace("127.0.0.1", "localhost")

        def away(handler, body):
            return reply(handler, b"", 302, Location=f"{second}/a.tif")

        with answering(away) as url:
            source = {"root": url, "path": "a.tif"}
            with pytest.raises(SourceError, match=r"host 'localhost' .* hosts: \['localhost'\]"):
                built(tmp_path, source)
            allowed_hosts = built(tmp_path, {**source, "hosts": ["localhost"]})
            np.testing.assert_array_equal(allowed_hosts, built(tmp_path, {"path": "a.tif"}))


def test_a_metadata_service_of_a_cloud_is_no_source(tmp_path):
    with pytest.raises(SourceError, match=r"latest\.tif is refused: .*metadata service"):
        built(tmp_path, {"path": "http://169.254.169.254/latest.tif"})


@pytest.mark.parametrize("from_start", [True, False])
def test_a_file_that_failed_on_the_web_is_read_again(tmp_path, monkeypatch, from_start):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    path = tif(tmp_path / "a.tif", field(FINE, bands=20), FINE)
    failing = True

    def sometimes(handler, body):
        data = path.read_bytes()
        first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        if failing and (from_start or first != "0"):
            return broken(handler, body)
        part = data[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return reply(handler, part, 206, Content_Range=span)

    vector = {"kind": "vector", "dims": ["feature"]}
    with answering(sometimes) as url:
        source = {"root": url, "path": "a.tif", "band": "all"}
        words = "cannot be read as GeoTIFF" if from_start else "cannot be read to its end"
        with pytest.raises(SourceError, match=rf"{url}/a\.tif {words}: HTTP 500"):
            built(tmp_path, source, vector).compute()
        failing = False
        local = built(tmp_path, {"path": "a.tif", "band": "all"}, vector)
        np.testing.assert_array_equal(built(tmp_path, source, vector), local)


def test_strips_that_follow_each_other_are_read_in_few_requests(tmp_path):
    grid = GeoBox((2000, 1000), FINE.affine, "EPSG:32631")
    place = {"crs": "EPSG:32631", "transform": grid.affine, "dtype": "float32", "count": 1}
    values = np.random.default_rng(0).random(grid.shape.yx, "float32")
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", height=2000, width=1000, **place) as file:
        file.write(values, 1)
    lengths = []

    def counted(handler, body):
        data = path.read_bytes()
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        lengths.append(len(part))
        return reply(
            handler, part, 206, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        )

    with answering(counted) as url:
        array = built(tmp_path, {"root": url, "path": "a.tif"}, grid=grid).compute()
    np.testing.assert_array_equal(array, values)
    assert len(lengths) < 15, f"{len(lengths)} requests for {len(values)} strips"
    assert sum(lengths) < 1.1 * values.nbytes


@pytest.mark.parametrize("bands", [1, 2])
def test_align_names_file_and_block_of_a_damaged_raster(tmp_path, bands):
    path = tif(tmp_path / "a.tif", field(FINE, bands=bands), FINE, compress="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    lazy = gm.align({"v": path}, like=UTM)
    with pytest.raises(
        UnreadableFile, match=r"a block of \S+a\.tif cannot be read: .*\(\[\d:\d, 0:80, 0:80\]\)"
    ):
        lazy.compute()


def test_a_whole_raster_is_aligned_lazily_and_by_the_same_graph(tmp_path):
    path = tif(tmp_path / "a.tif", field(FINE), FINE)
    first, again = (gm.align({"v": path}, like=FINE) for _ in range(2))
    assert first.v.chunks and first.v.data.name == again.v.data.name
    np.testing.assert_array_equal(first.v, as_rasterio_reads(path)[0].astype("f4"))
    tif(path, field(FINE, seed=1), FINE)
    assert gm.align({"v": path}, like=FINE).v.data.name != first.v.data.name
