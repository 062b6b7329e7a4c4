"""The base class of catalog entries: frozen fields, unknown keys are errors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from geomiam.errors import SettingError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it


class _RaisesSettingError(ModelMetaclass):
    """Raise a GeomiamError when a class is called with wrong fields; pydantic's own validation is unchanged."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise SettingError(
                    f"{cls.__name__}: {error_text(error, tuple(cls.model_fields))}"
                ) from None


def error_text(error: ValidationError, fields: tuple[str, ...] = ()) -> str:
    """Return pydantic's errors on one line: field, message, value.

    Parameters
    ----------
    error : pydantic.ValidationError
    fields : tuple of str
        Valid fields, of which the nearest to an unknown field is suggested.
    """
    return "; ".join(_line(item, fields) for item in error.errors())


def _line(item: Any, fields: tuple[str, ...]) -> str:
    field = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, fields, n=1) or fields
        return (
            f"unknown field '{field}' (value {_brief(item['input'])}); fields: {', '.join(close)}"
        )
    message = item["msg"].removeprefix("Value error, ")
    value = "" if item["type"] in ("value_error", "missing") else f"; found {_brief(item['input'])}"
    return f"{field}: {message}{value}" if field else f"{message}{value}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


class FrozenFields(BaseModel, metaclass=_RaisesSettingError):
    """A frozen class of fields; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def split_fields(settings: Any, *names: str) -> tuple[Any, dict[str, Any]]:
    """Return settings (a config, a mapping or None) without some fields, and the values of these fields."""
    if isinstance(settings, Mapping):
        rest = {k: v for k, v in settings.items() if k not in names}
        return rest or None, {n: settings.get(n) for n in names}
    values = {n: getattr(settings, n, None) for n in names}
    if all(v is None for v in values.values()):
        return settings, values
    return settings.model_copy(update=dict.fromkeys(names)), values


def with_fields(settings: Any, **values: Any) -> Any:
    """Return settings (a config, a mapping or None) with some fields changed."""
    if isinstance(settings, FrozenFields):
        return settings.model_copy(update=values)
    return {**(settings or {}), **values}
