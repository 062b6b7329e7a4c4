"""Opening a cube: a Zarr store, data in memory, or raster files of any grids that are brought onto one."""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from geomiam.checks.names import list_names
from geomiam.data.dataset import along_sites, as_dataset, geometry_dim
from geomiam.data.grid.grid import geobox
from geomiam.data.infer import numbered_modalities
from geomiam.data.kinds import Guess, warn_of_doubts
from geomiam.data.predictors import own_dims
from geomiam.data.store.store import AS_STORED, Chunks, as_cube, is_zarr
from geomiam.data.values import as_float
from geomiam.errors import GridError, NameRefused, SchemaError
from geomiam.geo.crs import as_crs
from geomiam.geo.dims import SITE
from geomiam.outputs.paths import expand, is_remote, real_path
from geomiam.schema.schema import Schema
from geomiam.schema.source import Source
from geomiam.schema.variable import KINDS, Modality, Variable
from geomiam.sources.assembly import assemble
from geomiam.sources.grid_of_files import cell_area, grid_of_files
from geomiam.sources.inputs import build_inputs
from geomiam.sources.rasters.layers import Layer, files_in, kind_of_file, layers_of
from geomiam.sources.references.documents import is_references
from geomiam.sources.variable_reader import FINER

REMEDIES = {
    "kinds": "use gm.infer_schema(cube, kinds=...) on other data",
    "allow": "leave it out, since only references lead to other files",
}
Files = str | Path | Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]]


def open_cube(
    source: Files | xr.Dataset | xr.DataArray | xr.DataTree,
    *,
    chunks: Chunks = AS_STORED,
    crs: Any = None,
    grid: Any = None,
    resolution: float | str | None = None,
    kinds: Mapping[str, str] | None = None,
    allow: Sequence[str | Path] = (),
) -> xr.Dataset:
    """Open a cube lazily, as one float32 Dataset with its CRS in ``spatial_ref``.

    Raster files may have any CRS, resolution, extent, type and nodata value. They are brought onto one
    grid as in :func:`build_cube`: classes by nearest neighbour, or by majority where their cells are finer;
    angles by nearest neighbour; other numbers by the average where their cells are finer, otherwise
    bilinearly. :func:`geomiam.sources.summary` describes the result.

    Parameters
    ----------
    source
        One of:

        - a Zarr directory, ``.zarr.zip`` or URL, with one group or one group per modality;
        - a folder, a pattern such as ``"rasters/*.tif"``, a file, or a list of files: GeoTIFF, NetCDF and
          Zarr. A GeoTIFF with one band is a predictor with the name of the file. Bands of a GeoTIFF are
          predictors with the names in their descriptions, or ``file_1``, ``file_2``, …; variables of a
          NetCDF file keep their names, and those with a time axis are series;
        - references to chunks of other files, as kerchunk and VirtualiZarr write them: a ``.json`` file, or a
          folder ``.parq`` or ``.parquet``, also in a list or mapping of files;
        - a mapping from a name to a file, or to the files (tiles) of one layer;
        - a Dataset, a DataTree with one child per modality, or a DataArray, also one with named bands;
        - a Zarr store of zarr-python, such as the ``session.store`` of icechunk;
        - a vector cube, whose geometries become the dim ``site``.
    chunks
        ``{}``: dask arrays with the chunks of the store. ``"auto"`` or a mapping such as
        ``{"y": 512, "x": 512}``: other dask chunks in cells, where y stands for the row dim and x for
        the column dim under any name. ``None``: no dask; values are read when they are used, which is
        fastest for :func:`sample`, and variables not stored as float32 are read immediately. Raster files
        are always dask arrays.
    crs
        Of a store, or data in memory: CRS that replaces the CRS of the data, or is set where there is none.
        Of raster files: CRS of the grid; files without a CRS are read in this CRS.
    grid
        Of raster files: the grid as a GeoBox, a Dataset or DataArray, or the path of a Zarr store or GeoTIFF.
        Default: the grid of the file with the smallest cells, which a warning states if grids differ.
    resolution
        Of raster files: side of a cell in units of the CRS, or a length such as ``"1 km"``.
    kinds
        Of raster files: mapping from a predictor to its kind, which replaces the inferred kind.
    allow
        Of references: folders and URLs such as ``"s3://bucket/cmip6"`` that they may lead to. Default: only files below
        the folder of the references, since these are untrusted text.

    Returns
    -------
    xr.Dataset
        Variables with their attributes, float32 ``(*own dims, y, x)``; missing values are NaN. From
        files, ``modality`` is the file if it has several layers, and otherwise as in :func:`infer_schema`;
        ``attrs["sources"]`` (JSON) has for each variable the files, CRS, resolution and resampling.

    Raises
    ------
    GridError
        When the data have no CRS or no regular grid, or modalities lie on different grids, or settings of
        the grid contradict each other.
    SourceError
        When a file cannot be read, or references lead to other places, or have generators or codecs that run code.
    NameRefused
        When two files have layers of one name.
    FileNotFoundError
        When there is no store or file at ``source``.

    Warns
    -----
    GridAssumed
        When files lie on several grids and no grid is passed.
    DoubtfulKind
        When the inferred kind of a layer may be wrong.
    DoubtfulSource
        When a GeoTIFF states no nodata value, but has a usual one such as -9999.

    See Also
    --------
    geomiam.build_cube : build a cube from a catalog.
    geomiam.align : bring single layers to the grid of a cube.
    geomiam.write_cube : store a cube.
    geomiam.sample : predictors at occurrences.

    Examples
    --------
    >>> import tempfile
    >>> import geomiam as gm
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("altitude", "land_fraction"):
    ...     path = gm.export(gm.demo.load_cube()[[name]], f"{folder}/{name}.tif")
    >>> rasters = gm.open_cube(folder)
    >>> list(rasters)
    ['altitude', 'land_fraction']
    """
    files = _files(source)
    if files is None:
        settings = {"grid": grid, "resolution": resolution, "kinds": kinds, "allow": allow or None}
        if file_settings := [k for k, v in settings.items() if v is not None]:
            remedy = REMEDIES.get(file_settings[0], "use gm.align on other data")
            raise GridError(f"{file_settings[0]}= is a setting for raster files; {remedy}")
        return _of_data(source, chunks, crs)
    crs_text = None if crs is None else str(as_crs(crs, "crs="))
    places = [str(allow)] if isinstance(allow, (str, Path)) else list(map(str, allow))
    places = [p if is_remote(p) else str(real_path(p)) for p in places]
    layers = [
        layer
        for label, paths in files
        for layer in layers_of(paths, label, crs=crs_text, kinds=kinds or {}, allow=places)
    ]
    layers = _unique(layers)
    _check_kinds(kinds or {}, layers)
    guesses = {a.name: _guess(a, (kinds or {}).get(a.name)) for a in layers}
    like = grid_of_files(layers, grid, resolution=resolution, crs=crs)
    inputs = build_inputs(
        _schema(layers, guesses, None), like, bounds=None, roots=None, parameters=None
    )
    schema = _schema(layers, guesses, inputs.box)  # methods depend on the cells of the grid
    inputs = build_inputs(schema, inputs.template, bounds=None, roots=None, parameters=None)
    cube = assemble(inputs, None if not chunks else chunks).cube
    warn_of_doubts(guesses, "gm.open_cube(files, kinds={...})")
    return _described(cube, layers, guesses)


