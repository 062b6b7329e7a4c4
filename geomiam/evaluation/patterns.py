"""Patterns of missing data: which predictors of which sites are hidden.

A pattern draws a boolean array ``(site, variable)`` or ``(site, modality)``; :func:`hide` turns it
into NaN. The same functions make gaps in training sites and in test sites.

Drawn with equal ``rng``, a pattern at a smaller share lies inside the same pattern at a larger one:
along a curve, entries are added and none is exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.errors import SelectionError
from geomiam.geo.lengths import Length, kilometres
from geomiam.schema.schema import Schema
from geomiam.splits import site_coordinates
from geomiam.splits.reading import places_of

Pattern = Callable[..., xr.DataArray]
"""``pattern(sites, schema, *, share, rng)`` → boolean ``(site, variable)`` or ``(site, modality)``."""
Rng = int | np.random.Generator | None
ACROSS = 10
"""Blocks along the longer side of the sites' extent, unless their size is given."""


def at_random(sites: xr.Dataset, schema: Schema, *, share: float, rng: Rng = 0) -> xr.DataArray:
    """Hide single variables of single sites, all with the same chance.

    Parameters
    ----------
    sites : xarray.Dataset
    schema : Schema
    share : float
        Share of the entries ``(site, variable)`` to hide, in [0, 1]; met exactly.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    xarray.DataArray
        Boolean ``(site, variable)``; True = hidden.

    Raises
    ------
    ValueError
        If the share leaves [0, 1].

    Examples
    --------
    >>> hidden = gm.evaluation.at_random(sites, schema, share=0.5, rng=0)
    >>> hidden.dims, float(hidden.mean())
    (('site', 'variable'), 0.5)
    """
    names = list(schema.variables)
    return _scattered(sites.sizes["site"], names, dim="variable", share=share, rng=rng)


def by_modality(sites: xr.Dataset, schema: Schema, *, share: float, rng: Rng = 0) -> xr.DataArray:
    """Hide whole modalities of single sites, all with the same chance.

    Parameters
    ----------
    sites, schema, rng
        As for :func:`at_random`.
    share : float
        Share of the entries ``(site, modality)`` to hide, in [0, 1]; met exactly.

    Returns
    -------
    xarray.DataArray
        Boolean ``(site, modality)``; True = hidden.

    Raises
    ------
    ValueError
        If the share leaves [0, 1].

    Examples
    --------
    >>> gm.evaluation.by_modality(sites, schema, share=0.5, rng=0).dims
    ('site', 'modality')
    """
    names = list(schema.modalities)
    return _scattered(sites.sizes["site"], names, dim="modality", share=share, rng=rng)


def belt(
    sites: xr.Dataset,
    schema: Schema,
    *,
    share: float,
    rng: Rng = 0,
    modalities: Sequence[str] | None = None,
) -> xr.DataArray:
    """Hide a modality in a belt that crosses the map, such as a gap between satellite orbits.

    Direction and place of the belt are drawn for each modality.

    Parameters
    ----------
    sites : xarray.Dataset
        With coordinates.
    schema : Schema
    share : float
        Share of the sites that lie in each belt, in [0, 1]; met exactly.
    rng : int, numpy.random.Generator or None
    modalities : sequence of str, optional
        The modalities that lose a belt; default: each of them.

    Returns
    -------
    xarray.DataArray
        Boolean ``(site, modality)``; True = hidden.

    Raises
    ------
    ValueError
        If the share leaves [0, 1].
    GridError
        If the sites have no coordinates.
    SelectionError
        If a modality is unknown.

    Examples
    --------
    >>> hidden = gm.evaluation.belt(sites, schema, share=0.25, rng=0)
    >>> float(hidden.isel(modality=0).mean())
    0.25
    """
    xy, draws = site_coordinates(sites), np.random.default_rng(rng)
    count = _count(share, len(xy))
    return _by_place(sites, schema, modalities, lambda: _one_belt(xy, count, draws))


def region(
    sites: xr.Dataset,
    schema: Schema,
    *,
    share: float,
    rng: Rng = 0,
    modalities: Sequence[str] | None = None,
    block: Length | None = None,
) -> xr.DataArray:
    """Hide a modality in a compact region, such as a country without a public soil map.

    Around a site drawn at random the nearest blocks are taken whole, as many as bring the share of
    the sites in them nearest to ``share``. Every modality loses a different region.

    Parameters
    ----------
    sites, schema, share, rng, modalities
        As for :func:`belt`; the share is met to half a block.
    block : float or str, optional
        Side of the blocks: km, or text such as ``"100 km"``; default: a tenth of the longer side of the
        sites' extent.

    Returns
    -------
    xarray.DataArray
        Boolean ``(site, modality)``; True = hidden.

    Raises
    ------
    ValueError, GridError, SelectionError
        As for :func:`belt`.

    Examples
    --------
    >>> gm.evaluation.region(sites, schema, share=0.25, rng=0).dims
    ('site', 'modality')
    """
    places, draws = places_of(sites, None), np.random.default_rng(rng)
    side = kilometres(block, "block") if block is not None else block_size(sites)
    blocks = np.unique(places.squares(side), axis=0, return_inverse=True)[1].ravel()
    points, count = places.points(), _count(share, len(places))
    return _by_place(sites, schema, modalities, lambda: _one_region(points, blocks, count, draws))


