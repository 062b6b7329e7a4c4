"""Means, deviations, classes and ranges of the training sites, by variable name.

Numbers have a range per channel, feature or date, as they have a mean. The range of a categorical
variable is its classes in training. Angles have no range. A value that is not finite is missing and not
outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from geomiam.errors import NeverObserved, VariableMismatch, warn
from geomiam.on_disk import in_parts
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Variable
from geomiam.tokens.layout import segments
from geomiam.tokens.symbols import breakpoints, paa

ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Largest deviation, relative to the mean, of a constant that was resampled in float32."""
TINY = float(np.finfo(np.float32).tiny)
LARGEST_CODE = 2**24
"""Below it float32 holds every whole number."""
POOLED = {"series": 1, "image": 2}
"""Trailing dims that share one mean, by kind."""
REQUIRED = ("mean", "std", "classes")
STATISTICS = (*REQUIRED, "edges", "ranges", "limits")
"""Tables of a scaler, those of every saved model first."""
NEVER = (1.0, 0.0)
"""Limits of a predictor that training never observed: every value is outside."""
Parts = Callable[[], Iterator[np.ndarray]]
"""Function that returns the training sites of one variable in parts ``(r, *own dims)``."""


@dataclass(frozen=True)
class Scaler:
    """Statistics of the training data that :func:`encode` needs; saved with the model.

    ``mean`` and ``std`` have one value per channel (series, image) or per feature (vector). A series by
    periods of the calendar has one mean per date, since its dates do not repeat, and one deviation that
    all dates share.
    """

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    classes: dict[str, np.ndarray]
    """Classes in the training data, ascending; any other class counts as not observed."""
    edges: dict[str, np.ndarray] = field(default_factory=dict)
    """Breakpoints between symbols, ascending ``(channels, symbols − 1)``, of the standardised series."""
    ranges: dict[str, np.ndarray] = field(default_factory=dict)
    """Least and greatest segment mean in training ``(channels, 2)``, standardised; 0 without any."""
    limits: dict[str, np.ndarray] = field(default_factory=dict)
    """Least and greatest value in training, ``(*shape of the mean, 2)``; empty in older models."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        # An empty table is left out, so that models from before there was such a table keep their id.
        tables = {k: getattr(self, k) for k in STATISTICS if k in REQUIRED or getattr(self, k)}
        return {k: {n: a.tolist() for n, a in v.items()} for k, v in tables.items()}

    def check(self, schema: Schema) -> None:
        """Raise ValueError if the scaler does not fit the variables of a bound schema."""
        for name, variable in schema.variables.items():
            fits = True
            if variable.kind == "categorical":
                fits = name in self.classes and self.classes[name].ndim == 1
            elif variable.kind != "circular" and variable.bound:
                shape = variable.sizes[: own_moments(variable)]
                fits = all(name in s and s[name].shape == shape for s in (self.mean, self.std))
            if variable.symbols and variable.bound:
                fits = fits and self._fits_symbols(variable)
            if not fits:
                raise ValueError(f"the scaler does not fit variable '{name}'")
        self._check_values()

    def _check_values(self) -> None:
        """Refuse numbers that would silently remove or invert a predictor."""
        for name in self.mean:
            mean, std = self.mean[name], self.std[name]
            if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
                raise ValueError(
                    f"the scaler of '{name}' has a mean or deviation that is not finite, or a deviation "
                    "that is not above 0"
                )
            limits = self.limits.get(name, np.zeros((*mean.shape, 2)))
            if limits.shape != (*mean.shape, 2) or not np.isfinite(limits).all():
                raise ValueError(
                    f"the training range of '{name}' is not finite or of another shape"
                )
        if unknown := sorted(set(self.limits) - set(self.mean)):
            raise ValueError(f"there is a training range of {unknown}, which have no mean")
        for name, codes in self.classes.items():
            if (np.diff(codes) <= 0).any():
                raise ValueError(f"the classes of '{name}' are not in ascending order")

    def _fits_symbols(self, variable: Variable) -> bool:
        channels, symbols = _channels(variable), variable.symbols or 0
        shapes = {"edges": (channels, symbols - 1), "ranges": (channels, 2)}
        arrays = [getattr(self, k).get(variable.name, np.array(np.nan)) for k in shapes]
        shapes_fit = all(a.shape == shape for a, shape in zip(arrays, shapes.values()))
        return shapes_fit and all(np.isfinite(a).all() and (np.diff(a) >= 0).all() for a in arrays)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scaler:
        """Return the scaler of a mapping that :meth:`to_dict` returned."""
        tables = {}
        for key in STATISTICS:
            table = data[key] if key in REQUIRED else data.get(key, {})
            dtype = np.int64 if key == "classes" else np.float64
            tables[key] = {name: np.asarray(v, dtype) for name, v in table.items()}
        return cls(**tables)


def fit_scaler(
    arrays: Mapping[str, np.ndarray], schema: Schema, *, rows: np.ndarray | None = None
) -> Scaler:
    """Fit the scaler on sites, arrays ``(n, *own dims)`` by variable; NaN is ignored.

    ``rows`` are the training sites, boolean ``(n,)``; default: all. Arrays are read in parts.
    """
    training = {n: partial(in_parts, arrays[n], rows) for n in schema.variables}
    empty = [n for n, parts in training.items() if not any(np.isfinite(x).any() for x in parts())]
    if empty and len(empty) < len(schema.variables):
        warn(  # the rest of their modality would conceal them
            f"{len(empty)} of {len(schema.variables)} predictors have no value at any training site: "
            f"{', '.join(empty[:8])}; the model learns nothing from them: check their source, or leave them out of the "
            "schema",
            NeverObserved,
        )
    scaler = Scaler({}, {}, {})
    for name, variable in schema.variables.items():
        parts = training[name]
        if variable.kind == "categorical":
            scaler.classes[name] = _classes(parts, name)
        elif variable.kind != "circular":  # an angle has no mean to subtract
            scaler.mean[name], scaler.std[name] = _moments(parts, variable)
        if variable.symbols:
            all_means = [segment_means(x, variable, scaler) for x in parts()]
            means = np.concatenate(all_means).swapaxes(0, 1)
            quantile_means = means if variable.breakpoints == "quantile" else [None] * len(means)
            edges = [breakpoints(variable.symbols, m) for m in quantile_means]
            finite = [m[np.isfinite(m)] for m in means]
            ranges = [[m.min(), m.max()] if m.size else [0.0, 0.0] for m in finite]
            scaler.edges[name], scaler.ranges[name] = np.stack(edges), np.array(ranges)
    return scaler


def with_limits(
    scaler: Scaler,
    arrays: Mapping[str, np.ndarray],
    schema: Schema,
    *,
    rows: np.ndarray | None = None,
) -> Scaler:
    """Return the scaler with the range of sites ``(n, *own dims)`` per variable, of ``rows (n,)`` or all."""
    numbers = {n: v for n, v in schema.variables.items() if is_number(v) and n in arrays}
    limits = {}
    for name, variable in numbers.items():
        of_parts = [limits_of(x, variable) for x in in_parts(arrays[name], rows)]
        limits[name] = _common_limits(np.stack(of_parts))
    return replace(scaler, limits=limits)


def is_number(variable: Variable) -> bool:
    """Return whether the values of a variable have a least and a greatest one."""
    return variable.kind not in ("categorical", "circular")


def limits_of(x: np.ndarray, variable: Variable) -> np.ndarray:
    """Return the least and the greatest value ``(*channels, 2)`` of ``(n, *own dims)``."""
    axes, finite = _pooled_axes(x, variable), np.isfinite(x)
    # NEVER has low > high, so that every later value is outside.
    low = np.where(finite, x, np.inf).min(axes, initial=np.inf)
    high = np.where(finite, x, -np.inf).max(axes, initial=-np.inf)
    any_value = low <= high
    return np.stack([np.where(any_value, low, NEVER[0]), np.where(any_value, high, NEVER[1])], -1)


def widened(
    scaler: Scaler,
    arrays: Mapping[str, np.ndarray],
    schema: Schema,
    *,
    rows: np.ndarray | None = None,
) -> Scaler:
    """Return the scaler with ranges that hold further training sites too, ``rows (n,)`` or all."""
    # A model without ranges keeps none, since those of its first sites are not recorded.
    further = with_limits(scaler, arrays, schema, rows=rows).limits
    limits = {
        name: _common_limits(np.stack([old, further.get(name, old)]))
        for name, old in scaler.limits.items()
    }
    return replace(scaler, limits=limits)


def _common_limits(limits: np.ndarray) -> np.ndarray:
    """Return the limits ``(*channels, 2)`` of several sets of sites together, ``(k, *channels, 2)``."""
    any_value = (limits[..., 0] <= limits[..., 1])[..., None]
    low = np.where(any_value, limits, np.inf)[..., 0].min(0)
    high = np.where(any_value, limits, -np.inf)[..., 1].max(0)
    return np.where(any_value.any(0), np.stack([low, high], -1), np.array(NEVER))


def has_limits(variable: Variable, scaler: Scaler) -> bool:
    """Return whether values of a variable can be outside the range."""
    return not is_number(variable) or variable.name in scaler.limits


def outside(x: np.ndarray, variable: Variable, scaler: Scaler) -> np.ndarray:
    """Return which values are observed and outside the training range, boolean like ``x``."""
    finite = np.isfinite(x)
    if variable.kind == "categorical":
        return finite & ~np.isin(x, scaler.classes[variable.name])
    if variable.kind == "circular" or variable.name not in scaler.limits:
        return np.zeros(x.shape, bool)
    limits = scaler.limits[variable.name]
    slack = ROUNDING * np.abs(limits).max(-1)  # beyond a limit by float32 rounding alone is inside
    low, high = (_aligned(v, x) for v in (limits[..., 0] - slack, limits[..., 1] + slack))
    return finite & ((x < low) | (x > high))


def clamped(x: np.ndarray, variable: Variable, scaler: Scaler) -> np.ndarray:
    """Return values ``(n, *own dims)`` of which those beyond the training range are its nearest limit."""
    if not is_number(variable) or variable.name not in scaler.limits:
        return x
    limits = scaler.limits[variable.name].astype(x.dtype)
    low, high = (_aligned(v, x) for v in (limits[..., 0], limits[..., 1]))
    # A value that is not finite is missing, and a predictor that training never observed has no range.
    return np.where(np.isfinite(x) & (low <= high), np.minimum(np.maximum(x, low), high), x)


def segment_means(x: np.ndarray, variable: Variable, scaler: Scaler) -> np.ndarray:
    """Standardise a series ``(n, *channels, steps)`` and average each of its W windows.

    Return float64 ``(n, channels, W)``; NaN where nothing was observed.
    """
    windows = segments(variable)
    means = paa(standardise(x, variable, scaler), windows)
    return means.reshape(len(x), _channels(variable), len(windows))


def standardise(x: np.ndarray, variable: Variable, scaler: Scaler) -> np.ndarray:
    """Return one variable ``(n, *own dims)`` on the scale of its tokenizer, float32."""
    # Numbers are standardised, angles become radians, classes become their rank in the table. A value
    # that is not finite before or after becomes NaN, which means not observed.
    finite = np.isfinite(x)
    if variable.kind == "categorical":
        classes = scaler.classes[variable.name]
        if not len(classes):
            return np.full(x.shape, np.nan, np.float32)
        code = np.where(finite, x, classes[0])
        # A class that is absent from training has no vector, so it counts as not observed.
        rank = np.clip(np.searchsorted(classes, code), 0, len(classes) - 1)
        return np.where(finite & (classes[rank] == code), rank, np.nan).astype(np.float32)
    if variable.kind == "circular":
        z = np.where(finite, x, 0) * (2 * np.pi / variable.period)
    else:
        mean, std = (_aligned(s[variable.name], x) for s in (scaler.mean, scaler.std))
        # In float64, and float32 after it: of two large numbers that are close, such as northings in metres,
        # the difference in float32 has few digits.
        with np.errstate(over="ignore"):
            z = (np.where(finite, x, mean) - mean) / std
    with np.errstate(over="ignore"):
        z = z.astype(np.float32)
    return np.where(finite & np.isfinite(z), z, np.float32(np.nan))


def own_moments(variable: Variable) -> int:
    """Return the number of leading own dims with one mean per step."""
    by_date = isinstance(variable.window, str)
    return len(variable.dims) - (0 if by_date else POOLED.get(variable.kind, 0))


def _pooled_axes(x: np.ndarray, variable: Variable) -> tuple[int, ...]:
    """Return the axes of ``(n, *own dims)`` that share one mean and one range."""
    return (0, *range(1 + own_moments(variable), x.ndim))


def _aligned(moments: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``(*channels)`` with trailing axes of one, to broadcast with ``x (n, *own dims)``."""
    return moments.reshape(moments.shape + (1,) * (x.ndim - 1 - moments.ndim))


