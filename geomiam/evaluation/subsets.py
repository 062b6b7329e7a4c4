"""Subsets of predictors, named for tables of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, visible_tokens

Using = Selector | Sequence[Selector] | None
Subsets = str | Sequence[Using] | Mapping[str, Using]
Chosen = Mapping[str, list[Selector] | None]
KINDS = ("unimodal", "pairs", "leave-one-out", "every", "variables", "all")


def name_subsets(schema: Schema, subsets: Subsets) -> dict[str, list[Selector] | None]:
    """Return the subsets by name; None selects all predictors."""
    if isinstance(subsets, Mapping):
        return {str(k): listed(v) for k, v in subsets.items()}
    if not isinstance(subsets, str):
        return {_name(s): listed(s) for s in subsets}
    named_subsets: dict[str, list[Selector] | None] = {}
    for kind in subsets.split("+"):
        named_subsets |= _of_kind(kind.strip(), schema)
    if not named_subsets:
        raise SelectionError(
            f"'{subsets}' gives no subset, since there is one modality only, {list(schema.modalities)}; pass "
            "subsets='all'"
        )
    return named_subsets


def _of_kind(kind: str, schema: Schema) -> dict[str, list[Selector] | None]:
    modalities = list(schema.modalities)
    sizes = {"unimodal": [1], "pairs": [2], "leave-one-out": [len(modalities) - 1]}
    sizes |= {"every": list(range(1, len(modalities)))}
    all_groups: dict[str, list[Selector] | None] = {"all": None}
    if kind == "all":
        return all_groups
    if kind == "variables":
        return {v: [v] for v in schema.variables}
    if kind not in sizes:
        raise SelectionError(
            f"'{kind}' is no kind of subset; join some of {', '.join(KINDS)} with '+'"
        )
    with_all = all_groups if kind == "every" else {}
    combos = [c for size in sizes[kind] for c in combinations(modalities, size) if c]
    return {**{"+".join(c): list(c) for c in combos}, **with_all}


def listed(subset: Using) -> list[Selector] | None:
    """Return a subset as a list of selectors; None selects all predictors."""
    if subset is None:
        return None
    return [subset] if isinstance(subset, (str, Mapping)) else list(subset)


def _name(subset: Using) -> str:
    selectors = listed(subset)
    if selectors is None:
        return "all"
    return "+".join(s if isinstance(s, str) else str(dict(s)) for s in selectors)


def shown_share(schema: Schema, subsets: Chosen) -> xr.DataArray:
    """Return the share of each modality's tokens in each subset, ``(subset, modality)``, in [0, 1]."""
    layout = Layout.of(schema)
    starts = np.cumsum(layout.sizes) - layout.sizes
    visible = np.stack([visible_tokens(layout, u) for u in subsets.values()]).astype(float)
    return xr.DataArray(
        np.add.reduceat(visible, starts, axis=1) / layout.sizes,
        dims=("subset", "modality"),
        coords={"subset": list(subsets), "modality": list(schema.modalities)},
        attrs={"long_name": "share of the modality's tokens in the subset"},
    )
