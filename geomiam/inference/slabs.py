"""Rows that are computed at a time: slabs, micro-batches, and the settings of the network.

The sizes are measured on CPUs with 1 to 2 MiB of cache per core. All of them stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomiam.model.model import Model
from geomiam.networks.network import View
from geomiam.networks.torch_defaults import thread_defaults
from geomiam.tokens.encode import TokenArrays

Scale = Literal["probability", "logit"]

SLAB = 4096
"""Rows whose tokens and shared intermediate results are in memory at a time."""
VECTORS_AT_ONCE = 4096
"""Vectors of a micro-batch: few enough for the cache, enough for efficient matrix products."""
COALITIONS_AT_ONCE = 64
"""Coalitions of a micro-batch; more are not faster."""
PREDICTIONS_AT_ONCE = 2**20
"""Numbers predicted at a time; further species follow in blocks."""
DEVICE_FACTOR = 32
"""Factor of the sizes above on a GPU, which has no small cache and needs large products."""


def slabs(
    model: Model, block: TokenArrays, rows: np.ndarray, visible: np.ndarray
) -> Iterator[tuple[np.ndarray, View]]:
    """Yield rows ``(r,)`` and their view in the coalitions ``visible (c, t)``.

    The view computes once what coalitions share.
    """
    coalitions = torch.as_tensor(visible, device=model.device)
    step = size_on(model, SLAB)
    for part in (rows[i : i + step] for i in range(0, len(rows), step)):
        values = [torch.as_tensor(v[part], device=model.device) for v in block.values]
        observed = torch.as_tensor(block.observed[part], device=model.device)
        yield part, model.network.view(values, observed, coalitions)


def row_batches(rows: Tensor, cost: int, model: Model) -> tuple[Tensor, ...]:
    """Split rows of which each costs so many vectors into micro-batches."""
    return rows.split(max(1, size_on(model, VECTORS_AT_ONCE) // cost))


def coalition_batches(coalitions: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Split coalitions into micro-batches."""
    return coalitions.split(COALITIONS_AT_ONCE, dim)


def species_step(model: Model, rows: int) -> int:
    """Return the number of species whose predictions for so many rows fit :data:`PREDICTIONS_AT_ONCE`."""
    return max(1, size_on(model, PREDICTIONS_AT_ONCE) // rows)


def size_on(model: Model, size: int) -> int:
    """Return a size for the device of a model, given that for a CPU."""
    return size if model.device.type == "cpu" else DEVICE_FACTOR * size


def apply_head(model: Model, features: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    """Return the predictions ``(..., s)`` of some species from features ``(..., m·d)``."""
    head = model.network.head
    # Other links need the rows of the requested species only, which matters for thousands of species.
    if model.link == "softmax" and scale == "probability":  # needs the logits of all species
        return model.probability(head(features))[..., species]
    logits = torch.nn.functional.linear(features, head.weight[species], head.bias[species])
    return logits if scale == "logit" else model.probability(logits)


def check_finite(x: Tensor) -> Tensor:
    """Return predictions from observed values, which must be finite."""
    if not torch.isfinite(x).all():
        raise FloatingPointError(
            "the network returned NaN or infinity from finite input: some values are far outside the "
            "training range, such as a nodata value that is not masked. Set them to NaN, or pass "
            "options with clamp=True"
        )
    return x


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Switch a network to inference, without dropout.

    The former mode is not restored, since other threads may compute with the same network.
    """
    if model.network.training:
        model.network.eval()
    with torch.inference_mode(), thread_defaults():
        yield
