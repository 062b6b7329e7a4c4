"""Inference of a variable's kind from its attributes, dims, name and a sample of its values.

A variable is categorical or circular only if its name and its values agree, so that counts,
percentages and elevations stay scalar. Doubtful cases come with the call that sets the kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import pi

import numpy as np
import xarray as xr

from geomiam.data.infer.value_sample import ValueSample, sample_values
from geomiam.data.values.attributes import text_of
from geomiam.data.values.class_names import class_names
from geomiam.data.values.dim_labels import has_dates
from geomiam.data.variables import own_dims
from geomiam.errors import SchemaError
from geomiam.schema.variable import KINDS, OWN_DIMS

TIME_DIMS = "time month year quarter date day dayofyear week season step".split()
VECTOR_DIMS = "feature features embedding band channel component".split()
CIRCULAR_WORDS = {"aspect", "direction", "azimuth", "bearing"}
COMPONENT_WORDS = set("sin sine cos cosine northness eastness transformed folded ratio".split())
"""Words for components of an angle, which are plain numbers."""
DEGREES = ("degree", "degrees", "deg", "°", "degrees_true", "degree_true", "degrees north")
RADIANS = ("rad", "radian", "radians")
CLASS_WORDS = set(
    "landcover landuse lulc lccs koppen köppen koeppen geology biome biomes ecoregion ecoregions lithology "
    "corine clc worldcover globcover nlcd igbp eunis wrb landform landforms soiltype foresttype "
    "vegtype category categories class classes classification type types".split()
)
CLASS_PAIRS = {
    ("land", "cover"),
    ("land", "use"),
    ("climate", "zone"),
    ("climate", "zones"),
    ("soil", "group"),
}
NUMBERED_CLASSES = {("lc", "type")}
"""Numbered layers that have classes each, as in MODIS land cover."""
SHARE_WORDS = set(
    "percent percentage pct perc fraction frac share probability prob proportion prop density "
    "distance dist count counts number area diversity richness entropy shannon evenness suitability "
    "height age cv std sd change".split()
)
"""Words for numbers about classes, such as the share of a class, which are not classes."""
CLASS_UNITS = (
    None,
    "1",
    "class",
    "classes",
    "code",
    "category",
    "categorical",
    "type",
    "-",
    "none",
)
MAX_CLASSES = 1000
"""Largest number of distinct integers that count as classes."""
FEW = range(3, 41)
"""Numbers of distinct integers that may be class codes although no name indicates it."""


@dataclass(frozen=True)
class Guess:
    """An inferred kind with the evidence for it and possible doubts."""

    kind: str
    reason: str
    doubt: str = ""
    instead: str = ""
    """The kind to pass if the inferred kind is wrong."""
    period: float | None = None
    classes: dict[int, str] | None = None


def infer_kind(array: xr.DataArray) -> str:
    """Return a variable's kind; see :func:`guess_kind`."""
    return guess_kind(array).kind


def guess_kind(array: xr.DataArray) -> Guess:
    """Infer a variable's kind from its attributes, dims, name and a bounded sample of its values.

    Values of a lazy array are read only if its name or its integer dtype requires it; see
    :func:`geomiam.data.infer.value_sample.sample_values`.

    Raises
    ------
    SchemaError
        If its own dims match no kind.
    """
    dims = own_dims(array)
    declared_kind = text_of(array.attrs, "kind")
    if declared_kind in KINDS and bool(dims) == bool(OWN_DIMS[declared_kind]):
        return Guess(declared_kind, "attribute kind")
    if dims:
        return _with_dims(array, dims)
    if "flag_values" in array.attrs or text_of(array.attrs, "type") == "categorical":
        return Guess("categorical", "attributes of classes")
    if (names := class_names(array)) is not None:
        return Guess("categorical", "colour table or category names of the file", classes=names)
    text = f"{array.name} {text_of(array.attrs, 'long_name') or ''}"
    words = words_of(text)
    if any(c in w for c in CIRCULAR_WORDS for w in words) and not COMPONENT_WORDS & set(words):
        return _angle(array)
    units = text_of(array.attrs, "units")
    plain = (units.lower() if units else None) in CLASS_UNITS and not SHARE_WORDS & set(words)
    if plain and any(map(_names_classes, (words, words_of(text.lower())))):
        return _named_classes(array)
    return _unnamed(array) if plain else Guess("scalar", "a number")


