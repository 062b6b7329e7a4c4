"""The order of tokens, and the part of a variable that each token covers.

Tokens are ordered by modality. Inside a modality the scalar variables come first, so that one tokenizer
can process them together; then the circular ones; then each other variable alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from math import ceil, prod

import numpy as np

from geomiam.errors import SchemaError
from geomiam.schema.calendar_windows import period_label, periods
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Label, Variable

TOGETHER = ("scalar", "circular")
"""Kinds whose variables share one tokenizer within a modality."""

MOST_TOKENS = 100_000
"""Most tokens of a model; each is a Python object and a row of a matrix, so memory limits them."""
MOST_STEPS = 24
"""Series longer than this are cut into windows, unless the catalog sets another size."""


@dataclass(frozen=True)
class Span:
    """The tokens of one variable, in C order over its own dims."""

    variable: Variable
    modality: str
    start: int
    """Position of the first token."""
    places: tuple[tuple[tuple[int, ...], ...], ...]
    """Per own dim, the positions that each token step covers."""

    @cached_property
    def windows(self) -> tuple[tuple[tuple[Label, ...], ...], ...]:
        """Per own dim, the labels that each token step covers."""
        labels_by_dim = (self.variable.labels[d] for d in self.variable.dims)
        return tuple(
            tuple(tuple(labels[i] for i in step) for step in steps)
            for labels, steps in zip(labels_by_dim, self.places)
        )

    @cached_property
    def slots(self) -> tuple[np.ndarray, ...]:
        """Per own dim, the positions that go side by side into the tokens; -1 = an empty slot."""
        return tuple(
            np.concatenate([[*step, *[-1] * (width - len(step))] for step in steps])
            for steps, width in zip(self.places, self.widths)
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """Token steps along each own dim."""
        return tuple(len(steps) for steps in self.places)

    @property
    def widths(self) -> tuple[int, ...]:
        """Values per token along each own dim; a last window, or a calendar's, may hold fewer."""
        return tuple(max(map(len, steps)) for steps in self.places)

    @property
    def values(self) -> int:
        """Numbers per token: those of a window, or one number for a symbol."""
        return 1 if self.variable.symbols else prod(self.widths)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return prod(self.steps)

    @property
    def channels(self) -> int:
        """Number of token rows with separate weights: all dims except the windowed ones."""
        # Each period of a calendar has separate weights too. Periods hold dates, and no two periods hold
        # the same days, so weights cannot be shared.
        if isinstance(self.variable.window, str):
            return self.size
        return prod(self.steps[: len(self.steps) - windowed_dims(self.variable)])

    def names(self) -> list[str]:
        """Return a readable name per token, such as ``ndvi[time=2018-01..2018-12]``."""
        if not self.windows:
            return [self.variable.name]
        spell = [_plain_name] * len(self.windows)
        if isinstance(window := self.variable.window, str):
            spell[-1] = partial(period_label, period=window)
        dims = zip(self.variable.dims, self.windows, spell)
        steps = [[f"{d}={name(w)}" for w in ws] for d, ws, name in dims]
        return [f"{self.variable.name}[{','.join(parts)}]" for parts in product(*steps)]


@dataclass(frozen=True)
class Part:
    """Neighbouring tokens of one tokenizer."""

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
    def name(self) -> str:
        """Name of its first variable; only scalars and angles have more than one."""
        return self.spans[0].variable.name

    @property
    def width(self) -> int:
        """Values per token."""
        return self.spans[0].values


@dataclass(frozen=True)
class Layout:
    """The order of all tokens of a bound schema."""

    schema: Schema
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """Lay out the tokens of a bound schema."""
        unbound = [v.name for v in schema.variables.values() if not v.bound]
        if unbound:
            raise SchemaError(
                f"dims or labels of {unbound} are unknown; call geomiam.data.predictors.bind(schema, dataset)"
            )
        counts = {v.name: _most_tokens(v) for v in schema.variables.values()}
        if (total := sum(counts.values())) > MOST_TOKENS:
            largest = max(counts, key=counts.__getitem__)
            raise SchemaError(
                f"the schema has {total:,} tokens, more than {MOST_TOKENS:,}; '{largest}' alone has "
                f"{counts[largest]:,}: set a larger 'patch:' or 'window:', or leave labels out"
            )
        parts: list[Part] = []
        start = 0
        for modality in schema.modalities.values():
            members = modality.variables.values()
            # One batched product for all scalars of a modality is faster than one product per variable.
            shared = [[v for v in members if v.kind == kind] for kind in TOGETHER]
            alone = [[v] for v in members if v.kind not in TOGETHER]
            for variables in filter(None, shared + alone):
                spans = []
                for v in variables:
                    spans.append(Span(v, modality.name, start, _places(v)))
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

    def variables_of(self, visible: np.ndarray) -> set[str]:
        """Return the variables with a token in ``visible``, boolean ``(t,)``."""
        return {s.variable.name for s in self.spans if visible[s.start : s.start + s.size].any()}


def _most_tokens(variable: Variable) -> int:
    """Return an upper bound of a variable's tokens without laying them out; a date counts as one."""
    cut = len(variable.dims) - windowed_dims(variable)
    width = 1 if isinstance(variable.window, str) else _width(variable)
    return prod(ceil(n / (width if i >= cut else 1)) for i, n in enumerate(variable.sizes))


def windowed_dims(variable: Variable) -> int:
    """Return the number of trailing dims that are cut into windows; all dims if the variable is one token."""
    if variable.whole:
        return len(variable.dims)
    return {"series": 1, "image": 2, "vector": 1}.get(variable.kind, 0)


def segments(variable: Variable) -> tuple[tuple[int, ...], ...]:
    """Return the steps of each window of a bound series, by position."""
    return _places(variable)[-1]


def _places(variable: Variable) -> tuple[tuple[tuple[int, ...], ...], ...]:
    cut = len(variable.dims) - windowed_dims(variable)
    if not isinstance(window := variable.window, str):
        width = _width(variable)
        return tuple(_chunk(n, width if i >= cut else 1) for i, n in enumerate(variable.sizes))
    dim = variable.dims[-1]
    try:
        by_date = tuple(periods(variable.labels[dim], window))
    except ValueError as error:
        raise SchemaError(
            f"'{variable.name}' has window: {window}, but the labels of '{dim}' are not all dates "
            f"({error}): label them with ds.assign_coords({dim}=<dates>), or set window: to a number "
            "of steps"
        ) from None
    return (*(_chunk(n, 1) for n in variable.sizes[:cut]), by_date)


def _width(variable: Variable) -> int:
    """Return the values per token along a windowed dim, unless windows are periods of a calendar."""
    longest = max(variable.sizes[-max(windowed_dims(variable), 1) :], default=1)
    if variable.kind == "series" and not variable.whole:
        return int(variable.window or ceil(longest / MOST_STEPS) or 1)
    if variable.kind == "image" and not variable.whole:
        return variable.patch or ceil(longest / 5)  # a 5 x 5 raster of patches, as in MIAM
    return longest


def _chunk(size: int, width: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(i, min(i + width, size))) for i in range(0, size, width))


def _plain_name(labels: Sequence[Label]) -> str:
    first, last = labels[0], labels[-1]
    return f"{first}" if first == last else f"{first}..{last}"
