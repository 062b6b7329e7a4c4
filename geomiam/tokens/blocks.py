"""Blocks: the predictors of n sites or cells, ready for the tokenizers.

The NaN rule, in one place: a value is *observed* if it is finite, a token if any of its values is;
what is not observed stays NaN up to the tokenizer, which fills it with zero before arithmetic, and
the network replaces the token afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.scaler import Scaler, standardise


@dataclass(frozen=True)
class Block:
    """n rows of standardised predictors."""

    values: tuple[np.ndarray, ...]
    """Per part of the layout, float32 ``(n, tokens, width)``; NaN = not observed."""
    observed: np.ndarray
    """Boolean ``(n, t)``."""

    def __len__(self) -> int:
        return len(self.observed)


def encode(arrays: Mapping[str, np.ndarray], *, layout: Layout, scaler: Scaler) -> Block:
    """Standardise the predictors and cut them into tokens.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        ``(n, *own dims)`` per variable of the layout.

    Returns
    -------
    Block
    """
    values = tuple(
        np.concatenate(
            [_cut(standardise(arrays[s.variable.name], s.variable, scaler), s) for s in part.spans],
            1,
        )
        for part in layout.parts
    )
    observed = np.concatenate([np.isfinite(v).any(-1) for v in values], axis=1)
    return Block(values, observed)


def _cut(x: np.ndarray, span: Span) -> np.ndarray:
    """``(n, *own dims)`` → ``(n, tokens, width)``; slots that no value fills are NaN."""
    for axis, slots in enumerate(span.slots, start=1):
        x = _slotted(x, axis, slots)
    own = range(len(span.steps))
    split = x.reshape(len(x), *(k for pair in zip(span.steps, span.widths) for k in pair))
    order = [0, *(1 + 2 * i for i in own), *(2 + 2 * i for i in own)]
    return split.transpose(order).reshape(len(x), span.size, -1)


def _slotted(x: np.ndarray, axis: int, slots: np.ndarray) -> np.ndarray:
    """Put the values along one axis into slots ``(s,)``, given by position; -1 = empty."""
    if np.array_equal(slots, np.arange(x.shape[axis])):
        return x
    empty = (slots < 0).reshape(-1, *[1] * (x.ndim - 1 - axis))
    return np.where(empty, np.float32(np.nan), x.take(slots, axis))
