"""Where predictors lie outside the range that the model was trained on: a layer, and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.predictors import predictors
from geomiam.errors import OutsideTrainingRange, warn
from geomiam.inference.cells import Output
from geomiam.model.model import Model
from geomiam.schema.schema import Variable
from geomiam.tokens.blocks import Block
from geomiam.tokens.limits import has_limits, outside
from geomiam.tokens.scaler import Scaler

OUTSIDE = "outside_range"
MANY = 0.2
"""Share of the observed cells of a predictor from which a warning names it."""
FEWEST = 5
"""Cells outside below which there is no warning."""
CONVERSIONS = {
    "minus 273.15": (1.0, -273.15),
    "plus 273.15": (1.0, 273.15),
    **{f"divided by {k}": (1 / k, 0.0) for k in (1000, 100, 10)},
    **{f"multiplied by {k}": (float(k), 0.0) for k in (1000, 100, 10)},
}
"""Changes of units that may have been forgotten: factor and offset."""


def outside_output(model: Model) -> list[Output]:
    """Describe ``outside_range``; nothing for a model saved before ranges were stored."""
    if not _bounded(model).any():
        return []
    attrs = {
        "long_name": "share of the observed predictors outside the training range",
        "units": "1",
        "comment": "numbers beyond the least or greatest value in training, classes not seen there; "
        "a lazy prediction issues no warning of them, so check this layer",
    }
    return [Output(OUTSIDE, {}, np.dtype(np.float32), attrs)]


def outside_share(model: Model, block: Block, *, visible: np.ndarray) -> tuple[np.ndarray, ...]:
    """Share ``(n,)`` of the predictors with a value that have one outside; NaN where none has any.

    A predictor counts once, by its visible tokens ``(t,)``. Nothing for a model without ranges.
    """
    bounded = _bounded(model)
    if block.outside is None or not bounded.any():
        return ()
    starts = [s.start for s in model.layout.spans]
    beyond = np.logical_or.reduceat(block.outside & visible, starts, axis=1) & bounded
    has_value = np.logical_or.reduceat((block.observed | block.outside) & visible, starts, axis=1)
    count = (has_value & bounded).sum(1)
    share = beyond.sum(1) / np.maximum(count, 1)
    return (np.where(count > 0, share, np.nan).astype(np.float32),)


def _bounded(model: Model) -> np.ndarray:
    """Which variables have a range or classes ``(V,)``; none where numbers have no stored range."""
    spans, scaler = model.layout.spans, model.scaler
    stored = [has_limits(s.variable, scaler) for s in spans]
    old = not scaler.limits and not all(stored)
    return np.zeros(len(spans), bool) if old else np.array(stored)


@dataclass
class Count:
    """Cells in which a predictor is observed, and in which it is outside, with examples."""

    observed: int
    outside: int
    examples: np.ndarray
    """Some values outside."""

    @property
    def share(self) -> float:
        """Share of the observed cells that are outside."""
        return self.outside / max(self.observed, 1)


def warn_if_many(out: xr.Dataset, ds: xr.Dataset, model: Model, *, visible: np.ndarray) -> None:
    """Warn where an eager result lies outside the training range in many cells.

    Warns
    -----
    OutsideTrainingRange
        With the predictors, their training range, and a change of units that would mend it.
    """
    if OUTSIDE not in out or out[OUTSIDE].chunks is not None:
        return
    share = out[OUTSIDE].values
    if (
        share.size
        and np.mean(np.nan_to_num(share) > 0) * share.size > MANY * np.isfinite(share).sum()
    ):
        warn_of_counts(counts([ds], model, visible=visible), model, cells=f"{share.size:,} cells")


def counts(parts: Iterable[xr.Dataset], model: Model, *, visible: np.ndarray) -> dict[str, Count]:
    """Count the cells outside the range of each predictor that is visible, over parts of a cube."""
    spans = [s for s in model.layout.spans if visible[s.start : s.start + s.size].any()]
    found: dict[str, Count] = {}
    for part in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the prediction warns of what is missing
            arrays = predictors(part, model.schema, variables={s.variable.name for s in spans})
        for name, array in arrays.items():
            variable = model.schema.variables[name]
            if has_limits(variable, model.scaler):
                _add(found, name, _rows(array, variable), model.scaler, variable=variable)
    return found


def _rows(array: xr.DataArray, variable: Variable) -> np.ndarray:
    values = np.asarray(array.compute(scheduler="synchronous").values)
    return values.reshape(-1, *values.shape[values.ndim - len(variable.dims) :])


def _add(
    found: dict[str, Count], name: str, x: np.ndarray, scaler: Scaler, *, variable: Variable
) -> None:
    beyond, own = outside(x, variable, scaler), tuple(range(1, x.ndim))
    before = found.get(name, Count(0, 0, np.zeros(0)))
    found[name] = Count(
        before.observed + int(np.isfinite(x).any(own).sum()),
        before.outside + int(beyond.any(own).sum()),
        np.concatenate([before.examples, x[beyond][:1000].astype(float)]),
    )


def warn_of_counts(found: Mapping[str, Count], model: Model, *, cells: str) -> None:
    """Warn of the predictors that are outside in many of their cells."""
    many = {n: c for n, c in found.items() if c.share > MANY and c.outside >= FEWEST}
    if not many:
        return
    worst = sorted(many, key=lambda n: -many[n].share)
    lines = [_line(n, many[n], model) for n in worst[:8]]
    more = f"\n  … and {len(worst) - 8} more" if len(worst) > 8 else ""
    warn(
        f"{len(many)} of {len(found)} predictors lie outside their training range in more than "
        f"{MANY:.0%} of their cells ({cells}); predictions there are extrapolation, and "
        f"'{OUTSIDE}' maps the share:\n  " + "\n  ".join(lines) + more,
        OutsideTrainingRange,
    )


def _line(name: str, count: Count, model: Model) -> str:
    start = f"'{name}' in {count.share:.0%}"
    if name in model.scaler.classes:
        codes = [f"{c:g}" for c in np.unique(count.examples)]
        return f"{start}: classes {list_names(codes)} were not in training and count as missing"
    limits = model.scaler.limits[name]
    low, high = limits[..., 0].min(), limits[..., 1].max()
    ends = f"{count.examples.min():g} to {count.examples.max():g}"
    return (
        f"{start}: trained on {low:g} to {high:g}, found {ends}{_units(count.examples, low, high)}"
    )


def _units(values: np.ndarray, low: float, high: float) -> str:
    """Return a hint at units, if values are far off and a usual conversion brings most inside."""
    distance = np.maximum(low - values, values - high)
    if np.median(distance) <= high - low:
        return ""
    for text, (factor, offset) in CONVERSIONS.items():
        converted = values * factor + offset
        if np.mean((converted >= low) & (converted <= high)) > 0.9:
            return f"; {text} they would lie inside: check the units"
    return ""
