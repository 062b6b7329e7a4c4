"""Figures from outputs: every function takes ``ax=`` and returns it."""

from geomiam.plot.figures import (
    convergence,
    importance,
    missingness,
    shapley,
    subsets,
    suitability,
    training,
)

__all__ = [
    "convergence",
    "importance",
    "missingness",
    "shapley",
    "subsets",
    "suitability",
    "training",
]
