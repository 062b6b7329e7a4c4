"""Conversion of data trees, arrays, tables and lists to one Dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.grid.grid import geobox, merge, place_dims, restore, same_grid, slack, snapped
from geomiam.data.names import text_names
from geomiam.errors import GridError, LabelError
from geomiam.geo.crs import CRS_ATTRIBUTES, crs_coordinate, crs_name, crs_of
from geomiam.geo.dims import SITE, is_place

PARTS = (xr.Dataset, xr.DataArray)
TABLES = (".csv", ".parquet", ".gpkg")
NETCDF = (".nc", ".nc4", ".h5", ".grib")
STACKED = ("band", "variable")
"""Dims of an array whose steps may be variables, as rioxarray, stackstac and xarray name them."""


def as_dataset(obj: Any) -> xr.Dataset:
    """Return one Dataset; each child of a DataTree becomes a modality.

    Lists of Datasets and arrays are merged, arrays and tables converted. Raises GridError when two
    variables have one name, grids differ, or the object cannot be converted.
    """
    if isinstance(obj, xr.Dataset):
        return text_names(obj)
    if isinstance(obj, (list, tuple)) and obj and all(isinstance(o, PARTS) for o in obj):
        return _join([promote_crs(as_dataset(o)) for o in obj])
    if not isinstance(obj, xr.DataTree):
        return text_names(_from_other(obj))
    root = text_names(obj.to_dataset())
    parts = [root]
    for name, child in obj.children.items():
        if child.children:
            raise GridError(
                f"modality '{name}' has groups {list(child.children)} inside; "
                "a tree must have one level, with one child per modality"
            )
        ds = promote_crs(text_names(child.to_dataset()))
        marks = {k: {"modality": name, **v.attrs} for k, v in ds.data_vars.items()}
        parts.append(ds.assign({k: ds[k].assign_attrs(a) for k, a in marks.items()}))
    parts = [p for p in parts if p.data_vars]
    if not parts:
        raise GridError("the DataTree has no variables; it needs one child per modality")
    return _join(parts)


def _join(parts: list[xr.Dataset]) -> xr.Dataset:
    """Merge by name, with the coordinates of the first part, as equal grids may differ in the last digit."""
    first, *other_parts = parts
    names = list(first.data_vars)
    for part in other_parts:
        if twice := sorted(map(str, set(names) & set(part.data_vars))):
            raise GridError(
                f"variables {twice} are in two modalities; rename one with ds.rename(...)"
            )
        names += part.data_vars
        _check_place(part, first)
    bare = []
    for part in other_parts:
        place, crs = set(place_dims(part)), crs_coordinate(part)
        names_of_place = [k for k, c in part.coords.items() if set(c.dims) & place or k == crs]
        bare.append(part.drop_vars(names_of_place))
    return restore(merge([first, *bare]), first)


def _check_place(part: xr.Dataset, first: xr.Dataset) -> None:
    dims = place_dims(part)
    if dims == place_dims(first) == (SITE,) and part.sizes[SITE] == first.sizes[SITE]:
        return
    if dims == place_dims(first) and len(dims) == 2:
        box, near = geobox(first), max(slack(part), slack(first))
        if same_grid(snapped(geobox(part), box, within=near), box):
            return
    raise GridError(
        f"{list(part.data_vars)} lie on another grid than {list(first.data_vars)}: "
        f"{_describe(part)} and {_describe(first)}; align them with "
        "geomiam.align(sources, like=cube)"
    )


def _describe(ds: xr.Dataset) -> str:
    dims = place_dims(ds)
    ends = [
        f"{d} {ds.sizes[d]} cells from {float(ds[d][0]):g} to {float(ds[d][-1]):g}"
        for d in dims
        if d in ds.coords
    ]
    if crs_coordinate(ds) is not None:
        ends.append(crs_name(crs_of(ds)))
    return f"({', '.join(ends) or dims})"


def promote_crs(ds: xr.Dataset) -> xr.Dataset:
    """Convert CF grid mappings that are stored as variables to coordinates."""
    grid_mappings = [
        k for k, v in ds.data_vars.items() if v.ndim == 0 and CRS_ATTRIBUTES & set(v.attrs)
    ]
    return ds.set_coords(grid_mappings)


def _from_other(obj: Any) -> xr.Dataset:
    """Return an array or a table as a Dataset; GridError with the call that creates one for other types.

    If an array has a dim ``band`` or ``variable`` with named steps, each step becomes a variable;
    otherwise the array is one variable. A table has one row per site and one column per variable;
    the points of a GeoDataFrame become ``x`` and ``y``.
    """
    if isinstance(obj, xr.DataArray):
        return _of_array(obj)
    if isinstance(obj, pd.DataFrame):
        return _of_table(obj)
    if isinstance(obj, (str, Path)):
        advice = open_advice(str(obj))
    elif isinstance(obj, Mapping):
        advice = "create one with xr.Dataset(arrays)"
    elif isinstance(obj, np.ndarray):
        advice = (
            "name its dims, xr.Dataset({'bio1': (('y', 'x'), array)}, coords={'y': ..., 'x': ...})"
        )
    elif isinstance(obj, Sequence) and obj and isinstance(obj[0], (str, Path)):
        advice = f"open each file first; {open_advice(str(obj[0]))}; then pass the list"
    elif hasattr(obj, "readonly_session"):  # a repository of icechunk
        advice = "pass one of its states, gm.open_cube(repository.readonly_session('main').store)"
    elif hasattr(obj, "snapshot_id") and hasattr(obj, "store"):
        advice = "pass the store of the session, gm.open_cube(session.store)"
    elif hasattr(obj, "species") and hasattr(obj, "network"):
        advice = "the data come first and the model second, as in gm.predict(cube, model)"
    else:
        advice = "open the data with gm.open_cube(path), or create an xr.Dataset with one variable per predictor"
    raise GridError(f"expected a Dataset or DataTree, found {type(obj).__name__}: {advice}")


def geometry_dim(ds: xr.Dataset | xr.DataArray) -> str | None:
    """Return the dim with a coordinate of geometries, as in a vector data cube, or None."""
    for dim in map(str, ds.dims):
        values = ds.coords[dim].values if dim in ds.coords else np.empty(0)
        if values.dtype.kind == "O" and values.size and hasattr(values.flat[0], "geom_type"):
            return dim
    return None


def along_sites(ds: xr.Dataset) -> xr.Dataset:
    """Rename the dim of geometries of a vector data cube to ``site``; other data are unchanged."""
    dim = geometry_dim(ds)
    return ds if dim in (None, SITE) else ds.rename({dim: SITE})


def check_sites(sites: Any) -> None:
    """Refuse tables in place of sites; raises LabelError with the call that makes sites."""
    if not isinstance(sites, xr.Dataset):
        raise LabelError(
            f"expected sites (xarray.Dataset), found {type(sites).__name__}; make sites from records with "
            "sites = gm.sample(cube, records)"
        )


def _of_array(array: xr.DataArray) -> xr.Dataset:
    dim = next((d for d in STACKED if d in array.dims), None)
    place = {d for d in array.dims if is_place(d)} | {geometry_dim(array)}
    is_stack = dim is not None and not set(array.dims) - place - {dim}
    names = _step_names(array, dim) if dim is not None and is_stack else None
    if names is not None:
        ds = array.assign_coords({dim: names}).to_dataset(dim)
        for name in names:  # long_name would list the names of all bands
            ds[name].attrs.pop("long_name", None)
        return ds
    if array.name is not None:
        return array.to_dataset()
    if is_stack:
        example = [f"bio{i + 1}" for i in range(min(array.sizes[dim], 2))]
        raise GridError(
            f"the {array.sizes[dim]} steps of dim '{dim}' have no names: name them as the predictors, "
            f"array.assign_coords({dim}={example}{'' if array.sizes[dim] < 3 else ' + [...]'})"
            f".to_dataset('{dim}')"
        )
    raise GridError("the DataArray has no name: name the predictor, array.to_dataset(name='bio1')")


def _step_names(array: xr.DataArray, dim: str) -> list[str] | None:
    """Return the names of bands from GDAL's descriptions in ``long_name`` or from text labels."""
    descriptions = array.attrs.get("long_name")
    if isinstance(descriptions, (list, tuple)) and len(descriptions) == array.sizes[dim]:
        return [str(name) for name in descriptions]
    if dim not in array.coords:
        return None
    labels = array[dim].values
    return list(map(str, labels)) if labels.dtype.kind in "UTO" else None


