"""Blocks: batches of n sites or cells whose predictors are standardised and cut into tokens.

The NaN rule: a value is *observed* if it is finite, and a token if any of its values is. A value that
is not observed stays NaN up to the tokenizer, which fills it with zero before arithmetic. The network
then replaces the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.limits import outside
from geomiam.tokens.scaler import Scaler, segment_means, standardise
from geomiam.tokens.symbols import symbolise


@dataclass(frozen=True)
class Block:
    """n rows of standardised predictors."""

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


def encode(
    arrays: Mapping[str, np.ndarray], *, layout: Layout, scaler: Scaler, limits: bool = False
) -> Block:
    """Standardise the predictors and cut them into tokens.

    A symbol is the rank of its letter, from 0; see :mod:`geomiam.tokens.symbols`.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        ``(n, *own dims)`` per variable of the layout.
    limits : bool
        Whether to compare the values with the training range.

    Returns
    -------
    Block
    """
    tokens = {s.start: _encode(arrays[s.variable.name], s, scaler) for s in layout.spans}
    values = tuple(np.concatenate([tokens[s.start][0] for s in p.spans], 1) for p in layout.parts)
    observed = np.concatenate([np.isfinite(v).any(-1) for v in values], axis=1)
    symbols = any(s.variable.symbols for s in layout.spans)
    beyond_range = (
        np.concatenate([tokens[s.start][1] for s in layout.spans], 1) if symbols else None
    )
    beyond = [_outside(arrays[s.variable.name], s, scaler) for s in layout.spans] if limits else []
    return Block(values, observed, beyond_range, np.concatenate(beyond, 1) if limits else None)


def _outside(x: np.ndarray, span: Span, scaler: Scaler) -> np.ndarray:
    """Return which tokens have a value outside the training range, ``(n, tokens)``."""
    beyond = outside(x, span.variable, scaler)
    if not beyond.any():
        return np.zeros((len(x), span.size), bool)
    return (_cut(beyond.astype(np.float32), span) == 1).any(-1)


def _encode(x: np.ndarray, span: Span, scaler: Scaler) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n, *own dims)`` as ``(n, tokens, width)``, and which tokens saturate ``(n, tokens)``."""
    if span.variable.symbols:
        return _symbols(x, span, scaler)
    z = _cut(standardise(x, span.variable, scaler), span)
    return z, np.zeros(z.shape[:2], bool)


def _symbols(x: np.ndarray, span: Span, scaler: Scaler) -> tuple[np.ndarray, np.ndarray]:
    name, shape = span.variable.name, (len(x), span.size)
    means = segment_means(x, span.variable, scaler)
    ids = symbolise(means, scaler.edges[name])
    low, high = scaler.ranges[name].T[..., None]
    ranks = np.where(ids > 0, ids - 1, np.nan).astype(np.float32)
    return ranks.reshape(*shape, 1), ((means < low) | (means > high)).reshape(shape)


def _cut(x: np.ndarray, span: Span) -> np.ndarray:
    """Return ``(n, *own dims)`` as ``(n, tokens, width)``; slots without a value are NaN."""
    for axis, slots in enumerate(span.slots, start=1):
        x = _slotted(x, axis, slots)
    axes = range(len(span.steps))
    split = x.reshape(len(x), *(k for pair in zip(span.steps, span.widths) for k in pair))
    order = [0, *(1 + 2 * i for i in axes), *(2 + 2 * i for i in axes)]
    return split.transpose(order).reshape(len(x), span.size, -1)


def _slotted(x: np.ndarray, axis: int, slots: np.ndarray) -> np.ndarray:
    """Take the values along one axis at the positions ``slots (s,)``; −1 gives NaN."""
    if np.array_equal(slots, np.arange(x.shape[axis])):
        return x
    empty = (slots < 0).reshape(-1, *[1] * (x.ndim - 1 - axis))
    return np.where(empty, np.float32(np.nan), x.take(slots, axis))
