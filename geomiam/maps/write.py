"""Maps on disk: predictions and explanations as one CF-compliant Zarr store, block by block."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.store.store import open_zarr
from geomiam.errors import MissingModality
from geomiam.inference.allocator import keep_freed_memory
from geomiam.inference.cells import torch_threads
from geomiam.inference.inputs import Data, as_data
from geomiam.inference.required import warn_of_few
from geomiam.maps.geotiff import check_grid, is_geotiff, open_geotiff, write_geotiff
from geomiam.maps.job import Index, Job, Told
from geomiam.maps.memory import peak_memory
from geomiam.maps.plan import check_memory, places
from geomiam.maps.store import Place, template
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.outputs.atomic import atomic_path, remove
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import GEOTIFF
from geomiam.outputs.paths import expand
from geomiam.progress import log, progress_bar, with_progress
from geomiam.tokens.select import visible_tokens


@dataclass(frozen=True)
class MapReport:
    """What was done for a map."""

    path: str
    cells: int
    """Cells of the map that have an answer."""
    species: int
    blocks: int
    """Blocks made in this run; the others were there."""
    of: int
    """Blocks of the map."""
    worked: int
    """Cells, with or without data, of the blocks made in this run."""
    seconds: float
    peak: int
    """Most bytes that a process which made blocks has held."""

    def __str__(self) -> str:
        from dask.utils import format_bytes, format_time

        return (
            f"{self.cells:,} cells answered for {self.species:,} species; {self.blocks:,} of {self.of:,} blocks made now, "
            f"{self.worked / max(self.seconds, 1e-9):,.0f} cells/s, peak {format_bytes(self.peak)} "
            f"per process, {format_time(self.seconds)} → {self.path}"
        )


def write_map(
    ds: Data,
    model: Model | str | Path,
    path: str | Path,
    *,
    shapley: bool = False,
    resume: bool = True,
    client: Any = None,
    chunks: Mapping[str, int] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> xr.Dataset:
    """Predict a cube into a Zarr store, block by block, and open it.

    A block is a chunk in place of the store. It is read, answered, written and marked as done, so
    memory does not grow with the map, and a map that was stopped is continued. On a local
    disk the map grows in a hidden sibling and takes its name when it is complete; in an object
    store it grows in its place. In both, the attribute ``geomiam_status`` becomes ``"complete"``.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray or list
        Cube or sites, as for :func:`geomiam.predict`.
    model : Model or path
    path : str or pathlib.Path
        Zarr store to write: a local path, or the URL of an object store (``s3://…``, by fsspec). A
        name that ends in ``.tif`` is a GeoTIFF instead: one band per species with its suitability and,
        with ``shapley``, one per species and group; local only.
    shapley : bool
        Explain as well.
    resume : bool
        Go on with an unfinished map at this path; False throws it away.
    client : distributed.Client, optional
        Where blocks run; default the active client, else as many threads as dask would take.
    chunks : mapping of str to int, optional
        Chunks of the map; those of ``y`` and ``x`` (or ``latitude`` and ``longitude``: either
        pair of names does) are the blocks. Default: the cube's chunks, and
        of species and groups as many as fit 4 MiB.
    overwrite : bool
        Replace a complete map; on a local disk it stays until the new one is complete.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.
    **options
        Of :func:`geomiam.predict`, or of :func:`geomiam.shapley`.

    Returns
    -------
    xarray.Dataset
        The stored map, lazily opened.

    Raises
    ------
    OutputExists
        If a complete map is at ``path`` and ``overwrite`` is False.
    OutputRefused
        If ``path`` lies in another store, or anything but a map that geomiam wrote is there.
    OutputBusy
        If another writer is at work there.
    ResumeRefused
        If an unfinished map there was begun with another model, input or settings.
    GridError
        If ``chunks`` name a dim that the map does not have.
    NameRefused
        If a name cannot be a folder of the store.
    MemoryRefused
        If a block would need more than ``memory_limit``.

    Warns
    -----
    OutsideTrainingRange
        Before the start, where predictors lie outside the training range in more than a fifth of
        the cells of a few blocks. The layer ``outside_range`` has the share for every cell.
    """
    what: dict[str, Any] = {"shapley": shapley, "chunks": chunks, **options}
    how: dict[str, Any] = {"resume": resume, "client": client, "overwrite": overwrite}
    make_map(ds, model, path, progress=progress, **how, **what)
    return open_geotiff(expand(path)) if is_geotiff(path) else open_zarr(path)


@with_progress
def make_map(
    ds: Data,
    model: Model | str | Path,
    path: str | Path,
    *,
    shapley: bool = False,
    resume: bool = True,
    client: Any = None,
    chunks: Mapping[str, int] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    memory_limit: int | str | None = None,
    inputs: Sequence[str | Path] = (),
    **options: Any,
) -> MapReport:
    """Do the work of :func:`write_map`, and report it; ``inputs`` are paths that the map may not overlap."""
    how: dict[str, Any] = {"shapley": shapley, "resume": resume, "client": client, "chunks": chunks}
    how |= {"overwrite": overwrite, "memory_limit": memory_limit}
    make_output = _make_geotiff if is_geotiff(path) else _make_store
    return make_output(ds, model, path, inputs=inputs, options=options, **how)


def claim_map(path: str | Path, overwrite: bool, *, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse a map that may not be written, before anything is read.

    Raises
    ------
    OutputExists, OutputRefused
        As :func:`write_map`.
    """
    if is_geotiff(path):
        check_output(path, overwrite, kind=GEOTIFF, inputs=inputs)
    else:
        Place.of(path).claim(overwrite, inputs=inputs)


def _make_geotiff(
    ds: Data,
    model: Model | str | Path,
    path: str | Path,
    *,
    overwrite: bool,
    inputs: Sequence[str | Path],
    **how: Any,
) -> MapReport:
    """Make the map in a hidden Zarr store, which can resume, and export it when it is complete."""
    target = check_output(path, overwrite, kind=GEOTIFF, inputs=inputs)
    model = as_model(model)
    ds = as_data(ds, model)
    check_grid(ds)
    store = target.with_name(f".{target.name}.zarr")
    with (
        locked_output(target, overwrite, kind=GEOTIFF, inputs=inputs),
        atomic_path(target) as partial,
    ):
        report = _make_store(ds, model, store, overwrite=True, inputs=inputs, **how)
        write_geotiff(open_zarr(store, chunks=None), partial)
        check_output(target, overwrite, kind=GEOTIFF)  # again: hours may have passed
    remove(store)
    return replace(report, path=str(target))


def _make_store(
    ds: Data,
    model: Model | str | Path,
    path: str | Path,
    *,
    shapley: bool,
    resume: bool,
    client: Any,
    chunks: Mapping[str, int] | None,
    overwrite: bool,
    memory_limit: int | str | None,
    inputs: Sequence[str | Path],
    options: Mapping[str, Any],
) -> MapReport:
    start = time.monotonic()
    place = Place.of(path)
    place.claim(overwrite, inputs=inputs)
    model = as_model(model)
    ds = as_data(ds, model)
    job = Job.of(ds, model, shapley=shapley, options=options, chunks=chunks, store=place.growing)
    made = template(ds, job)
    check_memory(job, made, limit=memory_limit)
    job.warn_if_outside(ds)
    prints = job.prints(ds)
    with place.output_lock(overwrite, inputs=inputs):
        marks = place.resume(prints) if resume else None
        if marks is None:
            marks = place.begin(made, job, prints)
        told = _run(job, ds, marks, client=client)
        before = int(marks[marks > 0].sum()) - int((marks > 0).sum())
        place.complete(overwrite, answered=before + sum(t.answered for t in told))
    visible = visible_tokens(model.layout, options.get("using"))
    warn_of_few(sum(t.few for t in told), sum(t.answered for t in told), model, visible=visible)
    return _report(job, told, place, made=made, start=start)


def _run(job: Job, ds: xr.Dataset, marks: np.ndarray, *, client: Any) -> list[Told]:
    """Make the blocks that are not there."""
    todo = [tuple(map(int, i)) for i in np.argwhere(marks == 0)]
    client = client if client is not None else _active_client()
    told = []
    cells = job.blocks.cells
    before = cells - sum(map(job.blocks.cells_in, todo))
    if before:
        log(f"the map resumes: {before:,} of {cells:,} cells are complete")
    look = {"unit": "cell", "unit_scale": True}
    with progress_bar(total=cells, initial=before, desc="map", **look) as bar, _quietly():
        for one in _anywhere(job, ds, todo, client=client):
            told.append(one)
            bar.update(job.blocks.cells_in(one.index))
    return told


def _anywhere(job: Job, ds: xr.Dataset, todo: list[Index], *, client: Any) -> Iterator[Told]:
    if client is None:
        return _in_threads(job, ds, todo, threads=places(None)[0])
    from geomiam.maps.cluster import on_cluster

    return on_cluster(job, ds, todo, client)


def _in_threads(job: Job, ds: xr.Dataset, todo: Iterable[Index], *, threads: int) -> Iterator[Told]:
    """Answer blocks side by side, on one torch thread each; one more waits, so none idles."""
    waiting: set[Future[Told]] = set()
    keep_freed_memory(always=True)
    with torch_threads(1), ThreadPoolExecutor(threads) as pool:
        try:
            for index in todo:
                waiting.add(pool.submit(job, job.part(ds, index), index))
                if len(waiting) > threads:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (f.result() for f in done)
            yield from (f.result() for f in waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _active_client() -> Any:
    """Return the cluster in use; without distributed imported, there is none."""
    if "distributed" not in sys.modules:
        return None
    from geomiam.maps.cluster import active_client

    return active_client()


@contextmanager
def _quietly() -> Iterator[None]:
    """Say once, for the whole map, that a modality is missing: the template has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingModality)
        yield


def _report(
    job: Job, told: list[Told], place: Place, *, made: xr.Dataset, start: float
) -> MapReport:
    return MapReport(
        path=place.path,
        cells=place.answered(),
        species=made.sizes["species"],
        blocks=len(told),
        of=job.blocks.count,
        worked=sum(job.blocks.cells_in(t.index) for t in told),
        seconds=time.monotonic() - start,
        peak=max((t.peak for t in told), default=peak_memory()),
    )
