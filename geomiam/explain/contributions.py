"""What follows from contributions alone: the limiting group, and distributions that are expected but lost."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.grid.grid import restore
from geomiam.errors import SelectionError, SettingError
from geomiam.geo.dims import SITE, spatial_pair
from geomiam.ranges.areas import areas_of

BY_SPECIES = ("shapley", "suitability", "main_effect", "interaction", "base_value")
SHADOW = {"unsuitable": 0.0, "realised": 1.0, "shadow": 2.0}
"""Codes of the classes of :func:`shadow`."""


def limiting(contributions: xr.Dataset) -> xr.Dataset:
    """Return the limiting group of predictors of each cell or site: that with the smallest contribution.

    This is the limiting factor of Elith, Kearney and Phillips (2010), by the exact contributions of the model.
    Groups without an observed predictor do not count.

    Parameters
    ----------
    contributions : xarray.Dataset
        From :func:`geomiam.shapley`, or a map with Shapley values.

    Returns
    -------
    xarray.Dataset
        ``limiting(species, y, x)``: the number of the group, with ``flag_values`` and ``flag_meanings``; NaN
        where nothing is observed. ``contribution(species, y, x)``: its value. Where that is positive, no group
        lowers the prediction. Lazy for dask arrays.

    Raises
    ------
    SettingError
        If there are no Shapley values, or ``observed`` is missing.

    See Also
    --------
    geomiam.shapley : the contributions.
    geomiam.plot.limiting : plot the map.
    geomiam.ranges.class_areas : the area of each class, of ``limiting``.

    References
    ----------
    Elith, Kearney and Phillips (2010), Methods in Ecology and Evolution 1, 330-342.

    Examples
    --------
    >>> result = gm.explain.limiting(gm.shapley(cube, model))
    >>> result["limiting"].attrs["flag_meanings"].split()[0]
    'climate'
    """
    check_contributions(contributions, "contributions")
    values = contributions["shapley"]
    finite_values = values.where(observed_groups(contributions), np.inf).fillna(np.inf)
    smallest = finite_values.min("group")
    has_group = np.isfinite(smallest)
    number = (finite_values.argmin("group") + 1).where(has_group).astype(np.float32)
    names = [str(n) for n in values["group"].values]
    out = xr.Dataset({"limiting": number, "contribution": smallest.where(has_group)})
    out["limiting"].attrs = {
        "long_name": "limiting group of predictors",
        "flag_values": [float(i + 1) for i in range(len(names))],
        "flag_meanings": " ".join(n.replace(" ", "_") for n in names),
    }
    scale = values.attrs.get("scale", "probability")
    text = "contribution of the limiting group"
    out["contribution"].attrs = {"long_name": text, "units": "1", "scale": scale}
    return restore(out, contributions)


def shadow(
    contributions: xr.Dataset, *, natural: str | Sequence[str], human: str | Sequence[str]
) -> xr.Dataset:
    """Return where a species is expected by nature but lowered by human pressure: its shadow distribution.

    A cell belongs to the natural distribution if the natural groups raise the prediction together. It lies in
    the shadow if the human groups lower it there (Waldock et al. 2024). The classes describe the model: they
    are causes only as far as the model learned causes.

    Parameters
    ----------
    contributions : xarray.Dataset
        From :func:`geomiam.shapley`, or a map with Shapley values.
    natural, human : str or sequence of str
        Groups of natural conditions, such as climate, and of human pressure, such as land use. Other groups
        count for neither.

    Returns
    -------
    xarray.Dataset
        ``shadow(species, y, x)``: 0 unsuitable, 1 realised, 2 shadow, NaN where no natural or no human group is
        observed. ``natural`` and ``human``: sums of the contributions. ``expected``: the prediction
        without the human contribution. For cubes ``area(class, species)`` in km², and ``share(species)``: the
        shadow's share of the natural distribution. Lazy for dask arrays.

    Raises
    ------
    SelectionError
        If a group is unknown or in both lists, or a list is empty.
    SettingError
        If there are no Shapley values, or ``observed`` is missing.

    See Also
    --------
    geomiam.shapley : the contributions.
    geomiam.plot.shadow : plot the map.
    geomiam.explain.limiting : the group with the smallest contribution.

    References
    ----------
    Waldock et al. (2024), Nature Communications 15, doi 10.1038/s41467-024-52993-0.

    Examples
    --------
    >>> result = gm.explain.shadow(gm.shapley(cube, model), natural="climate", human=["cover"])
    >>> result["area"]["class"].values.tolist()
    ['unsuitable', 'realised', 'shadow']
    """
    check_contributions(contributions, "contributions")
    lists = {
        k: [v] if isinstance(v, str) else list(v)
        for k, v in (("natural", natural), ("human", human))
    }
    names = [str(n) for n in contributions["group"].values]
    for key, groups in lists.items():
        if not groups or (unknown := [g for g in groups if g not in names]):
            raise SelectionError(
                f"{key}={unknown if groups else groups}: choose from the groups {list_names(names)}"
            )
    if twice := sorted(set(lists["natural"]) & set(lists["human"])):
        raise SelectionError(
            f"{twice} are in natural= and in human=; a group belongs to one of them"
        )
    observed, scale = observed_groups(contributions), contributions["shapley"].attrs.get("scale")
    out = xr.Dataset()
    is_known: xr.DataArray = contributions["suitability"].notnull()
    for key, groups in lists.items():
        is_known = is_known & observed.sel(group=groups).any("group")
        total = contributions["shapley"].sel(group=groups).sum("group", skipna=False)
        text = f"contribution of the {key} groups"
        out[key] = total.assign_attrs(long_name=text, units="1", scale=scale)
    text = "prediction without the contribution of the human groups"
    expected = contributions["suitability"] - out["human"]
    out["expected"] = expected.assign_attrs(long_name=text, units="1", scale=scale)
    codes = xr.where(out["natural"] > 0, xr.where(out["human"] < 0, 2.0, 1.0), 0.0)
    codes = codes.where(is_known).astype(np.float32).transpose(*out["natural"].dims)
    out["shadow"] = codes.assign_attrs(
        long_name="shadow distribution",
        flag_values=list(SHADOW.values()),
        flag_meanings=" ".join(SHADOW),
    )
    out = restore(out, contributions)
    return _with_areas(out) if spatial_pair(out.dims) and SITE not in out.dims else out


def _with_areas(out: xr.Dataset) -> xr.Dataset:
    area = areas_of(out["shadow"], SHADOW)
    shadow_area, realised_area = (area.sel({"class": c}, drop=True) for c in ("shadow", "realised"))
    total = shadow_area + realised_area
    share = (shadow_area / total.where(total > 0)).assign_attrs(
        long_name="share of the natural distribution that is shadow", units="1"
    )
    return out.assign(area=area, share=share)


def with_species(contributions: xr.Dataset) -> xr.Dataset:
    """Return contributions with the dim ``species``, also if the caller selected one species."""
    if "species" in contributions["shapley"].dims:
        return contributions
    names = [n for n in BY_SPECIES if n in contributions]
    return contributions.assign({n: contributions[n].expand_dims("species") for n in names})


def check_contributions(contributions: xr.Dataset, name: str) -> None:
    """Refuse a dataset without Shapley values of groups."""
    if "shapley" not in contributions or "group" not in contributions["shapley"].dims:
        raise SettingError(
            f"{name}= has no Shapley values; pass the result of gm.shapley(cube, model), or a map of "
            "gm.write_map(…, shapley=True)"
        )
    if missing := [n for n in ("observed", "suitability") if n not in contributions]:
        raise SettingError(f"{name}= lacks the layers {missing} of gm.shapley; keep them")


def observed_groups(contributions: xr.Dataset) -> xr.DataArray:
    """Return which groups have an observed predictor, boolean ``(group, y, x)``."""
    names = contributions.attrs.get("groups", "[]")
    names = json.loads(names) if isinstance(names, str) else list(names)
    labels = [str(n) for n in contributions["group"].values]
    if lacking := [n for n in labels if n not in names]:
        raise SettingError(
            f"the attribute 'groups' does not list {lacking}; keep the attributes of gm.shapley"
        )
    bits = contributions["observed"].fillna(0).astype(np.uint64)
    masks = xr.DataArray(
        np.array([1 << names.index(n) for n in labels], np.uint64),
        dims="group",
        coords={"group": contributions["group"].values},
    )
    return (bits & masks) > 0
