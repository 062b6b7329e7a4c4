"""Cubes on disk: a stopped build resumes, nothing is lost, and the command line reports the result."""

import json

import numpy as np
import pytest
import xarray as xr
from helpers_build import FINE, UTM, catalog, field, static, tif
from helpers_cluster import process_cluster
from helpers_stac import GRID, JUNE, not_there, numbers, scene, serve
from odc.geo.geobox import GeoBox
from odc.geo.geom import box as odc_box
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli import app as cli
from geomiam.data.store import resume
from geomiam.errors import AssetsFailed, OutputExists, SourceError
from geomiam.sources.rasters.geotiff import Pixels

NAMES = ("a", "b", "c")
CHUNKS = {"y": 8, "x": 16}


@pytest.fixture
def cube_result(tmp_path):
    """Three layers and a series, each a separate file; a row of chunks is a band."""
    for i, name in enumerate(NAMES):
        tif(tmp_path / f"{name}.tif", field(FINE, seed=i), FINE)
    tif(tmp_path / "s.tif", field(FINE, bands=3, seed=9), FINE)
    variables = {n: {} for n in NAMES}
    variables["s"] = {
        "kind": "series",
        "dims": ["step"],
        "from": {"source": "files", "band": "all"},
    }
    path = {"path": "{variable}.tif"}
    return catalog(tmp_path, {"files": path}, {"m": {"from": "files", "variables": variables}})


@pytest.fixture(autouse=True)
def short_bands(monkeypatch):
    monkeypatch.setattr(resume, "BAND", 1)


class Reads:
    """Counts reads of files, and stops the build at one of them."""

    def __init__(self, monkeypatch, stop: int | None = None):
        self.paths: list[str] = []
        original = Pixels.__getitem__

        def counted(pixels, key):
            if not all(k.stop for k in key):  # dask requests the type
                return original(pixels, key)
            self.paths.append(pixels.path.rsplit("/", 1)[-1][0])
            if stop is not None and len(self.paths) > stop:
                raise KeyboardInterrupt
            return original(pixels, key)

        monkeypatch.setattr(Pixels, "__getitem__", counted)


def build(path, out, *, repair=False, **settings):
    options = gm.sources.BuildOptions(chunks=CHUNKS, repair=repair)
    return gm.build_cube(path, UTM, out=out, options=options, progress=False, **settings)


def build_in_part(path, out, monkeypatch, *, reads):
    """Build until so many reads, then stop as by the keyboard."""
    with monkeypatch.context() as patch:
        Reads(patch, reads)
        with pytest.raises(KeyboardInterrupt):
            build(path, out)


def test_a_cube_on_disk_is_the_lazy_one(cube_result, tmp_path):
    lazy = gm.build_cube(cube_result, UTM)
    cube = build(cube_result, tmp_path / "cube.zarr")
    xr.testing.assert_identical(
        cube.compute().drop_attrs(), lazy.compute().drop_attrs()[list(cube)]
    )
    assert cube.a.chunksizes == {"y": (8, 8, 8, 6), "x": (16, 14)}
    assert json.loads((tmp_path / "cube.zarr" / "zarr.json").read_text())["zarr_format"] == 3
    assert cube.odc.geobox == UTM
    sources = json.loads(cube.attrs["sources"])
    assert [s["variable"] for s in sources] == [*NAMES, "s"]
    assert sources[0]["crs"] == "EPSG:32631" and sources[0]["resampling"] == "average"
    assert json.loads(cube.attrs["coverage"]) == {"m": 1.0}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("stop", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 13))])
def test_a_stopped_build_goes_on_and_ends_equal(cube_result, tmp_path, monkeypatch, stop):
    build(cube_result, tmp_path / "whole.zarr")
    build_in_part(cube_result, tmp_path / "cube.zarr", monkeypatch, reads=stop)
    assert not (tmp_path / "cube.zarr").exists()
    cube = build(cube_result, tmp_path / "cube.zarr")
    same(tmp_path / "whole.zarr", tmp_path / "cube.zarr")
    assert np.isfinite(cube.s).all()


