"""Dask clusters of processes for tests, and what a worker does on purpose there: die, or log its tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.utils import get_mp_context

IMPORTS = ["distributed", "geomiam.maps.cluster", "geomiam.sources.build", "rioxarray"]
"""Modules that the server of forks imports once for all workers."""


@contextmanager
def forked() -> Iterator[None]:
    """Start workers inside as forks that share their imports, where the system can fork."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    with dask.config.set({"distributed.worker.multiprocessing-method": method}):
        context = get_mp_context()
        if method == "forkserver":
            context.set_forkserver_preload(IMPORTS)
        yield


@contextmanager
def process_cluster(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
    """Start worker processes with one thread each."""
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
    with forked():
        with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            yield cluster, client


class Log(WorkerPlugin):
    """Write the process of each finished task into a folder; the first process dies after some tasks.

    A task counts if its name starts with ``prefix``. The worker is killed before the scheduler receives
    the last result.
    """

    def __init__(self, folder: Path, prefix: str, *, dies_after: int = 0):
        self.folder, self.prefix, self.dies_after = str(folder), prefix, dies_after
        self.name = f"log-{prefix}"

    def setup(self, worker: Any) -> None:
        """Use another working directory than the client, as workers on other machines do."""
        os.chdir(os.sep)

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Log a task that has finished, or end this process."""
        name = key[0] if isinstance(key, tuple) else key
        if finish != "memory" or not str(name).startswith(self.prefix):
            return
        folder, process = Path(self.folder), str(os.getpid())
        with (folder / process).open("a") as file:
            file.write(f"{key}\n")
        tasks = (folder / process).read_text().count("\n")
        if tasks == self.dies_after and len(list(folder.iterdir())) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def processes(folder: Path) -> int:
    """Return the number of processes that a log has."""
    return len(list(Path(folder).iterdir()))


def wait_for_processes(block: np.ndarray, folder: str, count: int) -> np.ndarray:
    """Return a block; on a worker after half a second, or when a number of processes has tasks."""
    end = time.monotonic() + 0.5
    on_worker = multiprocessing.parent_process() is not None
    while on_worker and processes(Path(folder)) < count and time.monotonic() < end:
        time.sleep(0.01)
    return block
