"""A schema inferred from the dims and attributes of a dataset."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import xarray as xr

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
        found.setdefault(home, {})[n] = bind_variable(Variable(name=n, kind=kind, **facts), ds[n])
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
    if (said := array.attrs.get("kind")) in KINDS and bool(own) == bool(OWN_DIMS[said]):
        return str(said)
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
