"""Contributions summarised over zones, and regions of cells that are explained alike."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.checks.settings import check_count
from geomiam.data.grid.grid import geobox, place_dims, restore, spatial_dims
from geomiam.errors import GeomiamError, SelectionError, SettingError
from geomiam.explain.contributions import check_contributions, with_species
from geomiam.geo.dims import SITE
from geomiam.ranges.areas import cell_areas

SAMPLED = 50_000
"""Most cells from which the centres of regions are computed."""
ZONE = "zone"


def by_zone(contributions: xr.Dataset, zones: Any, *, name: str | None = None) -> xr.Dataset:
    """Return the mean contribution of each group in zones, such as biomes, basins or countries.

    Parameters
    ----------
    contributions : xarray.Dataset
        From :func:`geomiam.shapley`, or a map with Shapley values. Blocks are read one after another.
    zones : xarray.DataArray, geopandas.GeoDataFrame or path
        Classes on the cells or sites of the contributions, whose names are those of ``flag_meanings`` if it has
        them, or polygons in any CRS. A cell belongs to the last polygon that has its centre.
    name : str, optional
        Column of the polygons with the names of the zones; polygons with one name are one zone. Default:
        their number.

    Returns
    -------
    xarray.Dataset
        ``mean_absolute(zone, group, species)``: how much a group matters; ``mean(zone, group, species)``:
        whether it raises or lowers the prediction. Cells of a grid are weighted by their areas. ``area(zone)``
        in km² of the cells with contributions, or ``sites(zone)``.

    Raises
    ------
    SettingError
        If there are no Shapley values, or the classes do not lie on the cells of the contributions.
    SelectionError
        If the column is unknown, or no cell lies in a zone.

    See Also
    --------
    geomiam.plot.zones : draw the table.
    geomiam.explain.regions : zones of cells that are explained alike.

    Examples
    --------
    >>> table = gm.explain.by_zone(gm.shapley(cube, model), cube["landcover"])
    >>> table["zone"].values.tolist()
    ['water', 'wood', 'field']
    """
    check_contributions(contributions, "contributions")
    contributions = with_species(contributions)
    codes, names = zone_codes(contributions, zones, name)
    place = [str(d) for d in place_dims(contributions)]
    weights = xr.ones_like(codes, float) if SITE in place else cell_areas(contributions)
    values = contributions["shapley"].transpose("group", "species", *place)
    layers = values.sizes["group"] * values.sizes["species"]
    totals = np.zeros((3, len(names), layers))
    for window in blocks_of(values, place):
        part = values.isel(window).values.reshape(layers, -1)
        number = codes.transpose(*place).isel(window).values.ravel()
        weight = weights.transpose(*place).isel(window).values.ravel()
        for i in range(layers):
            is_in = np.isfinite(part[i]) & (number >= 0)
            for total, x in zip(totals, (np.ones(1), part[i][is_in], np.abs(part[i][is_in]))):
                total[:, i] += np.bincount(
                    number[is_in], weights=x * weight[is_in], minlength=len(names)
                )
    if not totals[0].any():
        raise SelectionError(f"no cell with contributions lies in one of {len(names)} zones")
    return _table(totals, names, values)


def _table(totals: np.ndarray, names: list[str], values: xr.DataArray) -> xr.Dataset:
    """Return labelled means of totals ``(3, zone, group · species)`` of weights, values and sizes."""
    shape = (len(names), values.sizes["group"], values.sizes["species"])
    with np.errstate(invalid="ignore"):
        means = (totals[1:] / totals[0]).reshape(2, *shape)
    dims, attrs = (ZONE, "group", "species"), {"units": "1", "scale": values.attrs.get("scale")}
    texts = ("mean contribution of the group", "mean size of the contribution of the group")
    out = xr.Dataset(
        {
            n: (dims, m, {"long_name": text, **attrs})
            for n, m, text in zip(("mean", "mean_absolute"), means, texts)
        },
        coords={ZONE: names, "group": values["group"], "species": values["species"]},
    )
    cells = totals[0].reshape(shape)[:, 0, 0]
    is_sites = SITE in values.dims
    text = {"long_name": "sites" if is_sites else "area", "units": "1" if is_sites else "km2"}
    out["sites" if is_sites else "area"] = (ZONE, cells, text)
    return out.drop_vars([c for c in out.coords if c not in out.dims])


def zone_codes(
    contributions: xr.Dataset, zones: Any, name: str | None
) -> tuple[xr.DataArray, list[str]]:
    """Return the number of the zone of each cell, −1 outside all, and the names of the zones."""
    if not isinstance(zones, xr.DataArray):
        return _of_polygons(contributions, zones, name)
    place = place_dims(contributions)
    if set(zones.dims) != set(place) or any(
        zones.sizes[d] != contributions.sizes[d] for d in place
    ):
        raise SettingError(
            f"zones= has the sizes {dict(zones.sizes)}, the contributions "
            f"{ {d: contributions.sizes[d] for d in place} }; align it with gm.align(sources, like=cube)"
        )
    values = zones.transpose(*place).values
    if values.dtype.kind not in "biuf":
        texts, numbers = np.unique(values.astype(str), return_inverse=True)
        return _on_place(numbers.reshape(values.shape), contributions), texts.tolist()
    if not np.isfinite(values).any():
        raise SelectionError("zones= has no class in any cell: all of its values are NaN")
    classes = np.unique(values[np.isfinite(values)] if values.dtype.kind == "f" else values)
    labels = {float(c): f"{c:g}" for c in classes}
    if "flag_meanings" in zones.attrs:
        flags = [float(v) for v in np.atleast_1d(zones.attrs["flag_values"])]
        labels |= dict(zip(flags, str(zones.attrs["flag_meanings"]).split()))
    numbers = np.searchsorted(classes, np.nan_to_num(values, nan=classes[0]))
    numbers = np.where(np.isfinite(values), numbers, -1)
    return _on_place(numbers, contributions), [labels[float(c)] for c in classes]


def _on_place(numbers: np.ndarray, contributions: xr.Dataset) -> xr.DataArray:
    """Return numbers of zones with the dims and coordinates of the contributions."""
    place = place_dims(contributions)
    coords = {d: contributions[d] for d in place if d in contributions.coords}
    return xr.DataArray(numbers, dims=place, coords=coords)


def _of_polygons(
    contributions: xr.Dataset, zones: Any, name: str | None
) -> tuple[xr.DataArray, list[str]]:
    try:
        import geopandas
    except ImportError:
        raise GeomiamError("polygons need geopandas: pip install 'geomiam[vector]'") from None
    from rasterio.features import rasterize

    if SITE in contributions.dims:
        raise SettingError("zones of sites are an array along site; read them with gm.sample")
    table = geopandas.read_file(zones) if isinstance(zones, (str, Path)) else zones
    if name is not None and name not in table.columns:
        raise SelectionError(
            f"the polygons have no column {name!r}; choose from {list_names(list(map(str, table.columns)))}"
        )
    box, dims = geobox(contributions), spatial_dims(contributions)
    assert box.crs is not None
    if table.crs is not None:
        table = table.to_crs(box.crs.to_wkt())
    labels = [str(n) for n in (table[name] if name is not None else range(len(table)))]
    names = list(dict.fromkeys(labels))
    shapes = [
        (shape, names.index(label))
        for shape, label in zip(table.geometry, labels)
        if shape is not None
    ]
    size = (box.shape.y, box.shape.x)
    numbers = rasterize(shapes, out_shape=size, transform=box.affine, fill=-1, dtype="int32")
    return xr.DataArray(numbers, dims=dims, coords={d: contributions[d] for d in dims}), names


def regions(
    contributions: xr.Dataset, *, count: int = 5, rng: int | np.random.Generator | None = 0
) -> xr.Dataset:
    """Return regions of cells that are explained alike: clusters of their contributions.

    k-means on the contributions of all groups and species, on one scale, without standardisation: groups that
    matter more count more. The centres are computed from at most 50,000 cells, drawn at random.

    Parameters
    ----------
    contributions : xarray.Dataset
        From :func:`geomiam.shapley`, or a map with Shapley values.
    count : int
        Number of regions, 2 or more.
    rng : int, numpy.random.Generator or None
        Draws the cells and the start of k-means.

    Returns
    -------
    xarray.Dataset
        ``region(y, x)``: 1 is the largest region, with ``flag_values`` and ``flag_meanings``; NaN where
        nothing is observed. ``centre(region_number, group, species)``: the mean contributions. ``share``:
        its share of the drawn cells. ``explained``: the share of the variance of the contributions that is
        between regions. ``region`` is lazy for dask arrays.

    Raises
    ------
    SettingError
        If there are no Shapley values, or fewer different cells than regions.

    See Also
    --------
    geomiam.plot.regions : draw the regions and their centres.
    geomiam.explain.by_zone : means in given zones.

    Examples
    --------
    >>> result = gm.explain.regions(gm.shapley(cube, model), count=3)
    >>> result["centre"].sizes["region_number"]
    3
    """
    from sklearn.cluster import KMeans

    check_contributions(contributions, "contributions")
    contributions = with_species(contributions)
    check_count("count", count, minimum=2, hint="it is the number of regions")
    generator = np.random.default_rng(rng)
    place = [str(d) for d in place_dims(contributions)]
    values = contributions["shapley"].transpose("group", "species", *place)
    sample = _sample(values, place, generator)
    if len(np.unique(sample, axis=0)) < count:
        raise SettingError(
            f"count={count} regions need as many cells with different contributions, found "
            f"{len(np.unique(sample, axis=0))}; pass a smaller count="
        )
    clusters = KMeans(count, n_init=4, random_state=int(generator.integers(2**31))).fit(sample)
    sizes = np.bincount(clusters.labels_, minlength=count)
    order = np.argsort(-sizes, kind="stable")
    centres = clusters.cluster_centers_[order]
    labels = [str(i + 1) for i in range(count)]
    region = xr.apply_ufunc(
        _nearest,
        values,
        input_core_dims=[["group", "species"]],
        kwargs={"centres": centres},
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.float32],
    )
    region.attrs = {
        "long_name": "region of cells that are explained alike",
        "flag_values": [float(n) for n in labels],
        "flag_meanings": " ".join(f"region_{n}" for n in labels),
    }
    out = restore(xr.Dataset({"region": region.transpose(*place)}), contributions)
    shape = (count, values.sizes["group"], values.sizes["species"])
    out["centre"] = (
        ("region_number", "group", "species"),
        centres.reshape(shape),
        {"long_name": "mean contribution in the region", "units": "1", **_scale(values)},
    )
    out["share"] = ("region_number", sizes[order] / len(sample))
    names: dict[str, Any] = {d: values[d].values for d in ("group", "species")}
    out = out.assign_coords({"region_number": np.arange(1, count + 1), **names})
    total = float(((sample - sample.mean(0)) ** 2).sum())
    return out.assign(explained=1 - clusters.inertia_ / total)


def _scale(values: xr.DataArray) -> dict[str, Any]:
    return {"scale": values.attrs.get("scale", "probability")}


def _sample(values: xr.DataArray, place: list[str], rng: np.random.Generator) -> np.ndarray:
    """Return contributions ``(n, group · species)`` of cells drawn at random, whatever the chunks."""
    sizes = [values.sizes[d] for d in place]
    cells = int(np.prod(sizes))
    cells_of_sample = np.sort(rng.choice(cells, min(cells, SAMPLED), replace=False))
    positions = np.unravel_index(cells_of_sample, sizes)
    index = {d: xr.DataArray(p, dims="cell") for d, p in zip(place, positions)}
    rows = values.drop_vars(list(values.coords)).isel(index).transpose("cell", "group", "species")
    table = rows.values.reshape(len(cells_of_sample), -1)
    finite: np.ndarray = table[np.isfinite(table).all(1)].astype(float)
    return finite


def _nearest(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the number of the nearest centre, from 1, of contributions ``(…, group, species)``."""
    rows = values.reshape(-1, centres.shape[1])
    # |x − c|² without |x|², which is equal for all centres
    distance = (centres**2).sum(1) - 2 * rows @ centres.T
    number = np.where(np.isnan(rows).any(1), np.nan, distance.argmin(1) + 1.0)
    return number.reshape(values.shape[:-2]).astype(np.float32)


def blocks_of(array: xr.DataArray, place: list[str]) -> Iterator[dict[str, slice]]:
    """Yield the windows of the chunks along the dims of place; one window for arrays in memory."""
    edges = []
    for dim in place:
        ends = np.cumsum(array.chunksizes.get(dim, (array.sizes[dim],)))
        edges.append([slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends)])
    return (dict(zip(place, window)) for window in product(*edges))
