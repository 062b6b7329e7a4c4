"""Features: one value per predictor or channel, from standardised tokens, for distances between sites.

A scalar, an angle and a class are one feature each. A series and an image are one feature per channel,
the mean of its observed values. A vector is one feature per element. Coordinates are no features: they
describe a place and not its environment.

Shapes: n rows, t tokens, f features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.layout import Layout, Span

AVERAGED = {"series": 1, "image": 2}
"""Trailing dims over which values are averaged, by kind."""
COORDINATES = frozenset(
    ("x", "y", "lon", "lat", "lng", "long", "longitude", "latitude", "easting", "northing")
)
"""Names of variables that are coordinates, in lower case."""


@dataclass(frozen=True)
class Features:
    """The features of one variable, in neighbouring columns."""

    variable: str
    kind: str
    """``"number"``, ``"angle"`` in radians, or ``"class"``: its rank in training, or their number if unseen."""
    start: int
    size: int

    @property
    def columns(self) -> slice:
        """Columns of the features."""
        return slice(self.start, self.start + self.size)


def features_of(layout: Layout) -> tuple[Features, ...]:
    """Return the features of each variable in the order of the tokens, without coordinates."""
    entries: list[Features] = []
    start = 0
    for span in _spans(layout):
        kind = {"categorical": "class", "circular": "angle"}.get(span.variable.kind, "number")
        entries.append(Features(span.variable.name, kind, start, _count(span)))
        start += entries[-1].size
    return tuple(entries)


def feature_values(
    block: TokenArrays, layout: Layout, *, classes: Mapping[str, int], visible: np.ndarray
) -> np.ndarray:
    """Return the features ``(n, f)`` of rows from their visible tokens ``(t,)``, float32; NaN = not observed.

    ``classes`` has the number of classes of each categorical variable.
    """
    arrays = [np.zeros((len(block), 0), np.float32)]
    for part, values in zip(layout.parts, block.values):
        for span in part.spans:
            if span.variable.name.lower() in COORDINATES:
                continue
            tokens = slice(span.start, span.start + span.size)
            x = values[:, span.start - part.start :][:, : span.size]
            x = np.where(visible[tokens, None], x, np.float32(np.nan))
            if span.variable.kind == "categorical" and block.outside is not None:
                unseen = block.outside[:, tokens, None] & visible[tokens, None]
                x = np.where(unseen, np.float32(classes[span.variable.name]), x)
            arrays.append(_means(x, span))
    return np.concatenate(arrays, 1)


def partial_variables(layout: Layout, visible: np.ndarray) -> list[str]:
    """Return the variables with features of which only some tokens are ``visible (t,)``."""
    visible_by_name = {s.variable.name: visible[s.start : s.start + s.size] for s in _spans(layout)}
    return [name for name, tokens in visible_by_name.items() if tokens.any() and not tokens.all()]


def _spans(layout: Layout) -> list[Span]:
    return [s for s in layout.spans if s.variable.name.lower() not in COORDINATES]


def _count(span: Span) -> int:
    """Return the number of features of a variable."""
    if span.variable.kind == "vector":
        return span.size * span.values
    return prod(span.variable.sizes[: -AVERAGED.get(span.variable.kind, 0) or None])


def _means(x: np.ndarray, span: Span) -> np.ndarray:
    """Return the mean ``(n, features)`` of the observed values of each feature in ``(n, tokens, width)``."""
    # Channel dims come first in the order of tokens, and in a token that is the whole variable.
    by_feature = x.reshape(len(x), _count(span), -1)
    finite = np.isfinite(by_feature)
    count = finite.sum(-1)
    total = np.where(finite, by_feature, 0).sum(-1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
