"""Limits of the tests of occurrence records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from geomiam.checks.settings import check_count, check_number
from geomiam.errors import SettingError
from geomiam.geo.lengths import Length, kilometres

OUTLIERS = ("quantile", "mad", "distance")
LENGTHS = ("zero", "headquarters", "centroids", "capitals", "institutions", "outlier_distance")


@dataclass(frozen=True)
class CleaningRules:
    """Limits of the tests of :func:`geomiam.clean_records`.

    The defaults are those of CoordinateCleaner (Zizka et al. 2019, doi:10.1111/2041-210X.13152), except for
    outliers, which are not tested by default: a record at the edge of a range has the most information
    on the limits of a species.

    Parameters
    ----------
    zero
        Distance from longitude 0 and latitude 0, km.
    headquarters
        Distance from the secretariat of GBIF in Copenhagen, km.
    centroids, capitals, institutions
        Distances from the places in ``references``, km.
    habitat
        ``"land"`` flags records in the sea; ``"sea"`` flags records on land.
    tolerance
        Distance by which records may lie beyond the coast or the border of their country, km.
    uncertainty
        Largest ``coordinateUncertaintyInMeters``, km; None for no limit. The size of the cells of the cube is a
        suitable limit.
    first_year
        First year; earlier records are flagged. None for no limit.
    require_date
        Whether records without a date are flagged.
    basis
        Values of ``basisOfRecord`` that are flagged.
    duplicates
        Columns in addition to species, coordinates and presence in which duplicates agree, such as
        ``("year",)``.
    outliers
        Test of spatial outliers of each species: ``"quantile"``: the mean distance to all other places
        exceeds the upper quartile by more than ``outlier_factor`` interquartile ranges; ``"mad"``: it
        exceeds the median by more than ``outlier_factor`` median absolute deviations (times 1.4826);
        ``"distance"``: the nearest other place is farther than ``outlier_distance``. None for no test.
    outlier_factor, outlier_distance
        See ``outliers``; the distance in km.
    outlier_places
        Smallest number of places of a species for tests of outliers.
    environment_factor
        A record is an environmental outlier if a continuous variable of the cube lies outside the quartiles of its
        species by more than this number of interquartile ranges. None for no test.

    Raises
    ------
    SettingError
        If a limit is not valid.
    LengthError
        If a length is not valid.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.CleaningRules(uncertainty="5 km", first_year=1990).first_year
    1990
    """

    zero: Length = "55 km"
    headquarters: Length = "1 km"
    centroids: Length = "1 km"
    capitals: Length = "10 km"
    institutions: Length = "100 m"
    habitat: Literal["land", "sea"] = "land"
    tolerance: Length = 0
    uncertainty: Length | None = "100 km"
    first_year: int | None = None
    require_date: bool = False
    basis: tuple[str, ...] = ("FOSSIL_SPECIMEN", "LIVING_SPECIMEN")
    duplicates: tuple[str, ...] = ()
    outliers: Literal["quantile", "mad", "distance"] | None = None
    outlier_factor: float = 5.0
    outlier_distance: Length = "1000 km"
    outlier_places: int = 7
    environment_factor: float | None = None

    def __post_init__(self) -> None:
        """Check all limits."""
        for name in LENGTHS:
            kilometres(getattr(self, name), name)
        kilometres(self.tolerance, "tolerance", zero=True)
        if self.uncertainty is not None:
            kilometres(self.uncertainty, "uncertainty")
        if self.habitat not in ("land", "sea"):
            raise SettingError(f"habitat={self.habitat!r} is not supported; use 'land' or 'sea'")
        if self.outliers is not None and self.outliers not in OUTLIERS:
            raise SettingError(
                f"outliers={self.outliers!r} is not supported; use one of {', '.join(OUTLIERS)}, or None"
            )
        check_count("outlier_places", self.outlier_places, minimum=3, hint="7 is the default")
        for name in ("outlier_factor", "environment_factor"):
            if (value := getattr(self, name)) is not None:
                check_number(
                    name,
                    value,
                    requirement="must be > 0",
                    accepts=lambda v: v > 0,
                    hint="5 is usual",
                )
        for name in ("basis", "duplicates"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise SettingError(
                    f"{name}={value!r} is text; pass a tuple, such as {name}=({value!r},)"
                )

    def km(self, name: str) -> float:
        """Return one of the lengths in km."""
        return kilometres(getattr(self, name), name, zero=name == "tolerance")

    def as_dict(self) -> dict[str, Any]:
        """Return all limits in plain types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
