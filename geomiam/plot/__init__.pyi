from .contributions import convergence, importance
from .history import training
from .maps import shapley, suitability
from .skill import missingness, subsets

__all__ = [
    "convergence",
    "importance",
    "missingness",
    "shapley",
    "subsets",
    "suitability",
    "training",
]
