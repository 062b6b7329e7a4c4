"""The range of each predictor in training, and the values outside it.

Numbers have a least and a greatest value per channel, feature or date, as they have a mean. The range of
a categorical variable is its classes in training. Angles have no range. A value that is not finite is
missing and not outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from geomiam.schema.schema import Schema
from geomiam.schema.variable import Variable
from geomiam.tokens.scaler import ROUNDING, Scaler, own_moments

NEVER = (1.0, 0.0)
"""Limits of a predictor that training never observed: every value is outside."""


def is_number(variable: Variable) -> bool:
    """Return whether the values of a variable have a least and a greatest one."""
    return variable.kind not in ("categorical", "circular")


def limits_of(x: np.ndarray, variable: Variable) -> np.ndarray:
    """Return the least and the greatest value ``(*channels, 2)`` of ``(n, *own dims)``."""
    channels = own_moments(variable)
    axes = (0, *range(1 + channels, x.ndim))
    finite = np.isfinite(x)
    low = np.where(finite, x, np.inf).min(axes, initial=np.inf)
    high = np.where(finite, x, -np.inf).max(axes, initial=-np.inf)
    any_value = low <= high
    return np.stack([np.where(any_value, low, NEVER[0]), np.where(any_value, high, NEVER[1])], -1)


def with_limits(scaler: Scaler, arrays: Mapping[str, np.ndarray], schema: Schema) -> Scaler:
    """Return the scaler with the range of training sites ``(n, *own dims)`` per variable."""
    numbers = {n: v for n, v in schema.variables.items() if is_number(v) and n in arrays}
    limits = {n: limits_of(np.asarray(arrays[n]), v) for n, v in numbers.items()}
    return replace(scaler, limits=limits)


def widened(scaler: Scaler, arrays: Mapping[str, np.ndarray], schema: Schema) -> Scaler:
    """Return the scaler with ranges that hold further training sites too.

    A model without ranges keeps none, since those of its first sites are not recorded.
    """
    further = with_limits(scaler, arrays, schema).limits
    return replace(
        scaler, limits={n: _joined(old, further.get(n, old)) for n, old in scaler.limits.items()}
    )


def _joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    limits = np.stack([a, b])
    any_value = (limits[..., 0] <= limits[..., 1])[..., None]
    low = np.where(any_value, limits, np.inf)[..., 0].min(0)
    high = np.where(any_value, limits, -np.inf)[..., 1].max(0)
    return np.where(any_value.any(0), np.stack([low, high], -1), np.array(NEVER))


def has_limits(variable: Variable, scaler: Scaler) -> bool:
    """Return whether values of a variable can be outside the range."""
    return not is_number(variable) or variable.name in scaler.limits


def outside(x: np.ndarray, variable: Variable, scaler: Scaler) -> np.ndarray:
    """Return which values are observed and outside the training range, boolean like ``x``.

    A value beyond a limit by float32 rounding alone is inside.
    """
    finite = np.isfinite(x)
    if variable.kind == "categorical":
        return finite & ~np.isin(x, scaler.classes[variable.name])
    if variable.kind == "circular" or variable.name not in scaler.limits:
        return np.zeros(x.shape, bool)
    limits = scaler.limits[variable.name]
    slack = ROUNDING * np.abs(limits).max(-1)
    low, high = limits[..., 0] - slack, limits[..., 1] + slack
    low, high = (v.reshape(v.shape + (1,) * (x.ndim - 1 - v.ndim)) for v in (low, high))
    return finite & ((x < low) | (x > high))
