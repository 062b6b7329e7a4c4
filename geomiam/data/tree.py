"""A DataTree with one child per modality, read as one Dataset."""

from __future__ import annotations

from typing import Any

import xarray as xr

from geomiam.data.grid.grid import geobox, merge, place_dims, restore, slack
from geomiam.data.grid.lattice import same_grid, snapped
from geomiam.data.inputs import from_other
from geomiam.data.store.coordinates import text_names
from geomiam.errors import GridError
from geomiam.geo.crs import CRS_ATTRIBUTES, crs_coordinate, crs_name, crs_of

PARTS = (xr.Dataset, xr.DataArray)


def as_dataset(obj: Any) -> xr.Dataset:
    """Return a Dataset; the children of a DataTree are its modalities.

    Lists of Datasets and arrays are joined; :func:`geomiam.data.inputs.from_other` describes arrays
    and tables.

    Raises
    ------
    GridError
        When a variable's name is used twice, grids differ, or there is no Dataset to be made.
    """
    if isinstance(obj, xr.Dataset):
        return text_names(obj)
    if isinstance(obj, (list, tuple)) and obj and all(isinstance(o, PARTS) for o in obj):
        return _join([promote_crs(as_dataset(o)) for o in obj])
    if not isinstance(obj, xr.DataTree):
        return text_names(from_other(obj))
    root = text_names(obj.to_dataset())
    parts = [_modality(name, child) for name, child in obj.children.items()]
    parts = [p for p in [root, *parts] if p.data_vars]
    if not parts:
        raise GridError("the DataTree has no variables; it needs one child per modality")
    return _join(parts)


def _modality(name: str, child: xr.DataTree) -> xr.Dataset:
    if child.children:
        raise GridError(
            f"modality '{name}' has groups {list(child.children)} below it; "
            "a tree has one level, one child per modality"
        )
    ds = promote_crs(text_names(child.to_dataset()))
    return ds.assign(
        {k: v.assign_attrs({"modality": name, **v.attrs}) for k, v in ds.data_vars.items()}
    )


def _join(parts: list[xr.Dataset]) -> xr.Dataset:
    """Merge by name, with the coordinates of the first: equal grids may differ in the last digit."""
    first, *rest = parts
    names = list(first.data_vars)
    for part in rest:
        if twice := sorted(map(str, set(names) & set(part.data_vars))):
            raise GridError(
                f"variables {twice} are in two modalities; rename one with ds.rename(...)"
            )
        names += part.data_vars
        _check_place(part, first)
    bare = [p.drop_vars([k for k, c in p.coords.items() if _is_place(c, p)]) for p in rest]
    ds = merge([first, *bare])
    return restore(ds, first)


def _is_place(coord: xr.DataArray, ds: xr.Dataset) -> bool:
    return bool(set(coord.dims) & set(place_dims(ds))) or coord.name == crs_coordinate(ds)


def _check_place(part: xr.Dataset, first: xr.Dataset) -> None:
    part_dims, first_dims = place_dims(part), place_dims(first)
    if part_dims == first_dims == ("site",) and part.sizes["site"] == first.sizes["site"]:
        return
    if part_dims != first_dims or len(part_dims) == 1 or not _same_place(part, first):
        raise GridError(
            f"{list(part.data_vars)} lie on another grid than {list(first.data_vars)}: "
            f"{_describe(part)} and {_describe(first)}; bring them together with "
            "geomiam.align(sources, like=cube)"
        )


def _same_place(part: xr.Dataset, first: xr.Dataset) -> bool:
    box = geobox(first)
    near = max(slack(part), slack(first))
    return same_grid(snapped(geobox(part), box, within=near), box)


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
    """Make a coordinate of a CF grid mapping that was stored as a variable."""
    grid_mappings = [
        k for k, v in ds.data_vars.items() if v.ndim == 0 and CRS_ATTRIBUTES & set(v.attrs)
    ]
    return ds.set_coords(grid_mappings)
