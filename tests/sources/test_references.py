"""References of kerchunk and VirtualiZarr: equal to their files, and attacks by a file of references."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers_servers import object_store
from helpers_stac import answering, reply, serve

import geomiam as gm
from geomiam.errors import GridError, InputNotFound, SchemaError, SourceError, UnreadableFile

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
kerchunk_hdf = pytest.importorskip("kerchunk.hdf", reason="needs pip install kerchunk")


def write_climate(path: Path) -> Path:
    """Write a NetCDF file with packing numbers, gaps, a series and chunks with two codecs."""
    rng = np.random.default_rng(0)
    lat, lon = np.arange(60, 50, -0.5), np.arange(0, 20, 0.5)
    bio1 = rng.normal(size=(20, 40)).astype("f4")
    bio1[3:9, 4:20] = np.nan
    ds = xr.Dataset(
        {
            "bio1": (("lat", "lon"), bio1),
            "bio12": (("lat", "lon"), rng.integers(0, 3000, (20, 40)).astype("f4") / 10),
            "tas": (("time", "lat", "lon"), rng.normal(size=(12, 20, 40)).astype("f4")),
        },
        coords={
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
            "time": pd.date_range("2020-01-01", periods=12, freq="MS"),
        },
    )
    packing = {"dtype": "i2", "scale_factor": 0.1, "_FillValue": -32768, "zlib": True}
    encoding = {
        "bio1": {"zlib": True, "shuffle": True, "chunksizes": (10, 20)},
        "bio12": packing,
        "tas": {"chunksizes": (1, 20, 40)},
    }
    ds.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A file and its references by kerchunk.

    Written before xarray opens a file: kerchunk holds the lock of HDF5, and a file that is collected meanwhile waits.
    """
    file = write_climate(tmp_path_factory.mktemp("references") / "climate.nc")
    return file, kerchunk_hdf.SingleHdf5ToZarr(str(file), inline_threshold=150).translate()


@pytest.fixture
def climate(originals, tmp_path):
    return Path(shutil.copy(originals[0], tmp_path))


@pytest.fixture
def refs(originals, climate):
    """References of kerchunk, as a mapping that tests change."""
    return with_urls(originals[1], str(climate))


def with_urls(refs, url):
    """Return references to another file."""
    entries = {k: [url, *v[1:]] if isinstance(v, list) else v for k, v in refs["refs"].items()}
    return {**refs, "refs": entries}


def saved(folder, document, name="refs.json"):
    path = folder / name
    path.write_text(json.dumps(document), "utf-8")
    return path


def check_equal(path, file, **options):
    cube, truth = gm.open_cube(path, **options), gm.open_cube(file)
    assert all(dask.is_dask_collection(v) for v in cube.values())
    xr.testing.assert_equal(cube, truth)


def test_references_of_kerchunk_equal_their_file(climate, refs, tmp_path):
    path = saved(tmp_path, refs)
    check_equal(path, climate)
    check_equal([path], climate)
    cube = gm.open_cube({"climate": path})
    of_kerchunk = xr.open_dataset(str(path), engine="kerchunk")
    np.testing.assert_array_equal(cube.bio12, of_kerchunk.bio12.astype("f4"))
    assert cube.bio1.isnull().sum() == 6 * 16
    again = pickle.loads(pickle.dumps(cube.tas))  # noqa: S301  as for the workers of a cluster
    np.testing.assert_array_equal(again, cube.tas)