PATTERNS: dict[str, Pattern] = {
    "at-random": at_random,
    "by-modality": by_modality,
    "belt": belt,
    "region": region,
}


def hide(sites: xr.Dataset, hidden: xr.DataArray, schema: Schema) -> xr.Dataset:
    """Set the hidden entries of a pattern to NaN; labels, coordinates and attributes are kept.

    Parameters
    ----------
    sites : xarray.Dataset
    hidden : xarray.DataArray
        Boolean ``(site, variable)`` or ``(site, modality)``, from a pattern.
    schema : Schema
        Variables of each modality.

    Returns
    -------
    xarray.Dataset
        A new dataset; variables of which nothing is hidden are shared with ``sites``.

    Raises
    ------
    SelectionError
        If the sites do not have one of the hidden variables.

    Examples
    --------
    >>> hidden = gm.evaluation.by_modality(sites, schema, share=1, rng=0)
    >>> bool(gm.evaluation.hide(sites, hidden, schema)["bio1"].isnull().all())
    True
    """
    entries = by_variable(hidden, schema)
    entries = entries[:, entries.any("site").values]
    require_variables(sites, entries, action="hidden")
    visible = {str(v): ~entries.sel(variable=v, drop=True) for v in entries["variable"].values}
    return sites.assign({v: sites[v].where(keep) for v, keep in visible.items()})


def by_variable(hidden: xr.DataArray, schema: Schema) -> xr.DataArray:
    """Return a pattern of either form as boolean ``(site, variable)``."""
    if "variable" in hidden.dims:
        return hidden.transpose("site", "variable")
    homes = {v: m.name for m in schema.modalities.values() for v in m.variables}
    homes = {v: m for v, m in homes.items() if m in hidden["modality"].values}
    spread = hidden.sel(modality=list(homes.values())).transpose("site", "modality").values
    return xr.DataArray(spread, dims=("site", "variable"), coords={"variable": list(homes)})


def require_variables(sites: xr.Dataset, entries: xr.DataArray, *, action: str) -> None:
    """Raise if the sites lack a variable of a pattern ``(site, variable)``."""
    if absent := [str(v) for v in entries["variable"].values if v not in sites]:
        raise SelectionError(
            f"{absent} cannot be {action}: the sites have {list(sites.data_vars)}; pass the schema of "
            "these sites"
        )


def block_size(sites: xr.Dataset) -> float:
    """Return a tenth of the longer side of the sites' extent, in km; 1 where all is one point."""
    return float(places_of(sites, None).span().max()) / ACROSS or 1.0


def _scattered(sites: int, names: list[str], *, dim: str, share: float, rng: Rng) -> xr.DataArray:
    """Hide the entries with the smallest of random numbers: as many as the share requires."""
    hidden = np.zeros((sites, len(names)), bool)
    order = np.random.default_rng(rng).random(hidden.size).argsort()
    hidden.flat[order[: _count(share, hidden.size)]] = True
    return xr.DataArray(hidden, dims=("site", dim), coords={dim: names})


def _by_place(
    sites: xr.Dataset,
    schema: Schema,
    modalities: Sequence[str] | None,
    draw: Callable[[], np.ndarray],
) -> xr.DataArray:
    """Draw the hidden sites of one modality after another."""
    names = list(schema.modalities)
    modality_names = names if modalities is None else list(modalities)
    if unknown := [m for m in modality_names if m not in names]:
        raise SelectionError(f"{unknown} are no modalities of the schema; it has {names}")
    hidden = np.zeros((sites.sizes["site"], len(names)), bool)
    for modality in modality_names:
        hidden[:, names.index(modality)] = draw()
    return xr.DataArray(hidden, dims=("site", "modality"), coords={"modality": names})


def _one_belt(xy: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Take neighbours along a random direction; with equal draws a wider belt contains a narrower one."""
    angle, start = rng.uniform(0, 2 * np.pi), rng.random()
    order = np.argsort(xy @ [np.cos(angle), np.sin(angle)], kind="stable")
    first = int(start * (len(xy) - count))
    hidden = np.zeros(len(xy), bool)
    hidden[order[first : first + count]] = True
    return hidden


def _one_region(
    points: np.ndarray, blocks: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Take whole blocks around a random site, until their total is nearest to the count."""
    seed = points[rng.integers(len(points))]
    sizes = np.bincount(blocks)
    centres = np.stack([np.bincount(blocks, axis) / sizes for axis in points.T], 1)
    order = np.argsort(((centres - seed) ** 2).sum(1), kind="stable")
    totals = np.concatenate([[0], sizes[order].cumsum()])
    return np.isin(blocks, order[: int(np.abs(totals - count).argmin())])


def _count(share: float, n: int) -> int:
    check_number(
        "share",
        share,
        requirement="must lie in [0, 1]",
        accepts=lambda x: 0 <= x <= 1,
        hint="0.2 hides a fifth",
    )
    return round(share * n)
