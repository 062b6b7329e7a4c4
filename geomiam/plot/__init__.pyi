from .bivariate_map import bivariate
from .classes import prediction_sets, presence
from .contributions import convergence, importance, stepwise
from .correlation_matrix import correlations
from .curves import calibration, roc
from .dependence_plot import dependence
from .explanations import interactions, limiting, shadow
from .folds import folds
from .history import training
from .interactive_map import InteractiveMap, interactive
from .maps import shapley, species_maps, suitability
from .novelty_map import novelty
from .range_maps import range_change
from .records import records
from .responses import response
from .skill import missingness, subsets
from .value_map import value_of_information
from .zones import regions, zones

__all__ = [
    "InteractiveMap",
    "bivariate",
    "calibration",
    "convergence",
    "correlations",
    "dependence",
    "folds",
    "importance",
    "interactions",
    "interactive",
    "limiting",
    "missingness",
    "novelty",
    "prediction_sets",
    "presence",
    "range_change",
    "records",
    "regions",
    "response",
    "roc",
    "shadow",
    "shapley",
    "species_maps",
    "stepwise",
    "subsets",
    "suitability",
    "training",
    "value_of_information",
    "zones",
]