def test_references_of_virtualizarr_equal_their_file(climate, tmp_path):
    virtualizarr = pytest.importorskip("virtualizarr", reason="needs pip install virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    options = {"registry": registry, "parser": HDFParser()}
    virtual = virtualizarr.open_virtual_dataset(url=climate.as_uri(), **options)
    virtual.vz.to_kerchunk(str(tmp_path / "refs.json"), format="json")
    check_equal(tmp_path / "refs.json", climate)


def parquet_of(refs, folder, record_size=5):
    """Write references as kerchunk does, which uses this class of fsspec, with another engine."""
    from fsspec.implementations.reference import LazyReferenceMapper

    out = LazyReferenceMapper.create(str(folder), engine="pyarrow", record_size=record_size)
    for key, value in sorted(refs["refs"].items(), key=lambda item: "/.z" not in item[0]):
        is_text = isinstance(value, str) and value.startswith("base64:")
        out[key] = base64.b64decode(value[7:]) if is_text else value
    out.flush()
    return folder


def test_references_in_parquet_are_read_when_they_are_used(climate, refs, tmp_path):
    del refs["refs"]["tas/11.0.0"]
    folder = parquet_of(refs, tmp_path / "refs.parq")
    cube = gm.open_cube(folder)
    truth = gm.open_cube(climate)
    np.testing.assert_array_equal(cube.tas[:11], truth.tas[:11])
    assert cube.tas[11].isnull().all()
    (folder / "bio1" / "refs.0.parq").write_bytes(b"PAR1 no table PAR1")
    cube = gm.open_cube(folder)
    np.testing.assert_array_equal(cube.bio12, truth.bio12)
    with pytest.raises(SourceError, match=r"bio1/refs.0.parq in .* is damaged; write the ref"):
        cube.bio1.load()


def test_a_catalog_may_name_references(climate, refs, tmp_path):
    saved(tmp_path, refs)
    (tmp_path / "sub").mkdir()
    text = """
name: of-references
grid: {crs: EPSG:4326, resolution: 0.5, bounds: [-0.25, 50.25, 19.75, 60.25]}
sources: {cmip: {kind: zarr, path: PATH, allow: ALLOW}}
modalities: {climate: {from: cmip, variables: {bio1: {kind: scalar}}}}
"""
    catalog = tmp_path / "sub" / "catalog.yaml"
    catalog.write_text(text.replace("PATH", str(tmp_path / "refs.json")).replace("ALLOW", "[]"))
    np.testing.assert_array_equal(gm.build_cube(catalog).bio1, gm.open_cube(climate).bio1)
    catalog.write_text(text.replace("PATH", "../refs.json").replace("ALLOW", "[data]"))
    with pytest.raises(SchemaError, match=r"'allow' has the folder data; write its full path"):
        gm.build_cube(catalog)


def test_a_path_is_relative_to_the_references(climate, refs, tmp_path):
    refs["templates"] = {"u": "climate"}
    for value in refs["refs"].values():
        if isinstance(value, list):
            value[0] = "{{u}}.nc"
    check_equal(saved(tmp_path, refs), climate)


def test_a_reference_may_be_an_entire_file(climate, refs, tmp_path):
    numbers = np.arange(60, 50, -0.5)
    (tmp_path / "lat.bin").write_bytes(numbers.tobytes())
    refs["refs"]["lat/0"] = ["lat.bin"]
    check_equal(saved(tmp_path, refs), climate)
    with serve(tmp_path) as url:
        saved(tmp_path, with_urls(refs, "climate.nc"))
        refs["refs"]["lat/0"] = [f"{url}/lat.bin"]
        check_equal(saved(tmp_path, refs, "whole.json"), climate, allow=[url])


# attacks ------------------------------------------------------------------------------------------


def refused(path, match, **options):
    with pytest.raises(SourceError, match=match):
        gm.open_cube(path, **options)


@pytest.mark.parametrize(
    "outside", ["/etc/passwd", "file:///etc/passwd", "../secret.bin", "FILE:///etc/passwd"]
)
def test_other_folders_are_read_only_if_the_user_lists_them(climate, refs, tmp_path, outside):
    refs["refs"]["bio1/0.0"] = [outside, 0, 16]
    refused(
        saved(tmp_path, refs),
        r"which is not a file below .*; if it may be read, list its folder: gm",
    )


def test_listed_folders_are_read(climate, refs, tmp_path):
    path = saved(tmp_path / "lists", refs) if (tmp_path / "lists").mkdir() is None else None
    refused(path, rf"allow=\['{tmp_path}'\]")
    check_equal(path, climate, allow=[tmp_path])
    check_equal(path, climate, allow=tmp_path.as_uri())
    with pytest.raises(GridError, match="allow= is a setting for raster files; leave it out"):
        gm.open_cube(gm.open_cube(climate), allow=[tmp_path])


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_links_and_hidden_files_are_no_way_out(climate, refs, tmp_path):
    folder = tmp_path / "refs"
    folder.mkdir()
    (folder / "link.nc").symlink_to(climate)
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "id_rsa").write_bytes(b"secret" * 100)
    for name in ("link.nc", ".ssh/id_rsa"):
        refs["refs"] = {k: v for k, v in refs["refs"].items() if isinstance(v, str)}
        refs["refs"]["bio1/0.0"] = [name, 0, 16]
        refused(saved(folder, refs), "which is not a file below")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "http://localhost:1/x", "s3://bucket/key"]
)
def test_servers_are_contacted_only_if_the_user_lists_them(refs, tmp_path, url):
    refs["refs"]["bio1/0.0"] = [url, 0, 16]
    refused(saved(tmp_path, refs), r"which is not a file below .*allow=\['\w+://")


