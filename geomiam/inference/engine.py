"""One block in, any set of coalitions out: arrays only, no labels, no dask.

Rows are taken a slab at a time. What coalitions share is made once for the slab (`network.view`);
then micro-batches that fit the cache go through the coalitions, and of coalitions only as many at a
time as fit with them. Rows are grouped by the groups they have, so what is missing costs nothing.

Shapes: n rows, t tokens, G groups, c coalitions, s species asked for, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomiam.inference.coalitions import Coalitions
from geomiam.model.model import Model
from geomiam.networks.network import View
from geomiam.networks.torch_defaults import thread_defaults
from geomiam.tokens.blocks import Block

Scale = Literal["probability", "logit"]

SLAB = 4096
"""Rows whose shared parts are in memory at a time."""
VECTORS_AT_ONCE = 4096
"""Per micro-batch: small enough for the cache, large enough for the matrix products."""
COALITIONS_AT_ONCE = 64
"""Per micro-batch; more add no speed."""
ANSWERS_AT_ONCE = 2**20
"""Numbers of answers in memory at a time: species beyond are taken in blocks."""
ELSEWHERE = 32
"""Times as many rows, vectors and answers on a device without a small cache, which wants large products."""


def predict_block(
    model: Model,
    block: Block,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict every row from the tokens that are observed and visible.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    visible : numpy.ndarray
        Boolean ``(t,)``.
    species : numpy.ndarray
        Positions ``(s,)``.

    Returns
    -------
    numpy.ndarray
        float32 ``(n, s)``; NaN where nothing is visible.
    """
    out = np.full((len(block), len(species)), np.nan, np.float32)
    some = np.flatnonzero((block.observed & visible).any(1))
    one = torch.zeros(1, dtype=torch.long, device=model.device)
    with _evaluating(model):
        for rows, view in _slabs(model, block, some, visible[None]):
            first, same = view.twins(torch.as_tensor(visible)).unique(return_inverse=True)
            answers = [
                _finite(_answer(model, view.features(batch, one)[:, 0], species, scale))
                for batch in first.split(max(1, _size(VECTORS_AT_ONCE, model) // view.cost(1)))
            ]
            out[rows] = torch.cat(answers)[same].cpu().numpy()
    return out


def base_value(model: Model, *, species: np.ndarray, scale: Scale = "probability") -> np.ndarray:
    """Return what the model says when it sees nothing: v(∅), ``(s,)``."""
    nothing = np.zeros((1, model.layout.size), bool)
    values = tuple(np.full((1, p.size, p.width), np.nan, np.float32) for p in model.layout.parts)
    one = torch.zeros(1, dtype=torch.long, device=model.device)
    with _evaluating(model):
        (_, view), *_ = _slabs(model, Block(values, nothing), np.zeros(1, int), nothing)
        return _answer(model, view.features(one, one)[0], species, scale)[0].cpu().numpy()


def shapley_block(
    model: Model,
    block: Block,
    *,
    groups: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
    coalitions: Coalitions | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Shapley values of each row's groups, the prediction they add up to, and how far they may be off.

    φ_g = Σ_{S∌g} |S|! (G − |S| − 1)! / G! · [v(S ∪ g) − v(S)], where v is the model's answer from
    the groups in S (Shapley 1953). A group without an observed token adds nothing to any S, so it
    gets exactly 0, and coalitions that differ in such groups only are computed once.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    groups : numpy.ndarray
        Boolean ``(G, t)``, disjoint; tokens of no group are hidden.
    species : numpy.ndarray
        Positions ``(s,)``.
    scale : {"probability", "logit"}
        Scale of v. On the logit scale the head is applied to the combined features, which is the
        same and costs G products instead of 2^G.
    coalitions : Coalitions, optional
        Those that are asked; default all, so that values are exact.

    Returns
    -------
    tuple
        float32 values ``(n, G, s)``, the prediction ``(n, s)``, and the standard error of the values
        ``(n, G, s)``, None where they are exact; NaN where nothing is visible.
    """
    asked = Coalitions.every(len(groups)) if coalitions is None else coalitions
    in_groups = block.observed & groups.any(0)
    present = np.stack([(in_groups & p).any(1) for p in groups], 1)
    empty = ~present.any(1)
    shape = (len(block), len(groups), len(species))
    values, error = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    full = np.full((len(block), len(species)), np.nan, np.float32)
    values[empty], error[empty] = np.nan, np.nan
    visible = (asked.member[:, :, None] & groups).any(1)
    with _evaluating(model):
        for rows, view in _slabs(model, block, np.flatnonzero(~empty), visible):
            for pattern, own in _patterns(present[rows]):
                mine = np.flatnonzero(pattern)
                which, weight = asked.among(pattern)
                game = _Game(model, view, which, weight[..., mine], species=species, scale=scale)
                for batch in torch.as_tensor(own, device=model.device).split(game.rows_at_once):
                    at = rows[batch.cpu().numpy()]
                    replicates, whole = game(batch)  # (r, k, g, s), (r, s)
                    full[at] = _finite(whole).cpu().numpy()
                    values[np.ix_(at, mine)] = _finite(replicates).mean(1).cpu().numpy()
                    if coalitions is not None:
                        error[np.ix_(at, mine)] = _standard_error(replicates).cpu().numpy()
    return values, full, None if coalitions is None else error


def amortised_block(
    model: Model,
    block: Block,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> tuple[np.ndarray, np.ndarray]:
    """Shapley values of the model's own groups as its explainer tells them, in one pass.

    Parameters
    ----------
    model : Model
        With an explainer that was trained on this scale; see :func:`geomiam.fit_explainer`.
    block : Block
        n rows.
    visible : numpy.ndarray
        Boolean ``(t,)``.
    species : numpy.ndarray
        Positions ``(s,)``.

    Returns
    -------
    tuple of numpy.ndarray
        float32 values ``(n, G, s)`` and the prediction ``(n, s)``; NaN where nothing is visible.
    """
    every = np.arange(len(model.species))
    some = np.flatnonzero((block.observed & visible).any(1))
    base = torch.as_tensor(base_value(model, species=every, scale=scale), device=model.device)
    with _evaluating(model):
        parts = [
            (rows[batch.cpu().numpy()], _told(model, view, batch, base, scale))
            for rows, view in _slabs(model, block, some, visible[None])
            for batch in _micro_batches(len(rows), view.cost(1), model)
        ]
    groups = int(model.network.owner.max()) + 1
    values = np.full((len(block), groups, len(species)), np.nan, np.float32)
    full = np.full((len(block), len(species)), np.nan, np.float32)
    for at, (mine, whole) in parts:
        values[at] = _finite(mine).cpu().numpy()[..., species]
        full[at] = _finite(whole).cpu().numpy()[..., species]
    return values, full


def _told(
    model: Model, view: View, rows: Tensor, base: Tensor, scale: Scale
) -> tuple[Tensor, Tensor]:
    """Values ``(r, G, S)`` of all species and the prediction ``(r, S)``, as the explainer tells them."""
    network = model.network
    states, features, present = group_states(model, view, rows)
    whole = _answer(model, features, np.arange(len(model.species)), scale)
    assert network.explainer is not None
    return network.explainer(states, features, present, whole - base), whole


def group_states(model: Model, view: View, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What an explainer reads of rows: states ``(r, G, m·d)``, features and present ``(r, G)``."""
    owner = torch.as_tensor(model.network.owner, device=model.device)
    groups = int(owner.max()) + 1
    features, states = view.states(rows, 0, owner, groups)
    visible = view.visible(rows, 0)
    present = torch.zeros(len(rows), groups, device=model.device)
    present.index_add_(1, owner, visible.float())
    return states, features, present > 0


def coalition_block(
    model: Model,
    block: Block,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict every row from one coalition after another, what they share made once.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    visible : numpy.ndarray
        Boolean ``(c, t)``: the tokens of each coalition.
    species : numpy.ndarray
        Positions ``(s,)``.

    Returns
    -------
    numpy.ndarray
        float32 ``(c, n, s)``. Where a coalition shows nothing of a row, the answer is the base
        value, bit for bit the same in all such rows: to a metric of ranks they are ties.
    """
    out = np.empty((len(visible), len(block), len(species)), np.float32)
    out[:] = base_value(model, species=species, scale=scale)
    some = np.flatnonzero((block.observed & visible.any(0)).any(1))
    with _evaluating(model):
        for rows, view in _slabs(model, block, some, visible):
            answered = (block.observed[rows, None] & visible).any(-1)  # (r, c)
            for which in torch.arange(len(visible), device=model.device).split(COALITIONS_AT_ONCE):
                for batch in _micro_batches(len(rows), view.cost(len(which)), model):
                    values = _answer(model, view.features(batch, which), species, scale)
                    mine, asked = batch.cpu().numpy(), which.cpu().numpy()
                    r, c = np.nonzero(answered[np.ix_(mine, asked)])
                    out[asked[c], rows[mine[r]]] = _finite(values).cpu().numpy()[r, c]
            for number, tokens in enumerate(torch.as_tensor(visible)):
                out[number, rows] = out[number, rows[view.twins(tokens).cpu().numpy()]]
    return out


class _Game:
    """Coalitions of the groups that some rows have, and what each counts."""

    def __init__(
        self,
        model: Model,
        view: View,
        which: np.ndarray,
        weight: np.ndarray,
        *,
        species: np.ndarray,
        scale: Scale,
    ):
        self.model, self.view, self.species, self.scale = model, view, species, scale
        self.which = torch.as_tensor(which, device=model.device).split(COALITIONS_AT_ONCE)
        k, c, g = weight.shape
        flat = torch.as_tensor(weight.transpose(0, 2, 1).reshape(k * g, c), dtype=torch.float32)
        self.weights = flat.to(model.device).split(COALITIONS_AT_ONCE, 1)  # (k · g, c) each
        self.shape = k, g
        at_once = _size(VECTORS_AT_ONCE, model)
        self.rows_at_once = max(1, at_once // view.cost(len(self.which[0])))

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Shapley values ``(r, k, g, s)`` in each replicate, and the value of all groups ``(r, s)``."""
        total: Tensor | float = 0.0
        for which, weights in zip(self.which, self.weights):
            features = self.view.features(rows, which)  # (r, c, m·d)
            if self.scale == "logit":
                total = total + weights @ features
            else:
                total = total + self._answers(features, weights)
        whole = _answer(self.model, features[:, -1], self.species, self.scale)
        assert isinstance(total, Tensor)
        if self.scale == "logit":
            total = total @ self.model.network.head.weight[self.species].T
        return total.unflatten(1, self.shape), whole

    def _answers(self, features: Tensor, weights: Tensor) -> Tensor:
        """Weighted answers ``(r, k · g, s)``, a block of species in memory at a time."""
        step = max(1, _size(ANSWERS_AT_ONCE, self.model) // (features.shape[0] * features.shape[1]))
        if self.model.link == "softmax":  # a species' answer needs all logits
            step = len(self.species)
        parts = [self.species[i : i + step] for i in range(0, len(self.species), step)]
        made = [weights @ _answer(self.model, features, p, self.scale) for p in parts]
        return made[0] if len(made) == 1 else torch.cat(made, -1)


def _standard_error(replicates: Tensor) -> Tensor:
    """Of the mean ``(r, g, s)`` over independent replicates ``(r, k, g, s)``."""
    return replicates.std(1) / replicates.shape[1] ** 0.5


def _answer(model: Model, activated: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    head = model.network.head
    if model.link == "softmax" and scale == "probability":  # needs every species' logit
        return model.probability(head(activated))[..., species]
    logits = torch.nn.functional.linear(activated, head.weight[species], head.bias[species])
    return logits if scale == "logit" else model.probability(logits)


def _slabs(
    model: Model, block: Block, rows: np.ndarray, visible: np.ndarray
) -> Iterator[tuple[np.ndarray, View]]:
    """Rows ``(r,)``, and what coalitions ``visible (c, t)`` see of them."""
    coalitions = torch.as_tensor(visible, device=model.device)
    slab = _size(SLAB, model)
    for part in (rows[i : i + slab] for i in range(0, len(rows), slab)):
        values = [torch.as_tensor(v[part], device=model.device) for v in block.values]
        observed = torch.as_tensor(block.observed[part], device=model.device)
        yield part, model.network.view(values, observed, coalitions)


def _patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distinct non-empty rows of ``present (n, G)`` and the rows that have each."""
    distinct, which = np.unique(present, axis=0, return_inverse=True)
    for i, pattern in enumerate(distinct):
        if pattern.any():
            yield pattern, np.flatnonzero(which.ravel() == i)


def _micro_batches(rows: int, cost: int, model: Model) -> tuple[Tensor, ...]:
    """Positions ``(b,)`` of rows, in batches."""
    at_once = max(1, _size(VECTORS_AT_ONCE, model) // cost)
    return torch.arange(rows, device=model.device).split(at_once)


def _size(cpu: int, model: Model) -> int:
    """How many at a time where the model is."""
    return cpu if model.device.type == "cpu" else ELSEWHERE * cpu


def _finite(x: Tensor) -> Tensor:
    """A number that is not finite after something was observed is a defect, not missing data."""
    if not torch.isfinite(x).all():
        raise FloatingPointError("the network answered with NaN or infinity from finite input")
    return x


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Inference mode, nothing dropped. Not put back: blocks of other threads may be under way."""
    if model.network.training:
        model.network.eval()
    with torch.inference_mode(), thread_defaults():
        yield
