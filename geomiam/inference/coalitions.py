"""Coalitions of groups and their weights in Shapley values and interactions: numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomiam.inference.terms import Index, Terms, members, shapley_terms


@dataclass(frozen=True)
class Coalitions:
    """Coalitions of G groups and their weights in each of o terms, such as the Shapley value of a group.

    ``member (c, G)`` is True for the groups of a coalition. ``weight (k, c, o)`` is the coefficient of v(S)
    in a term, in each of k independent replicates whose mean is the value. k is 1 if all coalitions are used.
    ``terms (o, G)`` is True for the groups of a term: one for a Shapley value, two for a pairwise interaction.
    """

    member: np.ndarray
    weight: np.ndarray
    terms: np.ndarray

    @classmethod
    def every(cls, groups: int, *, order: int = 1, index: Index = "shapley-taylor") -> Coalitions:
        """Return all 2^G coalitions, with weights of Shapley values and of further terms up to an order."""
        parts = [shapley_terms(groups)]
        if order > 1:
            parts.append(Terms.of_order(groups, order, index=index))
        weight = np.concatenate([part.weight for part in parts], 1)
        return cls(members(groups), weight[None], np.concatenate([part.member for part in parts]))

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
        return cls(member, weight, np.eye(groups, dtype=bool))

    def among(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions ``(u,)`` and weights ``(k, u, o)`` of the coalitions that differ in the present groups ``(G,)``.

        Small coalitions are first; the last has all groups that are present. Weights of terms with an absent
        group are 0.
        """
        # Coalitions that differ in absent groups have the same v, so their weights add up.
        distinct, first, position = np.unique(
            self.member & present, axis=0, return_index=True, return_inverse=True
        )
        weight = np.zeros((len(self.weight), len(distinct), len(self.terms)))
        for of_distinct, of_member in zip(weight, self.weight):
            np.add.at(of_distinct, position.ravel(), of_member)
        weight[..., ~self.inside(present)] = 0
        order = np.argsort(distinct.sum(1), kind="stable")
        return first[order], weight[:, order]

    def inside(self, present: np.ndarray) -> np.ndarray:
        """Return which terms ``(o,)`` have only groups that are present ``(G,)``."""
        result: np.ndarray = ~(self.terms & ~present).any(1)
        return result


def latin_square(n: int, *, cyclic: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw a Latin square ``(n, n)``: every symbol once in each row and in each column.

    A cyclic square permutes only the columns of the cyclic shifts, as MaskSDM does.
    """
    square = np.add.outer(np.arange(n), np.arange(n)) % n
    # In a cyclic square the predecessors of a group are nearly the same in neighbouring rows; permuted rows
    # and symbols reduce this dependence.
    square = square[:, rng.permutation(n)]
    return square if cyclic else rng.permutation(n)[square[rng.permutation(n)]]
