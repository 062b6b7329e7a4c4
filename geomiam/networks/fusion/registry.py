"""Every fusion by its name: the one place where a fusion is added, a line each."""

from __future__ import annotations

from geomiam.networks.extras.cross import CrossFusion
from geomiam.networks.fusion.group import GroupFusion
from geomiam.networks.fusion.late import LateFusion
from geomiam.networks.fusion.protocol import Fusion
from geomiam.networks.fusion.sum import LinearFusion, QuadraticFusion, SumFusion
from geomiam.networks.fusion.token import TokenFusion

FUSIONS: dict[str, type[Fusion]] = {
    "group": GroupFusion,
    "sum": SumFusion,
    "linear": LinearFusion,
    "quadratic": QuadraticFusion,
    "token": TokenFusion,
    "cross": CrossFusion,
    "late": LateFusion,
}
"""Name in ``NetworkConfig(fusion=...)`` → class; :class:`Fusion` describes what it must define."""
