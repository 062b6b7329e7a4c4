"""Outputs: only an output of the same kind is replaced, by one writer, and only on request."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import xarray as xr

import geomiam as gm
from geomiam.errors import GeomiamError, NameRefused, OutputBusy, OutputExists, OutputRefused
from geomiam.outputs.check import check_output, locked_output, output_lock
from geomiam.outputs.kinds import CHECKPOINT, CUBE, DEMO, MAP, MODEL, PICTURE, RESULTS, SITES
from geomiam.outputs.paths import below, check_names, expand, is_remote
from geomiam.outputs.write import remove, replace, save_picture, save_results


def make_cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    layers = {
        name: (("y", "x"), rng.normal(size=(8, 8)).astype("f4"), {"modality": modality})
        for name, modality in (("a", "p"), ("b", "q"))
    }
    place = {"y": 50 - 0.25 * np.arange(8), "x": 5 + 0.25 * np.arange(8)}
    return xr.Dataset(layers, place).odc.assign_crs("EPSG:4326")


def make_sites() -> xr.Dataset:
    cube = make_cube()
    sites = cube.stack(site=("y", "x")).reset_index("site").transpose("site", ...)
    rng = np.random.default_rng(1)
    sites["presence"] = (("site", "species"), rng.integers(0, 2, (64, 2)).astype("f4"))
    return sites.assign_coords(species=["s", "t"])


@pytest.fixture(scope="module")
def model() -> gm.Model:
    network = gm.NetworkConfig(width=8, heads=1, depth=1, inner=0)
    return gm.fit(
        make_sites(),
        network=network,
        training=gm.TrainingConfig(epoch_steps=1, epochs=1, block="50 km"),
        rng=0,
    )


@pytest.fixture
def home(tmp_path, model) -> Path:
    """A cube, sites, records and a model, as the command line reads them."""
    gm.write_cube(make_cube(), tmp_path / "cube.zarr")
    gm.write_sites(make_sites(), tmp_path / "sites.zarr")
    (tmp_path / "records.csv").write_text("species,lon,lat\ns,5.5,49.5\nt,6,49\n")
    model.save(tmp_path / "model")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(*words: object) -> None:
    """Call the command line in this process; errors are raised."""
    from typer.testing import CliRunner

    from geomiam.cli.app import app

    CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False, standalone_mode=False)


def over_inputs(home: Path) -> dict[str, list[object]]:
    """Every verb with an output that is, contains, or lies in something that it reads."""
    cube, sites, model = home / "cube.zarr", home / "sites.zarr", home / "model"
    records = home / "records.csv"
    predict, explain = ["predict", model, cube], ["explain", model, cube]
    fit = ["fit", sites, "--epochs", 1, "--width", 8]
    pretrain = ["pretrain", cube, "--epochs", 1, "--width", 8]
    finetune = ["finetune", model, sites, "--train", "head", "--epochs", 1]
    return {
        "predict over its cube": [*predict, "--out", cube, "--overwrite"],
        "predict over its model": [*predict, "--out", model, "--overwrite"],
        "predict inside its model": [*predict, "--out", model / "map.zarr"],
        "predict inside its cube": [*predict, "--out", cube / "map.zarr"],
        "predict over an array": [*predict, "--out", cube / "a", "--overwrite"],
        "predict over sites": [*predict, "--out", sites, "--overwrite"],
        "predict over the folder of all": [*predict, "--out", home, "--overwrite"],
        "explain over its cube": [*explain, "--out", cube, "--overwrite"],
        "a GeoTIFF inside the cube": [*predict, "--out", cube / "map.tif"],
        "a GeoTIFF over the records": [*predict, "--out", records, "--overwrite"],
        "sample over its cube": ["sample", cube, records, "--out", cube, "--overwrite"],
        "sample over its records": ["sample", cube, records, "--out", records, "--overwrite"],
        "sample inside its cube": ["sample", cube, records, "--out", cube / "sites.zarr"],
        "fit over its sites": [*fit, "--out", sites, "--overwrite"],
        "fit inside its sites": [*fit, "--out", sites / "model"],
        "checkpoint over the sites": [*fit, "--out", home / "m", "--checkpoint", sites],
        "checkpoint inside the sites": [*fit, "--out", home / "m", "--checkpoint", sites / "c"],
        "checkpoint is the output": [*fit, "--out", home / "m", "--checkpoint", home / "m"],
        "checkpoint in the output": [*fit, "--out", home / "m", "--checkpoint", home / "m" / "c"],
        "pretrain over its cube": [*pretrain, "--out", cube, "--overwrite"],
        "finetune over its model": [*finetune, "--out", model, "--overwrite"],
        "finetune inside its model": [*finetune, "--out", model / "next"],
        "a picture in a model": ["evaluate", model, sites, "--figure", model / "skill.png"],
        "a picture over sites": ["evaluate", model, sites, "--figure", sites, "--overwrite"],
        "a picture over records": ["evaluate", model, sites, "--figure", records, "--overwrite"],
        "demo over everything": ["demo", "--out", home, "--overwrite"],
        "demo inside a model": ["demo", "--out", model / "demo"],
    }


CASES = list(over_inputs(Path()))


@pytest.mark.parametrize("case", CASES)
def test_an_output_that_overlaps_an_input_is_refused_and_nothing_changes(home, case):
    before = content(home)
    with pytest.raises(OutputExists):
        run(*over_inputs(home)[case])
    assert content(home) == before


def test_a_build_never_replaces_its_sources_catalog_or_grid(home):
    catalog = {
        "name": "c",
        "sources": {"s": {"kind": "zarr", "path": "cube.zarr"}},
        "modalities": {"m": {"from": "s", "variables": {"a": {}}}},
    }
    path = home / "catalog.yaml"
    path.write_text(json.dumps(catalog))  # JSON is YAML
    before = content(home)
    like = make_cube()
    for out, grid in (
        (home / "cube.zarr", like),
        (home / "cube.zarr" / "a", like),
        (path, like),
        (home / "sites.zarr", home / "sites.zarr"),
    ):
        with pytest.raises(OutputExists):
            gm.build_cube(path, grid, out=out, overwrite=True, progress=False)
    assert content(home) == before


@pytest.mark.parametrize("kind", ["cube", "sites", "map", "model"])
def test_overwriting_removes_only_what_geomiam_wrote(home, model, kind):
    write = {
        "cube": lambda p: gm.write_cube(make_cube() + 1, p, overwrite=True),
        "sites": lambda p: gm.write_sites(make_sites(), p, overwrite=True),
        "map": lambda p: gm.write_map(make_cube(), model, p, overwrite=True, progress=False),
        "model": lambda p: model.save(p, overwrite=True),
    }[kind]
    path = home / "output"
    write(path)
    write(path)
    inside = [path / "precious.txt"]
    if kind != "model":
        inside += [path / "y" / "precious.txt", path / "y" / "c" / "thesis" / "chapter.txt"]
    for precious in inside:
        precious.parent.mkdir(exist_ok=True)
        precious.write_text("years of work")
        before = content(home)
        with pytest.raises(OutputRefused, match=r"also contains .*(precious|thesis)"):
            write(path)
        assert content(home) == before
        precious.unlink()
        if precious.parent.name == "thesis":
            precious.parent.rmdir()
    (path / ".DS_Store").write_text("of a file manager")
    write(path)
    assert sorted(p.name for p in home.iterdir() if p.name.startswith(".")) == []


def test_another_kind_of_output_and_foreign_stores_are_kept(home, model):
    make_cube().to_zarr(home / "foreign.zarr", zarr_format=3, consolidated=False)
    before = content(home)
    for path, words in (("sites.zarr", "contains sites"), ("foreign.zarr", "geomiam wrote")):
        with pytest.raises(OutputRefused, match=words):
            gm.write_cube(make_cube(), home / path, overwrite=True)
        with pytest.raises(OutputRefused, match=words):
            gm.write_map(make_cube(), model, home / path, overwrite=True, progress=False)
    huggingface = home / "other-model"
    huggingface.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (huggingface / name).write_text("{}")
    with pytest.raises(OutputRefused, match="no model directory"):
        model.save(huggingface, overwrite=True)
    assert {k: v for k, v in content(home).items() if "other-model" not in k} == before
    assert len(list(huggingface.iterdir())) == 3


def test_files_of_others_are_not_replaced(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    (tmp_path / "notes.json").write_text('{"mine": 1}')
    with pytest.raises(OutputRefused, match="'settings'"):
        save_results(tmp_path / "notes.json", "{}")
    save_results(tmp_path / "r.json", '{"settings": {}, "summary": {}}')
    save_results(tmp_path / "r.json", '{"settings": {}, "summary": {"a": 1}}')
    assert json.loads((tmp_path / "r.json").read_text())["summary"] == {"a": 1}
    for suffix in ("png", "pdf", "svg"):
        picture = tmp_path / f"a.{suffix}"
        save_picture(Figure(), picture)
        with pytest.raises(OutputExists, match="overwrite=True"):
            save_picture(Figure(), picture)
        save_picture(Figure(), picture, overwrite=True)
        picture.write_bytes(b"a photograph")
        with pytest.raises(OutputRefused, match="not written by geomiam"):
            save_picture(Figure(), picture, overwrite=True)
    with pytest.raises(OutputRefused, match=r"\.png, \.pdf or \.svg"):
        save_picture(Figure(), tmp_path / "a.csv")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["a.pdf", "a.png", "a.svg", "notes.json", "r.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", [CUBE, MODEL, RESULTS, PICTURE])
def test_pipes_and_devices_are_never_replaced(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OutputRefused):
            check_output(path, True, kind=kind)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_checkpoint_folder_that_holds_anything_else_is_kept(tmp_path):
    folder = tmp_path / "checkpoint"
    options = {"network": gm.NetworkConfig(width=8, heads=1, depth=1)}
    short = gm.TrainingConfig(epoch_steps=1, epochs=1, block="50 km")
    gm.fit(make_sites(), training=short, checkpoint=folder, rng=0, **options)
    (folder / "precious.txt").write_text("years of work")
    with pytest.raises(OutputRefused, match="also contains precious"):
        gm.fit(
            make_sites(),
            training=gm.TrainingConfig(epoch_steps=1, epochs=1, block="50 km"),
            checkpoint=folder,
            rng=0,
            **options,
        )
    assert (folder / "precious.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists):
        gm.fit(
            make_sites(),
            training=short,
            checkpoint=tmp_path / "file",
            rng=0,
            **options,
        )
    assert (tmp_path / "file").read_text() == "mine"


def test_the_demo_replaces_a_finished_demo_only(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "summary.json").write_text('{"auc": {}, "versions": {}}')
    assert check_output(folder, True, kind=DEMO) == folder
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(OutputRefused, match=r"also contains mine\.txt"):
        gm.demo.run(folder, overwrite=True)


def test_one_of_two_writers_is_refused(tmp_path, model):
    """Another thread holds the output; every writer is refused, and what is there stays."""
    writers = {
        "cube": (CUBE, lambda p: gm.write_cube(make_cube(), p)),
        "sites": (SITES, lambda p: gm.write_sites(make_sites(), p)),
        "map": (MAP, lambda p: gm.write_map(make_cube(), model, p, progress=False)),
        "model": (MODEL, lambda p: model.save(p)),
        "checkpoint": (
            CHECKPOINT,
            lambda p: gm.fit(
                make_sites(),
                network=gm.NetworkConfig(width=8, heads=1, depth=1),
                training=gm.TrainingConfig(epoch_steps=1, epochs=1, block="50 km"),
                checkpoint=p,
            ),
        ),
        "results.json": (RESULTS, lambda p: save_results(p, "{}")),
    }
    is_locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        import contextlib

        with contextlib.ExitStack() as stack:
            for name, (kind, _) in writers.items():
                stack.enter_context(locked_output(tmp_path / name, False, kind=kind))
            is_locked.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    is_locked.wait(60)
    try:
        for name, (_, write) in writers.items():
            with pytest.raises(OutputBusy, match="another process or thread writes"):
                write(tmp_path / name)
    finally:
        release.set()
        holder.join()
    assert list(tmp_path.iterdir()) == []
    gm.write_cube(make_cube(), tmp_path / "cube")
    assert [p.name for p in tmp_path.iterdir()] == ["cube"]


CONTEST = """
import sys, time
from pathlib import Path
from geomiam.errors import OutputBusy
from geomiam.outputs.check import output_lock

