"""Predictors of a dataset, matched to a schema by name; and binding of a schema to a dataset."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.names import labels_of, positions, text_names
from geomiam.data.values import as_float, flags_of, text_of
from geomiam.errors import (
    MissingLabels,
    MissingModality,
    MissingVariable,
    OtherYear,
    VariableMismatch,
    warn,
)
from geomiam.geo.dims import is_place
from geomiam.schema.schema import Schema
from geomiam.schema.variable import OWN_DIMS, Label, Variable

SAME_UNITS = {"": "1", "dimensionless": "1", "unitless": "1"}
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
OF_A_YEAR = ("vector", "image")
"""Kinds of variables that describe the surface in one year: embeddings and images."""
SAME_UNITS |= dict.fromkeys(("metre", "metres", "meters"), "m")


def predictors(
    ds: xr.Dataset, schema: Schema, *, variables: Collection[str] | None = None
) -> dict[str, xr.DataArray]:
    """Return the schema's variables that are in the data, own dims last and in the schema's order.

    The schema is bound; ``ds`` is a cube or sites. Returns float32 ``(y, x, *own dims)`` or ``(site, *own
    dims)`` of all ``variables``, or of those that are listed.

    Raises MissingVariable if a modality is missing in part, or the data have a variable with a similar
    name, and VariableMismatch if units, dims or labels differ. Warns of MissingModality if all variables
    of a modality are missing: the prediction is made without it.
    """
    ds = text_names(ds)
    requests = set(schema.variables if variables is None else variables)
    names = [n for n in schema.variables if n in requests]
    modalities = [m for m in schema.modalities.values() if requests & set(m.variables)]
    absent: dict[str, list[str]] = {}
    for modality in modalities:
        missing = [v for v in modality.variables if v in requests and v not in ds.data_vars]
        if len(missing) < len(requests & set(modality.variables)):
            # A species without a variable was not surveyed there.
            missing = [v for v in missing if not modality.variables[v].species]
        if not missing:
            continue
        absent[modality.name] = missing
        unused_names = _unused(ds, schema)
        is_misspelt = any(_near(m, unused_names, cutoff=0.8) for m in missing)
        if is_misspelt or len(missing) < len(requests & set(modality.variables)):
            fix = (
                f"leave them out with using=[...] (modality '{modality.name}'), or set them to NaN"
            )
            raise MissingVariable(_missing(ds, schema, missing, fix))
    if len(absent) == len(modalities):
        raise MissingVariable(
            f"the data have none of the predictors; expected {list_names(names)}, "
            f"found {list_names(ds.data_vars)}: rename with ds.rename(...)"
        )
    if absent:
        modality_list = "; ".join(f"'{m}' ({', '.join(v)})" for m, v in absent.items())
        warn(
            f"{len(absent)} of {len(schema.modalities)} modalities are not in the data: {modality_list}. "
            "The prediction is made without them; pass using=[...] to confirm this.",
            MissingModality,
        )
    return {n: _match(ds[n], schema.variables[n]) for n in names if n in ds.data_vars}


def bind(schema: Schema, ds: xr.Dataset) -> Schema:
    """Fill in dims, labels and classes of the schema's variables from data.

    Raises MissingVariable and VariableMismatch as :func:`predictors`; here every variable must be in the data.
    """
    ds = text_names(ds)
    missing = [v for v in schema.variables if v not in ds.data_vars]
    if missing:
        available = set(ds.data_vars)
        complete = [m.name for m in schema.modalities.values() if set(m.variables) <= available]
        raise MissingVariable(
            _missing(ds, schema, missing, f"remove them with schema.subset({complete})")
        )
    plain = schema.without_origins()  # a saved model must not contain paths of this machine
    return plain.replace({n: bind_variable(v, ds[n]) for n, v in plain.variables.items()})


def bind_variable(variable: Variable, array: xr.DataArray) -> Variable:
    """Fill in dims, labels and classes of one variable."""
    units, codes = text_of(array.attrs, "units"), flags_of(array.attrs)
    _check_units(variable, units)
    dims, count = variable.dims or own_dims(array), OWN_DIMS[variable.kind]
    if len(dims) < count or (dims and not count):
        raise VariableMismatch(
            f"'{variable.name}' is of kind {variable.kind}, which needs at least {count} dims "
            f"in addition to the spatial dims or site, but the data have {dims or 'none'}: correct the kind in "
            "the catalog or pass kinds={...}"
        )
    _check_dims(variable.name, dims, array)
    fields = {k: getattr(variable, k) for k in Variable.model_fields} | {"dims": dims}
    fields["labels"] = {d: variable.labels.get(d) or labels_of(array, d) for d in dims}
    if variable.kind == "categorical" and not variable.classes:
        fields["classes"] = codes
    if variable.kind in OF_A_YEAR:
        fields["year"] = variable.year or year_of(array)
    return Variable(**fields)


def year_of(array: xr.DataArray) -> int | None:
    """Return the year that the attributes ``period``, ``time`` or ``year``, or a scalar coordinate ``time``, state.

    None if they state none, or several, such as a period of 30 years.
    """
    texts = [str(array.attrs.get(key, "")) for key in ("period", "time", "year")]
    if "time" in array.coords and array["time"].ndim == 0:
        texts.append(str(array["time"].values))
    years = {year for text in texts for year in YEAR.findall(text)}
    return int(years.pop()) if len(years) == 1 else None


def own_dims(array: xr.DataArray) -> tuple[str, ...]:
    """Return the dims of a predictor except the spatial dims and ``site``."""
    return tuple(str(d) for d in array.dims if not is_place(d))


def same_units(a: object, b: object) -> bool:
    """Return whether two units are equal, also in different spellings."""
    texts = (str(a).strip(), str(b).strip())
    first, second = (SAME_UNITS.get(text.lower(), text) for text in texts)
    return first == second


def _match(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    """Return a variable with its own dims last, in the order and with the labels of the schema."""
    _check_units(variable, text_of(array.attrs, "units"))
    _check_dims(variable.name, variable.dims, array)
    _compare_years(variable, array)
    if variable.kind == "categorical":
        _check_classes(variable, flags_of(array.attrs))
    array = as_float(array)
    for dim in variable.dims:
        labels, schema_labels = labels_of(array, dim), variable.labels[dim]
        if labels == schema_labels:
            continue
        if dim not in array.coords:
            raise VariableMismatch(
                f"'{variable.name}' has {len(labels)} steps along '{dim}' without labels, expected "
                f"{len(schema_labels)}: label them with ds.assign_coords({dim}=[...])"
            )
        index = _positions(schema_labels, labels, dim, name=variable.name)
        if not np.array_equal(index, np.arange(len(labels))):
            is_labelled = xr.DataArray(index >= 0, dims=dim)
            array = array.isel({dim: index}).drop_vars(dim).where(is_labelled)
    return array.transpose(..., *variable.dims)


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


def _missing(ds: xr.Dataset, schema: Schema, missing: list[str], fix: str) -> str:
    close = {m: _near(m, _unused(ds, schema), cutoff=0.6) for m in missing}
    renames = {c: m for m, c in close.items() if c}
    rename = f"rename with ds.rename({renames}), or " if renames else ""
    return (
        f"variables {missing} are not in the data (found {list_names(ds.data_vars)}): {rename}{fix}"
    )


def misspelt(ds: xr.Dataset, schema: Schema, names: Sequence[str]) -> dict[str, str]:
    """Return the variables of the data whose spelling is near that of a missing name, by that name."""
    close = {n: _near(n, _unused(ds, schema), cutoff=0.8) for n in names}
    return {n: c for n, c in close.items() if c}


def _unused(ds: xr.Dataset, schema: Schema) -> list[str]:
    """Return variables that are not in the schema; their names may have typing errors."""
    return [str(n) for n in ds.data_vars if n not in schema.variables]


def _near(name: str, names: Sequence[str], *, cutoff: float) -> str | None:
    """Return the name with the most similar spelling, independent of case."""
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def _check_classes(variable: Variable, codes_of_data: Mapping[int, str]) -> None:
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


def _check_units(variable: Variable, units: str | None) -> None:
    if variable.units is None or units is None or same_units(units, variable.units):
        return
    raise VariableMismatch(
        f"'{variable.name}' has units '{units}', expected '{variable.units}': convert it, then set "
        f"ds['{variable.name}'].attrs['units'] = '{variable.units}'"
    )


def _compare_years(variable: Variable, array: xr.DataArray) -> None:
    year = year_of(array)
    if variable.year is None or year is None or year == variable.year:
        return
    warn(
        f"'{variable.name}' is of {year} in the data and of {variable.year} in the training of the model; in published "
        "tests embeddings of another year lost 9 to 15 % of the accuracy. Build the cube with the year of the training, "
        f"e.g. gm.build_cube(catalog, parameters={{'year': {variable.year}}}), or fit with sites of both years",
        OtherYear,
    )


def _check_dims(name: str, dims: Sequence[str], array: xr.DataArray) -> None:
    names = own_dims(array)
    if set(names) == set(dims):
        return
    extra, missing = [d for d in names if d not in dims], [d for d in dims if d not in array.dims]
    has_place = any(is_place(d) for d in array.dims)
    place = [] if has_place else [["site"], ["y", "x"]][len(extra) - len(missing) == 2]
    if extra and len(extra) == len(place) + len(missing):
        advice = f"rename with ds.rename({dict(zip(extra, [*place, *missing]))})"
    elif missing:
        advice = f"join its steps with xr.concat([...], dim={missing[0]!r})"
    else:
        dim = extra[0]
        advice = f"select one step with ds.isel({dim}=0), or average them with ds.mean({dim!r})"
    raise VariableMismatch(
        f"'{name}' has dims {tuple(array.dims)}, expected {tuple(dims)} in addition to site or the spatial dims "
        f"(y, x, lat, lon, latitude, longitude): {advice}"
    )
