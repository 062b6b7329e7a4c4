from . import sampling
from .experts import expert_load
from .explainer import fit_explainer
from .saturated import saturation
from .shapley_values import shapley
from .skill import importance

__all__ = ["expert_load", "fit_explainer", "importance", "sampling", "saturation", "shapley"]
