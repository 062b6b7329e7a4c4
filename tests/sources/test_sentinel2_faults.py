"""Sentinel-2 when things go wrong: files, metadata, servers; each failure has a name, nothing is invented."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import rasterio

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import (
    GRID,
    ORIGIN,
    SIZE,
    at,
    broken,
    careless_api,
    cut_short,
    five,
    not_there,
    numbers,
    read,
    scene,
    serve,
    slow,
    write_tif,
)

from geomiam.errors import AssetFailed, AssetsFailed, GridError, NoScenes, SourceError
from geomiam.sources.stac import search
from geomiam.sources.stac.stac_source import StacSource, as_source, choose_collection
from geomiam.sources.web.allow_list import AllowList, scrub

pytestmark = pytest.mark.slow  # real servers that fail and wait

# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [not_there, broken, cut_short, slow])
def test_a_file_that_cannot_be_read_is_a_gap_with_a_name(tmp_path, monkeypatch, fault):
    for name, value in {"TIMEOUT": 1, "MAX_RETRY": 0, "CONNECTTIMEOUT": 1}.items():
        monkeypatch.setenv(f"GDAL_HTTP_{name}", str(value))
    items = five(tmp_path)
    expected = read(items).compute()
    with serve(tmp_path, {"s2/red.tif": fault}) as url:
        remote = [at(i, url) for i in items]
        with pytest.warns(AssetsFailed, match="s2 / red"):
            ds = read(remote).compute()
        with pytest.raises(AssetFailed, match=r"s2 / red.*s2/red\.tif"):
            read(remote, on_error="raise").red.compute()
    assert np.isnan(ds.red[2]).all()
    np.testing.assert_array_equal(
        ds.red.isel(time=[0, 1, 3, 4]), expected.red.isel(time=[0, 1, 3, 4])
    )
    np.testing.assert_array_equal(ds.nir, expected.nir)
    (line,) = ds.attrs["failed_assets"]
    assert line.startswith("s2 / red") and url in line
    assert int(ds.failed.sum()) == 1 and int(ds.failed.sel(asset="red")[2]) == 1


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "text"])
def test_a_damaged_file_among_many_is_found(tmp_path, damage):
    items = five(tmp_path)
    expected = read(items).compute()
    path = tmp_path / "s3" / "red.tif"
    full = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, len(full) - 600, "uint8").tobytes()
    torn = {
        "empty": b"",
        "half": full[: len(full) // 2],
        "noise": full[:600] + noise,
        "text": b"<html>",
    }
    path.write_bytes(torn[damage])
    with pytest.warns(AssetsFailed, match="s3 / red"):
        ds = read(items).compute()
    assert np.isnan(ds.red[3]).all()
    np.testing.assert_array_equal(
        ds.red.isel(time=[0, 1, 2, 4]), expected.red.isel(time=[0, 1, 2, 4])
    )
    assert len(ds.attrs["failed_assets"]) == 1


def test_an_asset_that_is_not_there_is_a_gap_with_a_name_at_once(tmp_path):
    items = five(tmp_path)
    del items[1]["assets"]["nir"], items[4]["assets"]["scl"]
    with pytest.warns(AssetsFailed, match="s1 / nir: no such asset"):
        lazy = read(items)
    assert len(lazy.attrs["failed_assets"]) == 2
    ds = lazy.compute()
    assert np.isnan(ds.nir[1]).all() and np.isfinite(ds.red[1]).all()
    assert np.isnan(ds.red[4]).all()  # without SCL the sky is unknown
    assert int(ds.failed.sum()) == 2
    with pytest.raises(AssetFailed, match="s1 / nir"):
        read(items, on_error="raise")


def test_a_file_elsewhere_than_its_metadata_say_is_not_trusted(tmp_path):
    item = scene(tmp_path)
    write_tif(tmp_path / "s" / "red.tif", numbers(1), res=10, origin=ORIGIN, crs="EPSG:32633")
    with pytest.warns(AssetsFailed, match="CRS is EPSG:32633"):
        assert np.isnan(read([item]).red.compute()).all()


def test_an_item_without_projection_is_read_by_its_files(tmp_path):
    item = scene(tmp_path)
    expected = read([item]).compute()
    del item["properties"]["proj:epsg"]
    for asset in item["assets"].values():
        del asset["proj:shape"], asset["proj:transform"]
    np.testing.assert_array_equal(read([item]).red.compute(), expected.red)


def test_only_geotiffs_are_opened_whatever_a_file_is_called(tmp_path):
    item = scene(tmp_path)
    secret = tmp_path / "secret.tif"
    write_tif(secret, numbers(9), res=10, origin=ORIGIN, crs="EPSG:32631")
    with rasterio.open(secret) as file, rasterio.vrt.WarpedVRT(file) as warped_scene:
        rasterio.shutil.copy(warped_scene, tmp_path / "s" / "red.vrt", driver="VRT")
    (tmp_path / "s" / "red.vrt").replace(tmp_path / "s" / "red.tif")
    with rasterio.open(tmp_path / "s" / "red.tif") as file:
        assert file.driver == "VRT"  # GDAL by itself would follow it
    with pytest.warns(AssetsFailed, match="s / red"):
        assert np.isnan(read([item]).red.compute()).all()


def test_a_catalog_of_the_web_names_no_file_of_this_machine(tmp_path):
    remote, local = (AllowList(files=files, named=True) for files in (False, True))
    assert remote.refusal("/etc/passwd") and remote.refusal("file:///etc/passwd")
    assert local.refusal("/vsizip//a.zip") and local.refusal("gopher://x/a.tif")
    assert not remote.refusal("https://x/a.tif") and not local.refusal("/a.tif")
    item = scene(tmp_path)
    with careless_api([item]) as url, pytest.raises(NoScenes, match="a path on this machine"):
        read(StacSource(url, "sentinel-2-c1-l2a"))


def test_signatures_are_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    items = [scene(tmp_path)]
    with serve(tmp_path, {"red.tif": not_there}) as url:
        remote = [at(items[0], url)]
        api = careless_api(remote)
        with api as catalog, pytest.warns(AssetsFailed) as messages:
            source = StacSource(catalog, "sentinel-2-c1-l2a", sign=lambda u: f"{u}?sig=SECRET")
            ds = read(source).compute()
        assert np.isnan(ds.red).all() and np.isfinite(ds.nir).all()
    verbose = str(ds.attrs) + "".join(str(w.message) for w in messages)
    assert "red.tif" in verbose and "SECRET" not in verbose
    assert scrub("see https://u:SECRET@h/a.tif?sig=SECRET'") == "see https://h/a.tif'"


# Searching ---------------------------------------------------------------------------------------


def test_what_a_server_ignores_is_held_here(tmp_path):
    items = five(tmp_path)
    items[0]["properties"]["eo:cloud_cover"] = 95.0
    items[1]["properties"]["datetime"] = "2020-07-01T10:50:00Z"
    items[2]["bbox"] = [10.0, 10.0, 11.0, 11.0]
    items[3]["properties"]["s2:processing_baseline"] = "03.00"
    items[4]["properties"]["s2:processing_baseline"] = "02.00"
    with serve(tmp_path) as files:
        remote = [at(i, files) for i in items]
        query = {"s2:processing_baseline": {"gte": "02.10"}}
        for conforms in ((), ("item-search#query",)):
            with careless_api(remote * 2, conforms=conforms) as url:
                source = StacSource(url, "sentinel-2-c1-l2a", query=query)
                ds = read(source, max_cloud=50)
            assert list(ds.item_id.values) == ["s3"]
            assert "do not match the request" in ds.attrs["notes"][-1]
            assert len(ds.attrs["notes"]) == (1 if conforms else 2)


def test_an_empty_search_states_what_was_searched_for(tmp_path):
    items = five(tmp_path)
    with pytest.raises(NoScenes, match=r"2021-01-01.*at most 20 % cloud.*widen time="):
        read(items, time="2021-01", max_cloud=20)
    elsewhere = GRID.translate_pix(100 * SIZE, 0)
    with pytest.raises(NoScenes, match="lon/lat"):
        read(items, elsewhere)


def test_a_bad_item_among_good_ones_is_named(tmp_path):
    good = scene(tmp_path)
    with pytest.warns(AssetsFailed, match="broken: not a usable STAC item"):
        ds = read([{"type": "Feature", "id": "broken"}, good])
    assert ds.sizes["time"] == 1


@pytest.mark.parametrize("fault", [not_there, broken, slow])
def test_a_catalog_that_does_not_answer_is_named(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(search, "PAUSES", (0.0, 0.01))
    (tmp_path / "catalog.json").write_text("{}")
    with serve(tmp_path, {"": fault}) as url:
        for address in (f"{url}/?token=SECRET", f"{url}/catalog.json"):
            with pytest.raises(SourceError, match="could not be searched") as messages:
                read(StacSource(address, "c", timeout=0.3))
            assert url in str(messages.value) and "SECRET" not in str(messages.value)


def test_sources_are_understood_or_refused():
    assert as_source("earth-search").collection == "sentinel-2-c1-l2a"
    assert (
        choose_collection(["x", "sentinel-2-l2a", "sentinel-2-c1-l2a"], StacSource("u"))
        == "sentinel-2-c1-l2a"
    )
    for wrong in ("earthsearch", 3):
        with pytest.raises(SourceError, match="source="):
            as_source(wrong)
    with pytest.raises(SourceError, match=r"has \['a', 'b'\]"):
        choose_collection(["a", "b"], StacSource("u"))
    if importlib.util.find_spec("planetary_computer") is None:
        with pytest.raises(SourceError, match="pip install planetary-computer"):
            as_source("planetary-computer")


def test_settings_are_checked_before_any_request():
    for settings, kind in [
        ({"bands": []}, SourceError),
        ({"bands": ["red", "red"]}, SourceError),
        ({"on_error": "ignore"}, SourceError),
        ({"max_cloud": 120}, SourceError),
        ({"resample": "blurry"}, GridError),
    ]:
        with pytest.raises(kind):
            read("earth-search", **settings)


def test_bands_are_known_by_both_sets_of_names(tmp_path):
    item = scene(tmp_path, bands={"swir16": numbers(4, size=20)})
    common_names = read([item], bands=["swir16"]).compute()
    asset_names = read([item], bands=["B11"]).compute()
    np.testing.assert_array_equal(common_names.swir16, asset_names.B11)
