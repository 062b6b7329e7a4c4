"""Location as a predictor: the coordinates of cell centres as variables."""

from __future__ import annotations

import xarray as xr

from geomiam.data.coverage import observed_cells
from geomiam.data.grid.grid import spatial_dims
from geomiam.errors import GridError
from geomiam.geo.crs import crs_of


def add_location(cube: xr.Dataset, *, modality: str = "location") -> xr.Dataset:
    """Add the coordinates of cell centres as predictors, where another predictor is observed.

    Cells with no other observed predictor stay NaN, so that they are not predicted from location alone.

    Parameters
    ----------
    cube : xarray.Dataset
        On a grid with a CRS.
    modality : str
        Name of the modality of the two variables.

    Returns
    -------
    xarray.Dataset
        The cube with ``longitude`` and ``latitude`` in degrees, or with ``easting`` and ``northing`` in
        the unit of a projected CRS; dims ``(y, x)``; lazy where the cube is lazy.

    Raises
    ------
    GridError
        If the cube has no grid or no CRS, or its dims have the names of the new variables.

    See Also
    --------
    geomiam.fit : train with and without location as a predictor.
    geomiam.predict : leave location out of a map with ``using=``.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube = gm.add_location(gm.demo.load_cube())
    >>> cube["longitude"].attrs["modality"]
    'location'
    """
    y, x = spatial_dims(cube)
    names = ("longitude", "latitude") if crs_of(cube).geographic else ("easting", "northing")
    if {x, y} & set(names):
        raise GridError(
            f"dims '{y}' and '{x}' have the names of the new variables; rename the dims with "
            f"ds.rename({x}='x', {y}='y')"
        )
    observed = observed_cells(cube)
    if all(v.chunks is None for v in cube.variables.values()):
        observed = observed.compute()  # numpy in, numpy out
    for name, dim in zip(names, (x, y)):
        axis = cube[dim].astype("float32").variable
        place = xr.DataArray(axis, coords={dim: cube[dim]}).where(observed).transpose(y, x)
        units = cube[dim].attrs.get("units")
        attrs = {"long_name": name, "modality": modality} | ({"units": units} if units else {})
        cube = cube.assign({name: place.drop_attrs().assign_attrs(attrs)})
    return cube
