"""How good is a model, from each subset of its predictors?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["readers"])
