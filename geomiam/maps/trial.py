"""A trial on a part of one block: cells per second, and the memory that the network takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from geomiam.geo.dims import is_place
from geomiam.inference.cells import SLAB
from geomiam.maps.job import Job
from geomiam.maps.meter import TensorMeter

LONG_ENOUGH = 1.0
"""Seconds that a trial must take to give a rate."""
SIDES = (16, 32)
"""Cells along each side of the first two windows."""
COPIES = 8
"""Arrays of a row's predictors that are held while a slab is standardised and cut into tokens."""


@dataclass(frozen=True)
class Trial:
    """Costs of predicting a part of one block."""

    rate: float
    """Cells with data per second and thread."""
    bytes_of_network: int
    """Most bytes that the network of one thread holds at once: rows of one slab as tokens and tensors."""


def try_block(job: Job, ds: xr.Dataset, *, out: int) -> Trial:
    """Answer parts of the block that has most data, larger and larger ones.

    Parameters
    ----------
    job
        The map.
    ds
        Cube or sites.
    out
        Bytes of one cell's results.
    """
    index = max(job.blocks.some(), key=lambda i: int(cells_with_data(job.part(ds, i)).sum()))
    part = job.part(ds, index).compute(scheduler="synchronous")
    flat = len(job.blocks.sizes) == 1  # sites: a side is all that there is
    sides = [side**2 if flat else side for side in SIDES]
    measured = [_measured(job, part, side) for side in sides]  # the first call is slow: not timed
    rate = _rate(job, part, sides[-1])
    rows = min(SLAB, job.blocks.cells_of_one)
    if rows / rate < LONG_ENOUGH:
        measured.append(_measured(job, part, rows if flat else int(np.ceil(rows**0.5))))
    values = sum(prod(v.sizes) for v in job.model.schema.variables.values())
    arrays = rows * (4 * COPIES * values + 2 * out)
    return Trial(rate, arrays + _at(rows, measured[-2:]))


def _measured(job: Job, part: xr.Dataset, side: int) -> tuple[int, int]:
    """Cells with data in a window, and most bytes of tensors at once while it is answered."""
    with TensorMeter() as meter:
        cells, _ = _answer(job, part, side)
    return cells, meter.peak


def _at(rows: int, measured: list[tuple[int, int]]) -> int:
    """Bytes for so many rows, on the line through two measurements.

    Micro-batches end the growth at some number of rows, so the line is not below the truth.
    """
    (few, small), (many, large) = measured
    slope = max(0.0, (large - small) / (many - few)) if many > few else large / max(many, 1)
    return int(large + slope * max(0, rows - many))


def _rate(job: Job, part: xr.Dataset, side: int) -> float:
    """Cells with data answered per second, in ever larger windows."""
    while True:
        cells, seconds = _answer(job, part, side)
        if seconds > LONG_ENOUGH or side >= max(part.sizes[d] for d in job.blocks.sizes):
            return max(cells, 1) / seconds
        side *= 2


def _answer(job: Job, part: xr.Dataset, side: int) -> tuple[int, float]:
    """Answer the middle of a block: cells with data, seconds."""
    starts = {d: max(0, (part.sizes[d] - side) // 2) for d in job.blocks.sizes}
    window = part.isel({d: slice(s, s + side) for d, s in starts.items()})
    start = time.perf_counter()
    maps = job.answer(window).compute(scheduler="synchronous")
    seconds = time.perf_counter() - start
    return int(maps["suitability"].notnull().any("species").sum()), seconds


def cells_with_data(part: xr.Dataset) -> np.ndarray:
    """Return which cells have any data."""
    has_data: Any = False
    for v in part.compute(scheduler="synchronous").data_vars.values():
        has_data = has_data | v.notnull().any([d for d in v.dims if not is_place(d)])
    return np.asarray(has_data)
