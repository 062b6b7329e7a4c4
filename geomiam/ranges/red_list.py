"""Quantities of the IUCN Red List: area of occupancy (AOO) and extent of occurrence (EOO)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.data.cleaning.frame import standard_records
from geomiam.errors import GridError, LabelError, OccurrenceError
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import Length, kilometres

Records: TypeAlias = pd.DataFrame | xr.Dataset | str | Path
B1 = {"CR": 100.0, "EN": 5_000.0, "VU": 20_000.0}
B2 = {"CR": 10.0, "EN": 500.0, "VU": 2_000.0}
"""Thresholds of the sub-criteria B1 (EOO) and B2 (AOO) in km²: below them, the size fits the category."""


def aoo(
    records: Records, *, cell: Length = "2 km", origins: int = 10, crs: Any = None
) -> xr.DataArray:
    """Return the area of occupancy: the area of the grid cells with a record, in km².

    Parameters
    ----------
    records : pandas.DataFrame, path or xarray.Dataset
        Records of :func:`geomiam.read_records`, of which presences count, or sites with ``presence``.
    cell : float or str
        Side of the cells: km, or text with a unit. 2 km is the standard of the Red List.
    origins : int
        The grid is moved to ``origins`` × ``origins`` positions within a cell, and the least area is
        returned, as the guidelines of the Red List recommend. 1: one grid with its origin at that of the
        CRS.
    crs : optional
        Projected CRS of the grid, such as the equal-area ``"EPSG:3035"`` for Europe or ``"EPSG:6933"`` for
        the world. Default: Lambert azimuthal equal-area, centred on the records of each species.

    Returns
    -------
    xarray.DataArray
        ``(species,)`` in km².

    Raises
    ------
    GridError
        If the CRS is not projected.
    OccurrenceError, LabelError
        If there are no presences with coordinates.
    LengthError
        If ``cell`` is no length.

    See Also
    --------
    geomiam.ranges.eoo : extent of occurrence.

    Notes
    -----
    Sampling gaps make the AOO of records too small. It is the area of known occupied cells.

    References
    ----------
    IUCN Standards and Petitions Committee (2024), Guidelines for Using the IUCN Red List Categories and
    Criteria, version 16.

    Examples
    --------
    >>> records = gm.read_records(gm.demo.load_records())
    >>> float(gm.ranges.aoo(records)[0]) % 4
    0.0
    """
    check_count("origins", origins, minimum=1, hint="10 moves the grid to 100 positions")
    side = kilometres(cell, "cell")
    return _by_species(
        records, lambda xy: _least_cells(xy, side, origins) * side**2, crs, "area of occupancy"
    )


def eoo(records: Records, *, crs: Any = None) -> xr.DataArray:
    """Return the extent of occurrence: the area of the minimum convex polygon around the records, in km².

    Parameters
    ----------
    records : pandas.DataFrame, path or xarray.Dataset
        As for :func:`geomiam.ranges.aoo`.
    crs : optional
        Projected equal-area CRS in which the polygon is convex. Default: Lambert azimuthal equal-area,
        centred on the records of each species, so the result is right across the antimeridian and at the
        poles.

    Returns
    -------
    xarray.DataArray
        ``(species,)`` in km²; 0 for fewer than three places, or places on a line.

    Raises
    ------
    GridError, OccurrenceError, LabelError
        As :func:`geomiam.ranges.aoo`.

    See Also
    --------
    geomiam.ranges.aoo : area of occupancy.

    Examples
    --------
    >>> import pandas as pd
    >>> square = {"species": "a", "lon": [0.0, 1, 1, 0], "lat": [0.0, 0, 1, 1]}
    >>> round(float(gm.ranges.eoo(gm.read_records(pd.DataFrame(square)))[0]))
    12308
    """
    return _by_species(records, _hull_area, crs, "extent of occurrence")


def red_list(
    records: Records, *, cell: Length = "2 km", origins: int = 10, crs: Any = None
) -> xr.Dataset:
    """Return AOO and EOO with the size thresholds of criterion B of the IUCN Red List.

    Parameters
    ----------
    records, cell, origins, crs
        As for :func:`geomiam.ranges.aoo`.

    Returns
    -------
    xarray.Dataset
        ``aoo(species)`` and ``eoo(species)`` in km²; ``aoo_fixed(species)``: AOO of the grid at the origin
        of the CRS; ``records(species)`` and ``places(species)``: numbers of presences and of distinct
        coordinates; ``b1(species)`` and ``b2(species)``: the highest category, CR, EN or VU, whose size
        threshold the EOO or AOO is below, or an empty text. Where the EOO is smaller than the AOO, it is
        set to the AOO, as the guidelines require: the AOO is an area within the EOO.

    Raises
    ------
    GridError, OccurrenceError, LabelError, LengthError
        As :func:`geomiam.ranges.aoo`.

    Notes
    -----
    The size alone does not fulfil criterion B: two of its conditions (few locations or severe
    fragmentation, continuing decline, extreme fluctuations) are needed as well.

    Examples
    --------
    >>> table = gm.ranges.red_list(gm.read_records(gm.demo.load_records()))
    >>> bool(table["aoo"][0] <= table["aoo_fixed"][0])
    True
    """
    settings: dict[str, Any] = {"cell": cell, "crs": crs}
    out = xr.Dataset({"aoo": aoo(records, origins=origins, **settings)})
    out["aoo_fixed"] = aoo(records, origins=1, **settings)
    extent = eoo(records, crs=crs)
    out["eoo"] = extent.where(extent > out["aoo"], out["aoo"])
    table = _presences(records)
    groups = table.groupby("species")
    out["records"] = ("species", groups.size().to_numpy())
    out["places"] = ("species", [len(g[["lon", "lat"]].drop_duplicates()) for _, g in groups])
    for name, size, limits in (("b1", out["eoo"], B1), ("b2", out["aoo"], B2)):
        categories = [
            next((c for c, limit in limits.items() if v < limit), "") for v in size.values
        ]
        out[name] = ("species", categories)
    return out.assign_attrs(cell_km=kilometres(cell, "cell"), origins=origins**2)


def _presences(records: Records) -> pd.DataFrame:
    """Return species, longitude and latitude of every presence, in the order of the species' names."""
    table = _of_sites(records) if isinstance(records, xr.Dataset) else standard_records(records)
    is_present = (table["presence"] == 1) & table["species"].notna()
    is_placed = np.isfinite(table[["lon", "lat"]].to_numpy(float, na_value=np.nan)).all(1)
    table = table.loc[is_present & is_placed, ["species", "lon", "lat"]]
    if table.empty:
        raise OccurrenceError("there are no presences with a species and coordinates")
    return table.astype({"species": str, "lon": float, "lat": float}).sort_values(
        "species", kind="stable"
    )


