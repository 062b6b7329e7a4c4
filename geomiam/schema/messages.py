"""Messages about errors in a catalog: line, key, value and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from geomiam.schema.fields import FrozenFields


def explain(
    error: ValidationError,
    location: str,
    *,
    text: str | None,
    top: type[FrozenFields],
    kinds: tuple[Sequence[str], Sequence[str]],
) -> str:
    """Return a line for each error of pydantic, with the key, the value and the remedy.

    Parameters
    ----------
    error : pydantic.ValidationError
    location : str
        Name of the catalog.
    text : str or None
        YAML of the catalog, for line numbers.
    top : type
        Class of the whole catalog.
    kinds : tuple
        Kinds of variables, and kinds of sources.
    """
    root = yaml.compose(text) if text else None
    lines = []
    for item in error.errors():
        keys = [str(k) for k in item["loc"]]
        line = _line_of(root, keys)
        place = f"{location}, line {line}" if line else location
        lines.append(f"{place}: {' → '.join(keys) or 'top level'}: {_fix(item, keys, top, kinds)}")
    return "\n".join(lines)


def _fix(item: Any, keys: list[str], top: type[FrozenFields], kinds: tuple) -> str:
    if item["type"] == "extra_forbidden":
        allowed_keys = _known_keys(keys, top)
        close = difflib.get_close_matches(keys[-1], allowed_keys, n=1)
        hint = (
            f"did you mean '{close[0]}'?" if close else f"allowed keys: {', '.join(allowed_keys)}"
        )
        return f"unknown key '{keys[-1]}'; {hint}"
    if keys and keys[-1] == "kind":
        allowed_keys = kinds[keys[0] == "sources"]
        return f"'{item['input']}' is not a kind; use one of {', '.join(allowed_keys)}"
    if item["type"] == "missing":
        return f"this key is required; add '{keys[-1]}:'"
    message = item["msg"].removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{message}; found {item['input']!r}"


def _known_keys(keys: list[str], top: type[FrozenFields]) -> list[str]:
    """Return the keys that are allowed at the level of the last key."""
    fact: Any = top
    path = iter(keys[:-1])
    for key in path:
        fields = {f.alias or k: f for k, f in fact.model_fields.items()}
        inner, is_mapping = _inside(fields[key].annotation)
        if is_mapping:
            next(path, None)
        fact = inner or fact
    names = [f.alias or k for k, f in fact.model_fields.items()]
    return [k for k in names if k != "name" or fact is top]


def _inside(annotation: Any) -> tuple[Any, bool]:
    """Return the class of the entries of a field, None for other fields, and whether it maps names to them."""
    inner = get_args(annotation)
    for kind in (annotation, *inner):
        if isinstance(kind, type) and issubclass(kind, FrozenFields):
            return kind, annotation is not kind and type(None) not in inner
    return None, False


def _line_of(node: Any, keys: list[str]) -> int | None:
    """Return the line of the deepest key of a path that is in the YAML text."""
    line = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        pairs = {k.value: (k, v) for k, v in node.value}
        if key not in pairs:
            break
        line, node = pairs[key][0].start_mark.line + 1, pairs[key][1]
    return line
