"""Maps as netCDF: by CF conventions, or as EBVCube of GEO BON."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.data.store.encoding import encodable, netcdf_attributes
from geomiam.errors import GeomiamError, SettingError
from geomiam.geo.crs import crs_coordinate
from geomiam.maps.geotiff import layers_of, north_up
from geomiam.progress import dask_progress

CHUNK = 512
EPOCH = datetime.date(1860, 1, 1)
REQUIRED = (
    *("title", "summary", "creator_name", "creator_institution", "license", "date"),
    *("ebv_geospatial_scope", "ebv_geospatial_description"),
)
"""Attributes of an EBVCube that only the author can state; ``date`` is that of the map."""
DEFAULTS = {
    "ebv_class": "Species populations",
    "ebv_name": "Species distributions",
    "ebv_domain": "Terrestrial",
    "ebv_vocabulary": "https://portal.geobon.org/api/v1/ebv",
    "ebv_cube_dimensions": "lon, lat, time, entity",
    "source": f"species distribution model of geomiam {__version__}",
    "Conventions": "CF-1.8, ACDD-1.3, EBV-1.0",
}
NEVER = ("date", "ebv_entity_type", "ebv_entity_scope")


def write_netcdf(
    maps: xr.Dataset, path: Path, *, layers: Sequence[str] | None, attrs: Mapping[str, Any]
) -> None:
    """Write a map as netCDF 4 by CF conventions, with the CRS as grid mapping."""
    _need_h5netcdf()
    maps = north_up(maps)
    box = geobox(maps)
    ds = encodable(maps[layers_of(maps, layers)])
    for var in ds.variables.values():
        var.attrs = netcdf_attributes(var.attrs)
    for dim, axis_attributes in zip(spatial_dims(ds), _axes(box), strict=True):
        ds[dim].attrs = {
            **{k: v for k, v in ds[dim].attrs.items() if k != "crs"},
            **axis_attributes,
        }
    if (name := crs_coordinate(ds)) is not None:
        ds[name].attrs = _mapping(box)
    ds.attrs = netcdf_attributes(
        {**maps.attrs, **attrs, "Conventions": "CF-1.11", "history": _history()}
    )
    place = spatial_dims(ds)
    for variable in ds.data_vars.values():
        # one layer in each chunk, since programs show one at a time
        sizes = (min(n, CHUNK) if d in place else 1 for d, n in variable.sizes.items())
        variable.encoding |= {"zlib": True, "complevel": 4, "chunksizes": tuple(sizes)}
    with dask_progress("writing"):
        ds.to_netcdf(path, engine="h5netcdf")


def write_ebvcube(
    maps: xr.Dataset, path: Path, *, layers: Sequence[str] | None, attrs: Mapping[str, Any]
) -> None:
    """Write the layers of a map as metrics of an EBVCube, ``(entity, time, lat, lon)``, with species as entities.

    The format is that of github.com/EBVcube/EBVCube-format (CF-1.8, ACDD-1.3, EBV-1.0).
    """
    h5netcdf = _need_h5netcdf()
    date = ebv_date(attrs)
    maps = north_up(maps)
    place, box = spatial_dims(maps), geobox(maps)
    names = [n for n in layers_of(maps, layers) if set(maps[n].dims) == {*place, "species"}]
    if not names:
        raise SettingError(
            "an EBVCube holds layers with the dims species, y and x, of which the maps have none; pass "
            "layers= with such names"
        )
    entities = [str(s).encode() for s in maps["species"].values]
    width = max(map(len, entities))
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {
            **{"entity": len(entities), "time": None, "lat": box.shape.y, "lon": box.shape.x},
            "nchar": width,
        }
        file.resize_dimension("time", 1)
        _put(file, "crs", (), np.int32(0), {**_mapping(box), "long_name": "CRS definition"})
        for name, dim, axis_attributes in zip(("lat", "lon"), place, _axes(box), strict=True):
            values = np.asarray(maps[dim].values, "f8")
            _put(file, name, (name,), values, {**axis_attributes, "long_name": name})
        days = np.array([(date - EPOCH).days], "i4")
        _put(file, "time", ("time",), days, _TIME)
        padded_names = b"".join(e.ljust(width) for e in entities)
        letters = np.frombuffer(padded_names, "S1").reshape(len(entities), width)
        _put(file, "entity", ("entity", "nchar"), letters, _entity_attrs(attrs))
        file.attrs.update(_root_attrs(maps, attrs, box))
        for number, name in enumerate(names, 1):
            _write_metric(file, f"metric_{number}", maps[name].transpose("species", *place))


_TIME = {
    "axis": "T",
    "calendar": "standard",
    "units": "days since 1860-01-01 00:00:00.0",
    "long_name": "time",
}


def _write_metric(file: Any, group_name: str, array: xr.DataArray) -> None:
    units = str(array.attrs.get("units", "1"))
    long_name = str(array.attrs.get("long_name", array.name))
    group = file.create_group(group_name)
    group.attrs.update({"standard_name": str(array.name), "long_name": long_name, "units": units})
    sizes = {"entity": array.shape[0], "time": 1, "lat": array.shape[1], "lon": array.shape[2]}
    chunks = (1, 1, min(CHUNK, sizes["lat"]), min(CHUNK, sizes["lon"]))
    cube = group.create_variable(
        "ebv_cube",
        tuple(sizes),
        "f4",
        fillvalue=np.float32(np.nan),
        chunks=chunks,
        compression="gzip",
    )
    cube.attrs.update(
        {
            "grid_mapping": "/crs",
            "coordinates": "/entity",
            "long_name": long_name,
            "units": units,
            "coverage_content_type": "modelResult",
        }
    )
    for rows, cols in _windows(array):
        part = array[:, rows, cols].values
        cube[:, 0, rows, cols] = np.asarray(part, "f4")


def _windows(array: xr.DataArray) -> Iterator[tuple[slice, slice]]:
    _, height, width = array.shape
    for top in range(0, height, CHUNK):
        for left in range(0, width, CHUNK):
            yield slice(top, min(top + CHUNK, height)), slice(left, min(left + CHUNK, width))


def _put(file: Any, name: str, dims: tuple[str, ...], data: Any, attrs: Mapping[str, Any]) -> None:
    variable = file.create_variable(name, dims, np.asarray(data).dtype)
    variable[...] = data
    variable.attrs.update(netcdf_attributes(attrs))


def ebv_date(attrs: Mapping[str, Any]) -> datetime.date:
    """Return the date of the map, after a check of the attributes that an EBVCube requires."""
    if missing := [k for k in REQUIRED if not attrs.get(k)]:
        raise SettingError(
            f"an EBVCube needs {', '.join(missing)}: pass metadata={{'{missing[0]}': '...'}}; date is that of the "
            "map, such as '2020-01-01', and ebv_geospatial_scope one of Continental/ Regional, National, "
            "Sub-national/Local, Global"
        )
    try:
        return datetime.date.fromisoformat(str(attrs["date"])[:10])
    except ValueError:
        raise SettingError(
            f"metadata has date: {attrs['date']!r}; pass a date such as '2020-01-01'"
        ) from None


def _root_attrs(maps: xr.Dataset, attrs: Mapping[str, Any], box: Any) -> dict[str, Any]:
    date, today = str(attrs["date"])[:10], datetime.date.today().isoformat()
    unit = "degrees" if box.crs.geographic else "meters"
    side = f"{abs(box.resolution.x):g} {unit}"
    attrs_of_file = {k: v for k, v in attrs.items() if k not in NEVER}
    ring = ", ".join(f"{x:.10g} {y:.10g}" for x, y in box.extent.exterior.coords)
    return netcdf_attributes(
        {
            **DEFAULTS,
            "date_created": today,
            "publisher_name": attrs["creator_name"],
            "publisher_institution": attrs["creator_institution"],
            "publisher_email": attrs.get("creator_email", "not stated"),
            "geospatial_lat_resolution": side,
            "geospatial_lon_resolution": side,
            "geospatial_lat_units": f"{unit}_north",
            "geospatial_lon_units": f"{unit}_east",
            "geospatial_bounds_crs": f"EPSG:{box.crs.epsg}" if box.crs.epsg else box.crs.to_wkt(),
            "geospatial_bounds": f"POLYGON (({ring}))",
            "time_coverage_start": date,
            "time_coverage_end": date,
            "time_coverage_resolution": "P0000-00-00",
            "history": _history(),
            **({"model_id": maps.attrs["model_id"]} if "model_id" in maps.attrs else {}),
            **attrs_of_file,
        }
    )


def _entity_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ebv_entity_type": attrs.get("ebv_entity_type", "Species"),
        "ebv_entity_scope": attrs.get("ebv_entity_scope", "species of the model"),
        "units": "1",
        "long_name": "entity",
    }


def _axes(box: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the attributes of rows and columns by CF conventions."""
    if box.crs.geographic:
        return (
            {"axis": "Y", "units": "degrees_north", "standard_name": "latitude"},
            {"axis": "X", "units": "degrees_east", "standard_name": "longitude"},
        )
    unit = {"metre": "m"}.get(
        box.crs.proj.axis_info[0].unit_name, box.crs.proj.axis_info[0].unit_name
    )
    return (
        {"axis": "Y", "units": unit, "standard_name": "projection_y_coordinate"},
        {"axis": "X", "units": unit, "standard_name": "projection_x_coordinate"},
    )


def _mapping(box: Any) -> dict[str, Any]:
    """Return a CRS as CF grid mapping, with the attributes that GDAL reads."""
    a, b, c, d, e, f = tuple(box.affine)[:6]
    cf_parameters = {k: v for k, v in box.crs.proj.to_cf().items() if v is not None}
    wkt = box.crs.to_wkt()
    transform = " ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    return netcdf_attributes(
        {**cf_parameters, "crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": transform}
    )


def _history() -> str:
    creation_time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"{creation_time} written by geomiam {__version__}"


def _need_h5netcdf() -> Any:
    try:
        import h5netcdf
    except ImportError:
        raise GeomiamError("netCDF needs h5netcdf: pip install 'geomiam[netcdf]'") from None
    return h5netcdf