def _of_sites(sites: xr.Dataset) -> pd.DataFrame:
    """Return the presences of sites, one row each, with coordinates in degrees."""
    from geomiam.geo.crs import crs_of, in_degrees
    from geomiam.splits import site_coordinates

    if "presence" not in sites or SITE not in sites.dims:
        raise LabelError(
            "the data have no presence(site, species): pass records, or sites of gm.sample(cube, records); areas on a map are "
            "those of gm.ranges.class_areas"
        )
    lon, lat = in_degrees(site_coordinates(sites), crs_of(sites)).T
    rows, species = np.nonzero(sites["presence"].transpose(SITE, "species").values == 1)
    names = sites["species"].values.astype(str)[species]
    return pd.DataFrame({"species": names, "lon": lon[rows], "lat": lat[rows], "presence": 1.0})


def _by_species(
    records: Records, measure: Callable[[np.ndarray], float], crs: Any, name: str
) -> xr.DataArray:
    """Return a measure of the distinct places ``(n, 2)`` of each species, in km of an equal-area plane."""
    values: dict[str, float] = {}
    for species, part in _presences(records).groupby("species"):
        degrees = part[["lon", "lat"]].drop_duplicates().to_numpy()
        values[str(species)] = float(measure(_plane(degrees, crs)))
    attrs = {"long_name": name, "units": "km2"}
    return xr.DataArray(
        list(values.values()), dims="species", coords={"species": list(values)}, attrs=attrs
    )


def _plane(degrees: np.ndarray, crs: Any) -> np.ndarray:
    """Return coordinates ``(n, 2)`` in km of a projected CRS."""
    from pyproj import Transformer

    from geomiam.geo.crs import as_crs, equal_area_around

    crs = equal_area_around(degrees) if crs is None else crs
    system = as_crs(crs, "crs")
    if not system.projected:
        raise GridError(
            f"crs={crs!r} is not projected: pass an equal-area one, such as 'EPSG:6933'"
        )
    unit = system.proj.axis_info[0].unit_conversion_factor
    xy = np.stack(
        Transformer.from_crs("EPSG:4326", system.proj, always_xy=True).transform(*degrees.T), 1
    )
    return xy * unit / 1000


def _least_cells(xy: np.ndarray, side: float, origins: int) -> int:
    """Return the least number of occupied cells over positions of the grid."""
    steps = np.arange(origins) / origins
    counts = [
        len(np.unique(np.floor(xy / side + [i, j]).astype(np.int64), axis=0))
        for i in steps
        for j in steps
    ]
    return min(counts)


def _hull_area(xy: np.ndarray) -> float:
    """Return the area of the convex hull of places ``(n, 2)``."""
    from scipy.spatial import ConvexHull, QhullError

    if len(xy) < 3:
        return 0.0
    try:
        return float(ConvexHull(xy - xy.mean(0)).volume)  # in the plane, volume is the area
    except QhullError:  # places on a line
        return 0.0
