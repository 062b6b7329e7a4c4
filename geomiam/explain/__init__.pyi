from . import sampling
from .change import change
from .contributions import limiting, shadow
from .difference import difference
from .experts import expert_load
from .explainer import fit_explainer
from .mean_value import mean_value
from .response import ResponseOptions, response
from .saturated import saturation
from .shapley_values import ShapleyOptions, shapley
from .skill import ImportanceOptions, importance
from .stepwise import stepwise
from .zones import by_zone, regions

__all__ = [
    "ImportanceOptions",
    "ResponseOptions",
    "ShapleyOptions",
    "by_zone",
    "change",
    "difference",
    "expert_load",
    "fit_explainer",
    "importance",
    "limiting",
    "mean_value",
    "regions",
    "response",
    "sampling",
    "saturation",
    "shadow",
    "shapley",
    "stepwise",
]