def _channels(variable: Variable) -> int:
    return prod(variable.sizes[:-1])


def _moments(parts: Parts, variable: Variable) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation per channel, feature or date; 0 and 1 without an observed value."""
    # float64: a float32 sum over many sites loses digits of the mean.
    total: Any = 0.0
    count: Any = 0
    for x in parts():
        axes, finite = _pooled_axes(x, variable), np.isfinite(x)
        count = count + finite.sum(axes, keepdims=True)
        total = total + np.where(finite, x, 0).sum(axes, keepdims=True, dtype=np.float64)
    count = np.maximum(count, 1)
    mean: np.ndarray = total / count
    square: Any = 0.0
    # Two passes. Σx² − n·mean² loses all digits where the mean is large against the deviation.
    for x in parts():
        square = square + (np.where(np.isfinite(x), x - mean, 0) ** 2).sum(axes, dtype=np.float64)
    count = count.squeeze(axes)
    if isinstance(variable.window, str):  # a date seen at three sites has no deviation to divide by
        square, count = (
            np.broadcast_to(t.sum(-1, keepdims=True), t.shape) for t in (square, count)
        )
    mean, std = mean.squeeze(axes), np.sqrt(square / count)
    # A constant is divided by 1 and stays 0. MaskSDM adds 1e-4 to every deviation, which depends on units.
    return mean, np.where(std > np.maximum(ROUNDING * np.abs(mean), TINY), std, 1.0)


def _classes(parts: Parts, name: str) -> np.ndarray:
    codes = np.unique(np.concatenate([np.unique(x[np.isfinite(x)]) for x in parts()]))
    if codes.size and np.abs(codes).max() >= LARGEST_CODE:
        raise VariableMismatch(
            f"'{name}' has class codes up to {np.abs(codes).max():.0f}: from {LARGEST_CODE:,} on, codes that differ "
            "become one in float32; renumber the classes of the cube, e.g. by numpy.unique(..., return_inverse=True)"
        )
    return codes.astype(np.int64)
