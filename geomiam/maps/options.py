"""Options of a map that belong to its predictions or to its Shapley values."""

from __future__ import annotations

from typing import Any

from geomiam.errors import SettingError
from geomiam.explain.shapley_values import SAMPLES

DEFAULTS: dict[str, Any] = {
    "groups": None,
    "using": None,
    "species": None,
    "scale": "probability",
    "precision": "fp32",
    "method": None,
    "samples": SAMPLES,
    "rng": 0,
    "memory_limit": None,
    "empty": "nan",
    "require": (),
    "mask": None,
}
ONLY_SHAPLEY = ("groups", "method", "samples", "rng")
ONLY_PREDICT = ("empty",)


def map_options(shapley: bool, **values: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults.

    Raises
    ------
    SettingError
        For an option of Shapley values in a map without them, or the other way round.
    """
    options = {k: v for k, v in values.items() if not _is_default(k, v)}
    if without_effect := [k for k in (ONLY_PREDICT if shapley else ONLY_SHAPLEY) if k in options]:
        remedy = "leave them out, or pass shapley="
        raise SettingError(
            f"{', '.join(f'{k}=' for k in without_effect)} has no effect with shapley={shapley}; "
            f"{remedy}{not shapley}"
        )
    return options


def _is_default(name: str, value: Any) -> bool:
    default = DEFAULTS[name]
    return value is default or (isinstance(value, (str, int, tuple, list)) and value == default)
