from . import sampling
from .experts import expert_load
from .explainer import fit_explainer
from .response import ResponseOptions, response
from .saturated import saturation
from .shapley_values import ShapleyOptions, shapley
from .skill import ImportanceOptions, importance
from .stepwise import stepwise

__all__ = [
    "ImportanceOptions",
    "ResponseOptions",
    "ShapleyOptions",
    "expert_load",
    "fit_explainer",
    "importance",
    "response",
    "sampling",
    "saturation",
    "shapley",
    "stepwise",
]
