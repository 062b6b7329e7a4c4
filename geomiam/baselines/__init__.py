"""Methods that a masked model is compared with: trained on the same sites, scored on the same subsets.

Random forest, boosted trees and a Maxent-like network (:func:`geomiam.fit_baseline`), imputation, one
model per subset (the oracle), and published systems. A new method is a class that satisfies
:class:`Method` and a line in :data:`BASELINES`.
"""

from geomiam.baselines.base import Baseline, Method, Training
from geomiam.baselines.registry import BASELINES, fit_baseline

__all__ = ["BASELINES", "Baseline", "Method", "Training", "fit_baseline"]
