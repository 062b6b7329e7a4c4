"""Data that a cell must have to be predicted, masks, and a warning where cells have few groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import place_dims
from geomiam.data.sites.requirements import unmasked
from geomiam.errors import FewGroups, SelectionError, warn
from geomiam.geo.dims import SITE
from geomiam.model.model import Model
from geomiam.tokens.blocks import Block
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, group_masks, visible_tokens

MANY = 0.05
"""Share of the predicted cells from which a warning states that they have few groups."""
Compute = Callable[[Block], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class RequiredGroups:
    """Compute a block, with NaN in every float layer where a required group has no value."""

    compute: Compute
    required: np.ndarray
    """Tokens of each required group ``(k, t)``."""

    def __call__(self, block: Block) -> tuple[np.ndarray, ...]:
        lacking = np.zeros(len(block), bool)
        for tokens in self.required:
            lacking |= ~(block.observed & tokens).any(1)
        results = [np.array(r) for r in self.compute(block)]
        for result in results:
            if result.dtype.kind == "f":
                result[lacking] = np.nan
        return tuple(results)


def require_groups(
    compute: Compute, layout: Layout, require: Selector | Sequence[Selector], *, visible: np.ndarray
) -> Compute:
    """Return a block function that leaves out cells without the required groups.

    Parameters
    ----------
    compute : callable
        Block of n rows → one array ``(n, *own dims)`` per output.
    layout : Layout
    require : selector or sequence of selectors
        Groups, modalities, variables or parts of them. A cell must have a value of each.
    visible : numpy.ndarray
        Boolean ``(t,)``: the tokens that the model may see.

    Raises
    ------
    SelectionError
        If a name is unknown, or nothing of it is visible.
    """
    names = [require] if isinstance(require, str) else list(require)
    if not names:
        return compute
    groups = group_masks(layout)
    tokens = [visible & (groups[n] if n in groups else visible_tokens(layout, n)) for n in names]
    if unseen := [n for n, t in zip(names, tokens) if not t.any()]:
        raise SelectionError(f"require={unseen} lies outside using=: widen using=, or leave it out")
    return RequiredGroups(compute, np.stack(tokens))


def leave_out(out: xr.Dataset, ds: xr.Dataset, mask: str | None) -> xr.Dataset:
    """Return predictions with NaN where a variable of the cube is NaN or 0.

    Raises
    ------
    SelectionError
        If there is no such variable.
    """
    if mask is None:
        return out
    place = place_dims(ds)
    if mask not in ds.data_vars or not set(ds[mask].dims) <= set(place):
        choices = [str(k) for k, v in ds.data_vars.items() if set(v.dims) <= set(place)]
        raise SelectionError(f"mask='{mask}' is no layer of the data; it has {choices}")
    keep = unmasked(ds[mask])
    for name, layer in out.data_vars.items():
        if layer.dtype.kind == "f" and set(place) <= set(layer.dims):
            masked = layer.where(keep).transpose(*layer.dims)
            masked.encoding = layer.encoding
            out = out.assign({str(name): masked})
    return out


def warn_if_few(out: xr.Dataset, model: Model, *, visible: np.ndarray) -> None:
    """Warn where many cells of an eager map have less than half of the groups of training.

    Sites are scored as they are: neither evaluation nor cross-validation takes ``require=``.

    Warns
    -----
    FewGroups
        With the numbers and the groups that are missing.
    """
    if SITE not in out.dims and out["observed"].chunks is None and "coverage" in model.about:
        few, cells = count_few(out, model, visible=visible)
        warn_of_few(few, cells, model, visible=visible)


def count_few(out: xr.Dataset, model: Model, *, visible: np.ndarray) -> tuple[int, int]:
    """Count the predicted cells with few groups, and all predicted cells."""
    predicted = out["suitability"].notnull().any("species").values & (out["observed"].values > 0)
    groups = np.bitwise_count(out["observed"].values)
    return int((predicted & (groups < usual_groups(model, visible) / 2)).sum()), int(
        predicted.sum()
    )


def usual_groups(model: Model, visible: np.ndarray) -> float:
    """Return the mean number of visible groups that a training site had."""
    coverage: dict[str, Any] = model.about.get("coverage", {})
    return sum(coverage.get(n, 0.0) for n in group_masks(model.layout, visible=visible))


def warn_of_few(few: int, cells: int, model: Model, *, visible: np.ndarray) -> None:
    """Warn if the cells with few groups are many."""
    if not few > MANY * cells:
        return
    groups = list(group_masks(model.layout, visible=visible))
    warn(
        f"{few:,} of {cells:,} predicted cells ({few / cells:.0%}) have less than half of the groups that "
        f"training sites had ({usual_groups(model, visible):.1f} of {len(groups)} on average). With few "
        f"predictors a prediction drifts to the base value. Leave such cells out with "
        f"require=[...] (groups: {groups}) or mask='<layer of the cube>'",
        FewGroups,
    )
