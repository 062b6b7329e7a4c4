"""Explanations: Shapley values of predictions and of skill, and diagnostics of symbols and experts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
