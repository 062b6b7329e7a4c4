"""The interactive map of a report: its layers as bytes in the page, and the script that lists the values of a cell."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.explain.contributions import limiting
from geomiam.geo.dims import spatial_pair
from geomiam.plot.canvas import EMPTY, PALETTE, one_species
from geomiam.plot.cartography import units_of
from geomiam.plot.classes import SETS
from geomiam.reports import page
from geomiam.reports.contributions import has_observed_groups
from geomiam.reports.evidence import Evidence, coordinate
from geomiam.reports.page import Section

MOST_SIDE = 256
"""Most rows and columns of the interactive map; a larger map is read at every nth cell."""
GAP, LAST = 255, 254
"""Code of a cell without a value, and the largest code of a value: a layer has one byte per cell."""
TAIL = 0.005
"""Share of the cells at each end of an unlimited measure that have the colour of the end."""
STEPS = 32
"""Colours of a layer of numbers."""
SCRIPT = Path(__file__).with_name("values_map.js").read_text(encoding="utf-8")
Layer = dict[str, Any]


def values_map(evidence: Evidence) -> Section:
    """Return the section with the map and the values of all layers at one cell; empty without a map."""
    section = Section("values", "Values of a cell", script=SCRIPT)
    species = [] if evidence.maps is None else evidence.species_of(evidence.maps)
    if evidence.maps is None or not species or not evidence.options.interactive:
        return section
    maps, step = _thinned(evidence.maps)
    layers = list(_layers(evidence, maps, species))
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    data = {
        "rows": maps.sizes[y],
        "columns": maps.sizes[x],
        "axes": [x, y],
        "x": [coordinate(float(v)) for v in maps[x].values],
        "y": [coordinate(float(v)) for v in maps[y].values],
        "species": species,
        "layers": layers,
    }
    section.parts += [_figure(data, layers[0], _aspect(maps)), page.paragraph(NOTE, note=True)]
    if step * evidence.step > 1:
        text = f"This map reads one row and column in {step * evidence.step}."
        section.parts.append(page.paragraph(text, note=True))
    return section


NOTE = (
    "Move the pointer over the map, tap it, or select it and press the arrow keys. The table lists all layers of one cell, "
    "so that a suitability is read beside its spread, its novelty and the data that are missing. Numbers are rounded to "
    "1/254 of the range of a layer. Without JavaScript the page shows its static figures only."
)


def _thinned(maps: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Return the map with north at the top and at most ``MOST_SIDE`` rows and columns, and the step between them."""
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    step = -(-max(maps.sizes[y], maps.sizes[x]) // MOST_SIDE)
    part = slice(None, None, step)
    return maps.isel({y: part, x: part}).sortby(y, ascending=False).sortby(x), step


def _layers(evidence: Evidence, maps: xr.Dataset, species: Sequence[str]) -> Iterator[Layer]:
    """Yield the layers that the map has: those of each species, and those of all."""
    explanation = _explanation(evidence, maps)
    for number, name in enumerate(species):
        for layer in _species_layers(maps, explanation, name):
            yield {**layer, "species": number}
    for layer in _shared_layers(evidence, maps):
        yield {**layer, "species": None}


def _species_layers(maps: xr.Dataset, explanation: xr.Dataset | None, name: str) -> Iterator[Layer]:
    suitability = one_species(maps["suitability"], name)
    limits = None if suitability.attrs.get("scale") == "logit" else (0.0, 1.0)
    yield numbers("suitability", suitability, cmap="YlGnBu", limits=limits)
    if "spread" in maps:
        yield numbers("spread over members", one_species(maps["spread"], name), cmap="Purples")
    if "prediction_set" in maps:
        sets = one_species(maps["prediction_set"], name)
        yield flags("prediction set", sets, colours=SETS)
    if "value_of_information" in maps:
        yield from _value_layers(maps, name)
    if explanation is not None:
        limits_map = limiting(explanation)
        yield flags("limiting group", one_species(limits_map["limiting"], name))


def _shared_layers(evidence: Evidence, maps: xr.Dataset) -> Iterator[Layer]:
    if "outside_range" in maps:
        title = "share of predictors outside the range"
        yield numbers(title, maps["outside_range"], cmap="OrRd", limits=(0.0, 1.0))
    if "dissimilarity" in maps:
        yield numbers("dissimilarity index", maps["dissimilarity"], cmap="OrRd")
    if "mess" in maps:
        yield numbers("MESS, below 0 outside the range", maps["mess"], cmap="OrRd_r")
    if "most_dissimilar" in maps:
        yield flags("most dissimilar predictor", maps["most_dissimilar"])
    if "observed" in maps:
        yield _observed(maps["observed"], list(evidence.model.schema.groups))


def _value_layers(maps: xr.Dataset, name: str) -> Iterator[Layer]:
    """Yield the missing group worth most and its value, of the species or of the set of species."""
    values = maps["value_of_information"]
    values = one_species(values, name) if "species" in values.dims else values
    best = values.fillna(-np.inf).argmax("group").where(values.notnull().any("group"))
    labels = [str(g) for g in values["group"].values]
    yield classes("missing group worth most", best, labels)
    yield numbers("expected change if it were observed", values.max("group"), cmap="Greens")


def _explanation(evidence: Evidence, maps: xr.Dataset) -> xr.Dataset | None:
    """Return the Shapley values of the cells of the map; None if they have no such values, or other cells."""
    explanation = evidence.explanation
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    if (
        explanation is None
        or not has_observed_groups(explanation)
        or not {y, x} <= set(explanation.dims)
    ):
        return None
    has_cells = all(np.isin(maps[d].values, explanation[d].values).all() for d in (y, x))
    return explanation.sel({d: maps[d].values for d in (y, x)}) if has_cells else None


def numbers(
    title: str, array: xr.DataArray, *, cmap: str, limits: tuple[float, float] | None = None
) -> Layer:
    """Return a layer of numbers; those beyond the limits have the code of the limit.

    Without limits they include all but the ``TAIL`` at each end, and 0.
    """
    import matplotlib
    from matplotlib.colors import to_hex

    values = _rows(array)
    finite_values = values[np.isfinite(values)]
    low, high = limits or _limits(finite_values)
    codes = np.rint(np.clip((values - low) / (high - low), 0, 1) * LAST)
    zero = np.rint(-low / (high - low) * LAST)
    codes[(values < 0) & (codes == zero) & (zero > 0)] -= (
        1  # below 0 is new: rounding keeps the sign
    )
    codes = np.where(np.isfinite(values), codes, GAP)
    ramp = matplotlib.colormaps[cmap]
    return {
        "title": title,
        "codes": _text(codes),
        "low": low,
        "high": high,
        "below": bool((finite_values < low).any()),
        "above": bool((finite_values > high).any()),
        "digits": max(0, int(-np.floor(np.log10((high - low) / LAST))) - 1),
        "labels": None,
        "colours": [to_hex(ramp(v)) for v in np.linspace(0, 1, STEPS)],
    }


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return limits of nearly all values, among which 0 has a separate code."""
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(values, [TAIL, 1 - TAIL]))
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return 0.0, 1.0
    if low < 0 < high:
        below = int(np.clip(np.ceil(LAST * -low / (high - low)), 1, LAST - 1))
        step = max(-low / below, high / (LAST - below))
        low, high = -below * step, (LAST - below) * step
    return low, high


def classes(title: str, array: xr.DataArray, labels: Sequence[str]) -> Layer:
    """Return a layer of class numbers from 0; classes beyond ``LAST`` share a label."""
    values = _rows(array)
    codes = np.where(np.isfinite(values), np.minimum(values, LAST), GAP)
    names = list(labels[:LAST]) + ["others"] * (len(labels) > LAST)
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(names))]
    return {"title": title, "codes": _text(codes), "labels": names, "colours": colours}


def flags(title: str, array: xr.DataArray, *, colours: Mapping[str, str] | None = None) -> Layer:
    """Return a layer of classes that ``flag_values`` and ``flag_meanings`` describe; colours are by class."""
    values = np.atleast_1d(array.attrs["flag_values"]).astype(float)
    names = str(array.attrs["flag_meanings"]).split()
    position = np.full(array.shape, np.nan)
    for number, value in enumerate(values):
        position[array.values == value] = number
    layer = classes(title, array.copy(data=position), names)
    return layer if colours is None else {**layer, "colours": [colours[n] for n in names]}


def _observed(bits: xr.DataArray, groups: Sequence[str]) -> Layer:
    """Return the patterns of observed groups, the frequent ones first."""
    patterns, position, counts = np.unique(bits.values, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    names = [
        " + ".join(g for i, g in enumerate(groups) if (int(patterns[k]) >> i) & 1) or "none"
        for k in order
    ]
    layer = classes("observed groups", bits.copy(data=rank[position].reshape(bits.shape)), names)
    colours = [EMPTY if n == "none" else c for n, c in zip(layer["labels"], layer["colours"])]
    return {**layer, "colours": colours}


def _rows(array: xr.DataArray) -> np.ndarray:
    """Return the values ``(y, x)``."""
    y, x = spatial_pair(array.dims) or ("y", "x")
    values: np.ndarray = array.transpose(y, x).values.astype(float)
    return values


def _text(codes: np.ndarray) -> str:
    return base64.b64encode(codes.astype(np.uint8).tobytes()).decode()


def _aspect(maps: xr.Dataset) -> float:
    """Return the width of the map by its height, as in the static figures."""
    y, x = spatial_pair(maps.sizes) or ("y", "x")
    width, height = (
        float(np.ptp(maps[d].values)) * n / max(n - 1, 1) or 1.0
        for d, n in ((x, maps.sizes[x]), (y, maps.sizes[y]))
    )
    if "degree" in units_of(maps, x):
        width *= float(np.cos(np.radians(min(abs(float(maps[y].mean())), 80.0))))
    return width / height


def _figure(data: dict[str, Any], layer: Layer, aspect: float) -> str:
    """Return the figure: the first layer as a picture, which the script replaces, and the data in one JSON text."""
    from matplotlib.image import imsave

    codes = np.frombuffer(base64.b64decode(layer["codes"]), np.uint8)
    ramp = np.array(
        [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in layer["colours"]], np.uint8
    )
    rgba = np.zeros((codes.size, 4), np.uint8)
    is_value = codes != GAP
    rgba[is_value, :3] = ramp[np.rint(codes[is_value] / LAST * (STEPS - 1)).astype(int)]
    rgba[is_value, 3] = 255
    buffer = io.BytesIO()
    imsave(buffer, rgba.reshape(data["rows"], data["columns"], 4), format="png")
    source = base64.b64encode(buffer.getvalue()).decode()
    caption = page.escaped(f"{data['species'][0]}: {layer['title']}")
    # Inside a script no entity is read, and only "</" and "<!--" end it: no "<" may remain.
    content = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return (
        '<figure class="values"><div class="controls"></div><div class="pair">'
        f'<div class="map" style="aspect-ratio: {aspect:.4f}; background: {EMPTY}">'
        f'<img alt="{caption}" src="data:image/png;base64,{source}"></div>'
        f'<div class="readout">{page.paragraph(caption)}</div></div><div class="legend"></div>'
        f'<script type="application/json">{content}</script></figure>'
    )
