"""The difference of two explanations."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.grid.grid import restore
from geomiam.errors import SelectionError, SettingError
from geomiam.explain.change import same_cells
from geomiam.explain.contributions import check_contributions, observed_groups, with_species

LAYERS = ("shapley", "main_effect", "interaction", "base_value")


def difference(earlier: xr.Dataset, later: xr.Dataset) -> xr.Dataset:
    """Return how contributions differ between two explanations by one model: dates, scenarios or species.

    Shapley values are linear, so the differences of the contributions add up to the difference of the
    predictions. They state how the *explanation* changes. The contribution of a group can change although the
    group has not, because it acts together with one that has; :func:`geomiam.explain.change` attributes a
    change to the groups that changed.

    Parameters
    ----------
    earlier, later : xarray.Dataset
        From :func:`geomiam.shapley`, or maps with Shapley values, of one model, on one grid and scale, with the
        same groups. For two species, select one in each: ``contributions.sel(species=["oak"])``.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species, y, x)`` and ``base_value(species)`` add up to ``later - earlier``, the
        two predictions ``(species, y, x)``; ``main_effect`` and ``interaction`` if both have them.
        ``one_sided(group, y, x)``: groups that are observed in one of the two only, whose difference is that
        of what is known. NaN where one of the two is NaN. Two species have the label ``"oak - beech"``. Lazy
        for dask arrays.

    Raises
    ------
    SettingError
        If the two have different models, scales or kinds of interactions.
    SelectionError
        If groups or species differ.
    GridError
        If they do not have the same cells or sites.

    See Also
    --------
    geomiam.shapley : the contributions.
    geomiam.explain.change : which group's change causes the change.

    Examples
    --------
    >>> now, later = gm.shapley(cube, model), gm.shapley(cube.assign(bio1=cube["bio1"] + 2), model)
    >>> gm.explain.difference(now, later)["shapley"].dims
    ('group', 'species', 'y', 'x')
    """
    for dataset, name in ((earlier, "earlier"), (later, "later")):
        check_contributions(dataset, name)
    earlier, later = with_species(earlier), with_species(later)
    _check_settings(earlier, later)
    first, second = same_cells(earlier, later)
    second = _same_labels(first, second)
    names = [n for n in LAYERS if n in first and n in second]
    out = xr.Dataset({n: (second[n] - first[n]).assign_attrs(first[n].attrs) for n in names})
    for name, dataset in (("earlier", first), ("later", second)):
        out[name] = dataset["suitability"].assign_attrs(long_name=f"{name} prediction")
    one_sided = observed_groups(first) ^ observed_groups(second)
    one_sided = one_sided.transpose("group", ...)
    out["one_sided"] = one_sided.assign_attrs(long_name="group observed in one of the two only")
    if "includes" in first.coords and "interaction" in out:
        out = out.assign_coords(includes=first["includes"])
    before, after = (np.atleast_1d(d["species"].values) for d in (earlier, later))
    if sorted(before) != sorted(after):
        out = out.assign_coords(species=[f"{after[0]} - {before[0]}"])
    return restore(out.assign_attrs(first.attrs), first)


def _check_settings(earlier: xr.Dataset, later: xr.Dataset) -> None:
    for key, text in {"model_id": "models", "index": "kinds of interactions"}.items():
        first, second = earlier.attrs.get(key), later.attrs.get(key)
        if first != second and (key == "model_id" or None not in (first, second)):
            raise SettingError(
                f"earlier= and later= have different {text} ({str(first)[:12]}, {str(second)[:12]}); explain both "
                "with the same model and options"
            )
    scales = [d["shapley"].attrs.get("scale") for d in (earlier, later)]
    if scales[0] != scales[1]:
        raise SettingError(
            f"earlier= and later= have different scales {scales}; pass the same scale= to gm.shapley"
        )


def _same_labels(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Return the second explanation with the order of the groups and the species of the first."""
    for dim in ("group", "species"):
        names = [str(n) for n in first[dim].values], [str(n) for n in second[dim].values]
        if dim == "species" and len(names[0]) == len(names[1]) == 1:
            second = second.assign_coords(species=first["species"])
        elif sorted(names[0]) != sorted(names[1]):
            raise SelectionError(
                f"earlier= has the {dim} labels {list_names(names[0])}, later= {list_names(names[1])}; explain both "
                f"with the same {'groups=' if dim == 'group' else 'species='}"
            )
        second = second.sel({dim: first[dim].values})
    return second