def same(a, b):
    """Two stores are equal, file by file."""
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    for name in files:
        bytes_a, bytes_b = ((folder / name).read_bytes() for folder in (a, b))
        if name.suffix == ".json":
            assert json.loads(bytes_a) == json.loads(bytes_b), name
        else:
            assert bytes_a == bytes_b, name


def test_rows_that_are_complete_are_not_read_again(cube_result, tmp_path, monkeypatch):
    build_in_part(cube_result, tmp_path / "cube.zarr", monkeypatch, reads=6)
    ledger = json.loads((tmp_path / ".cube.zarr.building.json").read_text())
    assert ledger["a"]["rows"] == 30 and 0 < ledger["b"]["rows"] < 30 and "c" not in ledger
    with monkeypatch.context() as patch:
        reads = Reads(patch)
        build(cube_result, tmp_path / "cube.zarr")
    assert reads.paths.count("a") == 0
    assert 0 < reads.paths.count("b") < reads.paths.count("c")


def test_a_changed_file_or_catalog_is_read_again(cube_result, tmp_path, monkeypatch):
    build_in_part(cube_result, tmp_path / "cube.zarr", monkeypatch, reads=10)
    new = field(FINE, seed=77)
    tif(tmp_path / "a.tif", new, FINE)
    with monkeypatch.context() as patch:
        reads = Reads(patch)
        cube = build(cube_result, tmp_path / "cube.zarr")
    assert reads.paths.count("a") > 0
    expected = new[0, 10:-10, 10:-10].reshape(30, 2, 30, 2).mean((1, 3))
    np.testing.assert_allclose(cube.a, expected, atol=1e-4)


@pytest.mark.slow
def test_another_grid_starts_anew(cube_result, tmp_path, monkeypatch):
    build_in_part(cube_result, tmp_path / "cube.zarr", monkeypatch, reads=10)
    crop = UTM[2:20, 3:20]
    cube = gm.build_cube(cube_result, crop, out=tmp_path / "cube.zarr", progress=False)
    xr.testing.assert_allclose(
        cube.compute(), gm.build_cube(cube_result, crop).compute()[list(cube)]
    )


@pytest.mark.slow
def test_a_ledger_cut_short_counts_as_none(cube_result, tmp_path, monkeypatch):
    build_in_part(cube_result, tmp_path / "cube.zarr", monkeypatch, reads=10)
    (tmp_path / ".cube.zarr.building.json").write_text('{"a": {"pri')
    build(cube_result, tmp_path / "cube.zarr")
    build(cube_result, tmp_path / "whole.zarr")
    same(tmp_path / "whole.zarr", tmp_path / "cube.zarr")


def test_coordinates_of_the_grid_go_along(cube_result, tmp_path):
    from odc.geo.xr import xr_coords

    zone = ("y", "x"), np.arange(900).reshape(30, 30)
    like = xr.Dataset(coords={**xr_coords(UTM), "zone": zone})
    cube = gm.build_cube(
        cube_result,
        like,
        out=tmp_path / "cube.zarr",
        options=gm.sources.BuildOptions(chunks=CHUNKS),
        progress=False,
    )
    assert set(cube.data_vars) == {*NAMES, "s"}
    np.testing.assert_array_equal(cube.coords["zone"], zone[1])


def test_nothing_is_overwritten_unless_requested(cube_result, tmp_path):
    out = tmp_path / "cube.zarr"
    build(cube_result, out)
    before = out.stat().st_mtime_ns
    with pytest.raises(OutputExists, match="overwrite=True"):
        build(cube_result, out)
    assert out.stat().st_mtime_ns == before
    tif(tmp_path / "a.tif", field(FINE, seed=5), FINE)
    old = gm.open_cube(out).a.compute()
    assert not np.array_equal(build(cube_result, out, overwrite=True).a, old)


