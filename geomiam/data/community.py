"""Observations of species as predictors of other species."""

from __future__ import annotations

import re
from collections.abc import Sequence

import xarray as xr

from geomiam.checks.names import check_label, check_species, check_variable, list_names
from geomiam.data.names import labels_of
from geomiam.errors import LabelError, SelectionError
from geomiam.geo.dims import is_place

UNSAFE = re.compile(r"[^\w .-]")
"""Characters that a variable name does not take from the name of a species, such as / and [."""


def add_community(
    ds: xr.Dataset,
    presence: xr.DataArray | None = None,
    *,
    species: Sequence[str] | None = None,
    modality: str = "community",
) -> xr.Dataset:
    """Add observations of species as predictors, one variable per species.

    A model that is trained on them predicts each species from the other species that are observed, and
    from the other predictors. The observations of a species are hidden where that species is predicted,
    in training, in predictions and in Shapley values, so a label never reaches its prediction.

    Parameters
    ----------
    ds : xarray.Dataset
        Sites or a cube.
    presence : xarray.DataArray, optional
        Observations ``(site, species)`` or ``(species, y, x)`` on the places of the data: 1, 0, NaN = not
        surveyed. Default: ``ds["presence"]``, the labels.
    species : sequence of str, optional
        Species to add; default all. A model takes species that are missing here as not surveyed.
    modality : str
        Name of the modality of the variables.

    Returns
    -------
    xarray.Dataset
        The data with a variable ``community_<species>`` for each species, float32 with the dims of
        place; lazy where ``presence`` is lazy. Characters of a species other than letters, digits, blanks
        and ``_.-`` are written as ``%`` and their code. ``attrs["species"]`` has the name of the species.

    Raises
    ------
    LabelError
        If there is no ``presence``, it lacks the dim ``species``, or it has values other than 0, 1 and NaN.
    SelectionError
        If a species is not in ``presence``.
    NameRefused
        If a name cannot be the name of a variable.

    See Also
    --------
    geomiam.fit : train a model on the sites.
    geomiam.shapley : the contribution of the community.
    geomiam.evaluation.community : skill by the number of observed species.
    geomiam.add_location : coordinates as predictors.

    References
    ----------
    Abdelwahed et al. (2025), CISO, arXiv:2508.06704, for predictions from incomplete observations of other
    species.

    Examples
    --------
    >>> import geomiam as gm
    >>> with_community = gm.add_community(sites)
    >>> schema = gm.infer_schema(with_community)
    >>> len(schema.modalities["community"].variables) == sites.sizes["species"]
    True
    """
    observations = _observations(ds, presence)
    names = check_species(map(str, labels_of(observations, "species")))
    requested_names = list(names) if species is None else [str(s) for s in species]
    if unknown := [s for s in requested_names if s not in names]:
        raise SelectionError(
            f"species {unknown[:3]} are not in 'presence'; it has {list_names(names)}"
        )
    check_label(modality, "modality")
    new = {}
    for name in requested_names:
        values = observations.isel(species=names.index(name)).drop_vars("species", errors="ignore")
        attrs = {"long_name": f"observations of {name}", "modality": modality, "species": name}
        variable = check_variable(f"{modality}_{UNSAFE.sub(_escaped, name)}")
        new[variable] = values.astype("float32").drop_attrs().assign_attrs(attrs, kind="scalar")
    return ds.assign(new)


def _escaped(match: re.Match[str]) -> str:
    """Return a character as the percent signs and codes of its bytes, so that no two names become equal."""
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _observations(ds: xr.Dataset, presence: xr.DataArray | None) -> xr.DataArray:
    if presence is None:
        if "presence" not in ds:
            raise LabelError(
                f"the data have no 'presence' (found {list_names(ds.data_vars)}); pass the observations, "
                "gm.add_community(ds, presence), with dims (site, species) or (species, y, x)"
            )
        presence = ds["presence"]
    extra = [d for d in presence.dims if d != "species" and not (is_place(d) and d in ds.dims)]
    if "species" not in presence.dims or extra or presence.ndim < 2:
        raise LabelError(
            f"'presence' has dims {presence.dims}; it needs 'species' and the dims of place of the data, "
            f"{tuple(d for d in ds.dims if is_place(d))}"
        )
    if presence.chunks is None:
        values = presence.values
        odd = values[~((values == 0) | (values == 1) | (values != values))]
        if odd.size:
            raise LabelError(
                f"'presence' must be 0, 1 or NaN, found {odd.flat[0]}: use (counts > 0) for counts"
            )
    return presence
