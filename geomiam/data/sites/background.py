"""Background points: places with presence 0 for species that were not surveyed there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import restore, spatial_dims
from geomiam.data.sites.cells import Requirements, read_cells
from geomiam.data.sites.target_group import searched
from geomiam.errors import LabelError, warn
from geomiam.geo.crs import crs_of
from geomiam.geo.dims import SITE

BLOCK = 4_000_000
"""Number of cells processed at a time when drawing. It limits memory, and the drawn cells depend on it."""
ANY = Requirements()


def add_background(
    sites: xr.Dataset,
    cube: xr.Dataset | xr.DataTree,
    *,
    n: int | None = 10_000,
    kind: Literal["random", "target-group"] = "random",
    require: str | Sequence[str] = (),
    mask: str | None = None,
    rng: int | np.random.Generator | None = None,
) -> xr.Dataset:
    """Add background points as presence 0.

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
    require
        Modalities (by the attribute ``modality``) or variables of which a cell must have a value.
    mask
        Variable of the cube, such as a land mask: cells where it is NaN or 0 are not candidates.
    rng
        Seed or generator.

    Returns
    -------
    xr.Dataset
        The sites in their order, followed by random points. The coordinate ``background(site)`` is True
        where zeros are background. Attributes: ``background_kind``, ``background_candidates`` (number
        of places that could be drawn) and ``background_drawn`` (number of places drawn). Variables that
        the cube does not have are NaN at random points.

    Raises
    ------
    LabelError
        When ``sites`` has no ``presence``, or there is no candidate.
    SelectionError
        When ``require`` or ``mask`` is not in the cube.

    Warns
    -----
    UserWarning
        When there are fewer cells than ``n``.

    See Also
    --------
    geomiam.sample : predictors at presences, the first argument.
    geomiam.thin_records : fewer records where they are dense.

    References
    ----------
    Phillips et al. (2009), Ecological Applications 19, 181-197, for target-group background.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube = gm.demo.load_cube()
    >>> sites = gm.demo.sample_records(cube, gm.demo.load_records())
    >>> with_background = gm.add_background(sites, cube, n=100, rng=0)
    >>> with_background.sizes["site"] - sites.sizes["site"]
    100
    """
    if "presence" not in sites:
        raise LabelError(
            f"sites have no 'presence', found {list(sites.data_vars)}; create them with gm.sample(...)"
        )
    if kind not in ("random", "target-group"):
        raise LabelError(f"kind={kind!r} is not supported; use 'random' or 'target-group'")
    rng = np.random.default_rng(rng)
    if kind == "random":
        grid = as_dataset(cube)
        requirements = Requirements.of(grid, require, mask)
        cells, candidates = random_cells(grid, n=n, rng=rng, requirements=requirements)
        if n is not None and n > candidates:
            warn(
                f"only {candidates} cells have data, fewer than the n={n} background points that were requested"
            )
        out, count = _append(sites, cells), cells.sizes[SITE]
    else:
        out, candidates, count = _target_group(sites, n=n, rng=rng)
    attrs = {"background_candidates": candidates, "background_drawn": count}
    return restore(out.assign_attrs(background_kind=kind, **attrs), out)


def random_cells(
    cube: xr.Dataset, *, n: int | None, rng: np.random.Generator, requirements: Requirements = ANY
) -> tuple[xr.Dataset, int]:
    """Draw random cells on which a predictor is observed, evenly over the area, and read them.

    Returns variables ``(site, *own dims)`` of at most ``n`` cells (None: all) in random order, and the
    number of candidates. Lazy variables are read chunk by chunk. Raises LabelError without a candidate.
    """
    cube = restore(cube, cube)
    mask = requirements.candidates(cube).transpose(*spatial_dims(cube)).values
    candidates = int(mask.sum())
    _check_candidates(candidates, n, description="cells with an observed predictor")
    cells = draw_cells(mask, candidates if n is None else n, weights=_row_weights(cube), rng=rng)
    return read_cells(cube, cells), candidates


def _check_candidates(candidates: int, n: int | None, *, description: str) -> None:
    if n is not None and n < 1:
        raise LabelError(f"n={n} background points; pass n >= 1, or None for every candidate")
    if not candidates:
        raise LabelError(
            f"there are no {description}, so no background can be drawn; check gm.coverage(cube, schema)"
        )


def _row_weights(cube: xr.Dataset) -> np.ndarray:
    """Return the relative area of the cells of each row ``(y,)``."""
    lat, crs = cube[spatial_dims(cube)[0]].values, crs_of(cube)
    return np.cos(np.deg2rad(lat)).clip(1e-9) if crs.geographic else np.ones(len(lat))


def draw_cells(
    mask: np.ndarray, n: int, *, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw at most n cells of a mask ``(y, x)`` without replacement, in random order.

    ``weights`` are those of the cells of each row ``(y,)``, positive. Returns rows and columns
    ``(min(n, candidates), 2)``.
    """
    # Each cell gets an exponential waiting time divided by its weight. The n cells with the shortest
    # times are a weighted sample without replacement (Efraimidis and Spirakis 2006, Information
    # Processing Letters 97). One pass with n cells in memory is sufficient.
    width = mask.shape[1]
    best, waits = np.empty(0, int), np.empty(0)
    step = max(1, BLOCK // max(1, width))
    for start in range(0, len(mask), step):
        cells = np.flatnonzero(mask[start : start + step]) + start * width
        wait = rng.exponential(size=len(cells)) / weights[cells // width]
        near = wait < (waits[-1] if len(waits) == n else np.inf)
        best, waits = np.append(best, cells[near]), np.append(waits, wait[near])
        keep = np.argsort(waits, kind="stable")[:n]
        best, waits = best[keep], waits[keep]
    return np.stack(np.divmod(best, width), axis=1)


def _append(sites: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Return sites with cells as background: presence 0, and NaN in variables that the cube does not have."""
    n = cells.sizes[SITE]
    background = cells[[k for k in cells.data_vars if k in sites.data_vars]]
    for name, var in sites.data_vars.items():
        if name not in background and SITE in var.dims:
            fill = 0.0 if name == "presence" else np.nan
            shape = [n if d == SITE else var.sizes[d] for d in var.dims]
            background[name] = (var.dims, np.full(shape, fill, "float32"))
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
    sites: xr.Dataset, *, n: int | None, rng: np.random.Generator
) -> tuple[xr.Dataset, int, int]:
    missing = searched(sites)
    partly = missing.any("species").values
    places = np.flatnonzero(partly)
    _check_candidates(
        len(places), n, description="sites where some species were recorded and others not"
    )
    drawn_places = places if n is None or n >= len(places) else rng.choice(places, n, replace=False)
    is_drawn = xr.DataArray(np.isin(np.arange(len(partly)), drawn_places), dims=SITE)
    presence = sites["presence"].where(~(missing & is_drawn), np.float32(0))
    flags = is_drawn.values
    if "background" in sites.variables:
        flags = flags | sites["background"].values
    out = sites.assign(presence=presence.assign_attrs(sites["presence"].attrs))
    return out.assign_coords(background=(SITE, flags)), len(places), len(drawn_places)
