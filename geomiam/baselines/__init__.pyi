from .base import Baseline, Method, Training
from .imputation import Imputed, fit_imputed
from .oracle import Oracle, fit_oracle, gap
from .published import RECIPES, recipe
from .recipes import Recipe
from .registry import BASELINES, fit_baseline

__all__ = [
    "BASELINES",
    "RECIPES",
    "Baseline",
    "Imputed",
    "Method",
    "Oracle",
    "Recipe",
    "Training",
    "fit_baseline",
    "fit_imputed",
    "fit_oracle",
    "gap",
    "recipe",
]
