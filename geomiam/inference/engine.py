"""One block in, any set of coalitions out: arrays only, no labels, no dask.

Rows are taken a slab at a time. What coalitions share is made once for the slab (`network.view`);
then micro-batches that fit the cache go through the coalitions, and of coalitions only as many at a
time as fit with them. Rows are grouped by the players they have, so what is missing costs nothing.

Shapes: n rows, t tokens, G groups, c coalitions, s species asked for, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import factorial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomiam.networks.model import Model
from geomiam.networks.network import View
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


def predict_block(
    model: Model,
    block: Block,
    *,
    shown: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict every row from the tokens that are observed and shown.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    shown : numpy.ndarray
        Boolean ``(t,)``.
    species : numpy.ndarray
        Positions ``(s,)``.

    Returns
    -------
    numpy.ndarray
        float32 ``(n, s)``; NaN where nothing is visible.
    """
    out = np.full((len(block), len(species)), np.nan, np.float32)
    some = np.flatnonzero((block.observed & shown).any(1))
    one = torch.zeros(1, dtype=torch.long, device=model.device)
    with _evaluating(model):
        for rows, view in _slabs(model, block, some, shown[None]):
            first, same = view.twins(torch.as_tensor(shown)).unique(return_inverse=True)
            answers = [
                _finite(_answer(model, view.features(batch, one)[:, 0], species, scale))
                for batch in first.split(max(1, VECTORS_AT_ONCE // view.cost(1)))
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
    players: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> tuple[np.ndarray, np.ndarray]:
    """Exact Shapley values of each row's groups, and the prediction they add up to.

    φ_g = Σ_{S∌g} |S|! (G − |S| − 1)! / G! · [v(S ∪ g) − v(S)], where v is the model's answer from
    the groups in S (Shapley 1953). A group without an observed token adds nothing to any S, so it
    gets exactly 0 and only the coalitions of the groups that are present are computed.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    players : numpy.ndarray
        Boolean ``(G, t)``, disjoint; tokens of no player are hidden.
    species : numpy.ndarray
        Positions ``(s,)``.
    scale : {"probability", "logit"}
        Scale of v. On the logit scale the head is applied to the combined features, which is the
        same and costs G products instead of 2^G.

    Returns
    -------
    tuple of numpy.ndarray
        float32 ``(n, G, s)`` and ``(n, s)``; NaN where nothing is visible.
    """
    visible = block.observed & players.any(0)
    present = np.stack([(visible & p).any(1) for p in players], 1)
    values = np.zeros((len(block), len(players), len(species)), np.float32)
    full = np.full((len(block), len(species)), np.nan, np.float32)
    values[~present.any(1)] = np.nan
    shown = (members(len(players))[:, :, None] & players).any(1)
    with _evaluating(model):
        for rows, view in _slabs(model, block, np.flatnonzero(present.any(1)), shown):
            for pattern, own in _patterns(present[rows]):
                game = _Game(model, view, np.flatnonzero(pattern), species=species, scale=scale)
                for batch in _micro_batches(len(own), game.cost, model.device):
                    at = rows[own[batch.cpu().numpy()]]
                    mine, whole = game(torch.as_tensor(own, device=model.device)[batch])
                    values[np.ix_(at, game.players)] = _finite(mine).cpu().numpy()
                    full[at] = _finite(whole).cpu().numpy()
    return values, full


def coalition_block(
    model: Model,
    block: Block,
    *,
    shown: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict every row from one coalition after another, what they share made once.

    Parameters
    ----------
    model : Model
    block : Block
        n rows.
    shown : numpy.ndarray
        Boolean ``(c, t)``: the tokens of each coalition.
    species : numpy.ndarray
        Positions ``(s,)``.

    Returns
    -------
    numpy.ndarray
        float32 ``(c, n, s)``. Where a coalition shows nothing of a row, the answer is the base
        value, bit for bit the same in all such rows: to a metric of ranks they are ties.
    """
    out = np.empty((len(shown), len(block), len(species)), np.float32)
    out[:] = base_value(model, species=species, scale=scale)
    some = np.flatnonzero((block.observed & shown.any(0)).any(1))
    with _evaluating(model):
        for rows, view in _slabs(model, block, some, shown):
            answered = (block.observed[rows, None] & shown).any(-1)  # (r, c)
            for which in torch.arange(len(shown), device=model.device).split(COALITIONS_AT_ONCE):
                for batch in _micro_batches(len(rows), view.cost(len(which)), model.device):
                    values = _answer(model, view.features(batch, which), species, scale)
                    mine, asked = batch.cpu().numpy(), which.cpu().numpy()
                    r, c = np.nonzero(answered[np.ix_(mine, asked)])
                    out[asked[c], rows[mine[r]]] = _finite(values).cpu().numpy()[r, c]
            for number, tokens in enumerate(torch.as_tensor(shown)):
                out[number, rows] = out[number, rows[view.twins(tokens).cpu().numpy()]]
    return out


def members(groups: int) -> np.ndarray:
    """All coalitions ``(2^G, G)``; bit i of a coalition's number says whether i is in it."""
    return (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1 == 1


def shapley_weights(groups: int) -> np.ndarray:
    """Coefficients ``(2^G, G)`` of v(S) in φ_g; bit i of a row's number says whether i is in S."""
    member = members(groups)
    size = member.sum(1)
    weight = np.array(
        [factorial(k) * factorial(groups - k - 1) / factorial(groups) for k in range(groups)]
    )
    joined = np.append(0, weight)[size]  # S = T ∪ g with |T| = |S| − 1
    apart = np.append(weight, 0)[size]
    return np.where(member, joined[:, None], -apart[:, None])


class _Game:
    """All coalitions of the players that some rows have, by size, and what each counts."""

    def __init__(
        self, model: Model, view: View, players: np.ndarray, *, species: np.ndarray, scale: Scale
    ):
        self.model, self.view, self.players = model, view, players
        self.species, self.scale = species, scale
        member = members(len(players))
        order = np.argsort(member.sum(1), kind="stable")  # so that equal sizes go together
        numbers = (member << players).sum(1)[order]
        weights = shapley_weights(len(players))[order]
        self.which = torch.as_tensor(numbers, device=model.device).split(COALITIONS_AT_ONCE)
        weight = torch.as_tensor(weights, dtype=torch.float32, device=model.device)
        self.weights = weight.split(COALITIONS_AT_ONCE)
        self.cost = view.cost(len(self.which[0]))

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Shapley values ``(r, g, s)`` and the value of all players ``(r, s)``."""
        weigh = self._features if self.scale == "logit" else self._answers
        total: Tensor | float = 0.0
        for which, weights in zip(self.which, self.weights):
            features = self.view.features(rows, which)  # (r, c, m·d)
            total = total + weigh(features, weights)
        whole = _answer(self.model, features[:, -1], self.species, self.scale)
        assert isinstance(total, Tensor)
        if self.scale == "logit":
            total = total @ self.model.network.head.weight[self.species].T
        return total, whole

    def _features(self, features: Tensor, weights: Tensor) -> Tensor:
        return weights.T @ features

    def _answers(self, features: Tensor, weights: Tensor) -> Tensor:
        """Weighted answers ``(r, g, s)``, a block of species in memory at a time."""
        step = max(1, ANSWERS_AT_ONCE // (features.shape[0] * features.shape[1]))
        if self.model.link == "softmax":  # a species' answer needs all logits
            step = len(self.species)
        parts = [self.species[i : i + step] for i in range(0, len(self.species), step)]
        made = [weights.T @ _answer(self.model, features, p, self.scale) for p in parts]
        return made[0] if len(made) == 1 else torch.cat(made, -1)


def _answer(model: Model, activated: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    head = model.network.head
    if model.link == "softmax" and scale == "probability":  # needs every species' logit
        return model.probability(head(activated))[..., species]
    logits = torch.nn.functional.linear(activated, head.weight[species], head.bias[species])
    return logits if scale == "logit" else model.probability(logits)


def _slabs(
    model: Model, block: Block, rows: np.ndarray, shown: np.ndarray
) -> Iterator[tuple[np.ndarray, View]]:
    """Rows ``(r,)``, and what coalitions ``shown (c, t)`` see of them."""
    coalitions = torch.as_tensor(shown, device=model.device)
    for part in (rows[i : i + SLAB] for i in range(0, len(rows), SLAB)):
        values = [torch.as_tensor(v[part], device=model.device) for v in block.values]
        observed = torch.as_tensor(block.observed[part], device=model.device)
        yield part, model.network.view(values, observed, coalitions)


def _patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distinct non-empty rows of ``present (n, G)`` and the rows that have each."""
    distinct, which = np.unique(present, axis=0, return_inverse=True)
    for i, pattern in enumerate(distinct):
        if pattern.any():
            yield pattern, np.flatnonzero(which.ravel() == i)


def _micro_batches(rows: int, cost: int, device: torch.device) -> tuple[Tensor, ...]:
    """Positions ``(b,)`` of rows, in batches."""
    return torch.arange(rows, device=device).split(max(1, VECTORS_AT_ONCE // cost))


def _finite(x: Tensor) -> Tensor:
    """A number that is not finite after something was observed is a defect, not missing data."""
    if not torch.isfinite(x).all():
        raise FloatingPointError("the network answered with NaN or infinity from finite input")
    return x


class _evaluating:
    """Inference mode, and the network's training flag put back afterwards."""

    def __init__(self, model: Model):
        self.network, self.mode = model.network, torch.inference_mode()

    def __enter__(self) -> None:
        self.was_training = self.network.training
        self.network.eval()
        self.mode.__enter__()

    def __exit__(self, *error: object) -> None:
        self.mode.__exit__(*error)
        self.network.train(self.was_training)
