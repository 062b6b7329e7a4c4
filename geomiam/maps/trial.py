"""Measure cells per second and the memory of the network on a part of one block."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geomiam.geo.dims import is_place
from geomiam.inference.cells import SLAB
from geomiam.maps.job import Job

LONG_ENOUGH = 1.0
"""Least seconds of a trial; shorter ones measure the start rather than the rate."""
SIDES = (16, 32)
"""Cells along each side of the first two windows."""
COPIES = 8
"""Copies of the predictors of a slab while it is standardised and split into tokens."""


class TensorMeter(TorchDispatchMode):
    """Context that counts tensors in use that were created inside it; ``peak`` is the maximum.

    A storage counts once, also if several tensors share it. Memory that a kernel allocates internally is not
    counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler, 80 MB that stay, to exclude this context from it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self.now += self._alive[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


@dataclass(frozen=True)
class Trial:
    """Measured costs of a part of one block."""

    rate: float
    """Cells with data per second and thread."""
    bytes_of_network: int
    """Peak bytes of the network per thread: tokens and tensors of one slab."""


def try_block(job: Job, ds: xr.Dataset, *, out: int) -> Trial:
    """Predict larger and larger parts of the block with most data."""
    index = max(job.blocks.examples(), key=lambda i: int(cells_with_data(job.part(ds, i)).sum()))
    part = job.part(ds, index).compute(scheduler="synchronous")
    flat = len(job.blocks.sizes) == 1  # sites have one dim
    sides = [side**2 if flat else side for side in SIDES]
    measurements = [
        _measure(job, part, side) for side in sides
    ]  # the first call is slow: not timed
    side, longest = sides[-1], max(part.sizes[d] for d in job.blocks.sizes)
    cells, seconds = _predict_window(job, part, side)
    while seconds <= LONG_ENOUGH and side < longest:
        side *= 2
        cells, seconds = _predict_window(job, part, side)
    rate = max(cells, 1) / seconds
    rows = min(SLAB, job.blocks.cells_of_one)
    if rows / rate < LONG_ENOUGH:
        measurements.append(_measure(job, part, rows if flat else int(np.ceil(rows**0.5))))
    values = sum(prod(v.sizes) for v in job.model.schema.variables.values())
    arrays = rows * (4 * COPIES * values + 2 * out)
    return Trial(rate, arrays + _extrapolate(rows, measurements[-2:]))


def _measure(job: Job, part: xr.Dataset, side: int) -> tuple[int, int]:
    """Return the cells with data in a window, and the peak bytes of tensors during its prediction."""
    with TensorMeter() as meter:
        cells, _ = _predict_window(job, part, side)
    return cells, meter.peak


def _extrapolate(rows: int, measurements: list[tuple[int, int]]) -> int:
    """Return the bytes for a number of rows, on the line through two measurements.

    Micro-batches limit the growth, so the line is an upper bound.
    """
    (first_cells, first_bytes), (second_cells, second_bytes) = measurements
    slope = (
        max(0.0, (second_bytes - first_bytes) / (second_cells - first_cells))
        if second_cells > first_cells
        else second_bytes / max(second_cells, 1)
    )
    return int(second_bytes + slope * max(0, rows - second_cells))


def _predict_window(job: Job, part: xr.Dataset, side: int) -> tuple[int, float]:
    """Predict the middle of a block; return the predicted cells and the seconds."""
    starts = {d: max(0, (part.sizes[d] - side) // 2) for d in job.blocks.sizes}
    window = part.isel({d: slice(s, s + side) for d, s in starts.items()})
    start = time.perf_counter()
    maps = job.compute(window).compute(scheduler="synchronous")
    seconds = time.perf_counter() - start
    return int(maps["suitability"].notnull().any("species").sum()), seconds


def cells_with_data(part: xr.Dataset) -> np.ndarray:
    """Return which cells have any data."""
    has_data: Any = False
    for v in part.compute(scheduler="synchronous").data_vars.values():
        has_data = has_data | v.notnull().any([d for d in v.dims if not is_place(d)])
    return np.asarray(has_data)
