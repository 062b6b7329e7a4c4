"""Skill of predictions: one value per species, for one species or thousands at once.

Labels are 1 = present, 0 = absent, NaN = not surveyed. Labels and scores are DataArrays with the dims
``site`` and ``species``, matched by name, or arrays ``(n, S)``, or arrays ``(n,)`` of one species.
Every metric leaves out the sites whose label or score is NaN, species by species. A species without
presences or without absences gets NaN.

Examples
--------
>>> import geomiam as gm
>>> float(gm.metrics.auc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]))
0.75
"""

from geomiam.metrics.boyce import boyce
from geomiam.metrics.calibration_curve import CalibrationCurve, calibration_curve
from geomiam.metrics.confusion import (
    f1,
    jaccard,
    kappa,
    omission,
    sensitivity,
    sorensen,
    specificity,
    tss,
)
from geomiam.metrics.probabilities import (
    Calibration,
    brier,
    calibration,
    calibration_slope,
    cor,
    log_loss,
)
from geomiam.metrics.ranking import auc, auc_prg, average_precision, best_threshold
from geomiam.metrics.registry import METRICS, Summary, mean_auc, measure, summary
from geomiam.metrics.thresholds import threshold
from geomiam.metrics.within_folds import auc_within_folds

__all__ = [
    "METRICS",
    "Calibration",
    "CalibrationCurve",
    "Summary",
    "auc",
    "auc_prg",
    "auc_within_folds",
    "average_precision",
    "best_threshold",
    "boyce",
    "brier",
    "calibration",
    "calibration_curve",
    "calibration_slope",
    "cor",
    "f1",
    "jaccard",
    "kappa",
    "log_loss",
    "mean_auc",
    "measure",
    "omission",
    "sensitivity",
    "sorensen",
    "specificity",
    "summary",
    "threshold",
    "tss",
]
