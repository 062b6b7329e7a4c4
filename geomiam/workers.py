"""Messages between the workers of a dask cluster and the process that uses them, without importing distributed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geomiam.errors import NoWorkers, warn

PATIENCE = 60.0
"""Seconds without a worker before a warning, and between warnings."""
LOOKS = 6
"""Number of times in this period that the workers are counted."""


def active_client() -> Any:
    """Return the active client of dask.distributed, or None."""
    if "distributed" not in sys.modules:  # then there is no client
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def send_line(topic: str, line: str) -> None:
    """Send a line from a task on a worker to the scheduler; nothing elsewhere."""
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(topic, line)


def received_lines(topic: str) -> list[str]:
    """Return the lines that workers have sent, each once; those of a task arrive before its result."""
    client = active_client()
    events = () if client is None else client.get_events(topic)
    return list(dict.fromkeys(line for _, line in events))


@contextmanager
def warn_without_workers(client: Any) -> Iterator[None]:
    """Warn regularly while the cluster of a client has no worker: dask waits for one without an end.

    Jobs of a queue may never start, and all workers of an allocation may end before the work does.
    """
    if client is None:
        yield
        return
    end = threading.Event()
    threading.Thread(target=_watch, args=(client, end), daemon=True).start()
    try:
        yield
    finally:
        end.set()


def _watch(client: Any, end: threading.Event) -> None:
    """Count workers until the end, and warn each time that there was none for a period."""
    start = last = time.monotonic()
    while not end.wait(PATIENCE / LOOKS):
        try:
            workers = client.nthreads()
        except Exception:  # the client was closed: errors of many types
            return
        moment = time.monotonic()
        if workers:
            start = last = moment
        elif moment - last >= PATIENCE and not end.is_set():
            last = moment
            warn(
                f"no worker has been connected to the cluster at {client.scheduler.address} for {moment - start:.0f} s, "
                "and the work waits for one: start workers with cluster.scale(…) or 'dask worker', or, if "
                "their jobs are in a queue, see its state and their logs",
                NoWorkers,
            )
