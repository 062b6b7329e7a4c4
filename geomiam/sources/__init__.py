"""Sources of data: raster files and STAC catalogs, read onto the grid of a cube."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
