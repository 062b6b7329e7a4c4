"""One variable of a schema and its data: checks of units, dims and classes, and binding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.values.attributes import flags_of, text_of
from geomiam.data.values.dim_labels import labels_of
from geomiam.errors import VariableMismatch
from geomiam.geo.dims import is_place
from geomiam.schema.variable import OWN_DIMS, Variable

SAME_UNITS = {
    "": "1",
    "dimensionless": "1",
    "unitless": "1",
    "metre": "m",
    "metres": "m",
    "meters": "m",
}


def own_dims(array: xr.DataArray) -> tuple[str, ...]:
    """Return the dims of a predictor except the spatial dims and ``site``."""
    return tuple(str(d) for d in array.dims if not is_place(d))


def bind_variable(variable: Variable, array: xr.DataArray) -> Variable:
    """Fill in dims, labels and classes of one variable."""
    check_units(variable, array)
    dims = variable.dims or own_dims(array)
    if len(dims) < OWN_DIMS[variable.kind] or (dims and not OWN_DIMS[variable.kind]):
        raise VariableMismatch(
            f"'{variable.name}' is of kind {variable.kind}, which needs at least {OWN_DIMS[variable.kind]} dims "
            f"in addition to the spatial dims or site, but the data have {dims or 'none'}: correct the kind in "
            "the catalog or pass kinds={...}"
        )
    check_dims(variable.name, dims, array)
    labels = {d: variable.labels.get(d) or labels_of(array, d) for d in dims}
    fields = {
        **{k: getattr(variable, k) for k in Variable.model_fields},
        "dims": dims,
        "labels": labels,
    }
    if variable.kind == "categorical" and not variable.classes:
        fields["classes"] = flags_of(array.attrs)
    return Variable(**fields)


def check_classes(variable: Variable, codes_of_data: Mapping[int, str]) -> None:
    """Refuse class codes that differ from those of the schema.

    Parameters
    ----------
    variable
        A variable with codes and meanings in ``classes``.
    codes_of_data
        Codes and meanings of the data; empty if they declare none.

    Raises
    ------
    VariableMismatch
        If no code is common, or a meaning has another code than in the schema.
    """
    codes_of_schema = variable.classes
    if not (codes_of_data and codes_of_schema):
        return
    if not set(codes_of_data) & set(codes_of_schema):
        raise VariableMismatch(
            f"'{variable.name}' has none of the class codes of the schema: expected {list_names(codes_of_schema)}, found "
            f"{list_names(codes_of_data)}: recode its values, and set flag_values and flag_meanings"
        )
    codes = {m.lower(): c for c, m in codes_of_schema.items() if m != str(c)}
    differing = {m: c for c, m in codes_of_data.items() if codes.get(m.lower(), c) != c}
    if differing:
        meaning, code = next(iter(differing.items()))
        raise VariableMismatch(
            f"'{variable.name}' has other codes for its classes: '{meaning}' is {code}, in the schema it is "
            f"{codes[meaning.lower()]} ({len(differing)} such classes): recode its values, and set flag_values"
        )


def check_units(variable: Variable, array: xr.DataArray) -> None:
    units = text_of(array.attrs, "units")
    if variable.units is None or units is None or same_units(units, variable.units):
        return
    raise VariableMismatch(
        f"'{variable.name}' has units '{units}', expected '{variable.units}': convert it, then set "
        f"ds['{variable.name}'].attrs['units'] = '{variable.units}'"
    )


def same_units(a: object, b: object) -> bool:
    """Return whether two units are equal, also in different spellings."""
    return _plain(a) == _plain(b)


def _plain(units: object) -> str:
    text = str(units).strip()
    return SAME_UNITS.get(text.lower(), text)


def check_dims(name: str, dims: Sequence[str], array: xr.DataArray) -> None:
    if set(own_dims(array)) != set(dims):
        raise VariableMismatch(
            f"'{name}' has dims {tuple(array.dims)}, expected {tuple(dims)} in addition to site or the spatial dims "
            f"(y, x, lat, lon, latitude, longitude): {_dims_advice(dims, array)}"
        )


def _dims_advice(dims: Sequence[str], array: xr.DataArray) -> str:
    """Return the call that gives an array the dims of a variable."""
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
