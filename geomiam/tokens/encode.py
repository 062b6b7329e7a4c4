"""Encoding: predictors of n sites or cells are standardised and cut into tokens.

The NaN rule: a value is *observed* if it is finite, and a token if any of its values is. A value that
is not observed stays NaN up to the tokenizer, which fills it with zero before arithmetic. The network
then replaces the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.scaler import Scaler, clamped, outside, segment_means, standardise
from geomiam.tokens.symbols import symbolise


@dataclass(frozen=True)
class TokenArrays:
    """Standardised predictors of n rows, cut into tokens."""

    values: tuple[np.ndarray, ...]
    """Per part of the layout, float32 ``(n, tokens, width)``; NaN = not observed."""
    observed: np.ndarray
    """Boolean ``(n, t)``."""
    saturated: np.ndarray | None = None
    """Boolean ``(n, t)``: symbols of segments outside the training range; None without symbols."""
    outside: np.ndarray | None = None
    """Boolean ``(n, t)``: tokens with a value outside the training range; None if not requested."""

    def __len__(self) -> int:
        return len(self.observed)

    def take(self, rows: np.ndarray) -> TokenArrays:
        """Return values and observed of some rows ``(r,)``."""
        return TokenArrays(tuple(v[rows] for v in self.values), self.observed[rows])


def encode(
    arrays: Mapping[str, np.ndarray],
    *,
    layout: Layout,
    scaler: Scaler,
    limits: bool = False,
    clamp: bool = False,
) -> TokenArrays:
    """Standardise predictors ``(n, *own dims)`` by variable and cut them into tokens.

    ``limits``: whether to compare the values with the training range. ``clamp``: whether to move values beyond
    it to its nearest limit, after the comparison. A symbol is the rank of its letter,
    from 0; see :mod:`geomiam.tokens.symbols`.
    """
    tokens, saturation, beyond = {}, [], []
    for span in layout.spans:
        x, variable = arrays[span.variable.name], span.variable
        if limits:
            beyond.append(_outside(x, span, scaler))
        if clamp and not variable.symbols:  # symbols have limits of their range anyway
            x = clamped(x, variable, scaler)
        if variable.symbols:
            tokens[span.start], outside_range = _symbols(x, span, scaler)
        else:
            tokens[span.start] = _cut(standardise(x, variable, scaler), span)
            outside_range = np.zeros((len(x), span.size), bool)
        saturation.append(outside_range)
    values = tuple(np.concatenate([tokens[s.start] for s in p.spans], 1) for p in layout.parts)
    # The NaN rule: one finite value makes a token observed.
    observed = np.concatenate([np.isfinite(v).any(-1) for v in values], axis=1)
    has_symbols = any(s.variable.symbols for s in layout.spans)
    return TokenArrays(
        values,
        observed,
        np.concatenate(saturation, 1) if has_symbols else None,
        np.concatenate(beyond, 1) if limits else None,
    )


def _outside(x: np.ndarray, span: Span, scaler: Scaler) -> np.ndarray:
    """Return which tokens have a value outside the training range, ``(n, tokens)``."""
    beyond = outside(x, span.variable, scaler)
    if not beyond.any():
        return np.zeros((len(x), span.size), bool)
    # As float, since empty slots of a window are NaN.
    return (_cut(beyond.astype(np.float32), span) == 1).any(-1)


def _symbols(x: np.ndarray, span: Span, scaler: Scaler) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks of symbols ``(n, tokens, 1)``, and which segments lie outside the training range."""
    name, shape = span.variable.name, (len(x), span.size)
    means = segment_means(x, span.variable, scaler)
    ids = symbolise(means, scaler.edges[name])
    low, high = scaler.ranges[name].T[..., None]
    # The symbol 0 is missing; NaN hides its token like any other value that is not observed.
    ranks = np.where(ids > 0, ids - 1, np.nan).astype(np.float32)
    return ranks.reshape(*shape, 1), ((means < low) | (means > high)).reshape(shape)


def _cut(x: np.ndarray, span: Span) -> np.ndarray:
    """Return ``(n, *own dims)`` as ``(n, tokens, width)``; slots without a value are NaN."""
    for axis, slots in enumerate(span.slots, start=1):
        # Most windows are all full and in order; these are not copied.
        if not np.array_equal(slots, np.arange(x.shape[axis])):
            empty = (slots < 0).reshape(-1, *[1] * (x.ndim - 1 - axis))
            x = np.where(empty, np.float32(np.nan), x.take(slots, axis))
    # (n, steps_1, width_1, steps_2, width_2, …) → (n, steps_1, steps_2, …, width_1, width_2, …)
    axes = range(len(span.steps))
    split = x.reshape(len(x), *(k for pair in zip(span.steps, span.widths) for k in pair))
    order = [0, *(1 + 2 * i for i in axes), *(2 + 2 * i for i in axes)]
    return split.transpose(order).reshape(len(x), span.size, -1)
