"""Building a cube from a catalog: every variable is read from its source, on one grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
import zarr

from geomiam.checks.files import reason
from geomiam.data.coverage import coverage
from geomiam.data.grid.grid import spatial_dims
from geomiam.data.store.resume import write_parts
from geomiam.data.store.store import as_cube
from geomiam.errors import (
    DoubtfulSource,
    GeomiamError,
    OutputExists,
    OutputRefused,
    ResumeRefused,
    SourceError,
    warn,
)
from geomiam.outputs.check import check_output, output_lock, refuse_overlap
from geomiam.outputs.paths import real_path
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema
from geomiam.sources.assembly import AssembledCube, assemble, fingerprints
from geomiam.sources.build_report import CubePlan, VariableReport, list_variables
from geomiam.sources.inputs import BuildInputs, build_inputs
from geomiam.sources.scene_variables import FAILED, failed_lines, plan_scenes, repair_scenes
from geomiam.sources.variable_reader import read_variable

FINGERPRINTS = "fingerprints"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of :func:`geomiam.build_cube`.

    Parameters
    ----------
    chunks
        Sizes of dask chunks, such as ``{"y": 256, "x": 256}``. Dims beyond place have one chunk.
    repair
        Read the dates again for which Sentinel-2 files of the cube at ``out`` could not be read, and
        nothing else. Without a cube at ``out``, build it.

    Examples
    --------
    >>> gm.sources.BuildOptions(chunks={"y": 256, "x": 256}).repair
    False
    """

    chunks: Mapping[str, int] | None = None
    repair: bool = False


