"""Predictors of a dataset, matched to a schema by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.store.coordinates import text_names
from geomiam.data.values.attributes import flags_of
from geomiam.data.values.dim_labels import labels_of, positions
from geomiam.data.values.missing import as_float
from geomiam.data.variables import bind_variable, check_classes, check_dims, check_units
from geomiam.errors import MissingLabels, MissingModality, MissingVariable, VariableMismatch, warn
from geomiam.schema.modality import Modality
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Label, Variable


def predictors(
    ds: xr.Dataset, schema: Schema, *, variables: Collection[str] | None = None
) -> dict[str, xr.DataArray]:
    """Return the schema's variables that are in the data, own dims last and in the schema's order.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites.
    schema : Schema
        Bound schema.
    variables : collection of str, optional
        Variables to return; the others are ignored. Default: all.

    Returns
    -------
    dict of str to xarray.DataArray
        float32 ``(site, *own dims)`` or ``(y, x, *own dims)``.

    Raises
    ------
    MissingVariable
        If a modality is missing in part, or the data have a variable with a similar name.
    VariableMismatch
        If units, dims or labels differ.

    Warns
    -----
    MissingModality
        If all variables of a modality are missing: the prediction is made without it.
    """
    ds = text_names(ds)
    variables = set(schema.variables if variables is None else variables)
    absent: dict[str, list[str]] = {}
    for modality in schema.modalities.values():
        missing = [v for v in modality.variables if v in variables and v not in ds.data_vars]
        if missing:
            absent[modality.name] = missing
            _refuse_partial(ds, schema, modality, missing, variables)
    if len(absent) == len(
        {m.name for m in schema.modalities.values() if variables & set(m.variables)}
    ):
        raise MissingVariable(
            f"the data have none of the predictors; expected {list_names([v for v in schema.variables if v in variables])}, "
            f"found {list_names(ds.data_vars)}: rename with ds.rename(...)"
        )
    if absent:
        modality_list = "; ".join(f"'{m}' ({', '.join(v)})" for m, v in absent.items())
        warn(
            f"{len(absent)} of {len(schema.modalities)} modalities are not in the data: {modality_list}. "
            "The prediction is made without them; pass using=[...] to confirm this.",
            MissingModality,
        )
    matching = [v for k, v in schema.variables.items() if k in variables and k in ds.data_vars]
    return {v.name: _match(ds[v.name], v) for v in matching}


def bind(schema: Schema, ds: xr.Dataset) -> Schema:
    """Fill in dims, labels and classes of the schema's variables from data.

    Raises
    ------
    MissingVariable, VariableMismatch
        As in :func:`predictors`; here every variable must be in the data.
    """
    ds = text_names(ds)
    missing = [v for v in schema.variables if v not in ds.data_vars]
    if missing:
        raise MissingVariable(
            _missing(ds, schema, missing, f"remove them with schema.subset({_kept(schema, ds)})")
        )
    plain = schema.without_origins()  # a saved model must not contain paths of this machine
    return plain.replace({n: bind_variable(v, ds[n]) for n, v in plain.variables.items()})


def _match(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    """Return a variable with its own dims last, in the order and with the labels of the schema."""
    check_units(variable, array)
    check_dims(variable.name, variable.dims, array)
    if variable.kind == "categorical":
        check_classes(variable, flags_of(array.attrs))
    array = as_float(array)
    for dim in variable.dims:
        array = _match_labels(array, dim, variable)
    return array.transpose(..., *variable.dims)


def _match_labels(array: xr.DataArray, dim: str, variable: Variable) -> xr.DataArray:
    labels, schema_labels = labels_of(array, dim), variable.labels[dim]
    if labels == schema_labels:
        return array
    if dim not in array.coords:
        raise VariableMismatch(
            f"'{variable.name}' has {len(labels)} steps along '{dim}' without labels, expected "
            f"{len(schema_labels)}: label them with ds.assign_coords({dim}=[...])"
        )
    index = _positions(schema_labels, labels, dim, name=variable.name)
    if np.array_equal(index, np.arange(len(labels))):
        return array
    is_labelled = xr.DataArray(index >= 0, dims=dim)
    return array.isel({dim: index}).drop_vars(dim).where(is_labelled)


def _positions(
    schema_labels: Sequence[Label], labels: Sequence[Label], dim: str, *, name: str
) -> np.ndarray:
    """Return the position of each label of the schema in the data, -1 for none, with a warning."""
    try:
        index = positions(schema_labels, labels)
    except ValueError as error:
        raise VariableMismatch(
            f"'{name}': {error} along '{dim}', so its position is ambiguous: keep one with "
            f"ds.drop_duplicates('{dim}')"
        ) from None
    absent = [label for label, i in zip(schema_labels, index) if i < 0]
    if len(absent) == len(schema_labels):
        raise VariableMismatch(
            f"'{name}' has none of the labels of '{dim}': expected {list_names(schema_labels)}, found "
            f"{list_names(labels)}: relabel with ds.assign_coords({dim}=[...])"
        )
    if absent:
        warn(
            f"'{name}' has no data for {len(absent)} of {len(schema_labels)} labels of '{dim}': "
            f"{list_names(absent)} (found {list_names(labels)}); they count as missing",
            MissingLabels,
        )
    return index


def _refuse_partial(
    ds: xr.Dataset, schema: Schema, modality: Modality, missing: list[str], variables: set[str]
) -> None:
    """Refuse a modality that is missing in part or through a typing error."""
    unused_names = _unused(ds, schema)
    if any(_near(m, unused_names, cutoff=0.8) for m in missing) or len(missing) < len(
        variables & set(modality.variables)
    ):
        raise MissingVariable(
            _missing(
                ds,
                schema,
                missing,
                f"leave them out with using=[...] (modality '{modality.name}'), or set them to NaN",
            )
        )


def _missing(ds: xr.Dataset, schema: Schema, missing: list[str], fix: str) -> str:
    close = {m: _near(m, _unused(ds, schema), cutoff=0.6) for m in missing}
    renames = {c: m for m, c in close.items() if c}
    rename = f"rename with ds.rename({renames}), or " if renames else ""
    return (
        f"variables {missing} are not in the data (found {list_names(ds.data_vars)}): {rename}{fix}"
    )


def _unused(ds: xr.Dataset, schema: Schema) -> list[str]:
    """Return variables that are not in the schema; their names may have typing errors."""
    return [str(n) for n in ds.data_vars if n not in schema.variables]


def _near(name: str, names: Sequence[str], *, cutoff: float) -> str | None:
    """Return the name with the most similar spelling, independent of case."""
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def _kept(schema: Schema, ds: xr.Dataset) -> list[str]:
    return [m.name for m in schema.modalities.values() if set(m.variables) <= set(ds.data_vars)]
