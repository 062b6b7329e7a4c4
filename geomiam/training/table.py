"""Training tables: standardised sites as tensors in memory, and the sites that are held out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomiam.data.sites.table import SiteTable
from geomiam.errors import LabelError, SettingError
from geomiam.labels import Counts, Labels, SparseLabels, label_counts
from geomiam.on_disk import array_on_disk, is_on_disk, read_ahead, read_at_random, row_parts
from geomiam.progress import progress_bar
from geomiam.splits import Blocks, hold_out, site_blocks
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler, fit_scaler, with_limits
from geomiam.training.config import TrainingConfig

MOST_SCORED = 2000
"""Number of training sites that are scored after an epoch without validation sites, at most."""


@dataclass(frozen=True)
class Table:
    """Predictors and labels of n sites, with the rows of training and validation sites."""

    values: list[Tensor]
    """Per part of the layout ``(n, tokens, width)``; NaN = not observed."""
    observed: Tensor
    """Boolean ``(n, t)``."""
    labels: Tensor | SparseLabels
    """``(n, S)``; 1, 0, NaN. The compact form stays on the CPU."""
    train: Tensor
    """Row numbers."""
    valid: Tensor
    """Row numbers."""
    files: tuple[np.memmap, ...] = ()
    """The values per part, if they are in temporary files; these stay there."""

    @property
    def on_disk(self) -> bool:
        """Whether the values are in temporary files."""
        return bool(self.files)

    def to(self, device: torch.device) -> Table:
        """Copy all tensors in memory to a device."""
        labels = self.labels
        labels = labels if isinstance(labels, SparseLabels) else labels.to(device)
        observed, train, valid = (t.to(device) for t in (self.observed, self.train, self.valid))
        values = self.values if self.on_disk else [v.to(device) for v in self.values]
        return replace(
            self, values=values, observed=observed, labels=labels, train=train, valid=valid
        )

    def batch(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return values and observed of the rows, on their device."""
        for file in self.files:
            read_ahead(file, rows.cpu().numpy())
        values = [v[rows.to(v.device)].to(rows.device) for v in self.values]
        return values, self.observed[rows]

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels ``(r, S)`` of the rows, on their device."""
        if isinstance(self.labels, SparseLabels):
            return torch.as_tensor(self.labels[rows.cpu().numpy()], device=rows.device)
        return self.labels[rows]

    def counts(self, rows: Tensor) -> Counts:
        """Return the numbers of labels of the rows."""
        if isinstance(self.labels, SparseLabels):
            return label_counts(self.labels.take(rows.cpu().numpy()))
        return label_counts(self.labels[rows].cpu())

    def scored_training(self) -> Table:
        """Return the table with evenly spread training rows in place of the validation rows."""
        # Every k-th site, since sites of a file are often sorted by place or date.
        return replace(self, valid=self.train[:: -(-len(self.train) // MOST_SCORED)])


def make_tables(
    table: SiteTable, *, held_out: Sequence[np.ndarray], scaler: Scaler | None = None
) -> tuple[list[Table], Scaler]:
    """Encode all sites with one scaler and return one table per member.

    ``held_out`` has the validation sites of each member, boolean ``(n,)``. A ``scaler`` is that of a
    model whose weights are loaded; its training range becomes that of the sites.
    """
    arrays, schema = table.arrays, table.schema
    training_rows = ~np.all(held_out, axis=0)
    if scaler is None:
        # Moments of the sites that train any member.
        scaler = fit_scaler(arrays, schema, rows=training_rows)
        if len(held_out) > 1:  # a class that one member never saw would have an untrained vector
            shared = fit_scaler(arrays, schema, rows=~np.any(held_out, axis=0))
            scaler = replace(scaler, classes=shared.classes)
    scaler = with_limits(scaler, arrays, schema, rows=training_rows)
    tokens = encode_sites(arrays, layout=Layout.of(schema), scaler=scaler)
    return tables_of(tokens, table.labels, held_out=held_out), scaler


def encode_sites(
    arrays: Mapping[str, np.ndarray], *, layout: Layout, scaler: Scaler
) -> TokenArrays:
    """Encode all sites as :func:`geomiam.tokens.encode.encode`; on disk if any predictor is."""
    if not any(map(is_on_disk, arrays.values())):
        return encode(arrays, layout=layout, scaler=scaler)
    n = len(next(iter(arrays.values())))
    values = tuple(array_on_disk((n, p.size, p.width)) for p in layout.parts)
    observed = array_on_disk((n, layout.size), bool)
    parts = row_parts(max(values, key=lambda v: v.nbytes))
    for part in progress_bar(parts, desc="encoding predictors", leave=False):
        tokens = encode({k: a[part] for k, a in arrays.items()}, layout=layout, scaler=scaler)
        observed[part] = tokens.observed
        for target, source in zip(values, tokens.values, strict=True):
            target[part] = source
    return TokenArrays(values, observed)


def tables_of(
    tokens: TokenArrays, labels: Labels, *, held_out: Sequence[np.ndarray]
) -> list[Table]:
    """Return one table per member from encoded sites and the members' validation sites ``(n,)``."""
    values, observed = [torch.as_tensor(v) for v in tokens.values], torch.as_tensor(tokens.observed)
    table_labels = labels if isinstance(labels, SparseLabels) else torch.as_tensor(labels)
    files = tuple(v for v in tokens.values if isinstance(v, np.memmap))
    for file in files:
        read_at_random(file)
    tables = []
    for mask in held_out:
        train = torch.as_tensor(np.flatnonzero(~mask))
        valid = torch.as_tensor(np.flatnonzero(mask))
        table = Table(values, observed, table_labels, train, valid, files)
        tables.append(table if mask.any() else table.scored_training())
    return tables


