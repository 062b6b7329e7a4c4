"""Background points: places with presence 0 for species that were not surveyed there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.dataset import as_dataset, check_sites
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.data.records.cells import cells_of
from geomiam.data.records.coordinates import Points, locate
from geomiam.data.records.files import read_table
from geomiam.data.sites.background_area import BackgroundArea
from geomiam.data.sites.bias import Bias
from geomiam.data.sites.cells import Requirements, is_empty, read_cells
from geomiam.data.sites.draw import check_candidates, random_cells
from geomiam.data.sites.records_labels import filled_like
from geomiam.data.sites.restrictions import Removals, Restrictions
from geomiam.data.sites.target_group import searched
from geomiam.errors import GridError, LabelError, OccurrencesLeftOut, SettingError, warn
from geomiam.geo.crs import crs_name, crs_of, same_crs
from geomiam.geo.dims import SITE
from geomiam.labels import refuse_large
from geomiam.splits import site_coordinates

IN_WORDS = ("background_bias", "background_area")
"""Attributes of sites whose background is weighted or restricted."""


def add_background(
    sites: xr.Dataset,
    cube: xr.Dataset | xr.DataTree,
    *,
    n: int | None = 10_000,
    kind: Literal["random", "target-group"] = "random",
    bias: str | float | xr.DataArray | None = None,
    area: BackgroundArea | None = None,
    points: xr.Dataset | pd.DataFrame | str | Path | None = None,
    require: str | Sequence[str] = (),
    mask: str | None = None,
    rng: int | np.random.Generator | None = None,
) -> xr.Dataset:
    """Add background points as presence 0: random, weighted, restricted, of the target group, or from a table.

    Parameters
    ----------
    sites
        Sites with ``presence(site, species)``.
    cube
        The cube in which random points are drawn, and from which their predictors are read.
    n
        Number of points; None for every candidate.
    kind
        ``"random"``: new sites on cells where a predictor is observed, with 0 for every species. They
        are drawn without replacement and evenly over the area (on geographic grids, the weight of a
        cell is cos(latitude)). Cells with presences are candidates too. ``"target-group"``: no new
        sites; at sites where another species was recorded, species not recorded (NaN) become 0. Sites of
        an occurrence cube have the records of each class: there, species become 0 where their class
        was recorded.
    bias
        Weights per area with which random points are drawn, so that they have the sampling bias of the
        records. A variable of the cube, or a layer on its grid, at least 0; cells with 0 or NaN are not
        candidates. Or a length, such as ``"50 km"``: the kernel density of the presences of all species,
        where each presence has a Gaussian kernel of this standard deviation along the surface of the earth.
    area
        Restrictions of the places where background may lie: distance from the presences, convex hull,
        polygon, environmental envelope. They can be combined with each other and with every kind.
    points
        Background points: a table or path that :func:`geomiam.read_records` reads, or sites. The new sites
        are the cells that contain them, at most ``n``.
    require
        Modalities (by the attribute ``modality``) or variables of which a cell must have a value.
    mask
        Variable of the cube, such as a land mask: cells where it is NaN or 0 are not candidates.
    rng
        Seed or generator.

    Returns
    -------
    xr.Dataset
        The sites in their order, followed by new points. The coordinate ``background(site)`` is True where
        zeros are background. Attributes: ``background_kind`` (``"random"``, ``"density"`` with ``bias``,
        ``"points"`` or ``"target-group"``), ``background_candidates`` (number of places that could be
        drawn) and ``background_drawn`` (number of places drawn); ``background_bias`` and
        ``background_area``: weights and restrictions in words, if there are any. Variables that the cube
        does not have are NaN at new points.

    Raises
    ------
    LabelError
        When ``sites`` has no ``presence``, or there is no candidate; the message has the number of places
        that each restriction removes.
    SelectionError
        When ``require``, ``mask``, ``bias`` or a variable of the area is not in the cube.
    SettingError
        When ``n`` is below 1, two settings exclude each other, or ``bias`` has negative values.
    GridError
        When the layer of ``bias`` is on another grid, or the sites have other coordinates than the cube.
    OccurrenceError
        When ``points`` cannot be read.

    Warns
    -----
    UserWarning
        When there are fewer cells than ``n``, or more cells with ``points``.
    OccurrencesLeftOut
        With the number of ``points`` outside the grid, its data or the area.

    See Also
    --------
    geomiam.BackgroundArea : restrictions of the places, for ``area``.
    geomiam.plot.records : map of presences and background.
    geomiam.sample : predictors at presences, the first argument.
    geomiam.thin_records : fewer records where they are dense.

    References
    ----------
    Phillips et al. (2009), Ecological Applications 19, 181-197, for target-group and weighted background.
    Barbet-Massin et al. (2012), Methods in Ecology and Evolution 3, 327-338, for distances and envelopes.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube = gm.demo.load_cube()
    >>> sites = gm.demo.sample_records(cube, gm.demo.load_records())
    >>> with_background = gm.add_background(sites, cube, n=100, rng=0)
    >>> with_background.sizes["site"] - sites.sizes["site"]
    100
    >>> area = gm.BackgroundArea(within="300 km", beyond="20 km")
    >>> near = gm.add_background(sites, cube, n=100, bias="100 km", area=area, rng=0)
    >>> near.attrs["background_area"]
    'within 300 km of the presences; at least 20 km from the presences'
    """
    check_sites(sites)
    if "presence" not in sites:
        raise LabelError(
            f"sites have no 'presence', found {list(sites.data_vars)}; create them with gm.sample(...)"
        )
    _check_request(n, kind, bias=bias, points=points, require=require, mask=mask)
    rng = np.random.default_rng(rng)
    words = {} if area is None else {"background_area": "; ".join(_checked(area).texts().values())}
    if kind == "target-group":
        out, candidates, count = _target_group(sites, n=n, area=area, rng=rng)
    else:
        grid = as_dataset(cube)
        grid = restore(grid, grid)
        _check_same_places(sites, grid)
        weights = None if bias is None else Bias.of(bias, grid, sites)
        if weights is not None:
            words["background_bias"] = weights.text
        present = (sites["presence"] == 1).any("species").values
        shared: dict[str, Any] = {"n": n, "rng": rng}
        shared["requirements"] = Requirements.of(grid, require, mask)
        shared["restrictions"] = Restrictions.of(area, sites, present, crs_of(grid))
        if points is not None:
            cells, candidates = _cells_of_points(points, grid, **shared)
        else:
            cells, candidates = random_cells(grid, bias=weights, **shared)
            if n is not None and n > candidates:
                warn(
                    f"only {candidates} cells have data{' in the area' if area else ''}, fewer than the n={n} background points that were requested"
                )
        out, count = _append(sites, cells), cells.sizes[SITE]
    name = "points" if points is not None else kind if bias is None else "density"
    out.attrs = {k: v for k, v in out.attrs.items() if k not in IN_WORDS} | words
    attrs = {"background_candidates": candidates, "background_drawn": count}
    return restore(out.assign_attrs(background_kind=name, **attrs), out)


def _check_request(
    n: int | None, kind: str, *, bias: Any, points: Any, require: Any, mask: Any
) -> None:
    if kind not in ("random", "target-group"):
        raise LabelError(f"kind={kind!r} is not supported; use 'random' or 'target-group'")
    settings = {"kind='target-group'": kind != "random", "points=": points is not None}
    settings["bias="] = bias is not None
    if len(names := [k for k, is_set in settings.items() if is_set]) > 1:
        raise SettingError(
            f"{' and '.join(names)} exclude each other; pass one of them, or call add_background again with its result"
        )
    if kind != "random" and (mask is not None or len(require)):
        raise SettingError(
            "mask= and require= have no effect with kind='target-group', which adds no sites; pass them to gm.sample"
        )
    if bias is not None and n is None:
        raise SettingError("n=None draws every candidate, so bias= has no effect; pass n=10_000")


def _check_same_places(sites: xr.Dataset, grid: xr.Dataset) -> None:
    """Refuse sites whose coordinates are not those of the grid, since both become one table."""
    names, crs, of_sites = spatial_dims(grid), crs_of(grid), None
    with suppress(GridError):
        of_sites = crs_of(sites)
    if set(names) <= set(sites.variables) and (of_sites is None or same_crs(of_sites, crs)):
        return
    raise GridError(
        f"the sites have the coordinates {list(sites.coords)} in {crs_name(of_sites) if of_sites else 'an unknown CRS'}, "
        f"and the cube {list(names)} in {crs_name(crs)}; take the sites from this cube with gm.sample(cube, records)"
    )


def _checked(area: Any) -> BackgroundArea:
    if not isinstance(area, BackgroundArea):
        raise SettingError(
            f"area= is a {type(area).__name__}; pass gm.BackgroundArea(within='200 km'), or gm.BackgroundArea(polygon=...)"
        )
    return area


def _cells_of_points(
    points: Any,
    grid: xr.Dataset,
    *,
    n: int | None,
    requirements: Requirements,
    restrictions: Restrictions,
    rng: np.random.Generator,
) -> tuple[xr.Dataset, int]:
    """Return the variables of at most n cells that contain a point of a table, and the number of candidates."""
    positions = _positions(points)
    cells = cells_of(positions, geobox(grid))
    inside = (cells >= 0).all(axis=1)
    unique_cells, number = np.unique(cells[inside], axis=0, return_inverse=True)
    places = read_cells(grid, unique_cells)
    usable = ~is_empty(places) & requirements.of_sites(places)
    is_allowed, removals = restrictions.of_sites(places.isel({SITE: usable}))
    usable[usable] = is_allowed
    candidates = int(usable.sum())
    check_candidates(
        candidates, n, description="cells with a point and an observed predictor", removals=removals
    )
    outside_count, unusable_count = int((~inside).sum()), int((~usable[number.ravel()]).sum())
    if outside_count or unusable_count:
        warn(
            f"of {len(cells):,} background points left out: {outside_count:,} without coordinates or outside the grid, "
            f"{unusable_count:,} on cells without data or outside the area",
            OccurrencesLeftOut,
        )
    rows = np.flatnonzero(usable)
    if n is not None and n < candidates:
        warn(f"{candidates:,} cells have points, and n={n:,} of them are drawn; n=None uses all")
        rows = np.sort(rng.choice(rows, n, replace=False))
    return places.isel({SITE: rows}), candidates


def _positions(points: Any) -> Points:
    if not isinstance(points, xr.Dataset):
        return locate(read_table(points))
    x, y = site_coordinates(points).T
    return Points(x, y, str(crs_of(points)), ("x", "y"))


def _append(sites: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Return sites with cells as background: presence 0, and NaN in variables that the cube does not have."""
    n = cells.sizes[SITE]
    background = cells[[k for k in cells.data_vars if k in sites.data_vars]]
    for name, var in sites.data_vars.items():
        if name not in background and SITE in var.dims:
            fill = 0.0 if name == "presence" else np.nan
            shape = tuple(n if d == SITE else var.sizes[d] for d in var.dims)
            background[name] = (var.dims, filled_like(var, shape, fill))
    background = background.assign_coords(
        species=sites["species"], background=(SITE, np.ones(n, bool))
    )
    if "background" not in sites.variables:
        sites = sites.assign_coords(background=(SITE, np.zeros(sites.sizes[SITE], bool)))
    sites = sites.set_coords("background")
    shared = [k for k, c in sites.coords.items() if SITE in c.dims and k not in background.coords]
    return xr.concat(
        [sites.drop_vars(shared), background],
        dim=SITE,
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )


