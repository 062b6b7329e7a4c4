"""Coalitions of groups and their weights in Shapley values: numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np


@dataclass(frozen=True)
class Coalitions:
    """Coalitions of G groups and their weights in the Shapley value of each group.

    ``member (c, G)`` is True for the groups of a coalition. ``weight (k, c, G)`` is the coefficient of v(S)
    in φ_g, in each of k independent replicates whose mean is the value. k is 1 if all coalitions are used.
    """

    member: np.ndarray
    weight: np.ndarray

    @classmethod
    def every(cls, groups: int) -> Coalitions:
        """Return all 2^G coalitions."""
        return cls(members(groups), shapley_weights(groups)[None])

    @classmethod
    def latin(cls, groups: int, *, samples: int, rng: np.random.Generator) -> Coalitions:
        """Return those that the rows of Latin squares go through, each square a replicate.

        Groups join one after another in the orders that the rows give (MaskSDM, Zbinden et al.
        2025, Algorithm 1), so every group joins once at every position of a square.
        """
        orders = np.stack(
            [latin_square(groups, cyclic=False, rng=rng) for _ in range(samples)]
        )  # (k, G, G)
        rank = orders.argsort(-1)  # when each group joins: (k, order, group)
        steps = np.arange(groups + 1)[:, None]
        path = (rank[:, :, None, :] < steps).reshape(-1, groups)  # (k · G · (G + 1), G)
        member, position = np.unique(path, axis=0, return_inverse=True)
        position = position.reshape(samples, groups, groups + 1)
        weight = np.zeros((samples, len(member), groups))
        k, _, group = np.indices(rank.shape)
        # φ_g is the mean over G orders of v(with g) − v(without g), where g joins.
        for is_member, sign in ((1, 1.0), (0, -1.0)):
            coalition = np.take_along_axis(position, rank + is_member, -1)
            np.add.at(weight, (k, coalition, group), sign / groups)
        return cls(member, weight)

    def among(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions ``(u,)`` and weights ``(k, u, G)`` of the coalitions that differ in the present groups ``(G,)``.

        Small coalitions are first; the last has all groups that are present.
        """
        # Coalitions that differ in absent groups have the same v, so their weights add up.
        distinct, first, position = np.unique(
            self.member & present, axis=0, return_index=True, return_inverse=True
        )
        weight = np.zeros((len(self.weight), len(distinct), self.member.shape[1]))
        for of_distinct, of_member in zip(weight, self.weight):
            np.add.at(of_distinct, position.ravel(), of_member)
        weight[..., ~present] = 0
        order = np.argsort(distinct.sum(1), kind="stable")
        return first[order], weight[:, order]


def members(groups: int) -> np.ndarray:
    """Return all coalitions ``(2^G, G)``; bit i of the number of a coalition is 1 if group i is in it."""
    return (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1 == 1


def shapley_weights(groups: int) -> np.ndarray:
    """Return the coefficients ``(2^G, G)`` of v(S) in φ_g, in the order of :func:`members`."""
    member = members(groups)
    size = member.sum(1)
    # φ_g = Σ_{T∌g} |T|! (G − |T| − 1)! / G! · [v(T ∪ g) − v(T)], as a coefficient of each v(S).
    weight = np.array(
        [factorial(k) * factorial(groups - k - 1) / factorial(groups) for k in range(groups)]
    )
    is_member = np.append(0, weight)[size]  # S = T ∪ g with |T| = |S| − 1
    apart = np.append(weight, 0)[size]
    return np.where(member, is_member[:, None], -apart[:, None])


def latin_square(n: int, *, cyclic: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw a Latin square ``(n, n)``: every symbol once in each row and in each column.

    A cyclic square permutes only the columns of the cyclic shifts, as MaskSDM does.
    """
    square = np.add.outer(np.arange(n), np.arange(n)) % n
    # In a cyclic square the predecessors of a group are nearly the same in neighbouring rows; permuted rows
    # and symbols reduce this dependence.
    square = square[:, rng.permutation(n)]
    return square if cyclic else rng.permutation(n)[square[rng.permutation(n)]]
