"""Predictors of a dataset, matched to a schema by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from geomiam.data.store.coordinates import text_names
from geomiam.data.values.attributes import flags_of, text_of
from geomiam.data.values.dim_labels import labels_of, positions
from geomiam.data.values.missing import as_float
from geomiam.errors import MissingLabels, MissingModality, MissingVariable, VariableMismatch, warn
from geomiam.geo.dims import is_place
from geomiam.schema.schema import OWN_DIMS, Label, Modality, Schema, Variable

SAME_UNITS = {
    "": "1",
    "dimensionless": "1",
    "unitless": "1",
    "metre": "m",
    "metres": "m",
    "meters": "m",
}


def predictors(
    ds: xr.Dataset, schema: Schema, *, variables: Collection[str] | None = None
) -> dict[str, xr.DataArray]:
    """Return the schema's variables that are in the data, own dims last and in the schema's order.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites.
    schema : Schema
        Bound.
    variables : collection of str, optional
        Variables that will be looked at; the others are neither read nor missed.

    Returns
    -------
    dict of str to xarray.DataArray
        float32 ``(*place, *own dims)``.

    Raises
    ------
    MissingVariable
        If a part of a modality is missing, or something of nearly the same name is there.
    VariableMismatch
        If units, dims or labels differ.

    Warns
    -----
    MissingModality
        If a modality is missing as a whole: the prediction is made without it.
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
            f"the data have none of the predictors; expected {some([v for v in schema.variables if v in variables])}, "
            f"found {some(ds.data_vars)}: rename with ds.rename(...)"
        )
    if absent:
        modality_list = "; ".join(f"'{m}' ({', '.join(v)})" for m, v in absent.items())
        warn(
            f"{len(absent)} of {len(schema.modalities)} modalities are not in the data: {modality_list}. "
            "Predicting without; pass using=[...] to say so.",
            MissingModality,
        )
    matching = [v for k, v in schema.variables.items() if k in variables and k in ds.data_vars]
    return {v.name: _match(ds[v.name], v) for v in matching}


def bind(schema: Schema, ds: xr.Dataset) -> Schema:
    """Fill in dims, labels and classes of the schema's variables from data.

    Raises
    ------
    MissingVariable, VariableMismatch
        As :func:`predictors`; here every variable must be there.
    """
    ds = text_names(ds)
    missing = [v for v in schema.variables if v not in ds.data_vars]
    if missing:
        raise MissingVariable(
            _missing(ds, schema, missing, f"remove them with schema.subset({_kept(schema, ds)})")
        )
    plain = schema.without_origins()  # a model carries no paths
    return plain.replace({n: bind_variable(v, ds[n]) for n, v in plain.variables.items()})


def own_dims(array: xr.DataArray) -> tuple[str, ...]:
    """Dims of a predictor beyond place."""
    return tuple(str(d) for d in array.dims if not is_place(d))


def bind_variable(variable: Variable, array: xr.DataArray) -> Variable:
    """Fill in dims, labels and classes of one variable."""
    _check_units(variable, array)
    dims = variable.dims or own_dims(array)
    if len(dims) < OWN_DIMS[variable.kind] or (dims and not OWN_DIMS[variable.kind]):
        raise VariableMismatch(
            f"'{variable.name}' is of kind {variable.kind}, which needs at least "
            f"{OWN_DIMS[variable.kind]} dims other than place, but the data have {dims or 'none'}: correct the kind "
            "in the catalog or pass kinds={...}"
        )
    _check_dims(variable.name, dims, array)
    labels = {d: variable.labels.get(d) or labels_of(array, d) for d in dims}
    fields = {
        **{k: getattr(variable, k) for k in Variable.model_fields},
        "dims": dims,
        "labels": labels,
    }
    if variable.kind == "categorical" and not variable.classes:
        fields["classes"] = flags_of(array.attrs)
    return Variable(**fields)


