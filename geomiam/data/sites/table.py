"""Conversion of a dataset of sites to arrays of predictors and labels, with checks of the labels.

Tokens are computed from ``arrays`` later, because the scaler depends on the training sites:
``model.encode(table.arrays)`` for a trained model, :func:`geomiam.training.table.make_tables` for a
new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.names import check_species, list_names
from geomiam.data.dataset import check_sites
from geomiam.data.names import labels_of
from geomiam.data.predictors import predictors
from geomiam.errors import LabelError, MissingVariable, warn
from geomiam.geo.dims import SITE
from geomiam.labels import Labels, as_table, check_values, compact_labels, label_counts
from geomiam.on_disk import arrays_on_disk, in_parts
from geomiam.progress import progress_bar
from geomiam.schema.schema import Schema

READ = 2**27
"""Bytes of predictors that are read at a time, or one chunk of each variable."""


@dataclass(frozen=True, eq=False)
class SiteTable:
    """Predictors and labels of n sites, as arrays."""

    sites: xr.Dataset  # source of coordinates, dates and CRS
    schema: Schema
    arrays: dict[str, np.ndarray]
    """float32 ``(n, *own dims)`` for each variable of the schema; NaN = missing, or not read. Those that the
    sites have as dask arrays are in a temporary file (:mod:`geomiam.on_disk`)."""
    labels: Labels  # float32 (n, S), or compact; 1, 0, NaN = not surveyed. S = 0 without labels.
    species: tuple[str, ...] = ()  # names of the S species

    @classmethod
    def read(
        cls,
        sites: xr.Dataset,
        schema: Schema,
        *,
        include_labels: bool = True,
        variables: Collection[str] | None = None,
    ) -> SiteTable:
        """Read sites: predictors ``(site, *own dims)`` and labels ``presence(site, species)``.

        Labels that are a dask array become compact. Predictors that are dask arrays are copied to a temporary file.
        The schema is that of a model, or bound by :func:`geomiam.data.infer.read_schema`. Variables that are not listed in ``variables`` count as
        missing. Raises LabelError, and as :func:`read_arrays`.
        """
        labels, species = (
            any_labels(sites)
            if include_labels
            else (np.zeros((sites.sizes[SITE], 0), np.float32), ())
        )
        return cls(sites, schema, read_arrays(sites, schema, variables=variables), labels, species)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_background(self) -> bool:
        """Whether zeros of any site are background."""
        return has_background(self.sites)

    def checked(self) -> SiteTable:
        """Return the table; LabelError without sites, MissingVariable if a modality has no value at any site."""
        if not len(self):
            raise LabelError(
                "there are no sites (found 0 along 'site'), so that no model can be trained; pass sites, "
                "gm.sample(cube, records)"
            )
        modalities = self.schema.modalities
        observed = [m for m in modalities if self._is_observed(m)]
        if not observed:
            raise MissingVariable(
                f"all predictors ({list_names(self.schema.variables)}) are NaN at all {len(self)} sites, so that no "
                "model can be trained; pass sites of a cube that covers them, gm.sample(cube, records)"
            )
        if missing := [m for m in modalities if m not in observed]:
            raise MissingVariable(
                f"modality '{missing[0]}' is NaN at every site, so that no model can be trained on it; "
                f"leave it out with schema.subset({observed})"
            )
        return self

    def _is_observed(self, modality: str) -> bool:
        arrays = (self.arrays[v] for v in self.schema.modalities[modality].variables)
        return any(np.isfinite(x).any() for array in arrays for x in in_parts(array))


def read_arrays(
    sites: xr.Dataset, schema: Schema, *, variables: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Return ``(n, *own dims)`` for each variable of a bound schema; NaN where the sites do not have it.

    Variables that are not listed in ``variables`` are not read and are NaN. Dask arrays are read in parts and
    returned as arrays in a temporary file. Raises MissingVariable or VariableMismatch if predictors are missing
    in part, or differ from the schema, and MemoryRefused if the disk has too little space.
    """
    arrays = predictors(sites, schema, variables=variables)
    n, missing = sites.sizes[SITE], np.float32(np.nan)
    data = {name: array.transpose(SITE, ...) for name, array in arrays.items()}
    lazy = {name: array.data for name, array in data.items() if array.chunks is not None}
    on_disk = _copied(lazy, n)
    return {
        name: on_disk[name]
        if name in on_disk
        else np.asarray(data[name].values)
        if name in data
        else np.broadcast_to(missing, (n, *variable.sizes))
        for name, variable in schema.variables.items()
    }


def _copied(arrays: dict[str, Any], n: int) -> dict[str, np.ndarray]:
    """Return dask arrays ``(n, *own dims)`` as arrays in a temporary file."""
    if not arrays:
        return {}
    import dask

    copies = arrays_on_disk({name: a.shape for name, a in arrays.items()})
    row_bytes = max(1, sum(a.nbytes for a in arrays.values()) // max(1, n))
    chunk = max(1, *(max(a.chunks[0]) for a in arrays.values()))
    # Whole chunks of all variables together: each is read once, and so is what they are computed from.
    step = max(1, READ // row_bytes // chunk) * chunk
    starts = range(0, n, step)
    for start in progress_bar(starts, desc="reading predictors"):
        part = slice(start, start + step)
        for name, values in dask.compute({k: a[part] for k, a in arrays.items()})[0].items():
            copies[name][part] = values
    return copies


def read_labels(sites: xr.Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels ``(n, S)`` as a table and species names.

    Raises the same errors as :func:`any_labels`, and MemoryRefused if ``presence`` is a dask array and too
    large as a table.
    """
    labels, names = any_labels(sites)
    return as_table(labels), names


def any_labels(sites: xr.Dataset) -> tuple[Labels, tuple[str, ...]]:
    """Return labels and species names: compact if ``presence`` is a dask array, otherwise a table ``(n, S)``.

    Raises LabelError if there are no labels, values other than 0, 1 and NaN, or a species twice.
    """
    check_sites(sites)
    if "presence" not in sites:
        raise LabelError(
            f"sites have no 'presence' (found {list(sites.data_vars)}): create them with "
            "cube.miam.sample(occurrences)"
        )
    presence = sites["presence"]
    if set(presence.dims) != {"site", "species"}:
        raise LabelError(f"'presence' has dims {presence.dims}, expected ('site', 'species')")
    labels: Labels
    if presence.chunks is None:
        labels = check_values(presence.transpose("site", "species").values.astype(np.float32))
    else:
        labels = compact_labels(presence)
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


def check_classes(labels: Labels, species: tuple[str, ...]) -> None:
    """Refuse labels if no species has both classes, and warn of species that have one class only."""
    counts = label_counts(labels)
    present, absent = counts.present > 0, counts.absent > 0
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
