from .corruption import corrupt
from .diagnostic import fusion_diagnostic
from .intervals import confidence
from .linear_probe import probe
from .missingness import missingness_sweep
from .observed_species import community
from .out_of_fold import thresholds
from .patterns import at_random, belt, by_modality, hide, region
from .random_presences import null_model
from .set_coverage import set_coverage
from .tidy_scores import tidy
from .tune import SPACE, Tuning

__all__ = [
    "SPACE",
    "Tuning",
    "at_random",
    "belt",
    "by_modality",
    "community",
    "confidence",
    "corrupt",
    "fusion_diagnostic",
    "hide",
    "missingness_sweep",
    "null_model",
    "probe",
    "region",
    "set_coverage",
    "thresholds",
    "tidy",
]