def test_a_file_cut_short_is_named_and_the_rest_is_kept(cube_result, tmp_path):
    full = (tmp_path / "c.tif").read_bytes()
    (tmp_path / "c.tif").write_bytes(full[: len(full) // 3])
    with pytest.raises(
        SourceError, match=r"c\.tif cannot be read to its end.*complete parts are kept"
    ):
        build(cube_result, tmp_path / "cube.zarr")
    assert json.loads((tmp_path / ".cube.zarr.building.json").read_text())["b"]["rows"] == 30
    assert not (tmp_path / "cube.zarr").exists()
    (tmp_path / "c.tif").write_bytes(full)
    assert np.isfinite(build(cube_result, tmp_path / "cube.zarr").c).all()


def optical(folder, items, **options):
    static(folder, items)
    series = {"kind": "series", "dims": ["time"]}
    source = {"kind": "stac", "root": "stac/catalog.json", "time": JUNE, "dilate": 0, **options}
    variables = {"red": series, "nir": series}
    return catalog(folder, {"s2": source}, {"optical": {"from": "s2", "variables": variables}})


@pytest.mark.slow
@pytest.mark.parametrize("on_cluster", [False, True])
def test_failed_scenes_are_nan_and_lines_that_outlive_a_stop(tmp_path, on_cluster):
    day = {"bands": {"red": numbers(3)}}
    items = [scene(tmp_path, f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z", **day) for i in range(2)]
    with serve(tmp_path, {"s1/red.tif": not_there}) as base:
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = base + asset["href"].removeprefix(str(tmp_path))
        cube_result = optical(tmp_path, items)
        with process_cluster(1) if on_cluster else pytest.warns(AssetsFailed):
            cube = gm.build_cube(cube_result, GRID, out=tmp_path / "cube.zarr", progress=False)
    assert np.isnan(cube.red[1]).all() and np.isfinite(cube.red[0]).all()
    assert np.isfinite(cube.nir).all()
    (line,) = cube.attrs["failed_assets"]
    assert "s1 / red" in line and "404" in line
    from geomiam.sources.build_report import summary

    assert "1 files could not be read" in summary(cube) and "s1 / red" in summary(cube)


def test_scenes_are_in_the_store_and_new_ones_are_read(tmp_path):
    items = [scene(tmp_path, f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z") for i in range(3)]
    cube_result = optical(tmp_path, items[:2], composite="1MS")
    store = gm.build_cube(cube_result, GRID, out=tmp_path / "one.zarr", progress=False)
    assert [s["id"] for s in json.loads(store.attrs["scenes"])["s2"]] == ["s0", "s1"]
    with pytest.raises(OutputExists):
        gm.build_cube(cube_result, GRID, out=tmp_path / "one.zarr")


def run(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200"})


def test_the_command_line_plans_builds_and_sums_up(cube_result, tmp_path):
    with_grid = cube_result.read_text() + "grid: {crs: EPSG:32631, resolution: 20}\n"
    cube_result.write_text(with_grid)
    place = ("--bounds", "500000,5500000,500600,5500600")
    plan = run("build", cube_result, "--plan", *place)
    assert plan.exit_code == 0, plan.output
    assert "30 × 30 cells of 20 m in EPSG:32631" in plan.output and "MB to read" in plan.output
    process = run("build", cube_result, "--out", tmp_path / "cube.zarr", *place)
    assert process.exit_code == 0, process.output
    assert (
        "m: a, b, c, s from files (raster, 4 files" in process.output
        and "data in 100.0% of the cells" in process.output
    )
    like = run(
        "build", cube_result, "--out", tmp_path / "two.zarr", "--like", tmp_path / "cube.zarr"
    )
    assert like.exit_code == 0, like.output
    same(tmp_path / "cube.zarr", tmp_path / "two.zarr")
    tif(tmp_path / "like.tif", field(UTM), UTM)
    assert (
        run(
            "build", cube_result, "--out", tmp_path / "t.zarr", "--like", tmp_path / "like.tif"
        ).exit_code
        == 0
    )
    assert gm.open_cube(tmp_path / "t.zarr").odc.geobox == UTM


def test_the_command_line_states_what_to_do(cube_result, tmp_path):
    def message_of(*arguments):
        process = run("build", cube_result, *arguments)
        assert process.exit_code != 0
        return str(process.exception) + process.output

    assert "no grid" in message_of("--plan")
    assert "--out is missing" in message_of("--bounds", "1,2,3,4")
    assert "four numbers" in message_of("--plan", "--bounds", "1,2,x,4")
    assert "pass one of them" in message_of("--plan", "--bounds", "1,2,3,4", "--bbox=1,2,3,4")
    assert "worldclim" in str(run("build", tmp_path / "no.yaml", "--plan").exception)
    row = next(r for r in run("info", "chelsa").output.splitlines() if "bio12" in r)
    assert row.split()[-3:] == ["scalar", "mm", "chelsa"]
    assert "SOURCE=FOLDER" in message_of("--plan", "--root", "files")
    away = tmp_path / "elsewhere"
    assert f"{away}/a.tif is not there" in message_of(
        "--plan", "--like", grid_file(tmp_path), "--root", f"files={away}"
    )


def grid_file(folder):
    return tif(folder / "grid.tif", field(UTM), UTM)


def test_a_box_of_degrees_to_a_cube_of_three_sources(tmp_path):
    """From a bounding box to a cube with Sentinel-2, terrain and climate: one YAML, one command."""
    items = [scene(tmp_path, f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z") for i in range(2)]
    static(tmp_path, items)
    wide = GeoBox.from_bbox(GRID.pad(30).boundingbox, resolution=25)
    tif(tmp_path / "dem.tif", field(wide) * 2, wide)
    globe = GeoBox.from_bbox((2, 50, 4, 51), crs="EPSG:4326", resolution=0.05)
    tif(tmp_path / "bio1.tif", (field(globe) * 10).astype("int16"), globe, scales=(0.1,))
    tif(tmp_path / "bio12.tif", field(globe), globe)
    series = {"kind": "series", "dims": ["time"], "window": 1}
    path = catalog(
        tmp_path,
        {
            "s2": {"kind": "stac", "root": "stac/catalog.json", "time": JUNE},
            "dem": {"path": "dem.tif"},
            "terrain": {"kind": "derived", "of": "elevation"},
            "climate": {"path": "{variable}.tif"},
        },
        {
            "optical": {"from": "s2", "variables": {"red": series, "nir": series}},
            "terrain": {
                "from": "terrain",
                "variables": {
                    "elevation": {"from": "dem"},
                    "slope": {},
                    "aspect": {"kind": "circular"},
                },
            },
            "climate": {"from": "climate", "variables": {"bio1": {}, "bio12": {}}},
        },
        grid={"crs": "EPSG:32631", "resolution": 20},
    )
    degrees = GRID.pad(-5).boundingbox.to_crs("EPSG:4326").bbox
    location = ",".join(f"{v:.6f}" for v in degrees)
    process = run("build", path, "--out", tmp_path / "cube.zarr", f"--bbox={location}")
    assert process.exit_code == 0, process.output
    cube = gm.open_cube(tmp_path / "cube.zarr")
    lattice = cube.odc.geobox.boundingbox.bbox
    assert all(v % 20 == 0 for v in lattice)
    coverage_result = GeoBox.from_bbox(lattice, "EPSG:32631", resolution=20).footprint("EPSG:4326")
    assert coverage_result.contains(odc_box(*degrees, "EPSG:4326").buffer(-1e-6))
    messages = run("info", tmp_path / "cube.zarr")
    assert "built from" in messages.output and "2 scenes" in messages.output
    schema = gm.Schema.from_yaml(path)
    shares = gm.coverage(cube, schema).observed
    assert set(shares.modality.values) == {"optical", "terrain", "climate"}
    assert float(shares.min()) == 1.0
    assert cube.bio1.mean() == pytest.approx(100, abs=8)
