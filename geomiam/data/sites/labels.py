"""Labels of sites: presences and absences by species, with checks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import xarray as xr

from geomiam.checks.names import check_species
from geomiam.data.values.dim_labels import labels_of
from geomiam.errors import LabelError, warn


def read_labels(sites: xr.Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels ``(n, S)`` and species names.

    Raises
    ------
    LabelError
        If there are no labels, values other than 0, 1 and NaN, or a species twice.
    """
    if "presence" not in sites:
        raise LabelError(
            f"sites have no 'presence' (found {list(sites.data_vars)}): create them with "
            "cube.miam.sample(occurrences)"
        )
    presence = sites["presence"]
    if set(presence.dims) != {"site", "species"}:
        raise LabelError(f"'presence' has dims {presence.dims}, expected ('site', 'species')")
    labels = presence.transpose("site", "species").values.astype(np.float32)
    odd = labels[~np.isnan(labels) & ~np.isin(labels, (0, 1))]
    if odd.size:
        raise LabelError(
            f"'presence' must be 0, 1 or NaN, found {odd[0]}: use (counts > 0) for counts"
        )
    names = tuple(map(str, labels_of(presence, "species")))
    if twice := sorted(s for s, n in Counter(names).items() if n > 1):
        raise LabelError(
            f"species {twice[:3]} occur more than once in 'presence'; merge their columns with "
            "sites.groupby('species').max()"
        )
    return labels, check_species(names)


def has_background(sites: xr.Dataset) -> bool:
    """Return whether zeros of any site are background, as recorded by :func:`geomiam.add_background`."""
    flags = sites.get("background")
    has_flags = flags is not None and flags.dtype == bool and bool(flags.any())
    return has_flags or "background_kind" in sites.attrs


def check_classes(labels: np.ndarray, species: tuple[str, ...]) -> None:
    """Refuse labels without both classes, and warn of species that have one class only.

    Raises
    ------
    LabelError
        If no species has both presences and absences.
    """
    present, absent = (labels == 1).any(0), (labels == 0).any(0)
    short = [s for s, ok in zip(species, present & absent) if not ok]
    if len(short) == len(species):
        kind = "presences" if present.any() else "absences"
        raise LabelError(
            f"labels have one class: only {kind}, for all {len(species)} species; add the other class with "
            "gm.add_background(sites, cube)"
        )
    if short:
        first = ", ".join(short[:3]) + (", …" if len(short) > 3 else "")
        warn(
            f"{len(short)} of {len(species)} species have presences or absences only ({first}); "
            "they are trained but cannot be scored"
        )
