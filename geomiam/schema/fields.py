"""The base class of catalog entries, and messages about wrong entries: line, key, value and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from geomiam.errors import SettingError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it


class _RaisesSettingError(ModelMetaclass):
    """Raise a GeomiamError when a class is called with wrong fields; pydantic's validation is unchanged."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise SettingError(
                    f"{cls.__name__}: {error_text(error, tuple(cls.model_fields))}"
                ) from None


class FrozenFields(BaseModel, metaclass=_RaisesSettingError):
    """A frozen class of fields; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def split_fields(settings: Any, *names: str) -> tuple[Any, dict[str, Any]]:
    """Return settings (a config, a mapping or None) without some fields, and the values of these fields."""
    if isinstance(settings, Mapping):
        remaining_settings = {k: v for k, v in settings.items() if k not in names}
        return remaining_settings or None, {n: settings.get(n) for n in names}
    values = {n: getattr(settings, n, None) for n in names}
    if all(v is None for v in values.values()):
        return settings, values
    return settings.model_copy(update=dict.fromkeys(names)), values


def with_fields(settings: Any, **values: Any) -> Any:
    """Return settings (a config, a mapping or None) with some fields changed."""
    if isinstance(settings, FrozenFields):
        return settings.model_copy(update=values)
    return {**(settings or {}), **values}


def error_text(error: ValidationError, fields: tuple[str, ...] = ()) -> str:
    """Return pydantic's errors on one line: field, message, value; ``fields`` are those to suggest."""
    lines = []
    for item in error.errors():
        field, value = ".".join(map(str, item["loc"])), repr(item["input"])
        value = value if len(value) <= 80 else f"{value[:80]}…"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] not in ("value_error", "missing"):
            message = f"{message}; found {value}"
        line = f"{field}: {message}" if field else message
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(field, fields, n=1) or fields
            line = f"unknown field '{field}' (value {value}); fields: {', '.join(close)}"
        lines.append(line)
    return "; ".join(lines)


def explain(
    error: ValidationError,
    location: str,
    *,
    text: str | None,
    top: type[FrozenFields],
    kinds: tuple[Sequence[str], Sequence[str]],
) -> str:
    """Return a line for each error of pydantic in a catalog, with the key, the value and the remedy.

    ``text`` is its YAML, for line numbers; ``top`` the class of the whole catalog; ``kinds`` those of
    variables and of sources.
    """
    root = yaml.compose(text) if text else None
    lines = []
    for item in error.errors():
        keys = [str(k) for k in item["loc"]]
        line = _line_of(root, keys)
        place = f"{location}, line {line}" if line else location
        lines.append(f"{place}: {' → '.join(keys) or 'top level'}: {_fix(item, keys, top, kinds)}")
    return "\n".join(lines)


def _fix(item: Any, keys: list[str], top: type[FrozenFields], kinds: tuple[Any, ...]) -> str:
    if item["type"] == "extra_forbidden":
        allowed_keys = _allowed_keys(keys, top)
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


def _allowed_keys(keys: list[str], top: type[FrozenFields]) -> list[str]:
    """Return the keys that are allowed at the level of the last key."""
    entry, path = top, iter(keys[:-1])
    for key in path:
        annotation = {f.alias or k: f for k, f in entry.model_fields.items()}[key].annotation
        inner = get_args(annotation)
        for kind in (annotation, *inner):
            if isinstance(kind, type) and issubclass(kind, FrozenFields):
                if annotation is not kind and type(None) not in inner:
                    next(path, None)  # the name of an entry in a mapping
                entry = kind
                break
    names = [f.alias or k for k, f in entry.model_fields.items()]
    return [k for k in names if k != "name" or entry is top]


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
