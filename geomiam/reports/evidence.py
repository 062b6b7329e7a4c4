"""The material of a report: a model, its maps, sites and tables of skill, checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.errors import GridError, SelectionError
from geomiam.evaluation.projection import Projection
from geomiam.geo.crs import crs_name, crs_of
from geomiam.geo.dims import spatial_pair
from geomiam.model.model import Model
from geomiam.reports.fields import FIELDS

MOST_CELLS = 1000
"""Most rows and columns of a map that are drawn and summarised; a larger map is read at every nth cell."""
FEW = 30
"""Number of presences below which no method was good for all species (Wisz et al. 2008)."""
NEW_CELLS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "a predictor outside its training range (MESS)": ("mess", lambda values: values < 0),
    "a new combination of predictors (ExDet)": ("exdet", lambda values: values > 1),
    "outside the area of applicability (dissimilarity index)": (
        "inside",
        lambda values: values == 0,
    ),
}
"""Measures of novelty by title: the layer of :func:`geomiam.novelty`, and the condition for a new cell."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of :func:`geomiam.report`.

    Parameters
    ----------
    title : str, optional
        Title of the study; default: the title of the model's schema.
    texts : mapping of str to str
        Texts of the author for fields of ODMAP, by key, such as ``{"authors": "A. Author"}``. They replace
        the text from the model. ``gm.reports.odmap(model)`` lists the keys.
    species : int
        Most species with figures: those with the most presences.
    responses : int
        Most predictors with a response curve for each species.
    points : bool
        Whether maps show the presences of ``sites``. They reveal the places of threatened species.
    interactive : bool
        Whether the page has a map with the values of each cell under the pointer. It is the only part with a script.

    Examples
    --------
    >>> options = gm.reports.ReportOptions(title="Oaks", texts={"authors": "A. Author"}, species=1)
    >>> gm.report(model, "oaks.html", options=options).name
    'oaks.html'
    """

    title: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    species: int = 4
    responses: int = 6
    points: bool = False
    interactive: bool = True

    def __post_init__(self) -> None:
        check_count("species", self.species, minimum=1, hint="4 is the default")
        check_count("responses", self.responses, minimum=0, hint="0 leaves the curves out")
        unknown = sorted(set(self.texts) - set(FIELDS))
        if unknown:
            raise SelectionError(
                f"texts={unknown[:3]} are no fields of ODMAP; use the keys of gm.reports.odmap(model): "
                f"{', '.join(list(FIELDS)[:5])}, …"
            )


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a report is written from; maps are in memory and thinned to at most ``MOST_CELLS`` rows and columns."""

    model: Model
    tables: Mapping[str, xr.Dataset]
    """Tables of skill by title."""
    maps: xr.Dataset | None
    sites: xr.Dataset | None
    explanation: xr.Dataset | None
    options: ReportOptions
    map_extent: str = ""
    """First and last centres of the cells of the map."""
    step: int = 1
    """Every how many cells of the map are read."""
    grid: str = ""
    """Cell size and number of rows and columns of the map."""
    projection: Projection | None = None
    scenarios: Mapping[str, xr.Dataset] = field(default_factory=dict)
    """Maps of the projection by scenario, thinned like ``maps``."""
    changes: Mapping[str, xr.Dataset] = field(default_factory=dict)
    """Range changes by title, whose cells are thinned like ``maps``."""

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        options: ReportOptions,
        table: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
        maps: xr.Dataset | None = None,
        sites: xr.Dataset | None = None,
        explanation: xr.Dataset | None = None,
        projection: Projection | None = None,
        changes: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    ) -> Evidence:
        """Check and read the material."""
        model.species_index(None)
        if explanation is None and maps is not None and "shapley" in maps:
            explanation = maps
        of_map: dict[str, Any] = {}
        if maps is not None:
            _check_maps(model, maps, "suitability", call="gm.predict(cube, model)")
            of_map = {"map_extent": map_extent(maps), "step": _step(maps), "grid": grid_text(maps)}
        if explanation is not None:
            _check_maps(model, explanation, "shapley", call="gm.shapley(cube, model)")
        return cls(
            model,
            _tables(table),
            None if maps is None else _thinned(maps),
            sites,
            None if explanation is None else _thinned(explanation),
            options,
            projection=projection,
            scenarios=_scenarios(model, projection),
            changes=_range_changes(changes),
            **of_map,
        )

    @property
    def about(self) -> Mapping[str, Any]:
        """Provenance of the model."""
        return self.model.about

    @property
    def title(self) -> str:
        """Title of the report."""
        schema = self.model.schema
        return self.options.title or self.options.texts.get("title") or schema.title or schema.name

    @property
    def presences(self) -> dict[str, int]:
        """Number of training presences by species, as far as they are recorded."""
        counts = self.entry("presences")
        return {
            s: int(counts[s]) for s in self.model.species if isinstance(counts.get(s), (int, float))
        }

    @property
    def figure_species(self) -> list[str]:
        """Species with figures: those with the most presences, in the order of the model."""
        counts = self.presences
        names = sorted(self.model.species, key=lambda s: -counts.get(s, 0))
        largest = set(names[: self.options.species])
        return [s for s in self.model.species if s in largest]

    def species_of(self, data: xr.Dataset) -> list[str]:
        """Return the species with figures that maps or Shapley values have."""
        available = set(map(str, np.atleast_1d(data["species"].values)))
        return [s for s in self.figure_species if s in available]

    @property
    def rare_species(self) -> list[str]:
        """Species with fewer than ``FEW`` presences in training."""
        return [s for s, count in self.presences.items() if count < FEW]

    @property
    def background(self) -> bool:
        """Whether zeros of the training are background."""
        reason = str(self.entry("loss").get("reason", ""))
        return "background" in self.about or "background" in reason

    @property
    def held_out(self) -> bool:
        """Whether the validation scores of the training are from sites that did not train."""
        return bool(self.entry("validation") or self.entry("sites").get("validation"))

    def entry(self, name: str) -> Mapping[str, Any]:
        """Return an entry of the provenance that is a mapping; empty if there is none."""
        value = self.about.get(name)
        return value if isinstance(value, Mapping) else {}

    def rows(self, name: str) -> list[Mapping[str, Any]]:
        """Return an entry of the provenance that is a list of mappings; empty if there is none."""
        return mappings(self.about.get(name))

    def origin(self) -> Mapping[str, Any]:
        """Return the origin of the records; empty if it is not recorded."""
        value = self.entry("records").get("origin")
        return value if isinstance(value, Mapping) else {}

    def outside(self) -> tuple[float, float] | None:
        """Return the mean share of predictors outside the training range, and the share of cells with one in five."""
        if self.maps is None or "outside_range" not in self.maps:
            return None
        values = self.maps["outside_range"].values
        values = values[np.isfinite(values)]
        return (float(values.mean()), float((values > 0.2).mean())) if values.size else None

    def novelty(self) -> dict[str, float]:
        """Return the share of the compared cells that are new, by measure; empty for a map without these layers."""
        shares = {}
        for title, (layer, is_new) in NEW_CELLS.items():
            if self.maps is not None and layer in self.maps:
                values = self.maps[layer].values
                values = values[np.isfinite(values)]
                if values.size:
                    shares[title] = float(is_new(values).mean())
        return shares

    def observed(self) -> dict[str, float]:
        """Return the share of predicted cells with data, by group."""
        if self.maps is None or "observed" not in self.maps:
            return {}
        bits = self.maps["observed"].values.astype(np.int64)
        bits = bits[bits > 0]
        names = list(self.model.schema.groups)
        if not bits.size:
            return {}
        return {name: float(((bits >> i) & 1).mean()) for i, name in enumerate(names)}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings in a list; empty for any other value."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def number(entry: Mapping[str, Any], key: str) -> str:
    """Return a number of the provenance as text; empty if it is 0, absent or no number."""
    value = entry.get(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (
        f"{value:,g}" if isinstance(value, float) else f"{value:,}" if value and is_number else ""
    )


def coordinate(value: float) -> str:
    """Return a coordinate as text, to about a metre."""
    return f"{value:,.0f}" if abs(value) > 1000 else f"{value:.6g}"


def map_extent(maps: xr.Dataset) -> str:
    """Return the first and last centres of the cells of a map."""
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    ends = [(d, coordinate(float(maps[d].min())), coordinate(float(maps[d].max()))) for d in (x, y)]
    return ", ".join(f"{dim} {low} to {high}" for dim, low, high in ends)


def _tables(table: xr.Dataset | Mapping[str, xr.Dataset] | None) -> dict[str, xr.Dataset]:
    """Return tables of skill by title, checked."""
    if isinstance(table, xr.Dataset):
        table = {"Cross-validation" if "fold" in table else "Evaluation": table}
    tables = dict(table or {})
    for title, scores in tables.items():
        if "subset" not in scores.dims:
            raise SelectionError(
                f"the table '{title}' has no dim 'subset'; pass that of gm.evaluate or gm.cross_validate"
            )
    return tables


def _scenarios(model: Model, projection: Projection | None) -> dict[str, xr.Dataset]:
    """Return the maps of a projection by scenario, checked and thinned."""
    if projection is None:
        return {}
    maps_by_scenario = {name: projection[name] for name in projection.table.index}
    for maps in maps_by_scenario.values():
        _check_maps(model, maps, "suitability", call="gm.project(model, scenarios)")
    return {name: _thinned(maps) for name, maps in maps_by_scenario.items()}


def _range_changes(
    changes: xr.Dataset | Mapping[str, xr.Dataset] | None,
) -> dict[str, xr.Dataset]:
    """Return range changes by title, checked and thinned."""
    changes = {"Range change": changes} if isinstance(changes, xr.Dataset) else changes or {}
    for title, change in changes.items():
        if not {"change", "area", "area_before"} <= set(change.data_vars):
            raise SelectionError(
                f"changes '{title}' has no variables 'change' and 'area', found "
                f"{[str(v) for v in change.data_vars][:6]}; pass gm.ranges.change(before, after)"
            )
    return {title: _thinned(change) for title, change in changes.items()}


def _check_maps(model: Model, maps: xr.Dataset, name: str, *, call: str) -> None:
    if name not in maps or spatial_pair(maps[name].dims) is None:
        raise SelectionError(
            f"the map has no variable '{name}' with rows and columns, found "
            f"{[str(v) for v in maps.data_vars][:6]}; pass {call}"
        )
    other_model = maps.attrs.get("model_id")
    if other_model is not None and other_model != model.id:
        raise SelectionError(
            f"the map is of the model {str(other_model)[:12]}, and this is the model {model.id[:12]}; pass {call}"
        )


def _step(maps: xr.Dataset) -> int:
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    return -(-max(maps.sizes[y], maps.sizes[x]) // MOST_CELLS)


def _thinned(maps: xr.Dataset) -> xr.Dataset:
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    step = slice(None, None, _step(maps))
    return maps.isel({y: step, x: step}).load()


def grid_text(maps: xr.Dataset) -> str:
    """Return cell size, CRS, and number of rows and columns of a map."""
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    if min(maps.sizes[y], maps.sizes[x]) < 2:
        return f"{maps.sizes[y]:,} × {maps.sizes[x]:,} cells"
    side = abs(float(maps[x][1] - maps[x][0]))
    try:
        crs = crs_of(maps)
        unit = "degrees" if crs.geographic else crs.units[0].replace("metre", "m")
        unit = f"{unit} ({crs_name(crs)})"
    except GridError:
        unit = "units of the coordinates"
    return f"{coordinate(side)} {unit}; {maps.sizes[y]:,} × {maps.sizes[x]:,} cells"
