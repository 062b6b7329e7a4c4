"""Class names from the colour table or category names of the file that a variable was opened from."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from pathlib import Path

import xarray as xr

SUFFIXES = (".tif", ".tiff", ".img", ".vrt")
MOST_BYTES = 2**20


def class_names(array: xr.DataArray) -> dict[int, str] | None:
    """Return class codes and names if a variable's local file has a colour table or category names.

    Only the header of the file in ``encoding["source"]`` and the ``.aux.xml`` beside it are read. The
    result is None if the file has neither or does not exist, and empty if classes have no names.
    """
    source = array.encoding.get("source")
    if not isinstance(source, str) or not source.lower().endswith(SUFFIXES):
        return None
    path = Path(source)
    if not path.is_file():
        return None
    return _read(str(path), path.stat().st_mtime_ns)


def mark_classes(array: xr.DataArray) -> xr.DataArray:
    """Return a variable with the classes of its file as attributes, unless it has such attributes."""
    names = class_names(array)
    if names is None or {"kind", "flag_values"} & set(array.attrs):
        return array
    attrs: dict = {"kind": "categorical"}
    if names:
        meanings = " ".join(n.replace(" ", "_") for n in names.values())
        attrs |= {"flag_values": list(names), "flag_meanings": meanings}
    return array.assign_attrs(attrs)


@lru_cache(maxsize=256)
def _read(path: str, modified_ns: int) -> dict[int, str] | None:
    import rasterio
    from rasterio.enums import ColorInterp

    if names := _category_names(Path(f"{path}.aux.xml")):
        return names
    try:
        with rasterio.open(path) as file:
            return {} if file.colorinterp[0] == ColorInterp.palette else None
    except (rasterio.errors.RasterioError, IndexError):
        return None


def _category_names(path: Path) -> dict[int, str]:
    """Return the names of the codes 0, 1, … in GDAL's format, without codes that have no name."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    inside = re.search(r"<CategoryNames>(.*?)</CategoryNames>", text, re.S)
    items = re.findall(
        r"<Category>(.*?)</Category>|<Category\s*/>", inside[1] if inside else "", re.S
    )
    return {i: html.unescape(name).strip() for i, name in enumerate(items) if name.strip()}
