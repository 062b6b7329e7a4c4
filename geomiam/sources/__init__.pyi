from .build import BuildOptions
from .build_report import CubePlan, summary
from .scenes.eopf import eopf_items
from .scenes.landsat import landsat, plan_landsat
from .scenes.options import SceneOptions
from .scenes.sentinel1 import plan_sentinel1, sentinel1

__all__ = [
    "BuildOptions",
    "CubePlan",
    "SceneOptions",
    "eopf_items",
    "landsat",
    "plan_landsat",
    "plan_sentinel1",
    "sentinel1",
    "summary",
]
