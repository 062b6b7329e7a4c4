from .build import BuildOptions
from .build_report import CubePlan, summary
from .sentinel2.sentinel2 import SceneOptions, plan_sentinel2, read_sentinel2
from .stac.stac_source import StacSource

__all__ = [
    "BuildOptions",
    "CubePlan",
    "SceneOptions",
    "StacSource",
    "plan_sentinel2",
    "read_sentinel2",
    "summary",
]
