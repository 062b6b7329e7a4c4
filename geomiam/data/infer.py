"""Inference of a schema: kinds by :mod:`geomiam.data.kinds`, modalities by attributes and names."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.dataset import check_sites
from geomiam.data.kinds import Guess, guess_kind, warn_of_doubts
from geomiam.data.names import text_names
from geomiam.data.predictors import bind, bind_variable, own_dims
from geomiam.data.values import flags_of, text_of
from geomiam.errors import SchemaError
from geomiam.geo.dims import on_place
from geomiam.schema.schema import Schema
from geomiam.schema.variable import KINDS, Modality, Variable

NOT_PREDICTORS = ("presence", "background", "spatial_ref")
BIOCLIM = re.compile(r"(?:^|.*[^a-z])bio(?:clim)?[_\-. ]?0?([1-9]|1\d)(?!\d).*", re.IGNORECASE)
MIN_LAYERS = 3
"""Smallest number of layers with equal names except for numbers that form one modality."""


def read_schema(ds: xr.Dataset, schema: Schema | str | Path | None = None) -> Schema:
    """Return a schema bound to sites or a cube; it is passed, read from a catalog's path, or inferred.

    Raises MissingVariable, VariableMismatch or SchemaError if the data do not match it, and LabelError for records.
    """
    check_sites(ds)
    if schema is None:
        return infer_schema(ds)
    if isinstance(schema, (str, Path)):
        schema = Schema.from_yaml(schema)
    if not isinstance(schema, Schema):
        raise SchemaError(
            f"a schema is a Schema or the path of a catalog, found {type(schema).__name__}; create one with "
            "gm.infer_schema(sites, modalities={'climate': ['bio*']})"
        )
    return bind(schema, ds)


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

    See Also
    --------
    geomiam.Schema : read a schema from a catalog, or write one.
    geomiam.coverage : how much of each variable is observed.

    Examples
    --------
    >>> import geomiam as gm
    >>> schema = gm.infer_schema(gm.demo.load_cube())
    >>> schema.variables["koeppen"].kind
    'categorical'
    """
    ds, kinds = text_names(ds), kinds or {}
    names = [n for n in on_place(ds) if n not in NOT_PREDICTORS]
    declared_names = {n: m for n in names if (m := text_of(ds[n].attrs, "modality"))}
    layers = [n for n in names if n not in declared_names and not own_dims(ds[n])]
    homes = dict(zip(names, names)) | numbered_modalities(layers) | declared_names
    homes |= _homes(names, modalities or {})
    _check_kinds(kinds, names)
    guesses = {n: Guess(kinds[n], "kinds=") if n in kinds else guess_kind(ds[n]) for n in names}
    variables: dict[str, dict[str, Variable]] = {}
    for n, home in homes.items():
        guess, attrs = guesses[n], ds[n].attrs
        fields: dict[str, Any] = {k: text_of(attrs, k) for k in ("units", "long_name", "species")}
        if guess.period:
            fields["period"] = guess.period
        if guess.classes and not flags_of(attrs):
            fields["classes"] = guess.classes
        variable = Variable(name=n, kind=guess.kind, **fields)
        variables.setdefault(home, {})[n] = bind_variable(variable, ds[n])
    schema = Schema(
        name=name, modalities={m: Modality(name=m, variables=v) for m, v in variables.items()}
    )
    schema.__dict__["evidence"] = {n: g.reason for n, g in guesses.items()}
    warn_of_doubts(
        guesses,
        "gm.infer_schema(ds, kinds={...}), as --kind VARIABLE=KIND on the command line, or as kind: in the catalog",
    )
    return schema


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
    """Return the modality of each variable that a pattern matches; the first match counts."""
    homes: dict[str, str] = {}
    for modality, patterns in modalities.items():
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            matching_names = fnmatch.filter(names, pattern)
            if not matching_names:
                raise SchemaError(
                    f"modality '{modality}': '{pattern}' matches none of {list_names(names)}"
                )
            homes = dict.fromkeys(matching_names, modality) | homes
    return homes


def numbered_modalities(names: Sequence[str]) -> dict[str, str]:
    """Return the modality of each numbered layer; other names are left out.

    Two or more bioclimatic variables (``bio_01``, ``wc2.1_10m_bio_12``, ``CHELSA_bio12_1981-2010_V.2.1``)
    are the modality ``bioclim``. Three or more other names that are equal except for their numbers are
    one modality, with the common part of their names.
    """
    bioclim = [n for n in names if BIOCLIM.fullmatch(n)]
    homes = dict.fromkeys(bioclim, "bioclim") if len(bioclim) > 1 else {}
    stems: dict[str, list[str]] = {}
    for name in (n for n in names if n not in homes and re.search(r"\d", n)):
        stems.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    for members in stems.values():
        if len(members) < MIN_LAYERS:
            continue
        # Numbers that do not vary are part of the common name.
        numbers = zip(*(re.findall(r"\d+", m) for m in members))
        fixed = [n[0] if len(set(n)) == 1 else "" for n in numbers]
        pieces = zip(re.split(r"\d+", members[0]), [*fixed, ""])
        text = "".join(piece + number for piece, number in pieces)
        common = re.sub(r"([_\-. ])[_\-. ]+", r"\1", text).strip("_-. ") or "layers"
        homes |= dict.fromkeys(members, common)
    return homes
