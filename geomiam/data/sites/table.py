"""Conversion of a dataset of sites to arrays of predictors and labels.

Tokens are computed from ``arrays`` later, because the scaler depends on the training sites:
``model.encode(table.arrays)`` for a trained model, :func:`geomiam.training.table.make_tables` for a
new one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from geomiam.data.predictors import predictors
from geomiam.data.sites.labels import has_background, read_labels
from geomiam.errors import MissingVariable
from geomiam.geo.dims import SITE
from geomiam.schema.schema import Schema


@dataclass(frozen=True, eq=False)
class SiteTable:
    """Predictors and labels of n sites, as arrays."""

    sites: xr.Dataset
    """Source of coordinates, dates and CRS."""
    schema: Schema
    arrays: dict[str, np.ndarray]
    """float32 ``(n, *own dims)`` for each variable of the schema; NaN = missing, or not read."""
    labels: np.ndarray
    """float32 ``(n, S)``; 1, 0, NaN = not surveyed. S = 0 without labels."""
    species: tuple[str, ...] = ()
    """Names of the S species."""

    @classmethod
    def read(
        cls,
        sites: xr.Dataset,
        schema: Schema,
        *,
        include_labels: bool = True,
        variables: Collection[str] | None = None,
    ) -> SiteTable:
        """Read sites into memory.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)`` and, unless ``include_labels`` is False, labels
            ``presence(site, species)``; NaN = missing or not surveyed.
        schema : Schema
            Bound schema of a model, or from :func:`geomiam.data.infer.infer.read_schema`.
        include_labels : bool
            Whether to read labels.
        variables : collection of str, optional
            Variables to read; other variables count as missing. Default: all.

        Raises
        ------
        LabelError
            If labels are read and are not valid.
        MissingVariable, VariableMismatch
            If a modality is missing in part, or variables differ from the schema.
        """
        labels, species = read_labels(sites) if include_labels else (_no_labels(sites), ())
        return cls(sites, schema, read_arrays(sites, schema, variables=variables), labels, species)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_background(self) -> bool:
        """Whether zeros of any site are background."""
        return has_background(self.sites)

    def with_labels(self, labels: np.ndarray, species: tuple[str, ...]) -> SiteTable:
        """Return the same sites with other labels ``(n, S)``."""
        return replace(self, labels=labels, species=species)

    def checked(self) -> SiteTable:
        """Return the table if every modality has a value at some site.

        Raises
        ------
        MissingVariable
            If a modality has no value at any site.
        """
        modalities = self.schema.modalities
        for modality in modalities.values():
            if not any(np.isfinite(self.arrays[v]).any() for v in modality.variables):
                raise MissingVariable(
                    f"modality '{modality.name}' is NaN at every site, so that no model can be trained on it; "
                    f"leave it out with schema.subset({[m for m in modalities if m != modality.name]})"
                )
        return self


def read_arrays(
    sites: xr.Dataset, schema: Schema, *, variables: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Return ``(n, *own dims)`` for each variable of a bound schema; NaN where the sites do not have it.

    Variables that are not listed in ``variables`` are not read and are NaN.

    Raises
    ------
    MissingVariable, VariableMismatch
        If predictors are missing in part, or differ from the schema.
    """
    arrays = predictors(sites, schema, variables=variables)
    n, missing = sites.sizes[SITE], np.float32(np.nan)
    return {
        name: np.asarray(arrays[name].transpose(SITE, ...).values)
        if name in arrays
        else np.broadcast_to(missing, (n, *variable.sizes))
        for name, variable in schema.variables.items()
    }


def _no_labels(sites: xr.Dataset) -> np.ndarray:
    return np.zeros((sites.sizes[SITE], 0), np.float32)
