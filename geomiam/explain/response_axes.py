"""Values of predictors at which response curves are computed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count
from geomiam.errors import SelectionError
from geomiam.model.model import Model
from geomiam.schema.variable import Variable
from geomiam.tokens.scaler import is_number, outside

POINTS = {1: 50, 2: 20}
"""Default number of values of a predictor on a curve and on each side of a surface."""
RESERVED = (
    *("site", "species", "variable", "bound", "quantile", "response", "spread", "individual"),
    *("rug", "training_range", "quantiles", "presence"),
)
"""Names of other dims and variables of a response."""


@dataclass(frozen=True)
class Axis:
    """Values of one predictor at which the model predicts."""

    variable: Variable
    values: np.ndarray
    """``(p,)`` in the units of the predictor."""
    outside: np.ndarray
    """Boolean ``(p,)``: outside the training range."""

    @property
    def dim(self) -> str:
        """Name of the dim."""
        name = self.variable.name
        return f"{name}_value" if name in RESERVED else name

    def attrs(self) -> dict[str, str]:
        """Return the attributes of the coordinate: name, kind, and units or names of classes."""
        variable = self.variable
        attrs = {"long_name": variable.long_name or variable.name, "kind": variable.kind}
        if variable.kind != "categorical":
            return attrs | {"units": variable.units or "1"}
        names = [variable.classes.get(int(code), f"{code:g}") for code in self.values]
        return attrs | {"class_names": json.dumps(names)}


def axis_of(
    model: Model, name: str, values: np.ndarray | None, *, points: int, grid: ArrayLike | None
) -> Axis:
    """Return the values of a predictor: those of ``grid``, or even ones over training range and sites."""
    variable, scaler = model.schema.variables[name], model.scaler
    check_count("points", points, minimum=2, hint="50 draws a smooth curve")
    if grid is not None:
        x = np.asarray(grid, float)
    elif variable.kind == "categorical":
        x = scaler.classes[name].astype(float)
    elif variable.kind == "circular":
        x = np.linspace(0, variable.period, points)
    else:
        values_in_range = [training_limits(model, variable), *([] if values is None else [values])]
        ends = np.concatenate([v[np.isfinite(v)] for v in values_in_range])
        if not ends.size:
            raise SelectionError(
                f"'{name}' has neither a training range nor a value at the sites: pass "
                f"ResponseOptions(grid={{'{name}': [...]}})"
            )
        x = np.linspace(ends.min(), ends.max(), points)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise SelectionError(f"grid of '{name}' must be finite numbers (p,), found {grid!r}")
    return Axis(variable, x, outside(x.astype(np.float32), variable, scaler))


def training_limits(model: Model, variable: Variable) -> np.ndarray:
    """Return the least and the greatest value in training ``(2,)``; NaN if there is no range."""
    limits = model.scaler.limits.get(variable.name)
    has_range = is_number(variable) and limits is not None and limits[0] <= limits[1]
    return limits if has_range and limits is not None else np.full(2, np.nan)
