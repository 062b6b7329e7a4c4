from .base import Baseline, Method, Training
from .imputation import Imputed, fit_imputed
from .oracle import Oracle, fit_oracle, gap
from .recipes import RECIPES, Recipe, recipe
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
