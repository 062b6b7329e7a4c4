"""Selectors of tokens, for ``using=``, for ``groups=`` and for the groups of a catalog.

A selector is the name of a group, a modality or a variable, optionally with a part of it::

    climate                         all of the modality
    bio1                            one variable
    landsat[time=2016:2018]         the windows that lie completely inside these years
    landsat[band=red|nir,time=2018] two channels, one year
    sentinel2[centre]               the middle patch

or, in Python, a mapping such as ``{"landsat": {"time": slice("2016", "2018")}}``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np

from geomiam.errors import SchemaError, SelectionError
from geomiam.schema.variable import Label
from geomiam.tokens.layout import Layout, Span, windowed_dims

Selector = str | Mapping[str, Mapping[str, Any]]
CENTRE = "centre"
DATE = re.compile(r"\d{4}-\d\d(-\d\d)?(T|$)")


def visible_tokens(layout: Layout, using: Selector | Sequence[Selector] | None) -> np.ndarray:
    """Return which tokens ``using`` shows to the model, boolean ``(t,)``; all for None."""
    if using is None:
        return np.ones(layout.size, bool)
    if not (selectors := _as_list(using)):
        raise SelectionError("an empty selection shows nothing; leave it out to use everything")
    visible = np.zeros(layout.size, bool)
    for selector in selectors:
        visible |= _select(layout, selector)
    return visible


def group_coverage(layout: Layout, observed: np.ndarray) -> dict[str, float]:
    """Return the share of rows of ``observed (n, t)`` in which each group has an observed token."""
    return {n: float(observed[:, t].any(1).mean()) for n, t in group_masks(layout).items()}


def symbolic_tokens(layout: Layout) -> np.ndarray:
    """Return which tokens are symbols, boolean ``(t,)``."""
    return np.concatenate([np.full(s.size, bool(s.variable.symbols)) for s in layout.spans])


def observation_tokens(layout: Layout) -> dict[str, list[int]]:
    """Return the positions of the tokens with observations of a species, by the name of the species."""
    tokens: dict[str, list[int]] = {}
    for span in layout.spans:
        if span.variable.species is not None:
            tokens.setdefault(span.variable.species, []).append(span.start)
    return tokens


def modality_tokens(layout: Layout, modalities: Sequence[str]) -> list[int]:
    """Return the positions of all tokens of the modalities."""
    if unknown := sorted(set(modalities) - set(layout.schema.modalities)):
        raise SchemaError(
            f"no modalities {unknown} in the schema; there are {list(layout.schema.modalities)}"
        )
    spans = [s for s in layout.spans if s.modality in modalities]
    return [t for s in spans for t in range(s.start, s.start + s.size)]


def group_masks(
    layout: Layout,
    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
    *,
    visible: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Split the tokens into named groups for Shapley values.

    The default is the schema's groups. Groups without a token in ``visible (t,)`` are left out. Tokens
    that are in no group form a last group ``rest``, so that the values always add up to the prediction.
    Return disjoint boolean ``(t,)`` per group.
    """
    # Efficiency of Shapley values: the groups, with the group of what remains, cover every visible token.
    visible = np.ones(layout.size, bool) if visible is None else visible
    masks = {n: visible_tokens(layout, s) & visible for n, s in _named(layout, groups).items()}
    if groups is not None and (unseen := [n for n, tokens in masks.items() if not tokens.any()]):
        raise SelectionError(f"groups {unseen} lie outside using=; widen using= or leave them out")
    masks = {n: tokens for n, tokens in masks.items() if tokens.any()}
    owners = np.sum([*masks.values(), np.zeros_like(visible)], axis=0, dtype=int)
    if np.any(owners > 1):
        token = int(np.argmax(owners > 1))
        names = [n for n, tokens in masks.items() if tokens[token]]
        raise SelectionError(
            f"groups {names} share the token '{layout.names[token]}'; "
            "a token belongs to one group: narrow one of the selectors"
        )
    remaining = visible & (owners == 0)
    if remaining.any():
        if "rest" in masks:
            raise SelectionError(
                "'rest' is the name of the group of all remaining tokens, and some remain, such as "
                f"'{layout.names[int(np.argmax(remaining))]}'; give your group another name"
            )
        masks["rest"] = remaining
    return masks


def _named(layout: Layout, groups: Any) -> dict[str, Any]:
    if groups is None:
        return {g.name: list(g.members) for g in layout.schema.groups.values()}
    if isinstance(groups, Mapping):
        return dict(groups)
    selectors: dict[str, Any] = {}
    for group in _as_list(groups):
        name = group if isinstance(group, str) else next(iter(group))
        if name in selectors:
            raise SelectionError(
                f"two groups are called '{name}'; name them: groups={{'one': ..., 'other': ...}}"
            )
        selectors[name] = group
    return selectors