def _of_data(source: Any, chunks: Chunks, crs: Any) -> xr.Dataset:
    """Return a store or data in memory as a cube; a vector cube as sites."""
    if isinstance(source, (xr.Dataset, xr.DataArray)):
        ds = as_dataset(source)
        if geometry_dim(ds) is not None:
            return _of_geometries(ds, crs)
    return as_cube(source, chunks=chunks, crs=crs)


def _of_geometries(ds: xr.Dataset, crs: Any) -> xr.Dataset:
    """Return a vector cube with the dim ``site`` and the places of its geometries."""
    dim = geometry_dim(ds)
    geometries = ds[dim].values
    crs_of_points = crs or ds[dim].attrs.get("crs") or getattr(ds.xindexes.get(dim), "crs", None)
    points = [g.representative_point() for g in geometries]
    ds = along_sites(ds).drop_vars(SITE)
    ds = ds.assign({k: as_float(v) for k, v in ds.data_vars.items() if v.dtype.kind in "iufb"})
    ds = ds.assign_coords(x=(SITE, [p.x for p in points]), y=(SITE, [p.y for p in points]))
    return (
        ds if crs_of_points is None else ds.assign_attrs(crs=as_crs(crs_of_points, "crs=").to_wkt())
    )


# files --------------------------------------------------------------------------------------------


def are_files(source: str | Path) -> bool:
    """Return whether a path is that of raster files, and not of a store, a catalog or a model."""
    text = expand(source)
    if is_remote(text):
        return kind_of_file(text) in ("raster", "netcdf")
    path = Path(text)
    if path.is_dir():
        is_output = is_zarr(path) or (path / "config.json").exists() or path.suffix == ".zarr"
        return not is_output and any(not p.name.startswith(".") for p in path.iterdir())
    is_pattern = not path.exists() and any(c in text for c in "*?[")
    return is_pattern or kind_of_file(text) in ("raster", "netcdf")


def _files(source: Any) -> list[tuple[str, list[str]]] | None:
    """Return labels with the files of each; None if the source is a store or data in memory."""
    if isinstance(source, (xr.Dataset, xr.DataArray, xr.DataTree)):
        return None
    if isinstance(source, Mapping):
        values = {str(k): _listed(v) for k, v in source.items()}
        if not values or not all(_are_paths(v) for v in values.values()):
            return None
        return [(k, [p for part in v for p in files_in(part)]) for k, v in values.items()]
    if isinstance(source, (str, Path)):
        if not (is_references(source) or are_files(source)):
            return None
        source = [source]
    if not isinstance(source, Sequence) or not source or not _are_paths(source):
        return None
    paths = [p for part in source for p in files_in(part)]
    return [(_label(p), [p]) for p in paths]


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, (str, Path)) else value