def _of_table(table: pd.DataFrame) -> xr.Dataset:
    """Return one site per row; columns with coordinates or without numbers become coordinates."""
    geometry = _geometry_column(table)
    columns = {str(c): table[c].to_numpy() for c in table.columns if c != geometry}
    if geometry is not None:
        points = table.geometry
        columns |= {"x": points.x.to_numpy(), "y": points.y.to_numpy()}
    along = {k: (SITE, v) for k, v in columns.items() if is_place(k) or v.dtype.kind not in "fiub"}
    if not isinstance(table.index, (pd.RangeIndex, pd.MultiIndex)):
        along[SITE] = (SITE, table.index.to_numpy())
    values = {k: (SITE, v) for k, v in columns.items() if k not in along}
    ds = xr.Dataset(values, coords=along)
    crs = getattr(table, "crs", None) if geometry is not None else None
    return ds if crs is None else ds.assign_attrs(crs=crs.to_string())


def _geometry_column(table: pd.DataFrame) -> str | None:
    """Return the column of geometries of a GeoDataFrame of points, or None for a plain table."""
    name = getattr(table, "_geometry_column_name", None)
    if name is None:
        return None
    if (table.geometry.geom_type != "Point").any():
        raise GridError(
            "the geometries of the table are not points; use table.set_geometry(table.centroid)"
        )
    return name


def open_advice(path: str) -> str:
    """Return the call that opens a file of another format than Zarr."""
    suffix = Path(path).suffix.lower()
    if suffix in (".tif", ".tiff", ".vrt", ".img", ".jp2"):
        name = Path(path).stem
        return f"rioxarray.open_rasterio({path!r}, masked=True).squeeze('band').rename({name!r})"
    if suffix in NETCDF:
        return f"xr.open_dataset({path!r}, decode_coords='all')"
    if suffix in TABLES:
        return f"gm.sample(cube, {path!r}) reads the predictors at its points"
    return f"gm.open_cube({path!r})"
