"""Explanations: exact Shapley values as maps, and Shapley values of the skill of a model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
