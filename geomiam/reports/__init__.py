"""Reports on a model: one HTML file, and the tables of the ODMAP protocol."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
