"""The area of background points, as the user sets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomiam.checks.settings import check_number
from geomiam.data.records.files import PARQUET, VECTOR, read_table
from geomiam.errors import InputNotFound, SettingError
from geomiam.geo.lengths import Length, as_text, kilometres
from geomiam.outputs.paths import expand

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


@dataclass(frozen=True, eq=False)
class BackgroundArea:
    """Where background points of :func:`geomiam.add_background` may lie; all restrictions hold together.

    Distances are geodesic, from the centre of a cell to the site of a presence. The presences of all
    species count together, because their background is shared; with ``kind="target-group"``, whose zeros
    differ between species, those of each species alone.

    Parameters
    ----------
    within
        Largest distance from the nearest presence: km, or text such as ``"200 km"``. A buffer around the
        records is the usual calibration area.
    beyond
        Least distance from the nearest presence, as ``within``.
    hull
        The convex hull of the presences, enlarged by this length, as ``within``; 0 for the hull itself. It is
        convex in the Lambert azimuthal equal-area projection that is centred on the presences.
    polygon
        A calibration area: a GeoDataFrame, or the path of a vector file, in any CRS; or a shapely polygon
        in the CRS of the cube.
    outside_envelope
        Continuous variables. A place is allowed where at least one of them is below the quantile
        ``quantile`` or above the quantile ``1 - quantile`` of its values at the presences. These are the
        places outside the surface range envelope (Bioclim). Missing values count as inside. A variable with
        other dims has one range for each step.
    quantile
        See ``outside_envelope``: at least 0, where the range is that from minimum to maximum, and below 0.5.

    Raises
    ------
    LengthError
        If a length is not valid.
    SettingError
        If ``beyond`` is not less than ``within``, or ``quantile`` is not valid.

    See Also
    --------
    geomiam.add_background : draw the points.

    References
    ----------
    The envelope is that of ``bm_SRE`` of biomod2, whose ``sre.quant`` is ``quantile``. The disk of biomod2 is
    ``beyond`` with ``within``, and ``geo_env_const`` of flexsdm is ``beyond`` with ``outside_envelope``
    (Velazco et al. 2022, Methods in Ecology and Evolution 13, 1661-1669).

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.BackgroundArea(beyond="20 km", within="300 km").texts()["beyond"]
    'at least 20 km from the presences'
    """

    within: Length | None = None
    beyond: Length | None = None
    hull: Length | None = None
    polygon: GeoDataFrame | str | Path | Any = None
    outside_envelope: str | Sequence[str] = ()
    quantile: float = 0.0

    def __post_init__(self) -> None:
        """Check lengths and quantile."""
        near, far = self.km("beyond"), self.km("within")
        self.km("hull")
        if near is not None and far is not None and near >= far:
            raise SettingError(
                f"beyond='{as_text(near)}' must be less than within='{as_text(far)}'; no place is both"
            )
        check_number(
            "quantile",
            self.quantile,
            requirement="must be at least 0 and below 0.5",
            accepts=lambda q: 0 <= q < 0.5,
            hint="0.05 leaves out the lowest and highest 5 % of the presences",
        )
        if self.quantile and not self.variables:
            raise SettingError(
                f"quantile={self.quantile} has no effect without variables; pass outside_envelope= as well"
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the envelope."""
        names = self.outside_envelope
        return (names,) if isinstance(names, str) else tuple(names)

    def km(self, name: str) -> float | None:
        """Return one of the lengths in km."""
        value = getattr(self, name)
        return None if value is None else kilometres(value, name, zero=name == "hull")

    @property
    def around_presences(self) -> bool:
        """Whether a restriction depends on the presences."""
        return bool(set(self.texts()) - {"polygon"})

    def opened(self) -> BackgroundArea:
        """Return the area with the polygons of its file."""
        is_path = isinstance(self.polygon, (str, Path))
        return replace(self, polygon=read_polygons(self.polygon)) if is_path else self

    def texts(self) -> dict[str, str]:
        """Return the restrictions that are set, in words."""
        within, beyond, hull = (self.km(n) for n in ("within", "beyond", "hull"))
        texts = {}
        if self.variables:
            limits = f"quantiles {self.quantile:g} to {1 - self.quantile:g}"
            limits = limits if self.quantile else "minimum to maximum"
            names = ", ".join(self.variables)
            texts["outside_envelope"] = (
                f"outside the envelope of the presences ({limits}) in {names}"
            )
        if self.polygon is not None:
            is_path = isinstance(self.polygon, (str, Path))
            texts["polygon"] = f"in a polygon{f' ({Path(self.polygon).name})' if is_path else ''}"
        if hull is not None:
            margin = f" enlarged by {as_text(hull)}" if hull else ""
            texts["hull"] = f"in the convex hull of the presences{margin}"
        if within is not None:
            texts["within"] = f"within {as_text(within)} of the presences"
        if beyond is not None:
            texts["beyond"] = f"at least {as_text(beyond)} from the presences"
        return texts


def read_polygons(path: str | Path) -> Any:
    """Return the table of a vector file."""
    if not str(path).lower().endswith((*VECTOR, *PARQUET)):
        raise SettingError(
            f"polygon='{path}' is not a vector file; pass one of {', '.join(VECTOR)}, or a GeoDataFrame"
        )
    if not Path(expand(path)).exists():
        raise InputNotFound(f"there is no file of polygons at {path}; check the path")
    return read_table(path)