def words_of(text: str) -> list[str]:
    """Split a name into lower-case words and numbers: ``SoilType_2`` → soil, type, 2."""
    spaced_text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", text)
    return re.findall(r"[a-zß-ÿ]+|\d+", spaced_text.lower())


def _with_dims(array: xr.DataArray, dims: tuple[str, ...]) -> Guess:
    last = dims[-1]
    if last.lower() in TIME_DIMS or has_dates(array, last):
        return Guess("series", f"dim '{last}'")
    if last.lower() in VECTOR_DIMS:
        return Guess("vector", f"dim '{last}'")
    if len(dims) >= 2 and min(array.sizes[d] for d in dims[-2:]) > 1:
        return Guess("image", f"dims {', '.join(dims[-2:])}")
    raise SchemaError(
        f"cannot infer the kind of '{array.name}' with own dims {dims}; "
        f"pass kinds={{'{array.name}': 'series'}} (or image, vector)"
    )


def _names_classes(words: list[str]) -> bool:
    """Return whether words name a layer of classes; a number of up to three digits after them is one class."""
    for i, word in enumerate(words):
        if tuple(words[i : i + 2]) in NUMBERED_CLASSES:
            return True
        pair = tuple(words[i : i + 2]) in CLASS_PAIRS
        if word in CLASS_WORDS or pair:
            after = words[i + 1 + pair : i + 2 + pair]
            return not (after and after[0].isdigit() and len(after[0]) <= 3)
    return False


def _named_classes(array: xr.DataArray) -> Guess:
    sample = sample_values(array)
    levels = sample.levels
    if sample.is_integer and len(levels) <= MAX_CLASSES:
        return Guess("categorical", f"name, and {len(levels)} whole numbers ({sample})")
    content = "fractions" if levels.size else "no values"
    doubt = f"its name indicates classes, but there are {content} ({sample})"
    return Guess("scalar", f"values: {content}", doubt, "categorical")


def _unnamed(array: xr.DataArray) -> Guess:
    """Return scalar for a variable with an unspecific name, with a doubt if it has few distinct integers."""
    in_memory = isinstance(array.variable._data, np.ndarray)
    if array.dtype.kind == "b" or not (in_memory or array.dtype.kind in "iu"):
        return Guess("scalar", "a number")
    sample = sample_values(array)
    levels = sample.levels
    if not sample.is_integer or len(levels) not in FEW or sample.values.size < 10 * len(levels):
        return Guess("scalar", "a number")
    ends = f"{levels[0]:g} to {levels[-1]:g}"
    doubt = f"it has {len(levels)} distinct integers from {ends}, which may be codes of classes"
    return Guess("scalar", "a number", doubt, "categorical")


def _angle(array: xr.DataArray) -> Guess:
    units = (text_of(array.attrs, "units") or "").lower()
    if units in RADIANS:
        return Guess("circular", "name and units", period=2 * pi)
    sample = sample_values(array)
    if units in DEGREES:
        return Guess("circular", "name and units", _flat(sample), "scalar")
    if units:
        return Guess("scalar", f"units {units}")
    return _angle_by_values(sample)


def _angle_by_values(sample: ValueSample) -> Guess:
    if not sample.values.size:
        return Guess("scalar", "no values", "its name indicates an angle", "circular")
    low, high = sample.values.min(), sample.values.max()
    if low >= -1 and high <= 1:
        return Guess("scalar", "a number from -1 to 1")
    turn = (low >= -1 and 180 < high <= 360) or (-180 <= low < -90 and 90 < high <= 180)
    if turn:
        return Guess(
            "circular", f"name, and {low:g} to {high:g} ({sample})", _flat(sample), "scalar"
        )
    doubt = f"its name indicates an angle, but the values are {low:g} to {high:g} ({sample})"
    return Guess("scalar", f"values {low:g} to {high:g}", doubt, "circular")


def _flat(sample: ValueSample) -> str:
    """Return the doubt about an angle with values of -1, which mark flat ground in many terrain tools."""
    if sample.values.size and sample.values.min() == -1 and (sample.values == -1).sum() > 1:
        return "it has values of -1, which often mark flat ground: set them to NaN with ds.where(ds != -1)"
    return ""
