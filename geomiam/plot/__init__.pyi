from .contributions import convergence, importance
from .history import training
from .maps import shapley, suitability
from .records import records
from .skill import missingness, subsets

__all__ = [
    "convergence",
    "importance",
    "missingness",
    "records",
    "shapley",
    "subsets",
    "suitability",
    "training",
]
