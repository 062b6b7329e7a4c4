"""Maps in a repository of icechunk: atomic, resumed after a kill, with one writer, and equal to other maps."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import train_small
from helpers_cluster import process_cluster
from helpers_servers import object_store

import geomiam as gm
from geomiam.errors import (
    GridError,
    InputNotFound,
    OutputBusy,
    OutputExists,
    ResumeRefused,
    SettingError,
)
from geomiam.maps import job as jobs
from geomiam.maps import repository as module
from geomiam.maps.repository import MAIN
from geomiam.maps.write import make_map

icechunk = pytest.importorskip("icechunk", reason="needs pip install 'geomiam[icechunk]'")

OPTIONS = {"chunks": {"y": 4, "x": 5}, "progress": False}


@pytest.fixture(scope="module")
def small(sites) -> gm.Model:
    return train_small(sites, "group")


@pytest.fixture
def repository(tmp_path):
    return open_repository(tmp_path / "repository")


def open_repository(path: Path):
    return icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(path)))


def branches(repository) -> set[str]:
    return set(repository.list_branches())


def stop_after(patch, blocks: int, error: BaseException) -> None:
    """Let a write fail after some blocks."""
    answer, count = jobs.Job.__call__, []

    def fail_late(job, part, index, session=None):
        count.append(index)
        if len(count) > blocks:
            raise error
        return answer(job, part, index, session)

    patch.setattr(jobs.Job, "__call__", fail_late)


def messages(repository, branch: str = MAIN) -> list[str]:
    return [snapshot.message for snapshot in repository.ancestry(branch=branch)]


def test_a_map_in_a_repository_equals_one_in_a_folder(small, cube, repository, tmp_path):
    maps = gm.write_map(cube, small, repository, shapley=True, **OPTIONS)
    folder = gm.write_map(cube, small, tmp_path / "map.zarr", shapley=True, **OPTIONS)
    xr.testing.assert_identical(maps, folder)
    assert all(dask.is_dask_collection(maps[n]) for n in ("suitability", "shapley"))
    assert branches(repository) == {MAIN}
    assert messages(repository) == [
        "complete the map",
        "blocks written: 9",
        "begin a map",
        "Repository initialized",
    ]
    store = repository.readonly_session(MAIN).store
    assert zarr.open_group(store, mode="r").attrs["geomiam_status"] == "complete"
    xr.testing.assert_identical(gm.open_cube(store), gm.open_cube(tmp_path / "map.zarr"))


def test_readers_see_only_complete_maps(small, cube, repository, monkeypatch):
    first = gm.write_map(cube, small, repository, **OPTIONS)
    with pytest.raises(OutputExists, match="exists; pass overwrite=True"):
        gm.write_map(cube, small, repository, **OPTIONS)
    old = first.suitability.values
    options = gm.MapOptions(scale="logit")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, OSError("the disk is full"))
        with pytest.raises(OSError, match="the disk is full"):
            gm.write_map(cube, small, repository, options=options, overwrite=True, **OPTIONS)
    assert len(branches(repository)) == 2
    visible_map = gm.open_cube(repository.readonly_session(MAIN).store)
    np.testing.assert_array_equal(visible_map.suitability, old)
    with pytest.raises(ResumeRefused, match=r"unfinished map at branch 'geomiam-building-\w+' of"):
        gm.write_map(cube, small, repository, overwrite=True, **OPTIONS)
    second = gm.write_map(cube, small, repository, options=options, overwrite=True, **OPTIONS)
    assert not np.allclose(second.suitability, old, equal_nan=True)
    np.testing.assert_array_equal(first.suitability, old)  # a snapshot stays as it is


def test_a_stopped_map_keeps_its_complete_blocks(small, cube, repository, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        stop_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            gm.write_map(cube, small, repository, **OPTIONS)
    report = make_map(cube, small, repository, **OPTIONS)
    # the last complete block may not have been returned when the run is interrupted
    assert report.blocks in (4, 5) and report.of == 9
    folder = gm.write_map(cube, small, tmp_path / "map.zarr", **OPTIONS)
    maps = gm.open_cube(repository.readonly_session(MAIN).store)
    xr.testing.assert_identical(maps, gm.open_cube(tmp_path / "map.zarr"))
    assert report.cells == int(folder["suitability"].notnull().any("species").sum())


KILLED = """
import os, signal, sys
sys.path[:0] = {paths}
import geomiam as gm, icechunk
from geomiam.maps import job, repository
repository.SECONDS = 0.0
answer, count = job.Job.__call__, []

