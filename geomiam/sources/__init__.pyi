from .build import BuildOptions
from .build_report import CubePlan, summary
from .sentinel2.eopf import eopf_items
from .sentinel2.sentinel2 import SceneOptions

__all__ = [
    "BuildOptions",
    "CubePlan",
    "SceneOptions",
    "eopf_items",
    "summary",
]
