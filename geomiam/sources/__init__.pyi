from .build import BuildOptions
from .build_report import CubePlan, summary
from .scenes.eopf import eopf_items
from .scenes.sentinel2 import SceneOptions

__all__ = [
    "BuildOptions",
    "CubePlan",
    "SceneOptions",
    "eopf_items",
    "summary",
]
