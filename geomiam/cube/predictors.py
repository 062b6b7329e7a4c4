"""Predictors of a dataset, matched to a schema by name; and a schema inferred from a dataset."""

from __future__ import annotations

import difflib
import fnmatch
import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from geomiam.errors import MissingModality, MissingVariable, SchemaError, VariableMismatch
from geomiam.schema import OWN_DIMS, Label, Modality, Schema, Variable

PLACE = ("site", "y", "x", "lat", "lon", "latitude", "longitude")
"""Dims that say where; all other dims of a predictor are its own."""

NOT_PREDICTORS = ("presence", "background", "spatial_ref")
TIME_DIMS = (
    "time",
    "month",
    "year",
    "quarter",
    "date",
    "day",
    "dayofyear",
    "week",
    "season",
    "step",
)
VECTOR_DIMS = ("feature", "features", "embedding", "band", "channel", "component")
CIRCULAR_NAMES = ("aspect", "direction", "azimuth", "bearing")
DEGREES = ("degree", "degrees", "deg", "°")
SAME_UNITS = {
    "": "1",
    "dimensionless": "1",
    "unitless": "1",
    "metre": "m",
    "metres": "m",
    "meters": "m",
}


def predictors(
    ds: xr.Dataset, schema: Schema, *, needed: Collection[str] | None = None
) -> dict[str, xr.DataArray]:
    """Return the schema's variables that are in the data, own dims last and in the schema's order.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites.
    schema : Schema
        Bound.
    needed : collection of str, optional
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
    needed = set(schema.variables if needed is None else needed)
    absent: dict[str, list[str]] = {}
    for modality in schema.modalities.values():
        missing = [v for v in modality.variables if v in needed and v not in ds.data_vars]
        if missing:
            absent[modality.name] = missing
            _refuse_partial(ds, schema, modality, missing, needed)
    if len(absent) == len(
        {m.name for m in schema.modalities.values() if needed & set(m.variables)}
    ):
        raise MissingVariable(
            f"the data have none of the predictors; expected {_some(schema.variables)}, "
            f"found {_some(ds.data_vars)}: rename with ds.rename(...)"
        )
    if absent:
        said = "; ".join(f"'{m}' ({', '.join(v)})" for m, v in absent.items())
        warnings.warn(
            f"{len(absent)} of {len(schema.modalities)} modalities are not in the data: {said}. "
            "Predicting without; pass using=[...] to say so.",
            MissingModality,
            stacklevel=4,
        )
    found = [v for k, v in schema.variables.items() if k in needed and k in ds.data_vars]
    return {v.name: _match(ds[v.name], v) for v in found}


def bind(schema: Schema, ds: xr.Dataset) -> Schema:
    """Fill in dims, labels and classes of the schema's variables from data.

    Raises
    ------
    MissingVariable, VariableMismatch
        As :func:`predictors`; here every variable must be there.
    """
    missing = [v for v in schema.variables if v not in ds.data_vars]
    if missing:
        raise MissingVariable(
            _missing(ds, schema, missing, f"remove them with schema.subset({_kept(schema, ds)})")
        )
    return schema.replace({n: _bind(v, ds[n]) for n, v in schema.variables.items()})


def infer_schema(
    ds: xr.Dataset,
    *,
    modalities: Mapping[str, Sequence[str]] | None = None,
    kinds: Mapping[str, str] | None = None,
    name: str = "inferred",
) -> Schema:
    """Infer a schema from a dataset's dims and attributes.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites; ``presence`` is left out.
    modalities : mapping of str to sequence of str, optional
        Modality → variable names or patterns (``bio*``). Default: the ``modality`` attribute of each
        variable, else the variable is a modality of its own.
    kinds : mapping of str to str, optional
        Variable → kind, where the inferred kind would be wrong.

    Returns
    -------
    Schema
        Bound.

    Raises
    ------
    SchemaError
        If a kind cannot be told, or a pattern matches nothing.
    """
    names = [
        str(n)
        for n, v in ds.data_vars.items()
        if n not in NOT_PREDICTORS and v.dtype.kind in "fiub"
    ]
    homes = (
        {n: str(ds[n].attrs.get("modality", n)) for n in names}
        if modalities is None
        else _homes(names, modalities)
    )
    found: dict[str, dict[str, Variable]] = {}
    for n, home in homes.items():
        kind = (kinds or {}).get(n) or infer_kind(ds[n])
        facts = {k: ds[n].attrs[k] for k in ("units", "long_name") if k in ds[n].attrs}
        found.setdefault(home, {})[n] = _bind(Variable(name=n, kind=kind, **facts), ds[n])
    return Schema(
        name=name, modalities={m: Modality(name=m, variables=v) for m, v in found.items()}
    )


def infer_kind(array: xr.DataArray) -> str:
    """Tell a variable's kind from its dims, attributes and name.

    Raises
    ------
    SchemaError
        If its own dims fit no kind.
    """
    own = own_dims(array)
    if not own:
        if "flag_values" in array.attrs or array.attrs.get("type") == "categorical":
            return "categorical"
        said = f"{array.name} {array.attrs.get('long_name', '')}".lower()
        degrees = str(array.attrs.get("units", "")) in DEGREES
        return "circular" if degrees and any(w in said for w in CIRCULAR_NAMES) else "scalar"
    last = own[-1]
    if last.lower() in TIME_DIMS or (last in array.coords and array[last].dtype.kind == "M"):
        return "series"
    if (
        len(own) >= 2
        and min(array.sizes[d] for d in own[-2:]) > 1
        and last.lower() not in VECTOR_DIMS
    ):
        return "image"
    if last.lower() in VECTOR_DIMS:
        return "vector"
    raise SchemaError(
        f"cannot tell what '{array.name}' with own dims {own} is; "
        f"pass kinds={{'{array.name}': 'series'}} (or image, vector)"
    )


def own_dims(array: xr.DataArray) -> tuple[str, ...]:
    """Dims of a predictor beyond place."""
    return tuple(str(d) for d in array.dims if d not in PLACE)


def labels_of(array: xr.DataArray, dim: str) -> tuple[Label, ...]:
    """Labels along a dim as plain types: dates as ISO text; positions where there is no coordinate."""
    if dim not in array.coords:
        return tuple(range(array.sizes[dim]))
    values = array[dim].values
    if values.dtype.kind == "M":
        text = np.datetime_as_string(values, unit="s")
        return tuple(str(t).removesuffix("T00:00:00") for t in text)
    return tuple(v if isinstance(v, (int, float)) else str(v) for v in values.tolist())


def _homes(names: list[str], modalities: Mapping[str, Sequence[str]]) -> dict[str, str]:
    homes: dict[str, str] = {}
    for modality, patterns in modalities.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        for pattern in patterns:
            matched = fnmatch.filter(names, pattern)
            if not matched:
                raise SchemaError(
                    f"modality '{modality}': '{pattern}' matches none of {_some(names)}"
                )
            homes.update(dict.fromkeys((m for m in matched if m not in homes), modality))
    return homes


def _bind(variable: Variable, array: xr.DataArray) -> Variable:
    _check_units(variable, array)
    dims = variable.dims or own_dims(array)
    if len(dims) < OWN_DIMS[variable.kind] or (dims and not OWN_DIMS[variable.kind]):
        raise VariableMismatch(
            f"'{variable.name}' is of kind {variable.kind}, which has {OWN_DIMS[variable.kind]} dims "
            f"of its own or more, but the data have {dims or 'none'} beside {PLACE}: correct the kind "
            "in the catalog or pass kinds={...}"
        )
    _check_dims(variable.name, dims, array)
    labels = {d: variable.labels.get(d) or labels_of(array, d) for d in dims}
    facts = {
        **{k: getattr(variable, k) for k in Variable.model_fields},
        "dims": dims,
        "labels": labels,
    }
    if variable.kind == "categorical" and not variable.classes:
        facts["classes"] = _classes(array)
    return Variable(**facts)


def _classes(array: xr.DataArray) -> dict[int, str]:
    codes = np.atleast_1d(array.attrs.get("flag_values", [])).tolist()
    meanings = str(array.attrs.get("flag_meanings", "")).split()
    meanings = meanings if len(meanings) == len(codes) else [str(c) for c in codes]
    return {int(c): m for c, m in zip(codes, meanings)}


def _match(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    """One variable with its own dims last, in the schema's order and with its labels."""
    _check_units(variable, array)
    _check_dims(variable.name, variable.dims, array)
    for dim in variable.dims:
        array = _match_labels(array, dim, variable)
    return array.transpose(..., *variable.dims).astype(np.float32)


