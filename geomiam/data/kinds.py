"""Inference of a variable's kind from its file, attributes, dims, name and a sample of its values.

A variable is categorical or circular only if its name and its values agree, so that counts,
percentages and elevations stay scalar. Doubtful cases come with the call that sets the kind.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import pi, prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.names import has_dates
from geomiam.data.predictors import own_dims
from geomiam.data.values import as_float, text_of
from geomiam.errors import DoubtfulKind, SchemaError, warn
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
    *(("land", "cover"), ("land", "use"), ("soil", "group")),
    *(("climate", "zone"), ("climate", "zones")),
}
NUMBERED_CLASSES = {("lc", "type")}
"""Numbered layers that have classes each, as in MODIS land cover."""
SHARE_WORDS = set(
    "percent percentage pct perc fraction frac share probability prob proportion prop density "
    "distance dist count counts number area diversity richness entropy shannon evenness suitability "
    "height age cv std sd change".split()
)
"""Words for numbers about classes, such as the share of a class, which are not classes."""
CLASS_UNITS = (None, *"1 class classes code category categorical type - none".split())
MAX_CLASSES = 1000  # largest number of distinct integers that count as classes
FEW = range(3, 41)
"""Numbers of distinct integers that may be class codes although no name indicates it."""
RASTERS = (".tif", ".tiff", ".img", ".vrt")
MOST_BYTES = 2**20  # largest .aux.xml that is read
ENOUGH = 4096  # number of observed values after which no further window is read
MAX_CHUNK = 128 * 2**20  # largest dask chunk that is read for a sample, in bytes


@dataclass(frozen=True)
class Guess:
    """An inferred kind with the evidence for it and possible doubts."""

    kind: str
    reason: str
    doubt: str = ""
    instead: str = ""  # the kind to pass if the inferred kind is wrong
    period: float | None = None
    classes: dict[int, str] | None = None


def warn_of_doubts(guesses: Mapping[str, Guess], place: str) -> None:
    """Warn of kinds that may be wrong; ``place`` is where to pass the right ones."""
    lines = [
        f"'{n}' is read as {g.kind}, but {g.doubt}; if so: kinds={{'{n}': '{g.instead}'}}, else "
        f"kinds={{'{n}': '{g.kind}'}}"
        for n, g in guesses.items()
        if g.doubt
    ]
    if lines:
        advice = f"kinds that may be wrong: pass the right ones to {place}"
        warn("\n  ".join([advice, *lines]), DoubtfulKind)


def guess_kind(array: xr.DataArray) -> Guess:
    """Infer a variable's kind from its attributes, dims, name and a bounded sample of its values.

    Values of a lazy array are read only if its name or its integer dtype requires it; see
    :func:`sample_values`. Raises SchemaError if its own dims match no kind.
    """
    dims, keys = own_dims(array), ("kind", "type", "units", "long_name")
    declared_kind, declared_type, units, long_name = (text_of(array.attrs, k) for k in keys)
    if declared_kind in KINDS and bool(dims) == bool(OWN_DIMS[declared_kind]):
        return Guess(declared_kind, "attribute kind")
    if dims:
        return _with_dims(array, dims)
    if "flag_values" in array.attrs or declared_type == "categorical":
        return Guess("categorical", "attributes of classes")
    if (names := class_names(array)) is not None:
        return Guess("categorical", "colour table or category names of the file", classes=names)
    text = f"{array.name} {long_name or ''}"
    words = _words(text)
    if any(c in w for c in CIRCULAR_WORDS for w in words) and not COMPONENT_WORDS & set(words):
        return _angle(array, (units or "").lower())
    plain = (units.lower() if units else None) in CLASS_UNITS and not SHARE_WORDS & set(words)
    is_named = _name_classes(words) or _name_classes(_words(text.lower()))
    return _by_levels(array, is_named=is_named) if plain else Guess("scalar", "a number")


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


def _words(text: str) -> list[str]:
    """Split a name into lower-case words and numbers: ``SoilType_2`` → soil, type, 2."""
    spaced_text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", text)
    return re.findall(r"[a-zß-ÿ]+|\d+", spaced_text.lower())


def _name_classes(words: list[str]) -> bool:
    """Return whether words name a layer of classes; a number of up to three digits after them is one class."""
    for i, word in enumerate(words):
        if tuple(words[i : i + 2]) in NUMBERED_CLASSES:
            return True
        pair = tuple(words[i : i + 2]) in CLASS_PAIRS
        if word in CLASS_WORDS or pair:
            after = words[i + 1 + pair : i + 2 + pair]
            return not (after and after[0].isdigit() and len(after[0]) <= 3)
    return False


def _by_levels(array: xr.DataArray, *, is_named: bool) -> Guess:
    """Return categorical for a name of classes with integers; scalar, with a doubt, for other integers."""
    in_memory = isinstance(array.variable._data, np.ndarray)
    is_read = array.dtype.kind != "b" and (in_memory or array.dtype.kind in "iu")
    if not (is_named or is_read):
        return Guess("scalar", "a number")
    sample = sample_values(array)
    levels = sample.levels
    if is_named and sample.is_integer and len(levels) <= MAX_CLASSES:
        return Guess("categorical", f"name, and {len(levels)} whole numbers ({sample})")
    if is_named:
        content = "fractions" if levels.size else "no values"
        doubt = f"its name indicates classes, but there are {content} ({sample})"
        return Guess("scalar", f"values: {content}", doubt, "categorical")
    if not sample.is_integer or len(levels) not in FEW or sample.values.size < 10 * len(levels):
        return Guess("scalar", "a number")
    ends = f"{levels[0]:g} to {levels[-1]:g}"
    doubt = f"it has {len(levels)} distinct integers from {ends}, which may be codes of classes"
    return Guess("scalar", "a number", doubt, "categorical")


def _angle(array: xr.DataArray, units: str) -> Guess:
    if units in RADIANS:
        return Guess("circular", "name and units", period=2 * pi)
    sample = sample_values(array)
    values, flat = sample.values, ""
    if (
        values.size and values.min() == -1 and (values == -1).sum() > 1
    ):  # as many terrain tools write
        flat = "it has values of -1, which often mark flat ground: set them to NaN with ds.where(ds != -1)"
    if units in DEGREES:
        return Guess("circular", "name and units", flat, "scalar")
    if units:
        return Guess("scalar", f"units {units}")
    if not values.size:
        return Guess("scalar", "no values", "its name indicates an angle", "circular")
    low, high = values.min(), values.max()
    if low >= -1 and high <= 1:
        return Guess("scalar", "a number from -1 to 1")
    if (low >= -1 and 180 < high <= 360) or (-180 <= low < -90 and 90 < high <= 180):
        return Guess("circular", f"name, and {low:g} to {high:g} ({sample})", flat, "scalar")
    doubt = f"its name indicates an angle, but the values are {low:g} to {high:g} ({sample})"
    return Guess("scalar", f"values {low:g} to {high:g}", doubt, "circular")


@dataclass(frozen=True)
class ValueSample:
    """Observed values of a few windows."""

    values: np.ndarray  # finite values, float64 (n,)
    read_count: int  # number of values that were read, observed or missing
    size: int  # number of values of the array

    @property
    def levels(self) -> np.ndarray:
        """Distinct values in ascending order."""
        return np.unique(self.values)

    @property
    def is_integer(self) -> bool:
        """Whether there are values and all are integers."""
        return bool(self.values.size) and bool((self.values % 1 == 0).all())

    def __str__(self) -> str:
        return f"{self.read_count:,} of {self.size:,} values read"


def sample_values(array: xr.DataArray) -> ValueSample:
    """Read up to nine small windows of an array, each within one dask chunk.

    The windows are at the start, middle and end of the last two dims, the middle first. Reading stops
    when 4,096 values are observed.
    """
    parts, read_count = [np.zeros(0)], 0
    cells_of_chunk = 0 if array.chunks is None else prod(max(c) for c in array.chunks)
    if array.size and cells_of_chunk * array.dtype.itemsize <= MAX_CHUNK:
        side = ENOUGH if array.ndim == 1 else int(ENOUGH**0.5)
        spans = [_spans(array, d, side) for d in array.dims]
        spans = [s if i >= array.ndim - 2 else s[:1] for i, s in enumerate(spans)]
        for window in product(*spans):
            part = as_float(array.isel(dict(zip(array.dims, window))))
            values = part.compute(scheduler="synchronous").values.ravel()
            parts.append(values[np.isfinite(values)].astype(np.float64))
            read_count += values.size
            if sum(p.size for p in parts) >= ENOUGH:
                break
    return ValueSample(np.concatenate(parts), read_count, array.size)


def _spans(array: xr.DataArray, dim: Any, side: int) -> list[slice]:
    """Return the start of the middle, first and last chunk of a dim, or third of an array without chunks."""
    size = array.sizes[dim]
    step = max(side, size // 3)
    thirds = tuple(min(step, size - i) for i in range(0, size, step))
    chunks = array.chunksizes.get(dim) or thirds
    ends = np.cumsum(chunks)
    numbers = dict.fromkeys([len(chunks) // 2, 0, len(chunks) - 1])
    return [slice(ends[i] - chunks[i], min(ends[i], ends[i] - chunks[i] + side)) for i in numbers]


def class_names(array: xr.DataArray) -> dict[int, str] | None:
    """Return class codes and names if a variable's local file has a colour table or category names.

    Only the header of the file in ``encoding["source"]`` and the ``.aux.xml`` beside it are read. The
    result is None if the file has neither or does not exist, and empty if classes have no names.
    """
    source = array.encoding.get("source")
    if not isinstance(source, str) or not source.lower().endswith(RASTERS):
        return None
    path = Path(source)
    return _read_classes(str(path), path.stat().st_mtime_ns) if path.is_file() else None


def mark_classes(array: xr.DataArray) -> xr.DataArray:
    """Return a variable with the classes of its file as attributes, unless it has such attributes."""
    names = class_names(array)
    if names is None or {"kind", "flag_values"} & set(array.attrs):
        return array
    attrs: dict[str, Any] = {"kind": "categorical"}
    if names:
        meanings = " ".join(n.replace(" ", "_") for n in names.values())
        attrs |= {"flag_values": list(names), "flag_meanings": meanings}
    return array.assign_attrs(attrs)


@lru_cache(maxsize=256)
def _read_classes(path: str, modified_ns: int) -> dict[int, str] | None:
    import rasterio
    from rasterio.enums import ColorInterp

    # GDAL lists the names of the codes 0, 1, … beside the file; codes without a name are left out.
    side_file, items = Path(f"{path}.aux.xml"), []
    if side_file.is_file() and side_file.stat().st_size <= MOST_BYTES:
        text = side_file.read_text(encoding="utf-8", errors="replace")
        if inside := re.search(r"<CategoryNames>(.*?)</CategoryNames>", text, re.S):
            pattern = r"<Category>(.*?)</Category>|<Category\s*/>"
            items = re.findall(pattern, inside[1], re.S)
    names = {i: html.unescape(name).strip() for i, name in enumerate(items) if name.strip()}
    if names:
        return names
    try:
        with rasterio.open(path) as file:
            return {} if file.colorinterp[0] == ColorInterp.palette else None
    except (rasterio.errors.RasterioError, IndexError):
        return None
