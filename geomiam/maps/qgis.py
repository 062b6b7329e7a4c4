"""Styles for QGIS: colours and labels of the first band of a GeoTIFF."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.values import flags_of
from geomiam.maps.geotiff import bands_of, is_classes

STEPS = 6


def style_of(maps: xr.Dataset, layers: Sequence[str] | None = None) -> str:
    """Return the style (.qml) of the first band: a ramp of suitability or of contributions, or classes."""
    band = bands_of(maps, layers)[0]
    array = maps[band.variable]
    body = _classes(array) if is_classes(array) else _ramp(array.isel(band.index))
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    renderer = f"<pipe>\n{body}\n</pipe>"
    return f'{head}\n<!-- geomiam {__version__} -->\n<qgis version="3.28.0">\n{renderer}\n</qgis>\n'


def _ramp(array: xr.DataArray) -> str:
    low, high, colours = _range(array)
    values = np.linspace(low, high, STEPS)
    items = "\n".join(
        f'<item value="{v:.6g}" label="{v:.3g}" color="{c}" alpha="255"/>'
        for v, c in zip(values, _colours(colours), strict=True)
    )
    shader = f'<colorrampshader colorRampType="INTERPOLATED" clip="0" minimumValue="{low:.6g}" maximumValue="{high:.6g}">'
    return (
        f'<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" classificationMin="{low:.6g}" '
        f'classificationMax="{high:.6g}">\n<rastershader>\n{shader}\n{items}\n</colorrampshader>\n'
        "</rastershader>\n</rasterrenderer>"
    )


def _range(array: xr.DataArray) -> tuple[float, float, str]:
    """Return the limits of a layer and its colour map: symmetric around 0 for contributions."""
    if array.name == "suitability" and array.attrs.get("scale") != "logit":
        return 0.0, 1.0, "YlGnBu"
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all() or low == high:
        low, high = 0.0, 1.0
    if low < 0 < high:
        limit = max(-low, high)
        return -limit, limit, "RdBu_r"
    return low, high, "YlGnBu"


def _classes(array: xr.DataArray) -> str:
    names = flags_of(array.attrs) or {0: "absent", 1: "present"}
    colours = _colours("YlGnBu", len(names))
    entries = "\n".join(
        f'<paletteEntry value="{code}" color="{c}" alpha="255" label={quoteattr(name)}/>'
        for (code, name), c in zip(names.items(), colours, strict=True)
    )
    return (
        '<rasterrenderer type="paletted" band="1" opacity="1">\n<colorPalette>\n'
        f"{entries}\n</colorPalette>\n</rasterrenderer>"
    )


def _colours(name: str, count: int = STEPS) -> list[str]:
    import matplotlib
    from matplotlib.colors import to_hex

    ramp = matplotlib.colormaps[name]
    return [to_hex(ramp(v)) for v in np.linspace(0.05, 0.95, count)]
