"""Axes of a grid: the step between cells and the edge of the first cell."""

from __future__ import annotations

import numpy as np

from geomiam.errors import GridError

SAME_CELL = 0.01
"""Grids whose corners differ by less than this part of a cell are the same grid."""
COARSEST = 0.25
"""Largest accepted rounding of coordinates, as part of a cell."""


def rounding(centres: np.ndarray) -> float:
    """Return the largest rounding error of coordinates due to their dtype, in their unit."""
    if centres.dtype.kind != "f" or not centres.size:
        return 0.0
    return float(np.finfo(centres.dtype).eps * np.abs(centres).max() / 2)


def axis_of(dim: str, centres: np.ndarray) -> tuple[float, float]:
    """Return the step between cells and the edge before the first cell.

    Parameters
    ----------
    dim
        Name of the dim, for messages.
    centres
        Coordinates of at least two cells, ascending or descending ``(n,)``.

    Returns
    -------
    tuple
        Step and edge of a least-squares line through all centres. With the first two centres alone,
        their rounding error would grow with the number of cells.

    Raises
    ------
    GridError
        When cells are not evenly spaced, or the dtype of the coordinates is too coarse.
    """
    values, number = centres.astype("float64"), np.arange(centres.size)
    if not np.isfinite(values).all():
        raise GridError(
            f"coordinate '{dim}' has {int((~np.isfinite(values)).sum())} values that are NaN or infinite; "
            f"assign the cell centres, e.g. ds.assign_coords({dim}=numpy.linspace(first, last, {values.size}))"
        )
    step = float(np.polyfit(number - number.mean(), values - values.mean(), 1)[0])
    _check_even(dim, centres, step=step)
    first = float(values.mean() - step * number.mean())
    return step, first - step / 2


def _check_even(dim: str, centres: np.ndarray, *, step: float) -> None:
    values, coarse = centres.astype("float64"), rounding(centres)
    steps = np.diff(values)
    line = values.mean() + step * (np.arange(values.size) - (values.size - 1) / 2)
    worst = np.abs(values - line).max()
    if step and worst <= max(SAME_CELL * abs(step), min(2 * coarse, COARSEST * abs(step))):
        return
    if step and coarse > COARSEST * abs(step) and worst <= 4 * coarse:
        raise GridError(
            f"coordinate '{dim}' is {centres.dtype}, which is too coarse for cells of {abs(step):g}: values near "
            f"{abs(values[0]):g} are rounded to {2 * coarse:g}; compute it again in float64, e.g. "
            f"ds.assign_coords({dim}=numpy.linspace(first, last, {values.size}))"
        )
    raise GridError(
        f"coordinate '{dim}' is not evenly spaced: steps from {steps.min():g} to {steps.max():g}; "
        f"interpolate onto even steps first, e.g. ds.interp({dim}=numpy.linspace({values[0]:g}, "
        f"{values[-1]:g}, {values.size}))"
    )
