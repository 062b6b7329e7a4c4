"""One block in, any set of coalitions out: arrays only, no labels, no dask.

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
from geomiam.tokens.blocks import Block

Scale = Literal["probability", "logit"]

TOKENS_AT_ONCE = 4096
"""Tokens per micro-batch: small enough for the cache, large enough for the matrix products."""


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
    visible = block.observed & shown
    out = np.full((len(block), len(species)), np.nan, np.float32)
    with _evaluating(model):
        for rows in _micro_batches(np.flatnonzero(visible.any(1)), visible.shape[1]):
            tokens, seen = _tokens(model, block, visible, rows)
            features = model.network.features(tokens, seen)
            out[rows] = _finite(_answer(model, features, species, scale)).cpu().numpy()
    return out


def base_value(model: Model, *, species: np.ndarray, scale: Scale = "probability") -> np.ndarray:
    """Return what the model says when it sees nothing: v(∅), ``(s,)``."""
    t, d = model.layout.size, model.config.members * model.config.width
    with _evaluating(model):
        tokens = torch.zeros(1, t, d, device=model.device)
        seen = torch.zeros(1, t, dtype=torch.bool, device=model.device)
        features = model.network.features(tokens, seen)
        return _answer(model, features, species, scale)[0].cpu().numpy()


def shapley_block(
    model: Model,
    block: Block,
    *,
    players: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Exact Shapley values of each row's groups.

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
    numpy.ndarray
        float32 ``(n, G, s)``; NaN where nothing is visible.
    """
    visible = block.observed & players.any(0)
    present = np.stack([(visible & p).any(1) for p in players], 1)
    out = np.zeros((len(block), len(players), len(species)), np.float32)
    out[~present.any(1)] = np.nan
    with _evaluating(model):
        for pattern, rows in _patterns(present):
            mine = np.flatnonzero(pattern)
            shown, weights = _coalitions(players[mine], model.device)
            for batch in _micro_batches(rows, visible.shape[1]):
                tokens, seen = _tokens(model, block, visible, batch)
                answers = model.network.coalitions(tokens, seen, shown)
                values = _weigh(model, answers, weights, species, scale)
                out[np.ix_(batch, mine)] = _finite(values).cpu().numpy()
    return out


def coalition_block(
    model: Model,
    block: Block,
    *,
    shown: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict every row from one coalition after another, tokens and summaries made once.

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
    visible = block.observed & shown.any(0)
    coalitions = torch.as_tensor(shown, device=model.device)
    with _evaluating(model):
        for rows in _micro_batches(np.flatnonzero(visible.any(1)), visible.shape[1]):
            tokens, seen = _tokens(model, block, visible, rows)
            for c, features in enumerate(model.network.coalitions(tokens, seen, coalitions)):
                answered = (visible[rows] & shown[c]).any(1)
                answers = _finite(_answer(model, features, species, scale))
                out[c, rows[answered]] = answers.cpu().numpy()[answered]
    return out


def shapley_weights(groups: int) -> np.ndarray:
    """Coefficients ``(2^G, G)`` of v(S) in φ_g; bit i of a row's number says whether i is in S."""
    member = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1 == 1
    size = member.sum(1)
    weight = np.array(
        [factorial(k) * factorial(groups - k - 1) / factorial(groups) for k in range(groups)]
    )
    joined = np.append(0, weight)[size]  # S = T ∪ g with |T| = |S| − 1
    apart = np.append(weight, 0)[size]
    return np.where(member, joined[:, None], -apart[:, None])


def _weigh(
    model: Model, answers: Iterator[Tensor], weights: Tensor, species: np.ndarray, scale: Scale
) -> Tensor:
    """Sum of weighted coalition values ``(n, G, s)``, one coalition in memory at a time."""
    total: Tensor | float = 0.0
    for value, weight in zip(answers, weights):
        if scale == "probability":
            value = _answer(model, value, species, scale)
        total = total + weight[:, None] * value[:, None, :]
    assert isinstance(total, Tensor)
    return total if scale == "probability" else total @ model.network.head.weight[species].T


def _coalitions(players: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens ``(2^G, t)`` that each coalition shows, and its weights ``(2^G, G)``."""
    g = len(players)
    member = (np.arange(2**g)[:, None] >> np.arange(g)) & 1 == 1
    shown = (member[:, :, None] & players).any(1)
    weights = torch.as_tensor(shapley_weights(g), dtype=torch.float32, device=device)
    return torch.as_tensor(shown, device=device), weights


def _answer(model: Model, activated: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    head = model.network.head
    if model.link == "softmax" and scale == "probability":  # needs every species' logit
        return model.probability(head(activated))[..., species]
    logits = torch.nn.functional.linear(activated, head.weight[species], head.bias[species])
    return logits if scale == "logit" else model.probability(logits)


def _tokens(
    model: Model, block: Block, visible: np.ndarray, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    seen = torch.as_tensor(visible[rows], device=model.device)
    values = [torch.as_tensor(v[rows], device=model.device) for v in block.values]
    return model.network.tokens(values, seen), seen


def _patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distinct non-empty rows of ``present (n, G)`` and the rows that have each."""
    distinct, which = np.unique(present, axis=0, return_inverse=True)
    for i, pattern in enumerate(distinct):
        if pattern.any():
            yield pattern, np.flatnonzero(which.ravel() == i)


def _micro_batches(rows: np.ndarray, t: int) -> Iterator[np.ndarray]:
    step = max(1, TOKENS_AT_ONCE // t)
    return (rows[i : i + step] for i in range(0, len(rows), step))


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
