from .diagnostic import fusion_diagnostic
from .linear_probe import probe
from .missingness import missingness_sweep
from .out_of_fold import thresholds
from .patterns import at_random, belt, by_modality, hide, region

__all__ = [
    "at_random",
    "belt",
    "by_modality",
    "fusion_diagnostic",
    "hide",
    "missingness_sweep",
    "probe",
    "region",
    "thresholds",
]