def _are_paths(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(v, (str, Path)) for v in values)


def _label(path: str) -> str:
    return Path(path.rstrip("/").rpartition("/")[2] if is_remote(path) else path).stem


def _unique(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers of different names: where files share one, the name of the file is put before it."""
    counts = Counter(a.name for a in layers)
    distinct = [
        a if counts[a.name] == 1 or a.name == a.label else a.renamed(f"{a.label}_{a.name}")
        for a in layers
    ]
    counts = Counter(a.name for a in distinct)
    if twice := [n for n, count in counts.items() if count > 1]:
        paths = [a.paths[0] for a in distinct if a.name == twice[0]]
        raise NameRefused(
            f"two layers have the name '{twice[0]}': {' and '.join(paths[:2])}; pass a mapping from names to "
            "files, such as {'bio1': 'bio1.tif'}"
        )
    return distinct


# kinds --------------------------------------------------------------------------------------------


def _check_kinds(kinds: Mapping[str, str], layers: Sequence[Layer]) -> None:
    names = [a.name for a in layers]
    for name, kind in kinds.items():
        if name not in names:
            raise SchemaError(f"kinds= has '{name}', no layer; there are {list_names(names)}")
        if kind not in KINDS:
            raise SchemaError(f"kinds={{'{name}': {kind!r}}}: no such kind; use {', '.join(KINDS)}")


def _guess(layer: Layer, kind: str | None) -> Guess:
    return layer.guess() if kind is None else Guess(kind, "kinds=")


# the catalog --------------------------------------------------------------------------------------


def _schema(layers: Sequence[Layer], guesses: Mapping[str, Guess], box: GeoBox | None) -> Schema:
    """Return the catalog that describes the layers."""
    single = [a.name for a in layers if a.is_only and not own_dims(a.array)]
    homes = {a.name: a.name if a.is_only else a.label for a in layers} | numbered_modalities(single)
    dims = _dims(layers)
    sources: dict[str, Source] = {}
    modalities: dict[str, dict[str, Variable]] = {}
    for layer in layers:
        options = {k: getattr(layer.source, k) for k in layer.source.model_fields_set}
        # a path of a catalog may be a pattern
        options["path"] = tuple(p if is_remote(p) else glob.escape(p) for p in layer.paths)
        guess = guesses[layer.name]
        if guess.kind == "categorical" and box is not None:
            is_finer = cell_area(box) >= FINER**2 * cell_area(geobox(layer.array))
            options["resampling"] = "mode" if is_finer else "nearest"
        source = Source(**{**options, "name": f"{layer.name} of files"})
        sources[source.name] = source
        fields: dict[str, Any] = {"from": source.name, "dims": dims[layer.name]}
        if guess.period:
            fields["period"] = guess.period
        if guess.classes:
            fields["classes"] = guess.classes
        variable = Variable(name=layer.name, kind=guess.kind, **fields)
        modalities.setdefault(homes[layer.name], {})[layer.name] = variable
    return Schema(
        name="files",
        sources=sources,
        modalities={m: Modality(name=m, variables=v) for m, v in modalities.items()},
    )


def _dims(layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """Return the dims of each layer beyond place; a dim whose labels differ between files gets their name."""
    labels: dict[str, list[list[str]]] = {}
    for layer in layers:
        for dim in own_dims(layer.array):
            values = list(map(str, layer.array[dim].values))
            if values not in labels.setdefault(dim, []):
                labels[dim].append(values)
    return {
        a.name: tuple(d if len(labels[d]) == 1 else f"{a.label}_{d}" for d in own_dims(a.array))
        for a in layers
    }


def _described(
    cube: xr.Dataset, layers: Sequence[Layer], guesses: Mapping[str, Guess]
) -> xr.Dataset:
    """Return the cube with the files and the evidence for each kind in its attributes."""
    rows = {r["variable"]: r for r in json.loads(cube.attrs["sources"])}
    for layer in layers:
        paths = layer.paths
        name = Path(paths[0]).name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        guess = guesses[layer.name]
        rows[layer.name]["source"] = name
        if guess.kind != "scalar" or guess.doubt:
            note = f"{layer.name} is read as {guess.kind}: {guess.reason}"
            rows[layer.name]["notes"] = [*rows[layer.name].get("notes", []), note]
        cube[layer.name].attrs["source"] = name
    attrs = {k: v for k, v in cube.attrs.items() if k not in ("title", "catalog")}
    cube.attrs = {**attrs, "sources": json.dumps(list(rows.values()))}
    return cube