def _match(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    """One variable with its own dims last, in the schema's order and with its labels."""
    _check_units(variable, array)
    _check_dims(variable.name, variable.dims, array)
    if variable.kind == "categorical":
        check_classes(variable, flags_of(array.attrs))
    array = as_float(array)
    for dim in variable.dims:
        array = _match_labels(array, dim, variable)
    return array.transpose(..., *variable.dims)


def check_classes(variable: Variable, codes_of_data: Mapping[int, str]) -> None:
    """Refuse codes of classes that are others than those of the schema.

    Parameters
    ----------
    variable
        Its ``classes`` are codes and meanings.
    declared
        Those of the data; none where they declare none.

    Raises
    ------
    VariableMismatch
        If no code is common, or a meaning stands for another code than in the schema.
    """
    codes_of_schema = variable.classes
    if not (codes_of_data and codes_of_schema):
        return
    if not set(codes_of_data) & set(codes_of_schema):
        raise VariableMismatch(
            f"'{variable.name}' has none of the class codes of the schema: expected {some(codes_of_schema)}, found "
            f"{some(codes_of_data)}: recode its values, and set flag_values and flag_meanings"
        )
    codes = {m.lower(): c for c, m in codes_of_schema.items() if m != str(c)}
    differing = {m: c for c, m in codes_of_data.items() if codes.get(m.lower(), c) != c}
    if differing:
        meaning, code = next(iter(differing.items()))
        raise VariableMismatch(
            f"'{variable.name}' has other codes for its classes: '{meaning}' is {code}, in the schema it is "
            f"{codes[meaning.lower()]} ({len(differing)} such classes): recode its values, and set flag_values"
        )


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
    """Return where each wanted label is ``(len(wanted),)``, -1 for nowhere, with a warning."""
    try:
        index = positions(schema_labels, labels)
    except ValueError as error:
        raise VariableMismatch(
            f"'{name}': {error} along '{dim}', so it is not clear which one is meant: keep one with "
            f"ds.drop_duplicates('{dim}')"
        ) from None
    absent = [label for label, i in zip(schema_labels, index) if i < 0]
    if len(absent) == len(schema_labels):
        raise VariableMismatch(
            f"'{name}' has none of the labels of '{dim}': expected {some(schema_labels)}, found "
            f"{some(labels)}: relabel with ds.assign_coords({dim}=[...])"
        )
    if absent:
        warn(
            f"'{name}' has no data for {len(absent)} of {len(schema_labels)} labels of '{dim}': "
            f"{some(absent)} (found {some(labels)}); they count as missing",
            MissingLabels,
        )
    return index


def _check_units(variable: Variable, array: xr.DataArray) -> None:
    units = text_of(array.attrs, "units")
    if variable.units is None or units is None or same_units(units, variable.units):
        return
    raise VariableMismatch(
        f"'{variable.name}' has units '{units}', expected '{variable.units}': convert it, then set "
        f"ds['{variable.name}'].attrs['units'] = '{variable.units}'"
    )


def same_units(a: object, b: object) -> bool:
    """Return whether two units are one, spellings aside."""
    return _plain(a) == _plain(b)


def _plain(units: object) -> str:
    text = str(units).strip()
    return SAME_UNITS.get(text.lower(), text)


def _check_dims(name: str, dims: Sequence[str], array: xr.DataArray) -> None:
    if set(own_dims(array)) != set(dims):
        raise VariableMismatch(
            f"'{name}' has dims {tuple(array.dims)}, expected {tuple(dims)} beside those of place "
            f"(site, y, x, lat, lon, latitude, longitude): {_dims_advice(dims, array)}"
        )


def _dims_advice(dims: Sequence[str], array: xr.DataArray) -> str:
    """The call that gives an array the dims of a variable."""
    extra = [d for d in own_dims(array) if d not in dims]
    missing = [d for d in dims if d not in array.dims]
    has_place = any(is_place(d) for d in array.dims)
    place = [] if has_place else [["site"], ["y", "x"]][len(extra) - len(missing) == 2]
    if extra and len(extra) == len(place) + len(missing):
        return f"rename with ds.rename({dict(zip(extra, [*place, *missing]))})"
    if missing:
        return f"join its steps with xr.concat([...], dim={missing[0]!r})"
    dim = extra[0]
    return f"select one step with ds.isel({dim}=0), or average them with ds.mean({dim!r})"


def _refuse_partial(
    ds: xr.Dataset, schema: Schema, modality: Modality, missing: list[str], variables: set[str]
) -> None:
    """A typing error must not pass for a missing modality."""
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
    return f"variables {missing} are not in the data (found {some(ds.data_vars)}): {rename}{fix}"


def _unused(ds: xr.Dataset, schema: Schema) -> list[str]:
    """Variables of the data that the schema does not know: a slip of the pen may be among them."""
    return [str(n) for n in ds.data_vars if n not in schema.variables]


def _near(name: str, names: Sequence[str], *, cutoff: float) -> str | None:
    """The name that is nearest in spelling, capitals aside."""
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def _kept(schema: Schema, ds: xr.Dataset) -> list[str]:
    return [m.name for m in schema.modalities.values() if set(m.variables) <= set(ds.data_vars)]


def some(names: Collection, limit: int = 8) -> str:
    """List the first few names."""
    text = ", ".join(str(n) for n in list(names)[:limit])
    return f"{text}, … ({len(names)})" if len(names) > limit else text or "nothing"