def killed(self, part, index, session=None):
    count.append(index)
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(self, part, index, session)

job.Job.__call__ = killed
storage = icechunk.local_filesystem_storage({repository!r})
import dask
dask.config.set(scheduler="synchronous")
gm.write_map(gm.open_cube({cube!r}), gm.load_model({model!r}), icechunk.Repository.open(storage),
             chunks={{"y": 4, "x": 5}}, progress=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_map_goes_on_and_ends_equal(small, cube, repository, tmp_path):
    gm.write_cube(cube, tmp_path / "cube.zarr")
    small.save(tmp_path / "model")
    names = {"repository": "repository", "cube": "cube.zarr", "model": "model"}
    paths = {k: str(tmp_path / v) for k, v in names.items()}
    code = KILLED.format(paths=sys.path, **paths)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == -9, process.stderr[-2000:]
    stored_cube = gm.open_cube(tmp_path / "cube.zarr")
    report = make_map(stored_cube, small, repository, **OPTIONS)
    assert 5 <= report.blocks < 9
    gm.write_map(stored_cube, small, tmp_path / "map.zarr", **OPTIONS)
    maps = gm.open_cube(repository.readonly_session(MAIN).store)
    xr.testing.assert_identical(maps, gm.open_cube(tmp_path / "map.zarr"))


def test_killed_before_the_last_step_nothing_is_computed_again(
    small, cube, repository, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(module.RepositoryPlace, "_move", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            gm.write_map(cube, small, repository, **OPTIONS)
    with pytest.raises(InputNotFound, match="no Zarr group at"):
        gm.open_cube(repository.readonly_session(MAIN).store)
    assert make_map(cube, small, repository, **OPTIONS).blocks == 0
    assert branches(repository) == {MAIN}


def complete_map(cube, model, repository):
    gm.write_map(cube, model, repository, options=gm.MapOptions(resume=False), **OPTIONS)


def commit_only(cube, model, repository):
    (branch,) = branches(repository) - {MAIN}
    for _ in range(20):  # the map is committed at the same time
        session = repository.writable_session(branch)
        zarr.open_group(session.store).attrs["title"] = "another"
        with suppress(icechunk.ConflictError):
            session.commit("another writer")
            return


@pytest.mark.parametrize("company", [complete_map, commit_only])
def test_a_second_writer_is_reported(small, cube, repository, monkeypatch, company):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    answer, count = jobs.Job.__call__, []

    def with_company(job, part, index, session=None):
        count.append(index)
        if len(count) == 4:
            company(cube, small, repository)
        return answer(job, part, index, session)

    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(jobs.Job, "__call__", with_company)
        with pytest.raises(OutputBusy, match="another process has written to branch 'geomiam-buil"):
            gm.write_map(cube, small, repository, **OPTIONS)
    gm.write_map(cube, small, repository, overwrite=True, **OPTIONS)
    maps = gm.open_cube(repository.readonly_session(MAIN).store)
    np.testing.assert_allclose(maps.suitability, gm.predict(cube, small).suitability, atol=2e-6)


def test_two_writers_that_begin_at_once(small, cube, repository, monkeypatch):
    list_branches = module.RepositoryPlace._branches

    def late(place):
        names = list_branches(place)
        with suppress(icechunk.IcechunkError):
            repository.create_branch(place.branch, place.snapshot)
        return names

    monkeypatch.setattr(module.RepositoryPlace, "_branches", late)
    options = gm.MapOptions(resume=False)
    with pytest.raises(OutputBusy, match="another process has written to branch 'geomiam-buil"):
        gm.write_map(cube, small, repository, options=options, **OPTIONS)


def test_changes_of_the_main_branch_are_never_lost(small, cube, repository, monkeypatch):
    move = module.RepositoryPlace._move

    def late(*arguments):
        session = repository.writable_session(MAIN)
        zarr.create_group(session.store).attrs["title"] = "another"
        session.commit("another writer")
        move(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.RepositoryPlace, "_move", late)
        with pytest.raises(OutputBusy, match="another process has written to branch 'main' of"):
            gm.write_map(cube, small, repository, **OPTIONS)
    assert messages(repository)[0] == "another writer"
    with pytest.raises(OutputExists, match="holds other data than a map of geomiam"):
        gm.write_map(cube, small, repository, **OPTIONS)


def test_an_unfinished_map_of_an_earlier_main_branch_is_reported(
    small, cube, repository, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, OSError("the disk is full"))
        with pytest.raises(OSError, match="the disk is full"):
            gm.write_map(cube, small, repository, **OPTIONS)
    session = repository.writable_session(MAIN)
    zarr.create_group(session.store).attrs["geomiam_status"] = "complete"
    session.commit("a map of another writer")
    with pytest.raises(OutputBusy, match=r"has changed since the map on branch 'geomiam-building-"):
        gm.write_map(cube, small, repository, overwrite=True, **OPTIONS)
    options = gm.MapOptions(resume=False)
    gm.write_map(cube, small, repository, overwrite=True, options=options, **OPTIONS)
    assert branches(repository) == {MAIN}


@pytest.mark.slow
def test_workers_of_a_cluster_write_to_a_repository(small, cube, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    gm.write_cube(cube, tmp_path / "cube.zarr")
    lazy = gm.open_cube(tmp_path / "cube.zarr")
    with process_cluster(2) as (_, client):
        maps = gm.write_map(lazy, small, repository, client=client, **OPTIONS)
    np.testing.assert_allclose(maps.suitability, gm.predict(cube, small).suitability, atol=2e-6)
    assert messages(repository).count("blocks written: 1") == 9


@pytest.mark.slow
def test_two_writers_in_an_object_store(small, cube, monkeypatch):
    """Against a local server that speaks S3: one completes the map, the other is reported or resumes."""
    monkeypatch.setattr(module, "SECONDS", 0.0)
    keys = {"access_key_id": "a", "secret_access_key": "a", "region": "us-east-1"}
    address = {"allow_http": True, "force_path_style": True}
    place = {"bucket": "maps", "prefix": "oak"} | keys | address

    with object_store(monkeypatch, "maps") as url:
        storage = icechunk.s3_storage(**place, endpoint_url=url)

        def write(_):
            try:
                return make_map(cube, small, icechunk.Repository.open(storage), **OPTIONS)
            except OutputBusy as error:
                return error

        repository = icechunk.Repository.create(storage)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(write, range(2)))
        maps = gm.open_cube(repository.readonly_session(MAIN).store).load()
    assert sum(isinstance(r, OutputBusy) for r in results) <= 1
    np.testing.assert_allclose(maps.suitability, gm.predict(cube, small).suitability, atol=2e-6)


def test_a_root_that_is_an_array_is_other_data(small, cube, repository):
    session = repository.writable_session(MAIN)
    zarr.create_array(session.store, shape=(3,), dtype="f4")
    session.commit("an array")
    with pytest.raises(OutputExists, match="holds other data than a map of geomiam"):
        gm.write_map(cube, small, repository, overwrite=True, **OPTIONS)


def test_a_repository_in_memory_is_refused_and_connections_are_not_shown(small, cube):
    in_memory = icechunk.Repository.create(icechunk.in_memory_storage())
    with pytest.raises(SettingError, match=r"is in memory.*local_filesystem_storage\(path\)"):
        gm.write_map(cube, small, in_memory, **OPTIONS)
    storage = icechunk.s3_storage(
        bucket="maps", prefix="oak", region="eu-west-1", endpoint_url="http://user:secret@host"
    )
    assert module.CONFIG.sub(")", f"{storage}") == "S3Storage(bucket=maps, prefix=oak)"


def test_a_repository_or_session_in_place_of_its_store(repository):
    with pytest.raises(GridError, match=r"gm\.open_cube\(repository\.readonly_session"):
        gm.open_cube(repository)
    with pytest.raises(GridError, match=r"gm\.open_cube\(session\.store\)"):
        gm.open_cube(repository.readonly_session(MAIN))


def test_other_objects_are_refused(small, cube):
    with pytest.raises(SettingError, match=r"repository of icechunk, found dict; open one with"):
        gm.write_map(cube, small, {}, **OPTIONS)
