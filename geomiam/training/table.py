"""Training tables: standardised sites as tensors in memory, one table per member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from geomiam.data.sites.table import SiteTable
from geomiam.schema.schema import Schema
from geomiam.tokens.blocks import Block, encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.limits import with_limits
from geomiam.tokens.scaler import Scaler, fit_scaler

MOST_SCORED = 2000
"""Number of training sites that are scored after an epoch without validation sites, at most."""


@dataclass(frozen=True)
class Table:
    """Predictors and labels of n sites, with the rows of training and validation sites."""

    values: list[Tensor]
    """Per part of the layout ``(n, tokens, width)``; NaN = not observed."""
    observed: Tensor
    """Boolean ``(n, t)``."""
    labels: Tensor
    """``(n, S)``; 1, 0, NaN."""
    train: Tensor
    """Row numbers."""
    valid: Tensor
    """Row numbers."""

    def to(self, device: torch.device) -> Table:
        """Copy all tensors to a device."""
        tensors = (self.observed, self.labels, self.train, self.valid)
        return Table([v.to(device) for v in self.values], *(t.to(device) for t in tensors))

    def batch(self, rows: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return values, observed and labels of the rows."""
        return [v[rows] for v in self.values], self.observed[rows], self.labels[rows]


def make_tables(
    table: SiteTable, *, held_out: Sequence[np.ndarray], scaler: Scaler | None = None
) -> tuple[list[Table], Scaler]:
    """Encode all sites with one scaler and return one table per member.

    Parameters
    ----------
    held : sequence of numpy.ndarray
        Per member, boolean ``(n,)``: its validation sites. A member without any is scored on training
        sites. Means and deviations are those of the sites that train any member, classes those of the
        sites that train every member.
    scaler : Scaler, optional
        Scaler of a model whose weights are loaded; the training range is that of the sites.
    """
    arrays, schema = table.arrays, table.schema
    scaler = scaler or _shared_scaler(arrays, schema, held_out)
    is_training = ~np.all(held_out, axis=0)
    scaler = with_limits(scaler, {k: a[is_training] for k, a in arrays.items()}, schema)
    block = encode(arrays, layout=Layout.of(schema), scaler=scaler)
    return share(block, table.labels, held_out=held_out), scaler


def share(block: Block, labels: np.ndarray, *, held_out: Sequence[np.ndarray]) -> list[Table]:
    """Return one table per member from encoded sites and the members' validation sites ``(n,)``."""
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    tables = []
    for mask in held_out:
        train, valid = (
            np.flatnonzero(~mask),
            np.flatnonzero(mask) if mask.any() else _spread(len(mask)),
        )
        rows = torch.as_tensor(train), torch.as_tensor(valid)
        tables.append(Table(values, observed, torch.as_tensor(labels), *rows))
    return tables


def _shared_scaler(arrays: dict, schema: Schema, held_out: Sequence[np.ndarray]) -> Scaler:
    of_any, of_every = ~np.all(held_out, axis=0), ~np.any(held_out, axis=0)
    scaler = fit_scaler({k: a[of_any] for k, a in arrays.items()}, schema)
    if len(held_out) > 1:
        shared = fit_scaler({k: a[of_every] for k, a in arrays.items()}, schema)
        scaler = replace(scaler, classes=shared.classes)
    return scaler


def _spread(n: int) -> np.ndarray:
    """Return evenly spread rows of training sites, scored where no site is held out."""
    return np.arange(0, n, -(-n // MOST_SCORED))