def _target_group(
    sites: xr.Dataset, *, n: int | None, area: BackgroundArea | None, rng: np.random.Generator
) -> tuple[xr.Dataset, int, int]:
    missing, removals = searched(sites), Removals()
    if area is not None:
        missing, removals = _restricted(missing, sites, area)
    partly = missing.any("species").values
    places = np.flatnonzero(partly)
    check_candidates(
        len(places),
        n,
        description="sites where some species were recorded and others not",
        removals=removals,
    )
    drawn_places = places if n is None or n >= len(places) else rng.choice(places, n, replace=False)
    is_drawn = xr.DataArray(np.isin(np.arange(len(partly)), drawn_places), dims=SITE)
    presence = sites["presence"].where(~(missing & is_drawn), np.float32(0))
    flags = is_drawn.values
    if "background" in sites.variables:
        flags = flags | sites["background"].values
    out = sites.assign(presence=presence.assign_attrs(sites["presence"].attrs))
    return out.assign_coords(background=(SITE, flags)), len(places), len(drawn_places)


def _restricted(
    missing: xr.DataArray, sites: xr.Dataset, area: BackgroundArea
) -> tuple[xr.DataArray, Removals]:
    """Return where species may become 0 ``(site, species)``: in the area around the presences of each."""
    refuse_large(
        missing.shape, bytes_each=1, function="add_background with kind='target-group' and area="
    )
    missing = missing.transpose(SITE, "species").compute().copy()
    present = (sites["presence"].transpose(SITE, "species") == 1).values
    area, removals = area.opened(), Counter[str]()
    for species in range(missing.sizes["species"]):
        rows = np.flatnonzero(missing.values[:, species])
        is_allowed = np.zeros(len(rows), bool)
        if present[:, species].any() or not area.around_presences:
            restrictions = Restrictions.of(area, sites, present[:, species], crs_of(sites))
            is_allowed, counts = restrictions.of_sites(sites.isel({SITE: rows}))
            removals.update(counts)
        missing[rows, species] = is_allowed
    return missing, dict(removals)
