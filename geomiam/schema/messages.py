"""What is wrong with a catalog, told by line, key, value and fix."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from geomiam.schema.data_source import Fact


def explain(
    error: ValidationError,
    where: str,
    *,
    text: str | None,
    top: type[Fact],
    kinds: tuple[Sequence[str], Sequence[str]],
) -> str:
    """Turn pydantic's findings into lines that name the key, the value and the fix.

    Parameters
    ----------
    error : pydantic.ValidationError
    where : str
        Name of the catalog.
    text : str or None
        Its YAML, for line numbers.
    top : type
        The record that was read.
    kinds : tuple
        Kinds that variables may have, and sources.
    """
    root = yaml.compose(text) if text else None
    lines = []
    for item in error.errors():
        keys = [str(k) for k in item["loc"]]
        line = _line_of(root, keys)
        place = f"{where}, line {line}" if line else where
        lines.append(f"{place}: {' → '.join(keys) or 'top level'}: {_fix(item, keys, top, kinds)}")
    return "\n".join(lines)


def _fix(item: Any, keys: list[str], top: type[Fact], kinds: tuple) -> str:
    if item["type"] == "extra_forbidden":
        known = _known_keys(keys, top)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known)}"
        return f"unknown key '{keys[-1]}'; {hint}"
    if keys and keys[-1] == "kind":
        known = kinds[keys[0] == "sources"]
        return f"'{item['input']}' is not a kind; use one of {', '.join(known)}"
    if item["type"] == "missing":
        return f"this key is required; add '{keys[-1]}:'"
    message = item["msg"].removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{message}; found {item['input']!r}"


def _known_keys(keys: list[str], top: type[Fact]) -> list[str]:
    """Keys allowed where the last one stands."""
    fact: Any = top
    path = iter(keys[:-1])
    for key in path:
        fields = {f.alias or k: f for k, f in fact.model_fields.items()}
        inner, mapped = _inside(fields[key].annotation)
        if mapped:
            next(path, None)
        fact = inner or fact
    named = [f.alias or k for k, f in fact.model_fields.items()]
    return [k for k in named if k != "name" or fact is top]


def _inside(annotation: Any) -> tuple[Any, bool]:
    """The record that a field holds, if it holds one, and whether a mapping of them."""
    inner = get_args(annotation)
    for kind in (annotation, *inner):
        if isinstance(kind, type) and issubclass(kind, Fact):
            return kind, annotation is not kind and type(None) not in inner
    return None, False


def _line_of(node: Any, keys: list[str]) -> int | None:
    """Line of the deepest key of the path that stands in the YAML text."""
    line = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        pairs = {k.value: (k, v) for k, v in node.value}
        if key not in pairs:
            break
        line, node = pairs[key][0].start_mark.line + 1, pairs[key][1]
    return line