@dataclass(frozen=True, eq=False)
class HoldOut:
    """A way to hold out sites, drawn once for each member: the caller's sites, or spatial blocks."""

    given: np.ndarray
    """Boolean ``(n,)``: the validation sites if there are no blocks."""
    blocks: Blocks | None
    """Spatial blocks to draw from."""
    share: float
    """Share of the sites in the validation blocks."""

    @classmethod
    def of(
        cls,
        sites: xr.Dataset,
        validation: np.ndarray | Literal[False] | None,
        config: TrainingConfig,
    ) -> HoldOut:
        """Return the caller's sites or spatial blocks; no sites for ``holdout=0`` or False."""
        n = sites.sizes["site"]
        if validation is None:
            blocks = site_blocks(sites, config.block) if config.holdout else None
            return cls(np.zeros(n, bool), blocks, config.holdout)
        if validation is False:
            if config.keep == "best":
                raise SettingError(
                    f"validation=False leaves no site to choose the best epoch by (found holdout="
                    f"{config.holdout:g}, keep='best'); pass TrainingConfig(holdout=0, keep='last'), "
                    "or a mapping of single settings without holdout"
                )
            return cls(np.zeros(n, bool), None, 0.0)
        mask = np.asarray(validation, bool)
        if mask.shape != (n,) or mask.all() or not mask.any():
            raise LabelError(
                f"validation= must be one boolean per site ({n}), with True and False; found shape "
                f"{mask.shape} with {int(mask.sum())} True"
            )
        return cls(mask, None, 0.0)

    def draw(self, labels: Labels, rng: np.random.Generator) -> np.ndarray:
        """Return the validation sites ``(n,)``; blocks are drawn so that labels ``(n, S)`` are balanced."""
        if self.blocks is None:
            return self.given
        return hold_out(labels, self.blocks.number, share=self.share, rng=rng)

    def about(self) -> dict[str, dict[str, Any]]:
        """Return size, number, reason and CRS of the blocks, for ``about``; nothing without blocks."""
        return {} if self.blocks is None else {"blocks": self.blocks.about()}
