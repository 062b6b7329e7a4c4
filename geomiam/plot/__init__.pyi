from .contributions import convergence, importance, stepwise
from .correlation_matrix import correlations
from .folds import folds
from .history import training
from .maps import shapley, suitability
from .range_maps import range_change
from .records import records
from .responses import response
from .skill import missingness, subsets

__all__ = [
    "convergence",
    "correlations",
    "folds",
    "importance",
    "missingness",
    "range_change",
    "records",
    "response",
    "shapley",
    "stepwise",
    "subsets",
    "suitability",
    "training",
]