def _as_list(selectors: Any) -> list[Selector]:
    return [selectors] if isinstance(selectors, (str, Mapping)) else list(selectors)


def _select(layout: Layout, selector: Selector) -> np.ndarray:
    """Return the tokens ``(t,)`` of one selector."""
    if isinstance(selector, str):
        return _tokens(layout, *_parse(selector), text=selector)
    visible = np.zeros(layout.size, bool)
    for name, conditions in selector.items():
        if not isinstance(conditions, Mapping):
            raise SelectionError(
                f"{{{name!r}: {conditions!r}}} is not a selector; write {{name: {{dim: value}}}}"
            )
        visible |= _tokens(layout, name, dict(conditions), text=f"{name}{dict(conditions)}")
    return visible


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    match = re.fullmatch(r"\s*([^\[\]]+?)\s*(?:\[(.*)\])?\s*", text)
    if not match:
        raise SelectionError(f"'{text}' is not a selector; write name, or name[dim=value]")
    conditions: dict[str, Any] = {}
    for item in filter(None, (s.strip() for s in (match[2] or "").split(","))):
        dim, _, value = (s.strip() for s in item.partition("="))
        if dim != CENTRE and not value:
            raise SelectionError(f"'{text}' is not a selector; write name, or name[dim=value]")
        if dim == CENTRE:
            conditions[dim] = CENTRE
        elif ":" in value:
            conditions[dim] = slice(*(s.strip() or None for s in value.split(":", 1)))
        else:
            conditions[dim] = [s.strip() for s in value.split("|")] if "|" in value else value
    return match[1], conditions


def _tokens(
    layout: Layout, name: str, conditions: dict[str, Any], *, text: str, groups: bool = True
) -> np.ndarray:
    visible, schema = np.zeros(layout.size, bool), layout.schema
    is_token_name = name in schema.modalities or name in schema.variables
    if groups and not conditions and not is_token_name and name in schema.groups:
        members = schema.groups[name].members  # modalities, variables or parts, never groups
        return np.any([_tokens(layout, *_parse(m), text=m, groups=False) for m in members], axis=0)
    spans = [s for s in layout.spans if name in (s.modality, s.variable.name)]
    if not spans:
        choices = {*schema.groups, *schema.modalities, *schema.variables} - {name}
        close = difflib.get_close_matches(name, choices, n=2)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
        hint = hint or f"modalities: {', '.join(schema.modalities)}"
        raise SelectionError(f"'{name}' is no group, modality or variable of this model; {hint}")
    for span in spans:
        visible[span.start : span.start + span.size] = _inside(span, conditions)
    if not visible.any():
        names = [n for s in spans for n in s.names()]
        first_names = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise SelectionError(f"no token lies wholly inside '{text}'; tokens there: {first_names}")
    return visible


def _inside(span: Span, conditions: dict[str, Any]) -> np.ndarray:
    """Return the tokens ``(size,)`` of a variable with windows completely inside the conditions."""
    inside = np.ones(span.steps, bool)
    for axis, (dim, windows) in enumerate(zip(span.variable.dims, span.windows)):
        keep = np.ones(len(windows), bool)
        if CENTRE in conditions and axis >= inside.ndim - windowed_dims(span.variable):
            keep = np.arange(len(windows)) == len(windows) // 2
        if dim in conditions:
            keep &= [all(_matches(label, conditions[dim]) for label in w) for w in windows]
        shape = [1] * inside.ndim
        shape[axis] = -1
        inside &= keep.reshape(shape)
    dims = {*span.variable.dims, CENTRE}
    return inside.ravel() & (set(conditions) <= dims)


def _matches(label: Label, condition: Any) -> bool:
    if isinstance(condition, slice):
        low, high = condition.start, condition.stop
        return (low is None or _compare(label, low) >= 0) and (
            high is None or _compare(label, high) <= 0
        )
    if isinstance(condition, Iterable) and not isinstance(condition, str):
        return any(_compare(label, c) == 0 for c in condition)
    return _compare(label, condition) == 0


def _compare(label: Label, value: Any) -> int:
    """Return the order of label and value; a date is compared up to the precision of the value."""
    if isinstance(label, str):
        text = str(value)
        # 2018 contains 2018-07-01: both are cut to the digits that the condition has.
        if DATE.match(label):
            text = text.replace(" ", "T")[:19]
            label = (f"{label}T00:00:00" if len(label) == 10 else label)[: len(text)]
        return (label > text) - (label < text)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SelectionError(
            f"{value!r} cannot be compared with labels such as {label!r}"
        ) from None
    if isinstance(label, float) and isclose(label, number, rel_tol=1e-6):
        return 0  # a label that went through float32
    return (label > number) - (label < number)
