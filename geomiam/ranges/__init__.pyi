from .areas import cell_areas, class_areas
from .change import change, shift
from .overlap import agreement, overlap
from .red_list import aoo, eoo, red_list

__all__ = [
    "agreement",
    "aoo",
    "cell_areas",
    "change",
    "class_areas",
    "eoo",
    "overlap",
    "red_list",
    "shift",
]
