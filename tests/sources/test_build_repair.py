"""A cube of which files failed: reading again what failed, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli import app as cli

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_build import catalog, field, tif
from helpers_servers import write_stac_catalog
from helpers_stac import GRID, JUNE, answering, at, numbers, read, reply, scene

from geomiam.errors import AssetFailed, AssetsFailed, GeomiamError, OutputExists, ResumeRefused

SERIES = {"kind": "series", "dims": ["time"], "window": 1}
DAYS = 3


class Files:
    """Files on a server, some of which fail; and the requests to it."""

    def __init__(self, folder):
        self.folder, self.broken, self.asked = folder, set(), []

    def __call__(self, handler, body):
        name = handler.path.lstrip("/")
        self.asked.append(name)
        if name in self.broken:
            return reply(handler, b"busy", 503)
        return (self.folder / name).read_bytes()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    items = [
        scene(
            tmp_path / "f", f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z", bands={"red": numbers(i)}
        )
        for i in range(DAYS)
    ]
    server = Files(tmp_path / "f")
    with answering(server) as url:
        write_stac_catalog(tmp_path / "c", [at(item, url) for item in items])
        server.expected = read(items, dilate=0).compute()
        yield server


def recipe(folder, *options, dims=("time",), **source):
    """A catalog of two bands, and of further variables from GeoTIFFs beside it."""
    bands = {"red": {**SERIES, "dims": list(dims)}, "nir": {**SERIES, "dims": list(dims)}}
    place = {"kind": "stac", "root": str(folder / "c"), "time": JUNE, "dilate": 0}
    modalities = {"optical": {"from": "s2", "variables": bands}}
    if options:
        modalities["rest"] = {"from": "files", "variables": {name: {} for name in options}}
    sources = {"s2": {**place, **source}, "files": {"path": "{variable}.tif"}}
    return catalog(folder, sources if options else {"s2": sources["s2"]}, modalities)


def build(path, out, *, repair=False, **settings):
    options = gm.sources.BuildOptions(repair=repair)
    return gm.build_cube(path, GRID, out=out, options=options, progress=False, **settings)


@pytest.mark.parametrize("dim", ["time", "date"])
def test_a_finished_cube_is_repaired_by_the_dates_that_failed(tmp_path, files, dim):
    path, out = recipe(tmp_path, dims=(dim,)), tmp_path / "cube.zarr"
    files.broken = {"s1/red.tif"}
    with pytest.warns(AssetsFailed):
        cube = build(path, out)
    assert np.isnan(cube.red[1]).all() and len(cube.attrs["failed_assets"]) == 1
    values_result = json.loads(cube.attrs["coverage"])
    files.broken, files.asked = set(), []
    with pytest.raises(OutputExists, match="repair"):
        build(path, out)
    fixed = build(path, out, repair=True)
    assert {name.partition("/")[0] for name in files.asked} == {"s1"}
    for band in ("red", "nir"):
        np.testing.assert_array_equal(fixed[band], files.expected[band])
    assert "failed_assets" not in fixed.attrs
    assert json.loads(fixed.attrs["coverage"]) == values_result  # every cell had a date before
    files.asked = []
    build(path, out, repair=True)
    assert not files.asked


def test_a_repair_that_fails_elsewhere_loses_nothing(tmp_path, files):
    path, out = recipe(tmp_path), tmp_path / "cube.zarr"
    files.broken = {"s1/red.tif"}
    with pytest.warns(AssetsFailed):
        before = build(path, out).load()
    files.broken = {"s1/nir.tif"}
    with pytest.warns(AssetsFailed, match="s1 / nir"):
        after = build(path, out, repair=True).load()
    for band in ("red", "nir"):
        np.testing.assert_array_equal(after[band], before[band])
    assert after.attrs["failed_assets"] == before.attrs["failed_assets"]


def test_a_composite_is_made_again_with_all_its_dates(tmp_path, files):
    path, out = recipe(tmp_path, composite="1MS"), tmp_path / "cube.zarr"
    files.broken = {"s1/red.tif"}
    with pytest.warns(AssetsFailed):
        before = build(path, out).load()
    files.broken = set()
    after = build(path, out, repair=True)
    expected = np.median(files.expected.red.values, axis=0)
    np.testing.assert_allclose(after.red[0], expected, atol=1e-6)
    assert not np.allclose(before.red[0], expected, atol=1e-6)


def test_a_stopped_build_reads_again_what_failed_before(tmp_path, files):
    tif(tmp_path / "b.tif", field(GRID), GRID)
    full = (tmp_path / "b.tif").read_bytes()
    path, out = recipe(tmp_path, "b"), tmp_path / "cube.zarr"
    files.broken = {"s1/red.tif"}
    (tmp_path / "b.tif").write_bytes(full[:1500])  # the header is there, pixels are not
    with pytest.warns(AssetsFailed), pytest.raises(GeomiamError):
        build(path, out)
    (tmp_path / "b.tif").write_bytes(full)
    files.broken, files.asked = set(), []
    cube = build(path, out)
    assert {name.partition("/")[0] for name in files.asked} == {"s1"}
    np.testing.assert_array_equal(cube.red, files.expected.red)
    assert "failed_assets" not in cube.attrs


def test_only_the_same_cube_is_repaired(tmp_path, files):
    out = tmp_path / "cube.zarr"
    build(recipe(tmp_path), out)
    with pytest.raises(ResumeRefused, match=r"other files, scenes or settings.*overwrite=True"):
        build(recipe(tmp_path, composite="1MS"), out, repair=True)
    build(recipe(tmp_path, on_error="raise", hosts=["x.org"]), out, repair=True)
    new = build(recipe(tmp_path), tmp_path / "new.zarr", repair=True)
    np.testing.assert_array_equal(new.red, files.expected.red)


def test_the_command_line_repairs(tmp_path, files):
    path, out = recipe(tmp_path), tmp_path / "cube.zarr"
    files.broken = {"s1/red.tif"}
    gm.write_cube(files.expected[["red"]], tmp_path / "like.zarr", progress=False)
    like = ["build", str(path), "--like", str(tmp_path / "like.zarr"), "--out", str(out)]
    assert CliRunner().invoke(cli.app, like).exit_code == 0
    files.broken = set()
    process = CliRunner().invoke(cli.app, [*like, "--repair"])
    assert process.exit_code == 0, process.output
    np.testing.assert_array_equal(gm.open_cube(out).red, files.expected.red)


def test_a_catalog_may_end_at_the_first_failure(tmp_path, files):
    files.broken = {"s1/red.tif"}
    path, out = recipe(tmp_path, on_error="raise"), tmp_path / "cube.zarr"
    with pytest.raises(AssetFailed, match="s1 / red"):
        build(path, out)
    assert not out.exists()
    files.broken = set()
    np.testing.assert_array_equal(build(path, out).red, files.expected.red)
