"""A schema inferred from the dims and attributes of a dataset."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence

import xarray as xr

from geomiam.cube.attributes import text_of
from geomiam.cube.coordinates import text_names
from geomiam.cube.labels import has_dates
from geomiam.cube.place import on_place
from geomiam.cube.predictors import bind_variable, own_dims, some
from geomiam.errors import SchemaError
from geomiam.schema import KINDS, OWN_DIMS, Modality, Schema, Variable

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
        Modality → variable names or patterns (``bio*``). For all other variables: their ``modality``
        attribute, else the variable is a modality of its own.
    kinds : mapping of str to str, optional
        Variable → kind, where the inferred kind would be wrong.

    Returns
    -------
    Schema
        Bound.

    Raises
    ------
    SchemaError
        If a kind cannot be inferred, a pattern matches nothing, or ``kinds`` names an unknown
        variable or kind.
    """
    ds = text_names(ds)
    names = [n for n in on_place(ds) if n not in NOT_PREDICTORS]
    homes = {n: text_of(ds[n].attrs, "modality") or n for n in names}
    homes |= _homes(names, modalities or {})
    _check_kinds(kinds or {}, names)
    found: dict[str, dict[str, Variable]] = {}
    for n, home in homes.items():
        kind = (kinds or {}).get(n) or infer_kind(ds[n])
        text = {k: text_of(ds[n].attrs, k) for k in ("units", "long_name")}
        found.setdefault(home, {})[n] = bind_variable(Variable(name=n, kind=kind, **text), ds[n])
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
    stated = text_of(array.attrs, "kind")
    if stated in KINDS and bool(own) == bool(OWN_DIMS[stated]):
        return stated
    if not own:
        if "flag_values" in array.attrs or text_of(array.attrs, "type") == "categorical":
            return "categorical"
        words = f"{array.name} {text_of(array.attrs, 'long_name') or ''}".lower()
        degrees = (text_of(array.attrs, "units") or "") in DEGREES
        return "circular" if degrees and any(w in words for w in CIRCULAR_NAMES) else "scalar"
    last = own[-1]
    if last.lower() in TIME_DIMS or has_dates(array, last):
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


def _check_kinds(kinds: Mapping[str, str], names: list[str]) -> None:
    for name, kind in kinds.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {some(names)}"
            raise SchemaError(f"kinds= names '{name}', which is no predictor of the data; {hint}")
        if kind not in KINDS:
            raise SchemaError(
                f"kinds={{'{name}': {kind!r}}}: there is no such kind; use {', '.join(KINDS)}"
            )


def _homes(names: list[str], modalities: Mapping[str, Sequence[str]]) -> dict[str, str]:
    homes: dict[str, str] = {}
    for modality, patterns in modalities.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        for pattern in patterns:
            matched = fnmatch.filter(names, pattern)
            if not matched:
                raise SchemaError(
                    f"modality '{modality}': '{pattern}' matches none of {some(names)}"
                )
            homes.update(dict.fromkeys((m for m in matched if m not in homes), modality))
    return homes
