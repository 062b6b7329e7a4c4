"""The training table: sites in memory, standardised, as tensors; one for each member."""

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
"""Training sites that are scored after an epoch if no others are there."""


@dataclass(frozen=True)
class Table:
    """Predictors and labels of n sites, and which of them train and validate."""

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
        """Copy everything to a device once, so that data never wait."""
        facts = (self.observed, self.labels, self.train, self.valid)
        return Table([v.to(device) for v in self.values], *(f.to(device) for f in facts))

    def batch(self, rows: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return values, observed and labels of some rows."""
        return [v[rows] for v in self.values], self.observed[rows], self.labels[rows]


def make_tables(
    table: SiteTable, *, held: Sequence[np.ndarray], scaler: Scaler | None = None
) -> tuple[list[Table], Scaler]:
    """Encode all sites with one scaler and share them among one table per member.

    Parameters
    ----------
    held : sequence of numpy.ndarray
        Per member, boolean ``(n,)``: which sites validate it; with none, training sites are scored
        in their place. Means and deviations come from the
        sites that train any member, the known classes from those that train every member.
    scaler : Scaler, optional
        Use this one, of a model whose weights are kept; the training range is that of the sites.
    """
    arrays, schema = table.arrays, table.schema
    scaler = scaler or _shared_scaler(arrays, schema, held)
    train = ~np.all(held, axis=0)
    scaler = with_limits(scaler, {k: a[train] for k, a in arrays.items()}, schema)
    block = encode(arrays, layout=Layout.of(schema), scaler=scaler)
    return share(block, table.labels, held=held), scaler


def share(block: Block, labels: np.ndarray, *, held: Sequence[np.ndarray]) -> list[Table]:
    """Share encoded sites among one table per member, by which sites validate it ``(n,)``."""
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    tables = []
    for h in held:
        train, valid = np.flatnonzero(~h), np.flatnonzero(h) if h.any() else _spread(len(h))
        rows = torch.as_tensor(train), torch.as_tensor(valid)
        tables.append(Table(values, observed, torch.as_tensor(labels), *rows))
    return tables


def _shared_scaler(arrays: dict, schema: Schema, held: Sequence[np.ndarray]) -> Scaler:
    of_any, of_every = ~np.all(held, axis=0), ~np.any(held, axis=0)
    scaler = fit_scaler({k: a[of_any] for k, a in arrays.items()}, schema)
    if len(held) > 1:
        shared = fit_scaler({k: a[of_every] for k, a in arrays.items()}, schema)
        scaler = replace(scaler, classes=shared.classes)
    return scaler


def _spread(n: int) -> np.ndarray:
    """Rows of training sites that are scored where none are held out: evenly spread."""
    return np.arange(0, n, -(-n // MOST_SCORED))