def _match_labels(array: xr.DataArray, dim: str, variable: Variable) -> xr.DataArray:
    found, wanted = labels_of(array, dim), variable.labels[dim]
    if found == wanted:
        return array
    if dim not in array.coords:
        raise VariableMismatch(
            f"'{variable.name}' has {len(found)} steps along '{dim}' without labels, expected "
            f"{len(wanted)}: label them with ds.assign_coords({dim}=[...])"
        )
    where = {label: i for i, label in enumerate(found)}
    index = np.array([where.get(label, -1) for label in wanted])
    if (index < 0).all():
        raise VariableMismatch(
            f"'{variable.name}' has none of the labels of '{dim}': expected {_some(wanted)}, found "
            f"{_some(found)}: relabel with ds.assign_coords({dim}=[...])"
        )
    known = xr.DataArray(index >= 0, dims=dim)
    return array.isel({dim: index}).drop_vars(dim).astype(np.float32).where(known)


def _check_units(variable: Variable, array: xr.DataArray) -> None:
    units = array.attrs.get("units")
    if variable.units is None or units is None or _plain(units) == _plain(variable.units):
        return
    raise VariableMismatch(
        f"'{variable.name}' has units '{units}', expected '{variable.units}': convert it, then set "
        f"ds['{variable.name}'].attrs['units'] = '{variable.units}'"
    )


def _plain(units: object) -> str:
    text = str(units).strip()
    return SAME_UNITS.get(text.lower(), text)


def _check_dims(name: str, dims: Sequence[str], array: xr.DataArray) -> None:
    if set(own_dims(array)) != set(dims):
        raise VariableMismatch(
            f"'{name}' has dims {tuple(array.dims)}, expected {tuple(dims)} beside place {PLACE}: "
            "rename with ds.rename({...})"
        )


def _refuse_partial(
    ds: xr.Dataset, schema: Schema, modality: Modality, missing: list[str], needed: set[str]
) -> None:
    """A typing error must not pass for a missing modality."""
    unused = _unused(ds, schema)
    if any(_near(m, unused, cutoff=0.8) for m in missing) or len(missing) < len(
        needed & set(modality.variables)
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
    return f"variables {missing} are not in the data (found {_some(ds.data_vars)}): {rename}{fix}"


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


def _some(names: Collection, most: int = 8) -> str:
    listed = ", ".join(str(n) for n in list(names)[:most])
    return f"{listed}, … ({len(names)})" if len(names) > most else listed or "nothing"
