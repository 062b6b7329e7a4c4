from .classes import presence
from .contributions import convergence, importance, stepwise
from .correlation_matrix import correlations
from .curves import calibration, roc
from .folds import folds
from .history import training
from .maps import shapley, suitability
from .range_maps import range_change
from .records import records
from .responses import response
from .skill import missingness, subsets

__all__ = [
    "calibration",
    "convergence",
    "correlations",
    "folds",
    "importance",
    "missingness",
    "presence",
    "range_change",
    "records",
    "response",
    "roc",
    "shapley",
    "stepwise",
    "subsets",
    "suitability",
    "training",
]
