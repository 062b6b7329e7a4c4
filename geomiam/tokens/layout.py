"""Which token is what: the order of tokens, and the part of a variable that each one covers.

Tokens stand modality after modality. Inside a modality the scalar variables come first, so that one
tokenizer can take them together; then the circular ones; then every other variable by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, prod

import numpy as np

from geomiam.errors import SchemaError
from geomiam.schema import Label, Schema, Variable

TOGETHER = ("scalar", "circular")
"""Kinds whose variables share one tokenizer within a modality."""

MOST_STEPS = 24
"""Series longer than this get windows, unless the catalog says otherwise."""


@dataclass(frozen=True)
class Span:
    """The tokens of one variable, in C order over its own dims."""

    variable: Variable
    modality: str
    start: int
    """Position of the first token."""
    windows: tuple[tuple[tuple[Label, ...], ...], ...]
    """Per own dim, the labels that each token step covers."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Token steps along each own dim."""
        return tuple(len(w) for w in self.windows)

    @property
    def widths(self) -> tuple[int, ...]:
        """Values per token along each own dim (a last window may hold fewer)."""
        return tuple(len(w[0]) for w in self.windows)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return prod(self.steps)

    @property
    def channels(self) -> int:
        """Token rows with weights of their own: all dims but the windowed ones."""
        return prod(self.steps[: len(self.steps) - windowed_dims(self.variable)])

    def names(self) -> list[str]:
        """Return a readable name per token, such as ``ndvi[time=2018-01..2018-12]``."""
        if not self.windows:
            return [self.variable.name]
        steps = [[_step_name(d, w) for w in ws] for d, ws in zip(self.variable.dims, self.windows)]
        return [f"{self.variable.name}[{','.join(parts)}]" for parts in product(*steps)]


@dataclass(frozen=True)
class Part:
    """Neighbouring tokens that one tokenizer makes."""

    kind: str
    spans: tuple[Span, ...]

    @property
    def start(self) -> int:
        """Position of the first token."""
        return self.spans[0].start

    @property
    def size(self) -> int:
        """Number of tokens."""
        return sum(s.size for s in self.spans)

    @property
    def width(self) -> int:
        """Values per token."""
        return prod(self.spans[0].widths)


@dataclass(frozen=True)
class Layout:
    """The order of all tokens of a schema whose dims and labels are known."""

    schema: Schema
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """Lay out the tokens of a bound schema.

        Raises
        ------
        SchemaError
            If dims or labels of a variable are unknown.
        """
        unbound = [v.name for v in schema.variables.values() if not v.bound]
        if unbound:
            raise SchemaError(
                f"dims or labels of {unbound} are unknown; call geomiam.cube.predictors.bind(schema, dataset)"
            )
        parts: list[Part] = []
        start = 0
        for modality in schema.modalities.values():
            for variables in _together(list(modality.variables.values())):
                spans = []
                for v in variables:
                    spans.append(Span(v, modality.name, start, _windows(v)))
                    start += spans[-1].size
                parts.append(Part(variables[0].kind, tuple(spans)))
        return cls(schema, tuple(parts))

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Every variable's tokens, in order."""
        return tuple(s for p in self.parts for s in p.spans)

    @cached_property
    def size(self) -> int:
        """Number of tokens ``t``."""
        return sum(s.size for s in self.spans)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Tokens per modality ``(M,)``."""
        per = dict.fromkeys(self.schema.modalities, 0)
        for s in self.spans:
            per[s.modality] += s.size
        return np.array(list(per.values()))

    @cached_property
    def names(self) -> list[str]:
        """Readable name of each token."""
        return [n for s in self.spans for n in s.names()]


def _together(variables: list[Variable]) -> list[list[Variable]]:
    shared = [[v for v in variables if v.kind == kind] for kind in TOGETHER]
    alone = [[v] for v in variables if v.kind not in TOGETHER]
    return [batch for batch in shared if batch] + alone


def windowed_dims(variable: Variable) -> int:
    """Return how many trailing dims are cut into windows."""
    return {"series": 1, "image": 2, "vector": 1}.get(variable.kind, 0)


def _windows(variable: Variable) -> tuple[tuple[tuple[Label, ...], ...], ...]:
    cut = len(variable.dims) - windowed_dims(variable)
    width = _width(variable)
    return tuple(
        _chunk(variable.labels[d], width if i >= cut else 1) for i, d in enumerate(variable.dims)
    )


def _width(variable: Variable) -> int:
    """Values along a windowed dim that go into one token."""
    longest = max(variable.sizes[-max(windowed_dims(variable), 1) :], default=1)
    if variable.kind == "series":
        return variable.window or max(1, ceil(longest / MOST_STEPS))
    if variable.kind == "image":
        return variable.patch or ceil(longest / 5)  # a 5 x 5 raster of patches, as in MIAM
    return longest


def _chunk(labels: tuple[Label, ...], width: int) -> tuple[tuple[Label, ...], ...]:
    return tuple(labels[i : i + width] for i in range(0, len(labels), width))


def _step_name(dim: str, labels: tuple[Label, ...]) -> str:
    first, last = labels[0], labels[-1]
    return f"{dim}={first}" if first == last else f"{dim}={first}..{last}"
