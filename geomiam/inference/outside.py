"""Predictors outside the training range: a layer of every prediction, and a warning."""

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
from geomiam.schema.variable import Variable
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.scaler import Scaler, has_limits, outside

OUTSIDE = "outside_range"
MANY = 0.2
"""Share of cells outside the range from which the warning lists a predictor."""
FEWEST = 5
"""Least number of cells outside the range for a warning."""
CONVERSIONS = {
    "minus 273.15": (1.0, -273.15),
    "plus 273.15": (1.0, 273.15),
    **{f"divided by {k}": (1 / k, 0.0) for k in (1000, 100, 10)},
    **{f"multiplied by {k}": (float(k), 0.0) for k in (1000, 100, 10)},
}
"""Factor and offset of common changes of units, for a hint in the warning."""


def outside_output(model: Model) -> list[Output]:
    """Return the description of ``outside_range``; empty for a model without stored ranges."""
    if not _bounded(model).any():
        return []
    attrs = {
        "long_name": "share of the observed predictors outside the training range",
        "units": "1",
        "comment": "numbers beyond the least or greatest value in training, classes not seen there; "
        "a lazy prediction issues no warning of them, so check this layer",
    }
    return [Output(OUTSIDE, {}, np.dtype(np.float32), attrs)]


def outside_share(
    model: Model, block: TokenArrays, *, visible: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the share ``(n,)`` of the observed predictors with a value outside the training range.

    A predictor counts once, by its visible tokens ``(t,)``. NaN where no predictor is observed; an empty tuple
    for a model without stored ranges.
    """
    has_range = _bounded(model)
    if block.outside is None or not has_range.any():
        return ()
    starts = [s.start for s in model.layout.spans]
    beyond = np.logical_or.reduceat(block.outside & visible, starts, axis=1) & has_range
    has_value = np.logical_or.reduceat((block.observed | block.outside) & visible, starts, axis=1)
    count = (has_value & has_range).sum(1)
    share = beyond.sum(1) / np.maximum(count, 1)
    return (np.where(count > 0, share, np.nan).astype(np.float32),)


def _bounded(model: Model) -> np.ndarray:
    """Return which variables have a range or classes ``(V,)``; none if no range of a number is stored."""
    spans, scaler = model.layout.spans, model.scaler
    has_stored_range = [has_limits(s.variable, scaler) for s in spans]
    old = not scaler.limits and not all(has_stored_range)
    return np.zeros(len(spans), bool) if old else np.array(has_stored_range)


@dataclass
class Count:
    """Number of cells with a predictor observed and outside its range, with examples."""

    observed: int
    outside: int
    examples: np.ndarray
    """Some values outside."""

    @property
    def share(self) -> float:
        """Share of the observed cells that are outside."""
        return self.outside / max(self.observed, 1)


def warn_if_many(out: xr.Dataset, ds: xr.Dataset, model: Model, *, visible: np.ndarray) -> None:
    """Warn if data in memory are outside the training range in many cells."""
    if OUTSIDE not in out or out[OUTSIDE].chunks is not None:
        return
    share = out[OUTSIDE].values
    if (
        share.size
        and np.mean(np.nan_to_num(share) > 0) * share.size > MANY * np.isfinite(share).sum()
    ):
        warn_of_counts(counts([ds], model, visible=visible), model, cells=f"{share.size:,} cells")


def counts(parts: Iterable[xr.Dataset], model: Model, *, visible: np.ndarray) -> dict[str, Count]:
    """Count the cells outside the range of each visible predictor, over parts of a cube."""
    spans = [s for s in model.layout.spans if visible[s.start : s.start + s.size].any()]
    by_name: dict[str, Count] = {}
    for part in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the prediction warns of what is missing
            arrays = predictors(part, model.schema, variables={s.variable.name for s in spans})
        for name, array in arrays.items():
            variable = model.schema.variables[name]
            if has_limits(variable, model.scaler):
                _add(by_name, name, _rows(array, variable), model.scaler, variable=variable)
    return by_name


def _rows(array: xr.DataArray, variable: Variable) -> np.ndarray:
    values = np.asarray(array.compute(scheduler="synchronous").values)
    return values.reshape(-1, *values.shape[values.ndim - len(variable.dims) :])


def _add(
    by_name: dict[str, Count], name: str, x: np.ndarray, scaler: Scaler, *, variable: Variable
) -> None:
    beyond, own_axes = outside(x, variable, scaler), tuple(range(1, x.ndim))
    before = by_name.get(name, Count(0, 0, np.zeros(0)))
    by_name[name] = Count(
        before.observed + int(np.isfinite(x).any(own_axes).sum()),
        before.outside + int(beyond.any(own_axes).sum()),
        np.concatenate([before.examples, x[beyond][:1000].astype(float)]),
    )


def warn_of_counts(by_name: Mapping[str, Count], model: Model, *, cells: str) -> None:
    """Warn of the predictors that are outside their range in many cells."""
    frequent = {n: c for n, c in by_name.items() if c.share > MANY and c.outside >= FEWEST}
    if not frequent:
        return
    worst = sorted(frequent, key=lambda n: -frequent[n].share)
    lines = [_line(n, frequent[n], model) for n in worst[:8]]
    remainder = f"\n  … and {len(worst) - 8} more" if len(worst) > 8 else ""
    warn(
        f"{len(frequent)} of {len(by_name)} predictors lie outside their training range in more than "
        f"{MANY:.0%} of their cells ({cells}); predictions there are extrapolation, and "
        f"'{OUTSIDE}' maps the share:\n  " + "\n  ".join(lines) + remainder,
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
    """Return a hint at units if a common conversion brings most values into the range."""
    distance = np.maximum(low - values, values - high)
    if np.median(distance) <= high - low:
        return ""
    for text, (factor, offset) in CONVERSIONS.items():
        in_other_units = values * factor + offset
        if np.mean((in_other_units >= low) & (in_other_units <= high)) > 0.9:
            return f"; {text} they would lie inside: check the units"
    return ""
