"""Methods that a masked model is compared with, and published recipes.

Baselines are trained on the same sites and scored on the same subsets as a model: random forest,
boosted trees and a Maxent-like network (:func:`fit_baseline`), imputation (:func:`fit_imputed`) and
one model per subset (:func:`fit_oracle`). A recipe is a published method as settings of
:func:`geomiam.fit` (:func:`recipe`). A new baseline is a class that satisfies :class:`Method` and a
line in :data:`BASELINES`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
