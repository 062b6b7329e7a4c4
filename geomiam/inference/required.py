"""Required groups, land masks, and the warning of cells with few groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import place_dims
from geomiam.data.sites.cells import unmasked
from geomiam.errors import FewGroups, SelectionError, warn
from geomiam.geo.dims import SITE
from geomiam.inference.cells import Compute
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, group_masks, visible_tokens

MANY = 0.05
"""Share of cells with few groups, of the predicted cells, above which there is a warning."""


@dataclass(frozen=True)
class RequiredGroups:
    """Function of a block that sets float layers to NaN where a required group has no value."""

    compute: Compute
    required: np.ndarray
    """Tokens of each required group ``(k, t)``."""

    def __call__(self, *blocks: TokenArrays) -> tuple[np.ndarray, ...]:
        lacking = np.zeros(len(blocks[0]), bool)
        for tokens in self.required:
            for block in blocks:
                lacking |= ~(block.observed & tokens).any(1)
        results = [np.array(r) for r in self.compute(*blocks)]
        for result in results:
            if result.dtype.kind == "f":
                result[lacking] = np.nan
        return tuple(results)


def require_groups(
    compute: Compute, layout: Layout, require: Selector | Sequence[Selector], *, visible: np.ndarray
) -> Compute:
    """Return a function of a block that leaves out cells without the required groups."""
    names = [require] if isinstance(require, str) else list(require)
    if not names:
        return compute
    groups = group_masks(layout)
    tokens = [visible & (groups[n] if n in groups else visible_tokens(layout, n)) for n in names]
    if hidden_names := [n for n, t in zip(names, tokens) if not t.any()]:
        raise SelectionError(
            f"require={hidden_names} lies outside using=: widen using=, or leave it out"
        )
    return RequiredGroups(compute, np.stack(tokens))


def leave_out(out: xr.Dataset, ds: xr.Dataset, mask: str | None) -> xr.Dataset:
    """Return predictions with NaN where a variable of the cube is NaN or 0."""
    if mask is None:
        return out
    place = place_dims(ds)
    if mask not in ds.data_vars or not set(ds[mask].dims) <= set(place):
        choices = [str(k) for k, v in ds.data_vars.items() if set(v.dims) <= set(place)]
        raise SelectionError(f"mask='{mask}' is not a layer of the data; layers are {choices}")
    keep = unmasked(ds[mask])
    for name, layer in out.data_vars.items():
        if layer.dtype.kind == "f" and set(place) <= set(layer.dims):
            masked_layer = layer.where(keep).transpose(*layer.dims)
            masked_layer.encoding = layer.encoding
            out = out.assign({str(name): masked_layer})
    return out


def warn_if_few(out: xr.Dataset, model: Model, *, visible: np.ndarray) -> None:
    """Warn if many cells of a map in memory have less than half of the groups of training sites.

    There is no warning for sites, since evaluation and cross-validation have no ``require=``.
    """
    if SITE not in out.dims and out["observed"].chunks is None and "coverage" in model.about:
        few_count, cells = count_few(out, model, visible=visible)
        warn_of_few(few_count, cells, model, visible=visible)


def count_few(out: xr.Dataset, model: Model, *, visible: np.ndarray) -> tuple[int, int]:
    """Return the number of predicted cells with few groups, and of all predicted cells."""
    is_predicted = out["suitability"].notnull().any("species").values & (out["observed"].values > 0)
    groups = np.bitwise_count(out["observed"].values)
    return int((is_predicted & (groups < usual_groups(model, visible) / 2)).sum()), int(
        is_predicted.sum()
    )


def usual_groups(model: Model, visible: np.ndarray) -> float:
    """Return the mean number of visible groups that a training site had."""
    coverage: dict[str, float] = model.about.get("coverage", {})
    return sum(coverage.get(n, 0.0) for n in group_masks(model.layout, visible=visible))


def warn_of_few(few_count: int, cells: int, model: Model, *, visible: np.ndarray) -> None:
    """Warn if the share of cells with few groups is above :data:`MANY`."""
    if not few_count > MANY * cells:
        return
    groups = list(group_masks(model.layout, visible=visible))
    warn(
        f"{few_count:,} of {cells:,} predicted cells ({few_count / cells:.0%}) have less than half of the groups that "
        f"training sites had ({usual_groups(model, visible):.1f} of {len(groups)} on average). With few "
        f"predictors a prediction is close to the base value. Leave such cells out with "
        f"PredictOptions(require=[...]) (groups: {groups}) or PredictOptions(mask='<layer of the cube>')",
        FewGroups,
    )
