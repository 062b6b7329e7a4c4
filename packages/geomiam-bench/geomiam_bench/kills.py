"""Kill the writers of maps at random times: every resumed map must equal the undisturbed one.

    geomiam-bench kills --kills 100 --json out/bench/kills.json

Writers are separate processes that get SIGKILL after a random time, from the first step to the
last rename; the next one resumes. Workers of a dask cluster get it under a writer that lives on.
A map that completes is compared file by file, byte by byte. What a block reads is logged as it is read, so it is
counted which blocks were made more often than once, and which of these had been marked as done before.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import typer
import xarray as xr

from geomiam.maps.job import DONE
from geomiam.maps.store import Place
from geomiam.maps.write import make_map
from geomiam_bench.options import Json
from geomiam_bench.results import as_text, write_json
from geomiam_bench.shapley import make

CHUNK, ROWS, COLUMNS = 24, 4, 5
THREADS = 2
KILLS_PER_MAP = 5
"""Most kills of workers while one map is written."""
PATIENT = {  # by default, dask gives up on a block or a worker that is killed again and again
    "distributed.scheduler.allowed-failures": 20,
    "distributed.deploy.lost-worker-timeout": "1h",
}


def values(block: np.ndarray, log: str = "", number: int = 0, block_info=None) -> np.ndarray:
    """Random numbers of a chunk; every third chunk is sea. Reading for a block is logged."""
    at = block_info[None]["chunk-location"]
    if number == 0 and threading.current_thread() is not threading.main_thread():
        with open(log, "a") as file:  # one short line is appended as a whole, also by two processes
            file.write(f"{at[0]},{at[1]}\n")
    rng = np.random.default_rng([*at, number])
    gaps = rng.random(block.shape) < 0.3
    return np.where(gaps | (sum(at) % 3 == 0), np.nan, rng.normal(size=block.shape)).astype("f4")


def make_cube(names: list[str], log: Path) -> xr.Dataset:
    """Return a lazy cube of ROWS × COLUMNS chunks."""
    zeros = da.zeros((ROWS * CHUNK, COLUMNS * CHUNK), chunks=CHUNK, dtype="f4")
    layers = {
        n: (
            ("y", "x"),
            da.map_blocks(values, zeros, log=str(log), number=i, dtype="f4", meta=zeros._meta),
        )
        for i, n in enumerate(names)
    }
    place = {"y": 50 - 0.01 * np.arange(zeros.shape[0]), "x": 5 + 0.01 * np.arange(zeros.shape[1])}
    return xr.Dataset(layers, coords=place).odc.assign_crs("EPSG:4326")


def no_counts() -> dict[str, int]:
    """Return the counts of a trial before its first kill."""
    return dict.fromkeys(("kills", "maps", "unequal", "blocks", "again", "needless"), 0)


class Trial:
    """One folder: a cube, a model, the undisturbed map, and counts."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.rng = folder, random.Random(seed)
        self.log, self.target = folder / "log.txt", folder / "map.zarr"
        self.model, _ = make("group", groups=4, tokens=8, width=32, species=2)
        self.cube = make_cube(list(self.model.schema.variables), self.log)
        self.found = no_counts()

    def write(self, path: Path) -> None:
        """Write or resume a map in this process."""
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            make_map(self.cube, self.model, path, shapley=True, progress=False)

    def child(self, path: Path) -> int:
        """Write or resume a map in a separate process."""
        if child := os.fork():
            return child
        try:
            self.write(path)
        except BaseException as error:
            print(f"the writer failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def undisturbed(self) -> float:
        """Write the map to compare with; seconds."""
        start = time.monotonic()
        _, status = os.waitpid(self.child(self.folder / "reference.zarr"), 0)
        assert status == 0, "the undisturbed map failed"
        self.log.unlink()
        return time.monotonic() - start

    def disturbed(self, kills: int, seconds: float) -> None:
        """Kill writers until there were enough kills; what was begun is completed."""
        block_counts: Counter[str] = Counter()
        complete = True
        while self.found["kills"] < kills or not complete:
            complete_blocks, child = self.marked(), self.child(self.target)
            patience = self.rng.uniform(0, seconds) if self.found["kills"] < kills else 1e9
            self.found["kills"] += wait_or_kill(child, patience)
            read = Counter(self.read())
            self.found["needless"] += sum(read[i] for i in complete_blocks)
            block_counts += read
            if complete := self.target.exists():  # also if killed after the last rename
                self.compare(block_counts)
                block_counts.clear()

    def marked(self) -> set[str]:
        """Blocks that are marked as done in the unfinished map."""
        place = Place(str(self.target))
        path = Path(place.growing) / DONE / "c"
        return {f"{p.parent.name},{p.name}" for p in path.glob("*/*") if p.name.isdigit()}

    def read(self) -> list[str]:
        """Blocks that were begun since the last call."""
        lines = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def compare(self, block_counts: Counter[str]) -> None:
        """Compare a complete map with the undisturbed one, count, and remove it."""
        self.found["maps"] += 1
        self.found["unequal"] += content(self.target) != content(self.folder / "reference.zarr")
        self.found["blocks"] += ROWS * COLUMNS
        self.found["again"] += block_counts.total() - ROWS * COLUMNS
        shutil.rmtree(self.target)

    def workers(self, kills: int) -> None:
        """Kill workers of a cluster under a writer that lives on."""
        from distributed import Client, LocalCluster

        kill_count = 0
        with (
            dask.config.set(PATIENT),
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            while kill_count < kills:
                map_finished = threading.Event()
                limit = min(kills - kill_count, KILLS_PER_MAP)
                killer = Killer(cluster, map_finished, self.rng, limit=limit)
                killer.start()
                make_map(
                    self.cube,
                    self.model,
                    self.target,
                    shapley=True,
                    client=client,
                    progress=False,
                )
                map_finished.set()
                killer.join()
                kill_count += killer.kills
                self.compare(Counter(self.read()))
        self.found["kills"] += kill_count


class Killer(threading.Thread):
    """Sends SIGKILL to a random worker at random times, one at a time, at most ``limit`` times."""

    def __init__(self, cluster, map_finished: threading.Event, rng: random.Random, *, limit: int):
        super().__init__(daemon=True)
        self.cluster, self.finished, self.rng, self.kills = cluster, map_finished, rng, 0
        self.limit = limit

    def run(self) -> None:
        """Kill until the map is finished or there were enough kills.

        Without the limit no map ends on a busy machine, where workers start more slowly than they are killed.
        """
        while self.kills < self.limit and not self.finished.wait(self.rng.uniform(0.2, 3)):
            nannies = (
                self.cluster.workers.values()
            )  # they give up on a worker that dies at its start
            pids = [n.pid for n in nannies if n.pid and n.status.name == "running"]
            if pids and not self.finished.is_set():
                os.kill(self.rng.choice(pids), signal.SIGKILL)
                self.kills += 1


def wait_or_kill(child: int, seconds: float) -> bool:
    """Let a process run for a while; return whether it had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process_id, status = os.waitpid(child, os.WNOHANG)
        if process_id:
            assert status == 0, "a writer failed"
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def content(path: Path) -> dict[str, bytes]:
    """Every file of a store, hidden ones too."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def run(kills: int, worker_kills: int, seed: int) -> dict:
    """Return what was found, of writers and of workers."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), seed)
        trial.disturbed(kills, seconds=trial.undisturbed())
        of_writers, trial.found = trial.found, no_counts()
        if worker_kills:
            trial.workers(worker_kills)
        return {"writer": of_writers, "worker": trial.found}


def main(
    kills: Annotated[int, typer.Option(help="Kills of writers.")] = 80,
    worker_kills: Annotated[int, typer.Option(help="Kills of workers.")] = 20,
    seed: int = 0,
    out: Json = Path("out/bench/kills.json"),
) -> None:
    """Kill writers of maps at random times, and compare every resumed map byte for byte."""
    start = time.monotonic()
    results = {**run(kills, worker_kills, seed), "seed": seed}
    results["seconds"] = round(time.monotonic() - start)
    write_json(out, results)
    print(as_text(results))
