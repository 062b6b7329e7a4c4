"""Means of the value of information over a map and over regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import place_dims
from geomiam.errors import SelectionError, SettingError
from geomiam.explain.zones import ZONE, blocks_of, zone_codes
from geomiam.geo.dims import SITE
from geomiam.ranges.areas import cell_areas

LAYER = "value_of_information"


def mean_value(result: xr.Dataset, *, zones: Any = None, name: str | None = None) -> xr.Dataset:
    """Return the mean value of each group that cells lack, over the map or in zones.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.value_of_information`, or a map with its layers. Blocks are read one after another.
    zones : xarray.DataArray, geopandas.GeoDataFrame or path, optional
        Classes or polygons, as for :func:`geomiam.explain.by_zone`; default: the whole map.
    name : str, optional
        Column of the polygons with the names of the zones.

    Returns
    -------
    xarray.Dataset
        By ``group`` and ``species``, and by ``zone`` if there are zones. Cells of a grid are weighted by their areas.

        ``value``: mean over the cells that lack the group; NaN where none does.
        ``lacking``: share of the predicted cells that lack the group and have a value.
        ``gain``: their product, the mean expected change over all predicted cells if the group were observed in all of
        them: where a survey of the group would change the map most.

    Raises
    ------
    SettingError
        If there is no value of information, or the classes do not lie on its cells.
    SelectionError
        If the column is unknown, or no predicted cell lies in a zone.

    See Also
    --------
    geomiam.plot.value_of_information : a map of the group worth most.

    Examples
    --------
    >>> value = gm.value_of_information(cube, model, groups=["climate", "terrain"])
    >>> table = gm.explain.mean_value(value, zones=cube["landcover"])
    >>> table["gain"].dims
    ('zone', 'group', 'species')
    """
    if LAYER not in result or "missing_groups" not in result:
        raise SettingError(
            f"the layers '{LAYER}' and 'missing_groups' are missing: pass the result of gm.value_of_information"
        )
    place = [str(d) for d in place_dims(result)]
    has_prediction = result["missing_groups"].notnull()
    everywhere = xr.zeros_like(has_prediction, int)
    codes, names = (everywhere, ["all"]) if zones is None else zone_codes(result, zones, name)
    weights = xr.ones_like(codes, float) if SITE in place else cell_areas(result)
    values = result[LAYER].transpose("group", ..., *place)
    further = values.dims[: values.ndim - len(place)]
    totals = np.zeros((3, len(names), int(np.prod([values.sizes[d] for d in further]))))
    for window in blocks_of(values, place):
        number, weight, is_predicted = (
            a.transpose(*place).isel(window).values.ravel()
            for a in (codes, weights, has_prediction)
        )
        weight = np.where(is_predicted & (number >= 0), weight, 0.0)
        part = values.isel(window).values.reshape(totals.shape[2], -1)
        for column, x in enumerate(part):
            terms = (np.ones(x.size), np.isfinite(x), np.nan_to_num(x))
            for total, term in zip(totals, terms):
                total[:, column] += _sums(number, weight * term, len(names))
    if not totals[0].any():
        raise SelectionError(f"no predicted cell lies in one of {len(names)} zones")
    table = _table(totals, values, further, names)
    return table if zones is not None else table.isel({ZONE: 0}, drop=True)


def _sums(number: np.ndarray, term: np.ndarray, zones: int) -> np.ndarray:
    """Return the sum of terms ``(n,)`` in each zone; the number −1 is no zone."""
    return np.bincount(np.maximum(number, 0), weights=term, minlength=zones)


def _table(
    totals: np.ndarray, values: xr.DataArray, further: tuple[Any, ...], names: list[str]
) -> xr.Dataset:
    """Return labelled means of totals ``(3, zone, layers)``: of weights, of those that lack the group, of values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "value": totals[2] / totals[1],
            "lacking": totals[1] / totals[0],
            "gain": totals[2] / totals[0],
        }
    texts = {
        "value": "mean value over the cells that lack the group",
        "lacking": "share of the predicted cells that lack the group",
        "gain": "mean expected change over all predicted cells",
    }
    shape = (len(names), *(values.sizes[d] for d in further))
    dims, attrs = (ZONE, *further), {"units": "1", "scale": values.attrs.get("scale")}
    return xr.Dataset(
        {n: (dims, v.reshape(shape), {"long_name": texts[n], **attrs}) for n, v in columns.items()},
        coords={ZONE: names, **{d: values[d].values for d in further}},
    )
