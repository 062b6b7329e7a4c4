"""Maps that are stopped and go on: equal to undisturbed ones, nothing made twice, on any scheduler."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from conftest import make_cube, make_sites, train_small
from helpers_cluster import process_cluster
from helpers_servers import object_store

import geomiam as gm
from geomiam.maps import job as jobs
from geomiam.maps.store import Place
from geomiam.maps.write import make_map

CHUNKS = {"y": 4, "x": 5}


@pytest.fixture(scope="module")
def small(sites) -> gm.Model:
    """One model is enough here: what is written does not depend on the fusion."""
    return train_small(sites, "group")


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def stop_after(monkeypatch, blocks: int) -> list[tuple[int, ...]]:
    """Let a write fail after some blocks, as a full disk would; returns what is made."""
    written: list[tuple[int, ...]] = []
    answer = jobs.Job.__call__

    def fail_late(job, part, index, session=None):
        if len(written) >= blocks:
            raise OSError("the disk is full")
        written.append(index)
        return answer(job, part, index, session)

    monkeypatch.setattr(jobs.Job, "__call__", fail_late)
    return written


@pytest.fixture
def stopped_path(small, cube, tmp_path, monkeypatch):
    """A map that was stopped after three of its nine blocks."""
    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        written = stop_after(patch, 3)
        with pytest.raises(OSError, match="the disk is full"):
            gm.write_map(
                cube,
                small,
                tmp_path / "map.zarr",
                chunks=CHUNKS,
                progress=False,
            )
    assert len(written) == 3
    assert not (tmp_path / "map.zarr").exists()
    return tmp_path / "map.zarr"


def test_a_stopped_map_goes_on_and_ends_equal(small, cube, stopped_path, tmp_path):
    report = make_map(cube, small, stopped_path, chunks=CHUNKS, progress=False)
    assert (report.blocks, report.of) == (6, 9)
    gm.write_map(cube, small, tmp_path / "whole.zarr", chunks=CHUNKS, progress=False)
    assert content(stopped_path) == content(tmp_path / "whole.zarr")
    assert {p.name for p in tmp_path.iterdir()} == {"map.zarr", "whole.zarr"}
    full_map = gm.predict(cube, small)["suitability"]
    assert report.cells == int(full_map.notnull().any("species").sum())


def test_the_graph_is_built_once_for_blocks_of_equal_shape(small, cube, tmp_path, monkeypatch):
    """Nine blocks: those at the right edge are narrower. The first graph is that of the template."""
    compute, shapes = jobs.Job.compute, []

    def counted(job, part):
        shapes.append((part.sizes["y"], part.sizes["x"]))
        return compute(job, part)

    monkeypatch.setattr(jobs.Job, "compute", counted)
    with dask.config.set(scheduler="synchronous"):
        gm.write_map(cube, small, tmp_path / "map.zarr", chunks=CHUNKS, progress=False)
    assert shapes == [(1, 1), (4, 5), (4, 4)]


def test_leftovers_of_a_torn_write_are_swept(small, cube, stopped_path):
    torn = Path(Place(str(stopped_path)).growing) / "suitability" / "c" / "0" / "0.abc.partial"
    torn.write_bytes(b"torn")
    gm.write_map(cube, small, stopped_path, chunks=CHUNKS, progress=False)
    assert not [name for name in content(stopped_path) if name.endswith(".partial")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [("model", "model was .*, is"), ("values", "input was"), ("scale", "settings was .*logit")],
)
def test_another_origin_is_refused_with_what_differs(
    small, cube, sites, stopped_path, change, reason
):
    model = train_small(sites, "token") if change == "model" else small
    data = cube.assign(bio1=cube["bio1"] + 1) if change == "values" else cube
    options = gm.MapOptions(scale="logit" if change == "scale" else "probability")
    with pytest.raises(gm.errors.ResumeRefused, match=reason) as refusal:
        gm.write_map(data, model, stopped_path, chunks=CHUNKS, options=options, progress=False)
    assert "resume=False" in str(refusal.value)
    restart = replace(options, resume=False)
    assert (
        make_map(data, model, stopped_path, chunks=CHUNKS, options=restart, progress=False).blocks
        == 9
    )


def test_killed_between_the_last_steps_nothing_is_made_again(small, cube, tmp_path, monkeypatch):
    """All blocks are there; the marks are removed, but the map has not got its name."""
    path = tmp_path / "map.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Place, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            gm.write_map(cube, small, path, chunks=CHUNKS, progress=False)
    assert not path.exists()
    report = make_map(cube, small, path, chunks=CHUNKS, progress=False)
    assert report.blocks == 0
    assert xr.open_zarr(path, consolidated=False).attrs["geomiam_status"] == "complete"


def test_blocks_without_data_count_as_done(small, cube, tmp_path, monkeypatch):
    """They leave no chunk on disk, so chunks do not show which parts are complete."""
    empty = cube.where(cube["y"] > 49)
    path = tmp_path / "map.zarr"
    gm.write_map(empty, small, path, chunks=CHUNKS, progress=False)
    assert len(list((path / "suitability" / "c").rglob("*/*/*"))) < 9
    np.testing.assert_allclose(
        xr.open_zarr(path, consolidated=False)["suitability"],
        gm.predict(empty, small)["suitability"],
        atol=2e-6,
    )


@pytest.mark.slow
def test_serial_threads_and_two_workers_write_the_same(small, cube, tmp_path):
    map_options = {"chunks": CHUNKS, "progress": False, "shapley": True}
    with dask.config.set(scheduler="synchronous"):
        gm.write_map(cube, small, tmp_path / "serial.zarr", **map_options)
    with dask.config.set(scheduler="threads", num_workers=3):
        gm.write_map(cube, small, tmp_path / "threads.zarr", **map_options)
    with process_cluster(2) as (_, client):
        lazy = cube.chunk(y=5)  # chunks of the cube that are not those of the map
        map_options["client"] = client
        gm.write_map(lazy, small, tmp_path / "workers.zarr", **map_options)
        by_workers = gm.predict(cube.chunk(y=6, x=7), small).compute()
    expected = gm.predict(cube, small)
    np.testing.assert_allclose(by_workers["suitability"], expected["suitability"], atol=2e-6)
    serial = content(tmp_path / "serial.zarr")
    assert content(tmp_path / "threads.zarr") == serial
    assert content(tmp_path / "workers.zarr") == serial


@pytest.mark.slow
def test_the_model_goes_once_to_each_worker(small, cube, tmp_path, monkeypatch):
    from distributed import Client, LocalCluster

    from geomiam.maps.cluster import JOBS

    jobs_sent = []
    reduce = object.__reduce_ex__

    def counted(model, protocol):
        jobs_sent.append(1)
        return reduce(model, protocol)

    monkeypatch.setattr(gm.Model, "__reduce_ex__", counted, raising=False)
    kind = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=False, **kind) as cluster, Client(cluster) as client:
        chunks = {"y": 3, "x": 5}
        gm.write_map(
            cube, small, tmp_path / "map.zarr", chunks=chunks, client=client, progress=False
        )
        assert not JOBS  # the model is taken back
    assert 1 <= len(jobs_sent) <= 2  # 12 blocks


def test_a_map_in_an_object_store_is_complete_when_it_is_marked_complete(small, cube, monkeypatch):
    """No rename there: the map grows in its place, and its status is set last."""
    url = f"memory://maps/{os.getpid()}/map.zarr"
    map_options = {"chunks": CHUNKS, "progress": False}
    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        stop_after(patch, 3)
        with pytest.raises(OSError, match="the disk is full"):
            gm.write_map(cube, small, url, **map_options)
    assert xr.open_zarr(url, consolidated=False).attrs["geomiam_status"] == "building"
    assert make_map(cube, small, url, **map_options).blocks == 6
    remote = xr.open_zarr(url, consolidated=False)
    assert remote.attrs["geomiam_status"] == "complete"
    assert "done" not in remote
    np.testing.assert_allclose(
        remote["suitability"], gm.predict(cube, small)["suitability"], atol=2e-6
    )
    with pytest.raises(gm.errors.OutputExists, match="overwrite=True"):
        gm.write_map(cube, small, url, **map_options)
    assert make_map(cube, small, url, overwrite=True, **map_options).blocks == 9


def test_a_second_writer_is_refused_and_harms_nothing(small, cube, tmp_path, monkeypatch):
    answer, refusal = jobs.Job.__call__, []

    def with_company(job, part, index, session=None):
        if not refusal:
            options = gm.MapOptions(resume=False)
            map_options = {
                "chunks": CHUNKS,
                "options": options,
                "progress": False,
                "overwrite": True,
            }
            with pytest.raises(
                gm.errors.ResumeRefused, match="another process or thread writes"
            ) as reason:
                gm.write_map(cube, small, tmp_path / "map.zarr", **map_options)
            refusal.append(reason)
        return answer(job, part, index, session)

    monkeypatch.setattr(jobs.Job, "__call__", with_company)
    written = gm.write_map(cube, small, tmp_path / "map.zarr", chunks=CHUNKS, progress=False)
    assert refusal
    np.testing.assert_allclose(
        written["suitability"], gm.predict(cube, small)["suitability"], atol=2e-6
    )
    assert [p.name for p in tmp_path.iterdir()] == ["map.zarr"]


def test_a_map_on_s3(small, cube, monkeypatch):
    """Against a local server that speaks S3."""
    with object_store(monkeypatch, "maps"):
        written = gm.write_map(cube, small, "s3://maps/map.zarr", chunks=CHUNKS, progress=False)
        remote = written["suitability"].values
    np.testing.assert_allclose(remote, gm.predict(cube, small)["suitability"], atol=2e-6)


def test_data_that_are_no_map_are_not_replaced_in_an_object_store(small, cube):
    url = f"memory://maps/{os.getpid()}/other.zarr"
    xr.Dataset({"a": ("i", [1, 2])}).to_zarr(url, zarr_format=3, consolidated=False)
    with pytest.raises(gm.errors.OutputExists, match="holds other data than a map of geomiam"):
        gm.write_map(cube, small, url, overwrite=True, progress=False)


def test_the_plan_reports_blocks_and_memory_and_writes_nothing(small, cube, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = gm.plan_map(cube, small, chunks=CHUNKS, shapley=True)
    assert plan.blocks == 9 and plan.cells == 12 * 14
    layers = 3 * (1 + 6) + 1  # per species suitability and a value per group; and `outside`
    assert plan.bytes_of_map == 12 * 14 * (4 * layers + 1)
    assert 0.5 < plan.share <= 1
    assert plan.seconds == pytest.approx(plan.cells * plan.share / plan.rate / plan.workers)
    assert "9 blocks of 4 × 5" in str(plan)
    assert list(tmp_path.iterdir()) == []


def test_a_block_over_the_limit_is_refused_with_numbers_and_a_call(small, cube, tmp_path):
    for call in (
        lambda: gm.plan_map(cube, small, options=gm.MapOptions(memory_limit="10kB")),
        lambda: gm.write_map(
            cube, small, tmp_path / "map.zarr", options=gm.MapOptions(memory_limit="10kB")
        ),
    ):
        with pytest.raises(gm.errors.MemoryRefused, match=r"168 cells.*chunks=dict\(y="):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_species_and_groups_share_a_chunk_only_while_it_is_small(
    small, cube, tmp_path, monkeypatch
):
    from geomiam.maps import store as mapstore

    monkeypatch.setattr(mapstore, "LAYERS", 4 * 20 * 6)  # six layers of 4 × 5 cells

    def write(name: str, chunks: dict[str, int]) -> xr.Dataset:
        path = tmp_path / name
        gm.write_map(cube, small, path, chunks=chunks, shapley=True, progress=False)
        return xr.open_zarr(path, consolidated=False)

    written = write("a.zarr", CHUNKS)
    assert written["shapley"].encoding["chunks"] == (2, 3, 4, 5)
    assert written["suitability"].encoding["chunks"] == (3, 4, 5)
    again = write("b.zarr", {**CHUNKS, "species": 1, "group": 1})
    assert again["shapley"].encoding["chunks"] == (1, 1, 4, 5)
    xr.testing.assert_equal(written.load(), again.load())


def test_sites_can_be_written_too(small, tmp_path):
    sites = make_sites(make_cube())
    written = gm.write_map(
        sites,
        small,
        tmp_path / "sites.zarr",
        chunks={"site": 50},
        progress=False,
    )
    np.testing.assert_allclose(
        written["suitability"], gm.predict(sites, small)["suitability"], atol=2e-6
    )


class _Client:
    """A client whose broadcasts fail a number of times, as when workers die."""

    def __init__(self, failures: int):
        self.failures, self.calls = failures, 0

    def register_plugin(self, plugin):
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError("Stream is closed")


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_workers_that_die_while_they_receive_the_model_do_not_end_a_map(failures):
    from geomiam.maps.cluster import _register

    client = _Client(failures)
    _register(client, deliver=None)
    assert client.calls == failures + 1


def test_a_cluster_that_is_gone_is_an_error():
    from geomiam.maps.cluster import _register

    with pytest.raises(OSError, match="Stream is closed"):
        _register(_Client(9), deliver=None)
