"""From sites to a model: fit, losses, spatial splits, checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["splits"])
