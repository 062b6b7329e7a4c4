"""The sections of a report; a section without material is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from geomiam import plot
from geomiam.errors import GridError
from geomiam.evaluation.classify import classify
from geomiam.explain.response import ResponseOptions, response
from geomiam.metrics.thresholds import ThresholdKind
from geomiam.model.overview import overview
from geomiam.plot.canvas import plain
from geomiam.ranges import class_areas
from geomiam.reports import page
from geomiam.reports.contributions import contributions
from geomiam.reports.evidence import Evidence
from geomiam.reports.page import Section
from geomiam.reports.texts import (
    SHOWN,
    citations,
    extent,
    limits,
    projection_notes,
    records_source,
    source_of,
)
from geomiam.reports.uncertainty import novelty, uncertainty, value
from geomiam.reports.values_map import values_map
from geomiam.splits import site_coordinates


def all_sections(evidence: Evidence, fields: pd.DataFrame) -> list[Section]:
    """Return the sections in their order on the page."""
    sections = [
        summary(evidence, fields),
        maps(evidence),
        values_map(evidence),
        skill(evidence),
        thresholds(evidence),
        uncertainty(evidence),
        novelty(evidence),
        value(evidence),
        responses(evidence),
        contributions(evidence),
        scenarios(evidence),
        limitations(evidence),
        sources(evidence),
        protocol(fields),
        cite(evidence),
    ]
    return [s for s in sections if s.parts]


def summary(evidence: Evidence, fields: pd.DataFrame) -> Section:
    """Return the properties of the model."""
    rows = [(name, text, True) for name, text in overview(evidence.model).items()]
    rows.append(("model id", evidence.model.id, True))
    if area := extent(evidence):
        rows.append(("extent", area, True))
    if evidence.grid:
        rows.append(("map", evidence.grid, True))
    complete = f"{int(fields['complete'].sum())} of {len(fields)} fields are filled"
    rows.append(("ODMAP protocol", complete, True))
    return Section("summary", "Summary", [page.field_table(rows)])


def maps(evidence: Evidence) -> Section:
    """Return a map of suitability for each species with figures."""
    section = Section("maps", "Maps")
    if evidence.maps is None:
        return section
    pictures = []
    for name in evidence.species_of(evidence.maps):
        points = _points(evidence, name)
        ax = plot.suitability(evidence.maps, species=name, points=points)
        pictures.append(page.picture(ax.figure, f"{name}: {_quantity(evidence)}"))
    if not pictures:
        return section
    section.parts.append(page.grid(pictures) if len(pictures) > 1 else pictures[0])
    hidden = len(evidence.model.species) - len(pictures)
    if hidden:
        section.parts.append(
            page.paragraph(f"The model has {hidden:,} further species.", note=True)
        )
    if evidence.step > 1:
        text = f"Figures and shares of this report read one row and column in {evidence.step} of the map."
        section.parts.append(page.paragraph(text, note=True))
    return section


def _quantity(evidence: Evidence) -> str:
    quantity = evidence.model.quantity
    return quantity.name if quantity else "suitability"


def _points(evidence: Evidence, species: str) -> np.ndarray | None:
    sites = evidence.sites
    if not evidence.options.points or sites is None or "presence" not in sites:
        return None
    if species not in sites["species"].values:
        return None
    try:
        places = site_coordinates(sites)
    except GridError:
        return None
    points: np.ndarray = places[sites["presence"].sel(species=species).values == 1]
    return points


def skill(evidence: Evidence) -> Section:
    """Return scores by subset of the predictors, and by species."""
    section = Section("skill", "Skill")
    for title, table in evidence.tables.items():
        section.parts += _scores(title, table)
    scores = evidence.entry("validation_auc")
    rows = [(k, f"{float(v):.3f}") for k, v in scores.items() if isinstance(v, (int, float))]
    if rows:
        section.parts += [
            page.heading(
                "Validation during the training" if evidence.held_out else "Training sites"
            ),
            page.number_table(["predictors", "mean AUC"], rows),
            page.paragraph(
                "On spatial blocks that did not train."
                if evidence.held_out
                else "No site was held out: these scores are too high for new places.",
                note=True,
            ),
        ]
    return section


def _scores(title: str, table: xr.Dataset) -> list[str]:
    metrics = [str(k).removeprefix("mean_") for k in table if str(k).startswith("mean_")]
    metrics = [m for m in metrics if table[f"mean_{m}"].dims == ("subset",)]
    parts = [page.heading(title)]
    if "block_km" in table.attrs:
        attrs = table.attrs
        text = f"{attrs.get('block_count')} spatial blocks of {float(attrs['block_km']):g} km: {attrs.get('block_reason')}"
        parts.append(page.paragraph(text, note=True))
    names = table["subset"].values
    rows = [
        (name, *(page.decimals(table[f"mean_{m}"].values[i]) for m in metrics))
        for i, name in enumerate(names)
    ]
    parts.append(page.number_table(["mean over species", *metrics], rows))
    if metrics and "shows" in table and len(names) <= SHOWN:
        figure = plot.subsets(table, metric=metrics[0])[0].figure
        parts.append(page.picture(figure, f"{title}: {metrics[0]} from each subset of predictors"))
    by_species = [m for m in metrics if m in table and "species" in table[m].dims]
    if by_species:
        last = table.isel(subset=-1)
        values = [
            (s, *(page.decimals(last[m].sel(species=s)) for m in by_species)) for s in _named(last)
        ]
        parts.append(page.number_table([f"species, from {names[-1]}", *by_species], values))
        hidden = last.sizes["species"] - len(values)
        if hidden:
            parts.append(page.paragraph(f"The table has {hidden:,} further species.", note=True))
    return parts


def _named(table: xr.Dataset) -> list[str]:
    return list(map(str, table["species"].values[:SHOWN]))


MAPPED_KIND: ThresholdKind = "max-tss"
"""Kind of threshold of the maps of presence, the default of :func:`geomiam.classify`."""


def thresholds(evidence: Evidence) -> Section:
    """Return the thresholds that are stored with the model, and the presence that follows from them."""
    section = Section("thresholds", "Presence and absence")
    by_kind = evidence.model.thresholds
    kinds = [str(k) for k in by_kind["kind"].values]
    if not kinds:
        return section
    rows = [
        (name, *map(page.decimals, by_kind.sel(species=name).values))
        for name in evidence.figure_species
    ]
    source = f"Thresholds were chosen on {by_kind.attrs.get('source')}, from all predictors."
    section.parts += [
        page.number_table(["threshold of suitability", *kinds], rows),
        page.paragraph(source, note=True),
    ]
    return section if MAPPED_KIND not in kinds else _with_presence(section, evidence)


def _with_presence(section: Section, evidence: Evidence) -> Section:
    """Add a map of presence and its area for each species with figures; none for log-odds."""
    maps = evidence.maps
    if maps is None or maps["suitability"].attrs.get("scale") == "logit":
        return section
    species = evidence.species_of(maps)
    if not species or "species" not in maps.dims:
        return section
    presence_maps = classify(maps.sel(species=species), evidence.model, kind=MAPPED_KIND)
    try:
        areas = class_areas(presence_maps).sel({"class": "present"})
    except GridError:  # no CRS: cells have no area
        areas = None
    if areas is not None:
        rows = [(s, f"{float(areas.sel(species=s)):,.0f}") for s in species]
        section.parts.append(page.number_table([f"present ({MAPPED_KIND})", "area in km²"], rows))
    pictures = [
        page.picture(plot.presence(presence_maps, species=s).figure, f"{s}: presence and absence")
        for s in species
    ]
    section.parts.append(page.grid(pictures) if len(pictures) > 1 else pictures[0])
    return section


def responses(evidence: Evidence) -> Section:
    """Return response curves of predictors with one value per place."""
    section = Section("responses", "Response curves")
    variables = [n for n, v in evidence.model.schema.variables.items() if not v.dims]
    variables = variables[: evidence.options.responses]
    if evidence.sites is None or not variables:
        return section
    species = evidence.figure_species
    options = ResponseOptions(sites=200, rng=0)
    curves = {
        name: response(evidence.model, evidence.sites, name, species=species, options=options)
        for name in variables
    }
    for species_name in species:
        section.parts.append(page.heading(species_name))
        pictures = []
        for name, curve in curves.items():
            figure = plot.response(curve, species=species_name).figure
            pictures.append(page.picture(figure, f"{species_name}: response to {name}"))
        section.parts.append(page.grid(pictures))
    section.parts.append(
        page.paragraph(
            "Partial dependence: the mean prediction over sites when the predictor has the value on the axis. The band "
            "is one standard deviation of the ensemble members; grey parts are outside the training range.",
            note=True,
        )
    )
    return section


def scenarios(evidence: Evidence) -> Section:
    """Return maps of other times and places, the skill there, and range change."""
    section = Section("scenarios", "Other times and places")
    if evidence.projection is not None:
        table = evidence.projection.table
        head = ["scenario", "skill", "with all", "loss", "outside"]
        columns = table[["skill", "skill_all", "skill_loss", "outside_range"]]
        rows = [
            (name, *map(page.decimals, scores), _percent(outside))
            for name, *scores, outside in columns.itertuples()
        ]
        section.parts += [page.number_table(head, rows), page.bullets(projection_notes(evidence))]
        section.parts += _scenario_maps(evidence)
    if evidence.changes:
        section.parts += _range_changes(evidence)
    return section


def _scenario_maps(evidence: Evidence) -> list[str]:
    """Return a map for each species with figures and scenario."""
    parts = []
    for species in evidence.figure_species:
        pictures = []
        for name, maps in evidence.scenarios.items():
            if species in np.atleast_1d(maps["species"].values):
                ax = plot.suitability(maps, species=species)
                ax.set_title(plain(f"{species}, {name}"))
                pictures.append(page.picture(ax.figure, f"{species}, {name}"))
        if pictures:
            parts += [page.heading(species), page.grid(pictures)]
    return parts


def _range_changes(evidence: Evidence) -> list[str]:
    """Return the areas of each change by species, and a map for each species with figures."""
    parts = []
    head = ["species", "before", "after", "gain", "loss", "stable", "change", "shift"]
    for title, change in evidence.changes.items():
        names = list(map(str, np.atleast_1d(change["species"].values)))
        species_change = change.expand_dims("species") if "species" not in change.dims else change
        rows = [(name, *_areas(species_change.sel(species=name))) for name in names[:SHOWN]]
        pictures = []
        for name in evidence.species_of(change):
            figure = plot.range_change(species_change, species=name).figure
            pictures.append(page.picture(figure, f"{title}: {name}"))
        parts += [page.heading(title), page.number_table(head, rows), page.grid(pictures)]
    text = "Areas are in km², of the cells with a value in both maps. The shift is that of the centroid of the range."
    return [*parts, page.paragraph(text, note=True)]


def _areas(change: xr.Dataset) -> list[str]:
    """Return areas, the change in per cent, and the shift of one species."""
    area = {str(k): float(v) for k, v in zip(change["class"].values, change["area"].values)}
    values = [float(change["area_before"]), float(change["area_after"])]
    values += [area[k] for k in ("gain", "loss", "stable_present")]
    percent = float(change["percent_change"])
    shift = "no value"
    if "distance" in change and np.isfinite(float(change["distance"])):
        shift = f"{float(change['distance']):,.0f} km {change['direction'].item()}"
    return [
        *(f"{v:,.0f}" for v in values),
        f"{percent:+.1f} %" if np.isfinite(percent) else "no value",
        shift,
    ]


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "no value"


def limitations(evidence: Evidence) -> Section:
    """Return what limits the use of the maps."""
    return Section("limits", "Limits", [page.bullets(limits(evidence))])


def sources(evidence: Evidence) -> Section:
    """Return the sources of records and predictors."""
    section = Section("sources", "Data sources")
    absent = "not recorded; version and date are to be completed by the author"
    rows = [("records", records_source(evidence) or absent, bool(records_source(evidence)))]
    for modality in evidence.model.schema.modalities.values():
        text = source_of(modality)
        rows.append((modality.title or modality.name, text or absent, bool(text)))
    section.parts.append(page.field_table(rows))
    files = evidence.rows("sources")
    if files:
        head = ["source", "kind", "CRS", "resolution", "resampling", "variables"]
        keys = ("source", "kind", "crs", "resolution", "resampling")
        values = []
        for row in files:
            names = row.get("variables")
            count = len(names) if isinstance(names, list) else ""
            values.append((*(row.get(k, "") for k in keys), count))
        section.parts.append(page.number_table(head, values))
    return section


def protocol(fields: pd.DataFrame) -> Section:
    """Return the tables of ODMAP."""
    section = Section("odmap", "ODMAP protocol")
    section.parts.append(
        page.paragraph(
            "Overview, Data, Model, Assessment and Prediction, version 1.0 (Zurell et al. 2020). Marked fields are to "
            "be completed by the author.",
            note=True,
        )
    )
    for name, rows in fields.groupby("section", sort=False):
        section.parts.append(page.heading(str(name)))
        labels = [e if e == f else f"{e}: {f}" for e, f in zip(rows["element"], rows["field"])]
        section.parts.append(page.field_table(zip(labels, rows["text"], rows["complete"])))
    return section


def cite(evidence: Evidence) -> Section:
    """Return the works to cite."""
    return Section("cite", "How to cite", [page.bullets(citations(evidence))])
