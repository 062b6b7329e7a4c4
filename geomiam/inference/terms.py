"""Terms of an explanation: Shapley values, main effects and interactions as weights of coalitions, numpy only.

Each term of a set K of groups is a weighted sum of discrete derivatives, with v(S) the prediction from S:

    I(K) = Σ_{T ⊆ N∖K} w(|T|) · Σ_{L ⊆ K} (−1)^(|K| − |L|) v(T ∪ L)

The index determines w. All weights of one term add up to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, factorial
from typing import Literal

import numpy as np

Index = Literal["shapley-taylor", "shapley", "mobius"]


@dataclass(frozen=True)
class Terms:
    """Sets of groups, and the coefficient of each v(S) in the term of each set.

    ``member (o, G)`` is True for the groups of a term. ``weight (2^G, o)`` follows the order of
    :func:`members`.
    """

    member: np.ndarray
    weight: np.ndarray

    @classmethod
    def of_order(cls, groups: int, order: int, *, index: Index) -> Terms:
        """Return the main effect of each group, and the interactions of 2 to ``order`` groups.

        With ``"shapley-taylor"`` these terms add up to v(N) − v(∅) for every order, with ``"shapley"`` for
        order 2, and with ``"mobius"`` for order G.
        """
        member = np.concatenate([subsets(groups, size) for size in range(1, order + 1)])
        if index != "shapley":
            size = member.sum(1)
            # Shapley-Taylor interactions below the highest order are Möbius coefficients.
            is_top = (size == order) & (index == "shapley-taylor")
            parts = [
                derivative_weights(member[at], by_size)
                for at, by_size in (
                    (~is_top, mobius(groups)),
                    (is_top, shapley_taylor(groups, order)),
                )
            ]
            return cls(member, np.concatenate(parts, 1))
        pairs = derivative_weights(subsets(groups, 2), shapley_interaction(groups, 2))
        # The Shapley value of a group is its main effect and half of its interactions, which is the main
        # effect of SHAP interaction values (Lundberg et al. 2020).
        half = pairs @ subsets(groups, 2) / 2
        return cls(member, np.concatenate([shapley_weights(groups) - half, pairs], 1))


def shapley_terms(groups: int) -> Terms:
    """Return the Shapley value of each group."""
    return Terms(np.eye(groups, dtype=bool), shapley_weights(groups))


def shapley_weights(groups: int) -> np.ndarray:
    """Return the coefficients ``(2^G, G)`` of v(S) in φ_g, in the order of :func:`members`."""
    return derivative_weights(np.eye(groups, dtype=bool), shapley_interaction(groups, 1))


def members(groups: int) -> np.ndarray:
    """Return all coalitions ``(2^G, G)``; bit i of the number of a coalition is 1 if group i is in it."""
    return (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1 == 1


def subsets(groups: int, size: int) -> np.ndarray:
    """Return all sets of so many groups ``(o, G)``, in the order of the groups."""
    positions = np.array(list(combinations(range(groups), size)), int).reshape(-1, size)
    member = np.zeros((len(positions), groups), bool)
    np.put_along_axis(member, positions, True, 1)
    return member


def derivative_weights(member: np.ndarray, by_size: np.ndarray) -> np.ndarray:
    """Return the coefficients ``(2^G, o)`` of v(S) in the terms of sets ``(o, G)``, given w(|T|) ``(G + 1,)``."""
    coalitions = members(member.shape[1]).astype(int)
    inside = coalitions @ member.T.astype(int)  # |S ∩ K|
    outside = coalitions.sum(1)[:, None] - inside  # |T|, since T = S ∖ K
    weight: np.ndarray = by_size[outside] * (-1.0) ** (member.sum(1) - inside)
    return weight


def shapley_interaction(groups: int, order: int) -> np.ndarray:
    """Return w(t) of the Shapley interaction index (Grabisch and Roubens 1999); of the Shapley value for order 1."""
    n, k = groups, order
    sizes = [factorial(t) * factorial(n - t - k) / factorial(n - k + 1) for t in range(n - k + 1)]
    return np.pad(sizes, (0, k))


def shapley_taylor(groups: int, order: int) -> np.ndarray:
    """Return w(t) of the highest order of the Shapley-Taylor index (Sundararajan et al. 2020, theorem 2)."""
    n, k = groups, order
    return np.pad([k / n / comb(n - 1, t) for t in range(n - k + 1)], (0, k))


def mobius(groups: int) -> np.ndarray:
    """Return w(t) of the Möbius transform, whose terms are Harsanyi dividends: T = ∅ alone counts."""
    return np.append(1.0, np.zeros(groups))
