"""Explanations of one block of rows, exact, from sampled coalitions, or by a learned explainer: arrays only.

Rows are grouped by the groups that they have, so absent groups cost nothing. Shapes are those of
:mod:`geomiam.inference.engine`, with k replicates of sampled coalitions, o terms such as the Shapley values, and
g terms of groups that are present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import base_value
from geomiam.inference.members import member_values
from geomiam.inference.own_observations import own_hidden
from geomiam.inference.slabs import (
    Scale,
    apply_head,
    check_finite,
    coalition_batches,
    evaluation_mode,
    row_batches,
    slabs,
    species_step,
)
from geomiam.model.model import Model
from geomiam.networks.member_heads import member_weights
from geomiam.networks.network import View
from geomiam.tokens.encode import TokenArrays


@dataclass(frozen=True)
class Explained:
    """Arrays of the explained rows; NaN where nothing is visible."""

    terms: np.ndarray
    """Terms of the coalitions ``(n, o, s)``, by default the Shapley values of the G groups."""
    full: np.ndarray
    """Prediction ``(n, s)``."""
    error: np.ndarray | None = None
    """Standard error ``(n, o, s)`` of terms from sampled coalitions; None if all coalitions are used."""
    spread: np.ndarray | None = None
    """Standard deviation ``(n, o, s)`` of the terms over the members of the ensemble; None: not requested."""

    @classmethod
    def empty(cls, shape: tuple[int, int, int], *, error: bool, spread: bool) -> Explained:
        """Return the values of rows where nothing is visible, ``(n, o, s)``."""
        n, _, s = shape

        def missing() -> np.ndarray:
            return np.full(shape, np.nan, np.float32)

        full = np.full((n, s), np.nan, np.float32)
        return cls(missing(), full, missing() if error else None, missing() if spread else None)

    def of_terms(self) -> list[np.ndarray]:
        """Return the arrays ``(n, o, s)``."""
        return [a for a in (self.terms, self.error, self.spread) if a is not None]


def shapley_block(
    model: Model,
    block: TokenArrays,
    *,
    groups: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
    coalitions: Coalitions | None = None,
    spread: bool = False,
) -> Explained:
    """Explain rows by groups of tokens ``(G, t)``.

    φ_g = Σ_{S∌g} |S|! (G − |S| − 1)! / G! · [v(S ∪ g) − v(S)], where v(S) is the prediction from the groups
    in S (Shapley 1953); :mod:`geomiam.inference.terms` has the interactions. A group without an observed token
    changes no v(S), so its terms are exactly 0, and coalitions that differ only in such groups are computed
    once. Observations of a species are hidden in its own terms: the community is then the observations of
    the other species.
    """
    settings: dict[str, Any] = {"scale": scale, "coalitions": coalitions, "spread": spread}
    result = _terms(model, block, groups=groups, species=species, **settings)
    for column, rows, other_groups in own_hidden(model, block, visible=groups, species=species):
        of_species = _terms(
            model, block.take(rows), groups=other_groups, species=species[[column]], **settings
        )
        for array, values in zip(result.of_terms(), of_species.of_terms()):
            array[rows, :, column] = values[..., 0]
        result.full[rows, column] = of_species.full[:, 0]
    return result


def _terms(
    model: Model,
    block: TokenArrays,
    *,
    groups: np.ndarray,
    species: np.ndarray,
    scale: Scale,
    coalitions: Coalitions | None,
    spread: bool,
) -> Explained:
    """Return :func:`shapley_block` from all tokens of the groups."""
    coalition_set = Coalitions.every(len(groups)) if coalitions is None else coalitions
    in_groups = block.observed & groups.any(0)
    present = np.stack([(in_groups & tokens).any(1) for tokens in groups], 1)
    predictable = np.flatnonzero(present.any(1))
    shape = (len(block), len(coalition_set.terms), len(species))
    result = Explained.empty(shape, error=len(coalition_set.weight) > 1, spread=spread)
    for array in result.of_terms():
        array[predictable] = 0
    visible = (coalition_set.member[:, :, None] & groups).any(1)
    with evaluation_mode(model):
        for rows, view in slabs(model, block, predictable, visible):
            for pattern, members in _patterns(present[rows]):
                columns = np.flatnonzero(coalition_set.inside(pattern))
                positions, weight = coalition_set.among(pattern)
                game = _Game(
                    model, view, positions, weight[..., columns], species=species, scale=scale
                )
                for batch in game.batches(torch.as_tensor(members, device=model.device)):
                    of_batch = rows[batch.cpu().numpy()]
                    at = np.ix_(of_batch, columns)
                    replicates, prediction, of_members = game(batch, with_members=spread)
                    result.full[of_batch] = check_finite(prediction).cpu().numpy()
                    result.terms[at] = check_finite(replicates).mean(1).cpu().numpy()
                    if result.error is not None:  # of the mean of independent replicates
                        standard_error = replicates.std(1) / replicates.shape[1] ** 0.5
                        result.error[at] = standard_error.cpu().numpy()
                    if result.spread is not None and of_members is not None:
                        values = check_finite(of_members).mean(2).std(0, correction=0)
                        result.spread[at] = values.cpu().numpy()
    return result


class _Game:
    """Coalitions of the groups that some rows have, with their weights."""

    def __init__(
        self,
        model: Model,
        view: View,
        positions: np.ndarray,
        weight: np.ndarray,
        *,
        species: np.ndarray,
        scale: Scale,
    ):
        self.model, self.view, self.species, self.scale = model, view, species, scale
        self.coalitions = coalition_batches(torch.as_tensor(positions, device=model.device))
        k, c, g = weight.shape
        flat = torch.as_tensor(weight.transpose(0, 2, 1).reshape(k * g, c), dtype=torch.float32)
        self.weights = coalition_batches(flat.to(model.device), 1)  # (k · g, c) each
        self.shape = k, g

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Split rows into micro-batches for one batch of coalitions."""
        return row_batches(rows, self.view.cost(len(self.coalitions[0])), self.model)

    def __call__(self, rows: Tensor, *, with_members: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values ``(r, k, g, s)`` of each replicate, the prediction ``(r, s)``, and values of members.

        The values ``(m, r, k, g, s)`` of the members are None unless requested.
        """
        total: Tensor | float = 0.0
        of_members: Tensor | None = None
        for coalitions, weights in zip(self.coalitions, self.weights):
            features = self.view.features(rows, coalitions)  # (r, c, m·d)
            if self.scale == "logit":  # the head is linear: G products in place of 2^G
                total = total + weights @ features
            else:
                total = total + self._weighted(apply_head, features, weights)
                if with_members:
                    copies = self.model.config.members
                    part = self._weighted(member_values, features, weights, copies)
                    of_members = part if of_members is None else of_members + part
        prediction = apply_head(self.model, features[:, -1], self.species, self.scale)
        assert isinstance(total, Tensor)
        if self.scale == "logit":
            # Σ_S w_S (W f_S + b) = W Σ_S w_S f_S, since the weights w_S of a group add up to 0.
            if with_members:
                of_members = self._of_members(total)
            total = total @ self.model.network.head.weight[self.species].T
        if of_members is not None:
            of_members = of_members.unflatten(2, self.shape)
        return total.unflatten(1, self.shape), prediction, of_members

    def _of_members(self, total: Tensor) -> Tensor:
        """Return the logits ``(m, r, k · g, s)`` of the members from weighted features ``(r, k · g, m·d)``."""
        weights = member_weights(self.model.network)
        parts = total.split([w.shape[1] for w in weights], -1)
        return torch.stack([part @ w[self.species].T for part, w in zip(parts, weights)])

    def _weighted(
        self, predict: Callable[..., Tensor], features: Tensor, weights: Tensor, copies: int = 1
    ) -> Tensor:
        """Return weighted predictions ``(…, r, k · g, s)``, with one block of species in memory at a time."""
        step = species_step(self.model, copies * features.shape[0] * features.shape[1])
        if self.model.link == "softmax":  # the prediction of a species needs the logits of all
            step = len(self.species)
        parts = [self.species[i : i + step] for i in range(0, len(self.species), step)]
        sums = [weights @ predict(self.model, features, p, self.scale) for p in parts]
        return sums[0] if len(sums) == 1 else torch.cat(sums, -1)


def _patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the distinct non-empty rows of ``present (n, G)`` and the positions of the rows that equal each."""
    distinct, position = np.unique(present, axis=0, return_inverse=True)
    for i, pattern in enumerate(distinct):
        if pattern.any():
            yield pattern, np.flatnonzero(position.ravel() == i)


def amortised_block(
    model: Model,
    block: TokenArrays,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Shapley values ``(n, G, s)`` that the explainer predicts in one pass, and the prediction ``(n, s)``."""
    all_species = np.arange(len(model.species))
    predictable = np.flatnonzero((block.observed & visible).any(1))
    base = torch.as_tensor(base_value(model, species=all_species, scale=scale), device=model.device)
    groups = int(model.network.owner.max()) + 1
    values = np.full((len(block), groups, len(species)), np.nan, np.float32)
    full = np.full((len(block), len(species)), np.nan, np.float32)
    with evaluation_mode(model):
        for rows, view in slabs(model, block, predictable, visible[None]):
            positions = torch.arange(len(rows), device=model.device)
            for batch in row_batches(positions, view.cost(1), model):
                at = rows[batch.cpu().numpy()]
                shapley_values, prediction = _explain(model, view, batch, base, scale)
                values[at] = check_finite(shapley_values).cpu().numpy()[..., species]
                full[at] = check_finite(prediction).cpu().numpy()[..., species]
    return values, full


def _explain(
    model: Model, view: View, rows: Tensor, base: Tensor, scale: Scale
) -> tuple[Tensor, Tensor]:
    """Return the values ``(r, G, S)`` that the explainer predicts, and the prediction ``(r, S)``."""
    network = model.network
    states, features, present = group_states(model, view, rows)
    prediction = apply_head(model, features, np.arange(len(model.species)), scale)
    assert network.explainer is not None
    return network.explainer(states, features, present, prediction - base), prediction


def group_states(model: Model, view: View, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs of an explainer: states ``(r, G, m·d)``, features and present ``(r, G)``."""
    owner = torch.as_tensor(model.network.owner, device=model.device)
    groups = int(owner.max()) + 1
    features, states = view.states(rows, 0, owner, groups)
    visible = view.visible(rows, 0)
    present = torch.zeros(len(rows), groups, device=model.device)
    present.index_add_(1, owner, visible.float())
    return states, features, present > 0
