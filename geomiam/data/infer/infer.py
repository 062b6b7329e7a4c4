"""Inference of a schema from the dims, attributes, names and a sample of the values of a dataset."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.infer.kinds import Guess, guess_kind
from geomiam.data.infer.kinds import infer_kind as infer_kind
from geomiam.data.infer.numbered import modalities_of
from geomiam.data.predictors import bind
from geomiam.data.store.coordinates import text_names
from geomiam.data.values.attributes import flags_of, text_of
from geomiam.data.variables import bind_variable, own_dims
from geomiam.errors import DoubtfulKind, SchemaError, warn
from geomiam.geo.dims import on_place
from geomiam.schema.modality import Modality
from geomiam.schema.schema import Schema
from geomiam.schema.variable import KINDS, Variable

NOT_PREDICTORS = ("presence", "background", "spatial_ref")


def read_schema(ds: xr.Dataset, schema: Schema | str | Path | None = None) -> Schema:
    """Return a schema bound to sites or a cube; it is passed, read from a catalog's path, or inferred.

    Raises
    ------
    MissingVariable, VariableMismatch, SchemaError
        If the data do not match the schema, or no schema can be inferred.
    """
    if schema is None:
        return infer_schema(ds)
    return bind(Schema.from_yaml(schema) if isinstance(schema, (str, Path)) else schema, ds)


def infer_schema(
    ds: xr.Dataset,
    *,
    modalities: Mapping[str, Sequence[str]] | None = None,
    kinds: Mapping[str, str] | None = None,
    name: str = "inferred",
) -> Schema:
    """Infer a schema from a dataset's dims, attributes, names and a sample of its values.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites; ``presence`` is left out. At most nine windows of 64 × 64 cells of a lazy variable
        are read, and only if its name or integer dtype does not determine its kind.
    modalities : mapping of str to sequence of str, optional
        Mapping from a modality to names or patterns (``bio*``) of variables. Other variables belong to
        the modality in their attribute ``modality``. Without it, numbered layers (bio1 … bio19,
        prec_01 … prec_12) are one modality, and any other variable is a separate modality.
    kinds : mapping of str to str, optional
        Mapping from a variable to its kind, which replaces the inferred kind.
    name : str
        Name of the schema.

    Returns
    -------
    Schema
        Bound schema. ``print(schema)`` shows a table of the inferred kinds with the evidence.

    Raises
    ------
    SchemaError
        If a kind cannot be inferred, a pattern matches no variable, or ``kinds`` has an unknown
        variable or kind.

    Warns
    -----
    DoubtfulKind
        Where a kind may be wrong, with the call that sets it.

    Examples
    --------
    >>> import geomiam as gm
    >>> schema = gm.infer_schema(gm.demo.load_cube())
    >>> schema.variables["koeppen"].kind
    'categorical'
    """
    ds, kinds = text_names(ds), kinds or {}
    names = [n for n in on_place(ds) if n not in NOT_PREDICTORS]
    homes = _default_homes(ds, names) | _homes(names, modalities or {})
    _check_kinds(kinds, names)
    guesses = {n: Guess(kinds[n], "kinds=") if n in kinds else guess_kind(ds[n]) for n in names}
    variables: dict[str, dict[str, Variable]] = {}
    for n, home in homes.items():
        variables.setdefault(home, {})[n] = bind_variable(_variable(ds[n], guesses[n]), ds[n])
    schema = Schema(
        name=name, modalities={m: Modality(name=m, variables=v) for m, v in variables.items()}
    )
    schema.__dict__["evidence"] = {n: g.reason for n, g in guesses.items()}
    _warn(guesses)
    return schema


def _variable(array: xr.DataArray, guess: Guess) -> Variable:
    fields: dict = {k: text_of(array.attrs, k) for k in ("units", "long_name")}
    if guess.period:
        fields["period"] = guess.period
    if guess.classes and not flags_of(array.attrs):
        fields["classes"] = guess.classes
    return Variable(name=str(array.name), kind=guess.kind, **fields)


def _default_homes(ds: xr.Dataset, names: list[str]) -> dict[str, str]:
    """Return the modality of each variable from its attribute, its number or its name."""
    declared_names = {n: m for n in names if (m := text_of(ds[n].attrs, "modality"))}
    numbered_names = modalities_of(
        n for n in names if n not in declared_names and not own_dims(ds[n])
    )
    return {n: declared_names.get(n) or numbered_names.get(n) or n for n in names}


def _warn(guesses: Mapping[str, Guess]) -> None:
    """Warn once of all doubtful kinds, with the call that sets each."""
    doubts = {n: g for n, g in guesses.items() if g.doubt}
    if not doubts:
        return
    lines = [
        f"'{n}' is read as {g.kind}, but {g.doubt}; if so: kinds={{'{n}': '{g.instead}'}}, else "
        f"kinds={{'{n}': '{g.kind}'}}"
        for n, g in doubts.items()
    ]
    warn(
        "kinds that may be wrong: pass the right ones to gm.infer_schema(ds, kinds={...}), as "
        "--kind VARIABLE=KIND on the command line, or as kind: in the catalog\n  "
        + "\n  ".join(lines),
        DoubtfulKind,
    )


def _check_kinds(kinds: Mapping[str, str], names: list[str]) -> None:
    for name, kind in kinds.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {list_names(names)}"
            raise SchemaError(f"kinds= has '{name}', which is not a predictor of the data; {hint}")
        if kind not in KINDS:
            raise SchemaError(
                f"kinds={{'{name}': {kind!r}}}: this kind does not exist; use {', '.join(KINDS)}"
            )


def _homes(names: list[str], modalities: Mapping[str, Sequence[str]]) -> dict[str, str]:
    homes: dict[str, str] = {}
    for modality, patterns in modalities.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        for pattern in patterns:
            matching_names = fnmatch.filter(names, pattern)
            if not matching_names:
                raise SchemaError(
                    f"modality '{modality}': '{pattern}' matches none of {list_names(names)}"
                )
            homes.update(dict.fromkeys((m for m in matching_names if m not in homes), modality))
    return homes
