"""Main effects and interactions: checks of their order, and their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.errors import SelectionError, SettingError
from geomiam.inference.cells import Output
from geomiam.inference.slabs import Scale
from geomiam.inference.terms import Index, subsets

COMBINATION = "combination"
"""Dim of the interactions; labels join the names of groups as in a formula of R: ``climate:soil``."""
LONG_NAMES: dict[Index, str] = {
    "shapley-taylor": "Shapley-Taylor interaction",
    "shapley": "Shapley interaction",
    "mobius": "Harsanyi dividend",
}


def check_order(order: int, index: Index | None, *, names: Sequence[str], method: str) -> Index:
    """Return the index of interactions; refuse an order or an index that does not fit.

    Raises
    ------
    SettingError
        For an unknown index, one without effect, or an order that it does not support.
    SelectionError
        If there are fewer groups than the order, or coalitions are not all computed.
    """
    if index is not None and index not in get_args(Index):
        raise SettingError(f"index={index!r}; use {', '.join(get_args(Index))}")
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 1:
        raise SettingError(
            f"order={order!r}; use 1 for Shapley values, or 2 for pairwise interactions too"
        )
    if order == 1:
        if index is not None:
            raise SettingError(
                f"index={index!r} has no effect with order=1; pass order=2, or leave it out"
            )
        return "shapley-taylor"
    if order > len(names):
        raise SelectionError(
            f"order={order} needs {order} groups or more, found {list_names(names)}; pass a smaller order, or "
            "more groups with groups=[...]"
        )
    if method != "exact":
        raise SelectionError(
            f"order={order} needs all coalitions, but method='{method}'; join the groups to at most 12 with "
            "groups={'name': [...]}, or pass order=1"
        )
    if index == "shapley" and order > 2:
        raise SettingError(
            f"index='shapley' has order 2, found order={order}; use index='shapley-taylor' or 'mobius'"
        )
    return index or "shapley-taylor"


def combinations_of(names: Sequence[str], order: int) -> tuple[list[str], np.ndarray]:
    """Return labels of all sets of 2 to ``order`` groups, and which groups they include ``(o, G)``."""
    includes = np.concatenate([subsets(len(names), size) for size in range(2, order + 1)])
    return [":".join(np.asarray(names, object)[row]) for row in includes], includes


def interaction_outputs(
    labels: dict[str, Sequence[str]], *, order: int, index: Index, scale: Scale
) -> list[Output]:
    """Return the descriptions of ``main_effect`` and ``interaction``; none for order 1."""
    if order == 1:
        return []
    attrs = {"units": "1", "scale": scale, "index": index}
    of_sets = {COMBINATION: combinations_of(labels["group"], order)[0]}
    main = "effect of the group without its interactions"
    long_names = {"main_effect": main, "interaction": f"{LONG_NAMES[index]} of groups"}
    return [
        Output(
            name,
            {**(labels if name == "main_effect" else of_sets), "species": labels["species"]},
            np.dtype(np.float32),
            {"long_name": long_name, **attrs},
        )
        for name, long_name in long_names.items()
    ]


def with_includes(out: xr.Dataset, names: Sequence[str], order: int) -> xr.Dataset:
    """Return the dataset with the coordinate ``includes(combination, group)``: 1 for the groups of each set."""
    if order == 1:
        return out
    includes = combinations_of(names, order)[1].astype(np.int8)
    attrs = {"long_name": "1 if the combination includes the group", "units": "1"}
    return out.assign_coords(includes=((COMBINATION, "group"), includes, attrs))
