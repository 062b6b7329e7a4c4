"""Write predictions and Shapley values block by block into a CF-compliant Zarr store, a GeoTIFF or netCDF."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from geomiam.data.store.store import open_zarr
from geomiam.inference.inputs import Data, as_data
from geomiam.inference.options import MapOptions
from geomiam.inference.required import warn_of_few
from geomiam.maps.export import KINDS, is_file_map, kind_of, writer_of
from geomiam.maps.geotiff import check_grid, is_geotiff, open_geotiff
from geomiam.maps.job import Job
from geomiam.maps.memory import peak_memory
from geomiam.maps.plan import check_memory
from geomiam.maps.repository import place_of
from geomiam.maps.run import MapReport, run_blocks
from geomiam.maps.store import template
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.paths import expand
from geomiam.outputs.write import atomic_path, remove
from geomiam.progress import with_progress
from geomiam.tokens.select import Selector, visible_tokens

if TYPE_CHECKING:
    from icechunk import Repository


def write_map(
    ds: Data,
    model: Model | str | Path,
    path: str | Path | Repository,
    *,
    shapley: bool = False,
    species: str | Sequence[str] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    chunks: Mapping[str, int] | None = None,
    client: Any = None,
    options: MapOptions | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> xr.Dataset:
    """Write the predictions of a cube into a Zarr store, block by block, and open the store.

    A block is a chunk of the store along the dims of place. It is read, predicted, written and marked as
    done. Memory therefore does not grow with the map, and an interrupted map resumes. On a local disk the
    map grows in a hidden folder beside ``path`` and is renamed when it is complete; in an object store it
    grows at ``path``. The attribute ``geomiam_status`` is ``"complete"`` at the end.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray or list
        Cube or sites, as for :func:`geomiam.predict`.
    model : Model or path
    path : str, pathlib.Path or icechunk.Repository
        Zarr store to write: a local path, or the URL of an object store (``s3://…``, by fsspec). A local
        name that ends in ``.tif`` or ``.nc`` is a GeoTIFF or netCDF file as written by
        :func:`geomiam.export`. In a repository of icechunk, the map grows on the branch ``geomiam-building``,
        and the branch ``main`` shows it when it is complete.
    shapley : bool
        Write Shapley values too.
    species : str or sequence of str, optional
        Default all.
    using : str or sequence of str, optional
        Predictors to use, as for :func:`geomiam.predict`; default all.
    chunks : mapping, optional
        Chunks of the map, such as ``{"y": 512, "x": 512}``; -1 is the whole dim. Those of ``y`` and ``x`` (or
        of the names that the cube has for them) are the blocks. Default: the chunks of the cube, and as many
        species and groups as fit 4 MiB.
    client : distributed.Client, optional
        Cluster that computes the blocks; default: the active client, or as many threads as dask would use.
    options : MapOptions, optional
        Groups of the Shapley values (``groups``), cells to leave out (``require``, ``mask``),
        ``memory_limit``, ``resume`` and others; see :class:`geomiam.MapOptions`.
    overwrite : bool
        Replace a complete map; on a local disk it stays until the new one is complete.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        The map, opened lazily: ``suitability(species, y, x)`` and the further layers of
        :func:`geomiam.predict`; with ``shapley`` those of :func:`geomiam.shapley`.

    Raises
    ------
    OutputExists
        If a complete map is at ``path`` and ``overwrite`` is False.
    OutputRefused
        If ``path`` lies in another store, or holds other data than a map of geomiam.
    OutputBusy
        If another process writes this map.
    ResumeRefused
        If an unfinished map there has another model, input or settings.
    GridError
        If ``chunks`` name a dim that the map does not have.
    NameRefused
        If a name cannot be a folder of the store.
    MemoryRefused
        If a block would need more than ``memory_limit``.
    SettingError
        If an option has no effect with this ``shapley``.

    Warns
    -----
    OutsideTrainingRange
        Before the start, if predictors are outside the training range in more than a fifth of the cells of a
        few blocks. The layer ``outside_range`` has the share for every cell.
    NoWorkers
        Each minute, while the cluster has no worker.

    See Also
    --------
    geomiam.plan_map : blocks, memory and time before the start.
    geomiam.predict : a map in memory or as a lazy array.
    geomiam.export : GeoTIFF, GeoZarr and netCDF.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube, model = gm.open_cube("cube.zarr"), gm.load_model("model")  # doctest: +SKIP
    >>> maps = gm.write_map(cube, model, "map.zarr", shapley=True)
    >>> sorted(gm.open_cube("map.zarr")) == sorted(maps)
    True
    """
    make_map(
        ds,
        model,
        path,
        shapley=shapley,
        species=species,
        using=using,
        chunks=chunks,
        client=client,
        options=options,
        overwrite=overwrite,
        progress=progress,
    )
    if is_file_map(path):
        if is_geotiff(path):
            return open_geotiff(expand(path))
        return xr.open_dataset(expand(path), engine="h5netcdf", decode_coords="all", chunks={})
    maps: xr.Dataset = open_zarr(place_of(path).finished)
    return maps


@with_progress
def make_map(
    ds: Data,
    model: Model | str | Path,
    path: str | Path | Repository,
    *,
    shapley: bool = False,
    species: str | Sequence[str] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    chunks: Mapping[str, int] | None = None,
    client: Any = None,
    options: MapOptions | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    inputs: Sequence[str | Path] = (),
) -> MapReport:
    """Write a map as :func:`write_map`, and return a report.

    ``inputs`` are paths that the map must not overlap.
    """
    options = MapOptions.of(options)
    options.without_effect(shapley=shapley)
    claim_map(path, overwrite, inputs=inputs)  # before a large model is read
    model = as_model(model)
    ds = as_data(ds, model)
    job = Job.of(
        ds, model, shapley=shapley, species=species, using=using, chunks=chunks, options=options
    )
    settings: dict[str, Any] = {"client": client, "overwrite": overwrite, "inputs": inputs}
    if is_file_map(path):
        return _make_file(ds, job, path, **settings)
    return _make_store(ds, job, path, **settings)


def claim_map(
    path: str | Path | Repository, overwrite: bool, *, inputs: Sequence[str | Path] = ()
) -> None:
    """Refuse an output that must not be written."""
    if is_file_map(path):
        check_output(path, overwrite, kind=KINDS[kind_of(path)][1], inputs=inputs)
    else:
        place_of(path).claim(overwrite, inputs=inputs)


def _make_file(
    ds: xr.Dataset,
    job: Job,
    path: str | Path,
    *,
    client: Any,
    overwrite: bool,
    inputs: Sequence[str | Path],
) -> MapReport:
    """Write the map to a hidden Zarr store, which can resume, and export it when it is complete."""
    path_kind = kind_of(path)
    kind = KINDS[path_kind][1]
    target = check_output(path, overwrite, kind=kind, inputs=inputs)
    check_grid(ds)
    store = target.with_name(f".{target.name}.zarr")
    with (
        locked_output(target, overwrite, kind=kind, inputs=inputs),
        atomic_path(target) as partial,
    ):
        report = _make_store(ds, job, store, client=client, overwrite=True, inputs=inputs)
        maps = open_zarr(store) if path_kind == "netcdf" else open_zarr(store, chunks=None)
        writer_of(path_kind)(maps, partial)
        check_output(target, overwrite, kind=kind)  # again: hours may have passed
    remove(store)
    return replace(report, path=str(target))


def _make_store(
    ds: xr.Dataset,
    job: Job,
    path: str | Path | Repository,
    *,
    client: Any,
    overwrite: bool,
    inputs: Sequence[str | Path],
) -> MapReport:
    start = time.monotonic()
    place = place_of(path)
    place.claim(overwrite, inputs=inputs)
    job = replace(job, store=place.growing)
    map_template = template(ds, job)
    check_memory(job, map_template)
    prints = job.fingerprints(ds)
    with place.output_lock(overwrite, inputs=inputs):
        marks = place.resume(prints) if job.options.resume else None
        if marks is None:
            marks = place.begin(map_template, job, prints)
        results = run_blocks(job, ds, marks, client=client, writes=place.writes())
        before = int(marks[marks > 0].sum()) - int((marks > 0).sum())
        place.complete(overwrite, predicted_cells=before + sum(r.predicted for r in results))
    visible = visible_tokens(job.model.layout, job.using)
    cells_with_few, predicted_cells = sum(r.few for r in results), sum(r.predicted for r in results)
    warn_of_few(cells_with_few, predicted_cells, job.model, visible=visible)
    return MapReport(
        path=place.path,
        cells=place.predicted(),
        species=map_template.sizes["species"],
        blocks=len(results),
        of=job.blocks.count,
        worked=sum(job.blocks.cells_in(r.index) for r in results),
        seconds=time.monotonic() - start,
        peak=max((r.peak for r in results), default=peak_memory()),
    )