target, log = Path(sys.argv[1]), Path(sys.argv[1] + ".log")
end, count = time.monotonic() + 1.5, 0
while time.monotonic() < end:
    try:
        with output_lock(target):
            with open(log, "a") as file: file.write("in\\n")
            time.sleep(0.001)
            with open(log, "a") as file: file.write("out\\n")
    except OutputBusy:
        pass
"""


def test_the_lock_holds_while_its_file_comes_and_goes(tmp_path):
    """A lock that is unlinked under a waiting process must not let two in."""
    command = [sys.executable, "-c", CONTEST, str(tmp_path / "map.zarr")]
    contestants = [subprocess.Popen(command) for _ in range(3)]
    assert [p.wait(60) for p in contestants] == [0, 0, 0]
    lines = (tmp_path / "map.zarr.log").read_text().split()
    assert len(lines) > 20
    assert lines == ["in", "out"] * (len(lines) // 2)
    assert [p.name for p in tmp_path.iterdir()] == ["map.zarr.log"]


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "cube.zarr"
    link.symlink_to(tmp_path / "scratch" / "cube.zarr")  # nothing there yet
    for value in (0, 1):
        gm.write_cube(make_cube() * 0 + value, link, overwrite=True)
        assert link.is_symlink()
        assert float(gm.open_cube(tmp_path / "scratch" / "cube.zarr").a.max()) == value
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["cube.zarr"]
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == ["cube.zarr"]
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(GeomiamError, match="path"):
        gm.write_cube(make_cube(), circle / "cube.zarr")


@pytest.mark.parametrize("kind", ["cube", "map"])
def test_a_planted_link_in_place_of_the_hidden_folder_is_not_followed(tmp_path, model, kind):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    (tmp_path / ".out.zarr.building").symlink_to(thesis)
    if kind == "map":
        gm.write_map(make_cube(), model, tmp_path / "out.zarr", progress=False)
    else:
        from geomiam.data.store.resume import write_parts

        lazy = gm.open_cube(make_cube().chunk(y=4))
        write_parts(lazy, tmp_path / "out.zarr", prints={"a": "1", "b": "2"})
    assert content(thesis) == {"chapter.txt": b"years of work"}
    assert not (tmp_path / "out.zarr").is_symlink()


def test_names_never_lead_out_of_a_folder(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "thesis")
    bad = ["../thesis", str(tmp_path / "thesis"), "..", ".", "", "a/b", "a\\b", "a\0b", "a\nb"]
    for name in [*bad, "__x", "zarr.json", "link"]:
        with pytest.raises(NameRefused):
            below(tmp_path / "store", name)
    assert below(tmp_path / "store", "Ænys bio 1") == tmp_path / "store" / "Ænys bio 1"


def test_names_are_checked_without_a_schema_too(tmp_path, model):
    from geomiam.data.store.resume import write_parts

    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    for name in ("../thesis", str(thesis)):
        odd = make_cube().rename(a=name).chunk(y=4)
        with pytest.raises(NameRefused, match=r"ds\.rename"):
            write_parts(odd, tmp_path / "out.zarr", prints={name: "1", "b": "2"})
        with pytest.raises(NameRefused, match=r"ds\.rename"):
            gm.write_cube(odd, tmp_path / "out.zarr")
        coordinate = make_cube().assign_coords({name: 1})
        with pytest.raises(NameRefused, match=r"ds\.rename"):
            gm.write_map(coordinate, model, tmp_path / "map.zarr", progress=False)
    assert content(tmp_path) == {"thesis/chapter.txt": b"years of work"}


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_names_that_differ_in_case_are_one_folder_on_some_systems(monkeypatch, system):
    check_names(["T", "t"])
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(NameRefused, match="differ in case only"):
        check_names(["T", "t"])


@pytest.mark.parametrize("name", ["B4:B3", "con", "NUL.txt", "lpt1", "dot.", "a?b"])
def test_names_that_windows_cannot_store(monkeypatch, name):
    check_names([name])
    monkeypatch.setattr(os, "name", "nt")
    try:
        with pytest.raises(NameRefused, match="Windows"):
            check_names([name])
    finally:
        monkeypatch.undo()  # pathlib reads os.name too


def test_paths_as_users_write_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expand("~/a.zarr") == str(tmp_path / "a.zarr")
    assert expand("a~b") == "a~b" and expand("s3://bucket/~x") == "s3://bucket/~x"
    for url in ("file:///data/a%20b", "file://localhost/data/a%20b", "file:/data/a b"):
        assert Path(expand(url)) == Path("/data/a b")
    assert (
        expand(Path("s3://bucket/cube.zarr")) == "s3://bucket/cube.zarr"
    )  # pathlib joins the slashes
    assert is_remote(Path("https://host/x")) and is_remote("simplecache::s3://b/x")
    assert not is_remote("file:///data/x") and not is_remote("C:/data") and not is_remote("a:b")
    with pytest.raises(GeomiamError, match="on the host 'server'"):
        expand("file://server/share/x")
    with pytest.raises(GeomiamError, match="home"):
        expand("~nobody-of-this-name/x")


def test_every_path_may_begin_with_a_tilde_or_be_a_file_url(home, model, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    url = (home / "cube.zarr").as_uri()
    xr.testing.assert_identical(gm.open_cube("~/cube.zarr").compute(), gm.open_cube(url).compute())
    assert gm.open_sites("~/sites.zarr").sizes["site"] == 64
    assert gm.load_model("~/model").id == gm.load_model((home / "model").as_uri()).id == model.id
    run("predict", "~/model", url, "--out", "~/map.zarr")
    run("sample", "~/cube.zarr", "~/records.csv", "--out", (home / "s.zarr").as_uri())
    run("info", "~/model")
    assert (home / "map.zarr").is_dir() and (home / "s.zarr").is_dir()


@pytest.mark.parametrize(
    "path", ["", "/", "a\0b", "x" * 300, "records.csv/map.zarr", "s3://bucket/c.zarr"]
)
def test_paths_that_cannot_be_written_are_refused_by_name(home, monkeypatch, path):
    monkeypatch.chdir(home)
    with pytest.raises(GeomiamError):
        gm.write_cube(make_cube(), path, overwrite=True)


def test_a_swap_that_fails_puts_the_old_output_back(tmp_path):
    gm.write_cube(make_cube(), tmp_path / "cube.zarr")
    before = content(tmp_path)
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "cube.zarr", tmp_path / "not there")
    assert content(tmp_path) == before
    (tmp_path / "link").symlink_to(tmp_path / "cube.zarr")
    remove(tmp_path / "link")
    assert content(tmp_path) == before and not (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask for files")
@pytest.mark.parametrize("mask", [0o027, 0o002])
def test_outputs_follow_the_umask(tmp_path, model, mask):
    before = os.umask(mask)
    try:
        out = tmp_path / "out"
        model.save(out / "model")
        gm.write_cube(make_cube(), out / "cube")
        gm.write_sites(make_sites(), out / "sites")
        gm.write_map(make_cube(), model, out / "map", progress=False)
        gm.write_map(make_cube(), model, out / "map.tif", progress=False)
        short = gm.TrainingConfig(epoch_steps=1, epochs=1, block="50 km")
        tiny = gm.NetworkConfig(width=8, heads=1, depth=1)
        gm.fit(make_sites(), network=tiny, training=short, checkpoint=out / "checkpoint")
    finally:
        os.umask(before)
    written = list(out.rglob("*"))
    assert {"model.safetensors", "state.safetensors", "map.tif"} <= {p.name for p in written}
    for path in written:
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


HIDDEN = """
import sys
import psutil  # has a separate part for each system; that of Linux imports resource
for name in ("resource", "fcntl"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import geomiam as gm, geomiam.maps.memory as memory
from test_outputs import make_cube
class NoProc:
    def __init__(self, *a): pass
    def read_text(self, *a, **k): raise FileNotFoundError("/proc")
folder = Path(sys.argv[1])
model, cube = gm.load_model(folder / "model"), make_cube().chunk(y=4)
def write(name):
    assert gm.plan_map(cube, model).base > 2**20
    written = gm.write_map(cube, model, folder / f"{name}.zarr", progress=False)
    gm.write_cube(cube, folder / f"{name}-cube.zarr")
    assert memory.peak_memory() > 2**20
    print(float(written.suitability.notnull().mean()))
memory.Path = NoProc
write("as-on-Windows")
memory.Path = Path
sys.modules["psutil"] = None
write("without-psutil")
"""


def test_maps_are_written_without_modules_that_other_systems_lack(home):
    command = [sys.executable, "-c", HIDDEN, str(home), str(Path(__file__).parent)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-2:] == ["1.0", "1.0"]
    assert [p.name for p in home.iterdir() if p.name.startswith(".")] == []


def test_the_lock_of_a_verb_is_the_lock_of_the_writers_that_it_calls(tmp_path):
    with output_lock(tmp_path / "cube.zarr"):
        gm.write_cube(make_cube(), tmp_path / "cube.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["cube.zarr"]


def test_names_from_files_stay_text_in_a_model_card():
    from geomiam.outputs.text import markdown_block, markdown_cell

    odd = "a|b\n# title <script>alert(1)</script> [x](http://y) `code`"
    assert "\n" not in markdown_cell(odd) and "<script>" not in markdown_cell(odd)
    assert markdown_cell("a|b") == r"a\|b" and markdown_cell("Ænys rosa") == "Ænys rosa"
    lines = markdown_block("text\n```\n# forged").splitlines()
    assert lines[0] == lines[-1] == "````"


def test_a_dollar_in_a_name_begins_no_formula(model):
    import io

    import matplotlib

    matplotlib.use("Agg")
    maps = gm.predict(make_cube(), model).assign_coords(species=[r"a $\frac$ b", "t"])
    figure = gm.plot.suitability(maps).figure
    figure.savefig(io.BytesIO(), format="png")  # matplotlib reads formulas when it draws
    assert figure.axes[0].get_title() == r"a \$\frac\$ b"
