"""The training table: all sites in memory, standardised, as tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomiam.checks.names import check_species
from geomiam.data.predictors import predictors
from geomiam.data.values.labels import labels_of
from geomiam.errors import LabelError, MissingVariable, warn
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


def read_labels(sites: xr.Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels ``(n, S)`` and species names.

    Raises
    ------
    LabelError
        If there are no labels, values other than 0, 1 and NaN, or a species twice.
    """
    if "presence" not in sites:
        raise LabelError(
            f"sites have no 'presence' (found {list(sites.data_vars)}): make them with "
            "cube.miam.sample(occurrences)"
        )
    presence = sites["presence"]
    if set(presence.dims) != {"site", "species"}:
        raise LabelError(f"'presence' has dims {presence.dims}, expected ('site', 'species')")
    labels = presence.transpose("site", "species").values.astype(np.float32)
    odd = labels[~np.isnan(labels) & ~np.isin(labels, (0, 1))]
    if odd.size:
        raise LabelError(
            f"'presence' must be 0, 1 or NaN, found {odd[0]}: use (counts > 0) for counts"
        )
    names = tuple(map(str, labels_of(presence, "species")))
    if twice := sorted(s for s, n in Counter(names).items() if n > 1):
        raise LabelError(
            f"species {twice[:3]} stand more than once in 'presence'; join their columns with "
            "sites.groupby('species').max()"
        )
    return labels, check_species(names)


def has_background(sites: xr.Dataset) -> bool:
    """Return whether zeros of any site are background, as :func:`geomiam.add_background` records it."""
    flags = sites.get("background")
    flagged = flags is not None and flags.dtype == bool and bool(flags.any())
    return flagged or "background_kind" in sites.attrs


def check_classes(labels: np.ndarray, species: tuple[str, ...]) -> None:
    """Refuse labels of which nothing can be learned; count species that have one class only.

    Raises
    ------
    LabelError
        If no species has both presences and absences.
    """
    present, absent = (labels == 1).any(0), (labels == 0).any(0)
    short = [s for s, ok in zip(species, present & absent) if not ok]
    if len(short) == len(species):
        kind = "presences" if present.any() else "absences"
        raise LabelError(
            f"labels have one class: only {kind}, for all {len(species)} species; add the other with "
            "gm.add_background(sites, cube)"
        )
    if short:
        some = ", ".join(short[:3]) + (", …" if len(short) > 3 else "")
        warn(
            f"{len(short)} of {len(species)} species have presences or absences only ({some}); "
            "they are trained but cannot be scored"
        )


def read_predictors(sites: xr.Dataset, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``(n, *own dims)`` per variable.

    Raises
    ------
    MissingVariable
        If a modality has no value at any site.
    """
    found = predictors(sites, schema)
    arrays = {k: np.asarray(v.transpose("site", ...).values) for k, v in found.items()}
    for modality in schema.modalities.values():
        if not any(np.isfinite(arrays[v]).any() for v in modality.variables):
            raise MissingVariable(
                f"modality '{modality.name}' is NaN at every site, so nothing can be learned from it; "
                f"leave it out with schema.subset({[m for m in schema.modalities if m != modality.name]})"
            )
    return arrays


def make_tables(
    arrays: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    layout: Layout,
    held: Sequence[np.ndarray],
    scaler: Scaler | None = None,
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
    scaler = scaler or _shared_scaler(arrays, layout, held)
    train = ~np.all(held, axis=0)
    scaler = with_limits(scaler, {k: a[train] for k, a in arrays.items()}, layout.schema)
    return share(encode(arrays, layout=layout, scaler=scaler), labels, held=held), scaler


def share(block: Block, labels: np.ndarray, *, held: Sequence[np.ndarray]) -> list[Table]:
    """Share encoded sites among one table per member, by which sites validate it ``(n,)``."""
    facts = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    rows = [(np.flatnonzero(~h), np.flatnonzero(h) if h.any() else _some(len(h))) for h in held]
    sides = [[torch.as_tensor(side) for side in r] for r in rows]
    return [Table(*facts, torch.as_tensor(labels), *r) for r in sides]


def _shared_scaler(arrays: dict, layout: Layout, held: Sequence[np.ndarray]) -> Scaler:
    some, every = ~np.all(held, axis=0), ~np.any(held, axis=0)
    scaler = fit_scaler({k: a[some] for k, a in arrays.items()}, layout.schema)
    if len(held) > 1:
        shared = fit_scaler({k: a[every] for k, a in arrays.items()}, layout.schema)
        scaler = replace(scaler, classes=shared.classes)
    return scaler


def _scaler(arrays: dict[str, np.ndarray], schema: Schema, held: Sequence[np.ndarray]) -> Scaler:
    some, every = ~np.all(held, axis=0), ~np.any(held, axis=0)
    scaler = fit_scaler({k: a[some] for k, a in arrays.items()}, schema)
    if len(held) == 1:
        return scaler
    shared = fit_scaler({k: a[every] for k, a in arrays.items()}, schema)
    return replace(scaler, classes=shared.classes)


def _some(n: int) -> np.ndarray:
    """Rows of training sites that are scored where none are held out: evenly spread."""
    return np.arange(0, n, -(-n // MOST_SCORED))