@pytest.mark.parametrize(
    "text, match",
    [
        ("simplecache::file:///etc/passwd", "only files and URLs of http, https, s3"),
        ("zip://x.nc::climate.nc", "only files and URLs of"),
        ("ftp://host/x", "only files and URLs of"),
        ("//server/share/x", "which is not a file below"),
        ("\\\\server\\share\\x", "which is not a file below"),
        ("a\x1b[2Jb", "which is no path or URL"),
        ("x" * 5000, "which is no path or URL"),
        (None, "which is no path or URL"),
        ("{{cycler.__init__.__globals__}}", "only names in 'templates' are filled in"),
        ("{% for x in y %}", "only names in 'templates' are filled in"),
        ("{{a}}", "only names in 'templates' are filled in"),
    ],
)
def test_texts_that_are_no_plain_paths_are_refused(refs, tmp_path, text, match):
    refs["templates"] = {"a": "{{a}}"}
    refs["refs"]["lat/0"] = [text, 0, 160]  # coordinates are read at once
    refused(saved(tmp_path, refs), match)


def test_generators_are_not_run(refs, tmp_path):
    refs["gen"] = [{"key": "a/{{i}}", "url": "{{i}}", "dimensions": {"i": {"stop": 10**9}}}]
    refused(saved(tmp_path, refs), r"has generators \('gen'\), which are programs and are not run")


@pytest.mark.parametrize("key", ["filters", "compressor"])
@pytest.mark.parametrize("codec", ["pickle", "json2", "grib", 7])
def test_codecs_that_may_run_code_are_refused(refs, tmp_path, key, codec):
    array = json.loads(refs["refs"]["bio1/.zarray"])
    array[key] = [{"id": codec}] if key == "filters" else {"id": codec}
    refs["refs"]["bio1/.zarray"] = json.dumps(array)
    refused(saved(tmp_path, refs), rf"'bio1' of .* is decoded by '{codec}', which is not used")


def test_a_store_of_pickles_is_refused(tmp_path):
    """Zarr 3.0 unpickles; newer ones refuse it for another reason."""
    from geomiam.checks.sizes import check_zarr

    class Codec:
        codec_id = "pickle"

    class Array:
        metadata = type("Metadata", (), {"filters": (Codec(),), "compressor": None})

    group = type("Group", (), {"arrays": lambda self: [("v", Array())]})()
    with pytest.raises(UnreadableFile, match="'v' of x is stored as pickle, which runs any code"):
        check_zarr(group, location="x")


@pytest.mark.parametrize(
    "key, value, match",
    [
        (
            "lat/0",
            "base64:" + "A" * 400_000,
            r"chunk of 300,000 bytes, more than the 65,856 that its",
        ),
        ("lat/0", ["climate.nc", 0, 2**40], r"chunk of 1,099,511,627,776 bytes, more than the"),
        ("lat/0", ["climate.nc"], None),
        (
            "lat/0",
            ["climate.nc", 10**9, 160],
            r"has 0 of 160 bytes from byte 1,000,000,000: it has ch",
        ),
        ("lat/0", ["climate.nc", -5, 160], "which are no numbers of bytes"),
        ("lat/0", ["climate.nc", 0, "160"], "which are no numbers of bytes"),
        ("lat/0", ["climate.nc", 0], r"expected text or \[path, first byte, number of bytes\]"),
        ("lat/0", 5, r"expected text or \[path"),
        ("lat/0", "base64:A", "is no base64"),
        ("lat/.zarray", "[1]", "is no JSON object"),
        ("lat/.zarray", "{", "is no valid JSON of references"),
        ("v/.zarray", {"shape": [10**7] * 2, "chunks": [10**7] * 2}, "is stored in blocks of"),
        ("v/.zarray", {"shape": [10**12], "chunks": [1]}, "more than a coordinate may have"),
    ],
)
def test_absurd_sizes_and_entries_are_refused(refs, tmp_path, key, value, match):
    if isinstance(value, dict):
        array = json.loads(refs["refs"]["lat/.zarray"])
        refs["refs"]["v/.zattrs"] = {"_ARRAY_DIMENSIONS": list("ab")[: len(value["shape"])]}
        value = array | value
    refs["refs"][key] = value
    refused(saved(tmp_path, refs), match or "chunk of .* bytes, more than|cannot be read as zarr")


@pytest.mark.parametrize(
    "document, match",
    [
        ([], "is no file of references"),
        ({"version": 2}, "is no file of references"),
        ({"version": 1, "refs": []}, "'refs' or 'templates' of .* is no mapping"),
        ({"type": "FeatureCollection"}, "has no references of Zarr 2"),
        ({".zarray": "{}", "0.0": ["x.tif"]}, "one array without names and coordinates"),
    ],
)
def test_other_json_is_refused(tmp_path, document, match):
    refused(saved(tmp_path, document), match)


