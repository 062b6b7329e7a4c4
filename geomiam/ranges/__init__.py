"""Ranges of species on maps: areas in km², range change, centroid shift, niche overlap, AOO and EOO."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
