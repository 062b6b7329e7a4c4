"""geomiam: map species from whatever data each place has, and see which data the map rests on.

>>> import geomiam as gm
>>> maps = cube.miam.predict(model)  # doctest: +SKIP

Importing the package registers ``.miam`` on Datasets and DataTrees and loads neither torch nor dask.
The public names stand in ``__init__.pyi``; each is imported on first use.
"""

import logging as _logging

import lazy_loader

from geomiam import accessor as _accessor  # noqa: F401  (registers .miam)
from geomiam._version import __version__ as __version__

_logging.getLogger(__name__).addHandler(_logging.NullHandler())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
