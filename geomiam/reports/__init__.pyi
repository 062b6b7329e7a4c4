from .evidence import ReportOptions
from .tables import odmap

__all__ = ["ReportOptions", "odmap"]
