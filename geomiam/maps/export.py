"""Export of maps to the formats of other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeGuard

import xarray as xr

from geomiam.data.dataset import as_dataset, promote_crs
from geomiam.data.store.store import open_zarr
from geomiam.errors import SettingError
from geomiam.maps.geotiff import check_grid, layers_of, write_geotiff
from geomiam.maps.geozarr import write_geozarr
from geomiam.maps.netcdf import ebv_date, write_ebvcube, write_netcdf
from geomiam.maps.qgis import style_of
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import GEOTIFF, MAP, NETCDF, STYLE, Kind
from geomiam.outputs.write import atomic_path, write_text
from geomiam.progress import with_progress

ExportKind = Literal["cog", "netcdf", "geozarr", "ebvcube"]
KINDS: dict[ExportKind, tuple[tuple[str, ...], Kind]] = {
    "cog": ((".tif", ".tiff"), GEOTIFF),
    "netcdf": ((".nc",), NETCDF),
    "geozarr": ((".zarr",), MAP),
    "ebvcube": ((".nc",), NETCDF),
}
"""Suffixes and kind of output by format; the first format with a suffix is its default."""


@with_progress
def export(
    maps: xr.Dataset | str | Path,
    path: str | Path,
    *,
    kind: ExportKind | None = None,
    layers: Sequence[str] | None = None,
    style: bool = False,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write maps to a file for other programs; it appears at its path only when it is complete.

    Parameters
    ----------
    maps : xarray.Dataset or path
        Maps of :func:`geomiam.predict`, :func:`geomiam.shapley` or :func:`geomiam.classify`, any other
        Dataset on a grid, or the path of a store of :func:`geomiam.write_map`. Maps that are larger than
        memory are written block by block.
    path : str or pathlib.Path
        Local file or folder. The suffix determines the format:

        - ``.tif``: cloud-optimised GeoTIFF with overviews, a CRS, NaN as nodata and a band for each layer and
          species, named ``species``, ``species: group`` for Shapley values, and ``species: layer`` for
          others;
        - ``.nc``: netCDF by CF conventions;
        - ``.zarr``: GeoZarr with the conventions spatial, proj and multiscales. The group ``0`` has the full
          resolution, each further group half of the resolution of the group before.
    kind : str, optional
        ``"cog"``, ``"netcdf"``, ``"geozarr"`` or ``"ebvcube"``; default: by the suffix. An EBVCube is
        netCDF (CF-1.8, ACDD-1.3) for the portal of GEO BON, with species as entities and layers as metrics.
    layers : sequence of str, optional
        Names of the layers; default: suitability, Shapley values, and the layers that were requested (spread,
        prediction sets, interactions, novelty), or all layers if the maps have no suitability.
    style : bool
        Write a QGIS style (``.qml``) beside a GeoTIFF, for its first band.
    metadata : mapping, optional
        Further attributes of the file, such as ``title``, ``license`` and ``creator_name``. An EBVCube
        requires title, summary, creator_name, creator_institution, license, date, ebv_geospatial_scope and
        ebv_geospatial_description. A GeoTIFF has them as tags.
    overwrite : bool
        Replace a file that geomiam wrote.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    pathlib.Path
        The file or folder.

    Raises
    ------
    SettingError
        If the suffix has no format, or contradicts ``kind``, or an EBVCube lacks an attribute.
    SelectionError
        If a layer does not exist.
    GridError
        If the maps have no grid or no CRS.
    OutputExists
        If ``path`` exists and ``overwrite`` is False.
    OutputRefused
        If ``path`` holds anything that geomiam did not write.

    See Also
    --------
    geomiam.write_map : write a map of any size.
    geomiam.predict : a map in memory.

    Examples
    --------
    >>> import tempfile
    >>> import geomiam as gm
    >>> maps, folder = gm.predict(cube, model), tempfile.mkdtemp()
    >>> gm.export(maps, f"{folder}/oak.tif", style=True).name
    'oak.tif'
    >>> gm.export(maps, f"{folder}/oak.nc", metadata={"title": "Oaks"}).name
    'oak.nc'
    >>> level = xr.open_zarr(gm.export(maps, f"{folder}/oak.zarr"), group="0")
    >>> bool((level["suitability"] == maps["suitability"].astype("float32")).any())
    True
    """
    kind = kind_of(path, kind)
    inputs = [maps] if isinstance(maps, (str, Path)) else []
    output = KINDS[kind][1]
    target = check_output(path, overwrite, kind=output, inputs=inputs)
    beside = target.with_suffix(".qml")
    if style and kind != "cog":
        raise SettingError("style=True writes a style of a GeoTIFF; use a path that ends in .tif")
    if style:
        check_output(beside, overwrite, kind=STYLE, inputs=inputs)
    attrs = dict(metadata or {})
    if kind == "ebvcube":
        ebv_date(attrs)
    ds = _as_maps(maps)
    layers_of(ds, layers)
    write = writer_of(kind, layers, attrs)
    with locked_output(path, overwrite, kind=output, inputs=inputs) as target:
        with atomic_path(target) as partial_path:
            write(ds, partial_path)
            check_output(target, overwrite, kind=output)  # again: the write may have taken hours
        if style:
            write_text(beside, style_of(ds, layers))
    return target


def kind_of(path: str | Path, kind: str | None = None) -> ExportKind:
    """Return the format of a path."""
    suffix = Path(path).suffix.lower()
    if kind is not None and kind not in KINDS:
        raise SettingError(f"kind={kind!r} does not exist; use {', '.join(KINDS)}")
    for name, (suffixes, _) in KINDS.items():
        if suffix in suffixes and kind in (None, name):
            return name
    if kind is not None:
        raise SettingError(
            f"kind={kind!r} is written to a path that ends in {KINDS[kind][0][0]}, found '{suffix}'"
        )
    raise SettingError(f"{path}: no format ends in '{suffix}'; use .tif, .nc or .zarr")


def writer_of(
    kind: str, layers: Sequence[str] | None = None, attrs: Mapping[str, Any] | None = None
) -> Callable[[xr.Dataset, Path], None]:
    """Return the function that writes maps to a path in a format."""
    writers: dict[str, Any] = {
        "netcdf": write_netcdf,
        "geozarr": write_geozarr,
        "ebvcube": write_ebvcube,
        "cog": write_geotiff,
    }
    return partial(writers[kind], layers=layers, attrs=attrs or {})


def _as_maps(maps: Any) -> xr.Dataset:
    """Return maps as a Dataset on a grid."""
    if isinstance(maps, (str, Path)):
        tree = open_zarr(maps)
        maps = tree if isinstance(tree, xr.Dataset) else as_dataset(tree)
    ds = promote_crs(as_dataset(maps))
    check_grid(ds)
    return ds


def is_file_map(path: object) -> TypeGuard[str | Path]:
    """Return whether a map at this path is a file, which is exported from a store when it is complete."""
    return isinstance(path, (str, Path)) and Path(path).suffix.lower() in (".tif", ".tiff", ".nc")