def test_parquet_references_are_checked_too(climate, refs, tmp_path, monkeypatch):
    folder = parquet_of(refs, tmp_path / "refs.parq")
    document = json.loads((folder / ".zmetadata").read_text())

    def change(name=None, **fields):
        changed_document = json.loads(json.dumps(document))
        if name:
            changed_document["metadata"][name] |= fields
        else:
            changed_document |= fields
        (folder / ".zmetadata").write_text(json.dumps(changed_document))

    change(record_size=0)
    refused(folder, "has no 'metadata' or no 'record_size'")
    change("lat/.zarray", dimension_separator="/")
    refused(folder, "separates the numbers of chunks by '/'")
    change("lat/.zarray", filters=[{"id": "pickle"}])
    refused(folder, "is decoded by 'pickle'")
    change()
    monkeypatch.setattr("geomiam.sources.references.documents.MOST_RECORDS", 2)
    refused(folder, "has 5 references or more than .* write at most 2 in one file")
    monkeypatch.undo()
    monkeypatch.setattr("geomiam.sources.references.documents.RECORD_BYTES", 2)
    refused(folder, "has 5 references or more than 2 bytes")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(folder, r"is Parquet; pip install 'geomiam\[references\]'")
    monkeypatch.undo()
    refs["refs"]["lat/0"] = ["/etc/passwd", 0, 160]
    refused(parquet_of(refs, tmp_path / "b.parq"), "which is not a file below")


def test_a_file_that_is_gone_or_has_changed_is_no_gap(climate, refs, tmp_path):
    cube = gm.open_cube(saved(tmp_path, refs))
    data = climate.read_bytes()
    climate.write_bytes(data[: refs["refs"]["bio1/1.1"][1] + 5])
    with pytest.raises(SourceError, match="it has changed since the references were written"):
        cube.bio1.load()
    climate.unlink()
    with pytest.raises(
        SourceError, match=r"refs\.json refers to .*climate\.nc, which does not exist"
    ):
        cube.bio1.load()
    with pytest.raises(SourceError, match=r"climate\.nc, which does not exist; put the file back"):
        gm.open_cube(tmp_path / "refs.json")  # coordinates are read
    folder = tmp_path / "empty.parq"
    folder.mkdir()
    refused(folder, r"cannot be read as zarr: there is no file .*\.zmetadata")


def test_references_by_a_pattern_and_beside_other_json_files(climate, refs, tmp_path):
    saved(tmp_path, refs, "a.json")
    saved(tmp_path, refs, "b.json")
    assert set(gm.open_cube(str(tmp_path / "[ab].json"))) == {
        f"{file}_{name}" for file in "ab" for name in ("bio1", "bio12", "tas")
    }
    (tmp_path / "item.json").write_text("{}")
    assert set(gm.open_cube(str(tmp_path))) == {"bio1", "bio12", "tas"}  # of climate.nc
    with pytest.raises(InputNotFound, match=r"c\*\.json has no"):
        gm.open_cube(str(tmp_path / "c*.json"))


# the web ------------------------------------------------------------------------------------------


def test_references_to_a_server(climate, refs, tmp_path):
    with serve(tmp_path) as url:
        path = saved(tmp_path, with_urls(refs, f"{url}/climate.nc"))
        refused(path, r"allow=\['http")
        refused(path, "which is not a file below", allow=["http://data.example.org"])
        check_equal(path, climate, allow=[url])
        with pytest.raises(SourceError, match="which is not a file below"):
            gm.open_cube(path, allow=[f"{url}/climate"])
        saved(tmp_path, with_urls(refs, "climate.nc"))
        check_equal(f"{url}/refs.json", climate)
        saved(tmp_path, with_urls(refs, climate.as_uri()), "local.json")  # files of this machine
        refused(f"{url}/local.json", "which is not a file below")


def test_redirects_to_other_hosts_are_not_followed(climate, refs, tmp_path):
    def redirect(handler, body):
        reply(handler, b"", 302, Location="http://127.0.0.2:1/secret")

    with answering(redirect) as url:
        path = saved(tmp_path, with_urls(refs, f"{url}/climate.nc"))
        refused(path, "127.0.0.2.* is refused: host", allow=[url])


def test_references_to_a_bucket(climate, refs, tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")

    with object_store(monkeypatch, "cmip"):
        boto3.client("s3").upload_file(str(climate), "cmip", "v1/climate.nc")
        path = saved(tmp_path, with_urls(refs, "s3://cmip/v1/climate.nc"))
        check_equal(path, climate, allow=["s3://cmip/v1"])
        refused(path, r"allow=\['s3://cmip/v1'\]", allow=["s3://cmip/v2"])