@with_progress
def build_cube(
    catalog: str | Path | Schema,
    like: Any = None,
    *,
    out: str | Path | None = None,
    bounds: Sequence[float] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    parameters: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    options: BuildOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Build a cube from a catalog: every variable from its source, on one grid.

    The call reads the headers of files and searches STAC catalogs. Pixels are read when they are
    computed or written.

    Parameters
    ----------
    catalog
        A YAML file with ``sources:`` and ``from:``, the name of an installed catalog (see
        :func:`geomiam.catalogs`), or a Schema. Relative paths start from the folder of the file, and
        otherwise from the working directory.
    like
        The grid: a GeoBox, a Dataset or DataArray, or the path of a Zarr store or GeoTIFF. Default:
        ``grid:`` of the catalog.
    out
        Zarr store to write. A build that was stopped resumes: complete parts are kept if catalog,
        files, scenes and grid are the same. Default: nothing is written.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the CRS of ``grid:`` of the catalog, which replaces the bounds
        there; or an ``odc.geo`` BoundingBox with a CRS, which is covered by cells.
    roots
        Directory or URL by source, which replaces ``root:`` of the catalog.
    parameters
        Value of each parameter of the catalog, such as ``{"model": "GFDL-ESM4", "ssp": "ssp585",
        "period": "2041-2070"}`` for ``"chelsa-futures"``; ``parameters:`` of the catalog lists the
        allowed ones.
    overwrite
        Replace an existing store.
    options
        Chunks, and the repair of a cube at ``out``: :class:`geomiam.sources.BuildOptions`.
    progress
        Show a progress bar while writing. Default: on a terminal or in a notebook.

    Returns
    -------
    xr.Dataset
        Variables ``(*dims, y, x)``, float32, dask, NaN where a source has no data.
        ``attrs["sources"]`` (JSON) has the CRS, resolution and resampling of each variable,
        ``attrs["scenes"]`` (JSON) the Sentinel-2 scenes, ``attrs["failed_assets"]`` the Sentinel-2
        files that could not be read. A written cube has ``attrs["coverage"]`` and
        ``attrs["variable_coverage"]`` (JSON): the share of cells with data per modality and variable.

    Raises
    ------
    SchemaError
        If the catalog contradicts itself.
    SettingError
        If a parameter of the catalog has no value, or one that is not listed.
    SourceError
        If a source cannot be read, or the catalog names none.
    GridError
        If there is no grid, or variables have different labels along one dim.
    OutputExists
        If ``out`` exists, and is neither overwritten nor repaired.
    ResumeRefused
        If the cube to repair was built from other files, scenes or settings.

    Warns
    -----
    AssetsFailed
        If Sentinel-2 files cannot be read; their cells are NaN.
    MissingModality
        If a source does not overlap the grid, with the places of both.
    DoubtfulSource
        If a variable is NaN in every cell, has other units than the catalog, or has a ``nodata:``
        that the type of the file cannot hold.
    NoWorkers
        Each minute, while the active cluster has no worker.

    See Also
    --------
    geomiam.plan_cube : sizes and messages before the start.
    geomiam.catalogs : the shipped catalogs.
    geomiam.open_cube : open files or a store without a catalog.

    Examples
    --------
    >>> import geomiam as gm
    >>> like = gm.demo.load_cube()
    >>> path = gm.export(like[["altitude"]], "altitude.tif")
    >>> variables = {"altitude": {"units": "m", "from": "dem"}}
    >>> catalog = gm.Schema.from_dict(
    ...     {
    ...         "sources": {"dem": {"path": str(path.resolve())}},
    ...         "modalities": {"terrain": {"variables": variables}},
    ...     }
    ... )
    >>> cube = gm.build_cube(catalog, like=like, out="cube.zarr")
    >>> bool((cube["altitude"] == like["altitude"]).sum() > 10_000)
    True
    """
    options = options or BuildOptions()
    repairing = options.repair and out is not None and real_path(out).exists()
    if out is not None:
        _claim(out, overwrite or repairing, inputs=[catalog, like])
    inputs = build_inputs(catalog, like, bounds=bounds, roots=roots, parameters=parameters)
    if out is not None:
        refuse_overlap(real_path(out), [p for t in inputs.tasks for p in t.files.flat])
    assembly = assemble(inputs, options.chunks)
    if out is None:
        return assembly.cube
    prints = fingerprints(inputs, assembly)
    if not repairing:
        try:
            write_parts(
                assembly.cube,
                out,
                prints=prints,
                together=[list(v.arrays) for v in assembly.scenes],
                remarks=assembly.failures,
                multiples={name: v.rows for v in assembly.scenes for name in v.arrays},
                overwrite=overwrite,
                finish=partial(_completion, inputs, prints),
            )
        except (GeomiamError, MemoryError):
            raise
        except Exception as error:  # decoders raise errors of any type
            of_system = isinstance(error, OSError) and error.errno is not None
            file = getattr(error, "filename", None) or Path(out).name
            if of_system and Path(out).name in str(file):
                raise  # an error of the output
            raise SourceError(
                f"a source cannot be read to its end: {reason(error)}; fetch its files again and build with "
                "the same arguments; complete parts are kept"
            ) from error
    # also after a new build: files that failed before an interrupted build resumed are read again
    _repair(real_path(out), assembly, inputs, prints)
    return as_cube(out)


def _claim(out: str | Path, overwrite: bool, *, inputs: Sequence[Any]) -> None:
    """Claim the output; the message about an existing store names the repair."""
    try:
        check_output(out, overwrite, inputs=inputs)
    except OutputRefused:
        raise
    except OutputExists as error:
        raise OutputExists(
            f"{error}, or BuildOptions(repair=True) to read again what failed in it"
        ) from None


def _repair(
    store: Path, assembly: AssembledCube, inputs: BuildInputs, prints: Mapping[str, str]
) -> None:
    """Read files again that failed in a cube on disk, which was built from the same inputs."""
    before = zarr.open_group(store, mode="r").attrs.get(FINGERPRINTS)
    try:
        stored_prints = json.loads(before) if isinstance(before, str) else {}
    except ValueError:
        stored_prints = {}
    equal = {n for n in prints if prints[n] == stored_prints.get(n)}
    if different := sorted({*stored_prints, *prints} - equal):
        raise ResumeRefused(
            f"{store} was built from another catalog, other files, scenes or settings, or by another "
            f"version of geomiam: {', '.join(different[:5])} differ; build it again with overwrite=True"
        )
    if not assembly.scenes:
        return
    rows = spatial_dims(inputs.template)[0]
    with output_lock(store):
        lines = repair_scenes(store, assembly.dates, assembly.scenes, rows=rows)
        if lines != failed_lines(store):
            changes = {**_completion(inputs, prints, store, lines), FAILED: lines or None}
            group = zarr.open_group(store, mode="r+")
            attrs = {**dict(group.attrs), **changes}
            group.attrs.put({k: v for k, v in attrs.items() if v is not None})


def _completion(
    inputs: BuildInputs, prints: Mapping[str, str], store: Path, failures: list[str]
) -> dict[str, Any]:
    """Return the attributes that depend on all pixels, and warn of variables without data."""
    schema = inputs.schema.subset([t.variable.name for t in inputs.tasks])
    shares = coverage(as_cube(store), schema)
    by_name = [
        dict(zip(map(str, a[a.dims[0]].values), map(float, a.values), strict=True))
        for a in (shares["observed"], shares["variable_observed"])
    ]
    if empty := [name for name, share in by_name[1].items() if not share > 0]:
        warn(
            f"{len(empty)} variables are NaN in every cell: {list_variables(empty)}; check the extent of "
            "their sources, their bands, and 'nodata:'",
            DoubtfulSource,
        )
    texts = [json.dumps({n: round(v, 6) for n, v in values.items()}) for values in by_name]
    return {
        "coverage": texts[0],
        "variable_coverage": texts[1],
        FINGERPRINTS: json.dumps(dict(prints)),
        **({FAILED: failures} if failures else {}),
    }


def plan_cube(
    catalog: str | Path | Schema,
    like: Any = None,
    *,
    bounds: Sequence[float] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> CubePlan:
    """Return a plan of the files and scenes that :func:`build_cube` would read; no pixel is read.

    Parameters
    ----------
    catalog, like, bounds, roots, parameters
        As for :func:`build_cube`.

    Returns
    -------
    CubePlan
        A table with a row for each variable; ``print`` shows a summary. For Sentinel-2 it includes
        the plan of :func:`geomiam.plan_sentinel2`.

    Raises
    ------
    SchemaError, SettingError, SourceError, GridError
        As :func:`build_cube`.

    See Also
    --------
    geomiam.build_cube : build the cube.

    Examples
    --------
    >>> import geomiam as gm
    >>> like = gm.demo.load_cube()
    >>> path = gm.export(like[["altitude"]], "altitude.tif")
    >>> variables = {"altitude": {"units": "m", "from": "dem"}}
    >>> catalog = gm.Schema.from_dict(
    ...     {
    ...         "sources": {"dem": {"path": str(path.resolve())}},
    ...         "modalities": {"terrain": {"variables": variables}},
    ...     }
    ... )
    >>> gm.plan_cube(catalog, like=like).table["files"].tolist()
    [1]
    """
    inputs = build_inputs(catalog, like, bounds=bounds, roots=roots, parameters=parameters)
    reports: dict[str, VariableReport] = {}
    for group in inputs.scene_groups:
        reports |= plan_scenes(group)
    rows = []
    for task in inputs.tasks:
        report = reports.get(task.variable.name) or read_variable(task)[1]
        rows.append(asdict(report))
    return CubePlan(pd.DataFrame(rows), inputs.box, inputs.missing)
