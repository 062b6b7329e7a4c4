"""Maps to pan and zoom in a browser or a notebook, in one file without further downloads."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import GeomiamError, SettingError
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import PAGE
from geomiam.outputs.write import write_text
from geomiam.plot.canvas import EMPTY

MOST_CELLS = 2_000_000
"""Most cells of all species together; a larger map is drawn with every second, third, … cell."""
HEIGHT = 620
"""Pixels of the figure in a notebook."""


@dataclass(frozen=True)
class InteractiveMap:
    """A map as an HTML page that needs no other file; a notebook shows it.

    Attributes
    ----------
    html
        The page.

    Examples
    --------
    >>> import tempfile
    >>> page = gm.plot.interactive(gm.predict(cube, model))
    >>> page.save(f"{tempfile.mkdtemp()}/map.html").name
    'map.html'
    """

    html: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page to a file that any browser opens.

        Raises OutputExists if ``path`` exists and ``overwrite`` is False, and OutputRefused if geomiam did not
        write it.
        """
        with locked_output(path, overwrite, kind=PAGE) as target:
            write_text(target, self.html)
        return target

    def _repr_html_(self) -> str:
        page = html.escape(self.html)
        return f'<iframe srcdoc="{page}" width="100%" height="{HEIGHT + 80}" style="border:0"></iframe>'

    def __repr__(self) -> str:
        return f"InteractiveMap({len(self.html) / 1e6:.1f} MB); save(path) writes a page"


def interactive(
    maps: xr.Dataset,
    *,
    layer: str = "suitability",
    species: list[str] | None = None,
    cmap: str = "YlGnBu",
) -> InteractiveMap:
    """Return a map to pan and zoom, with the value under the pointer and a list of species.

    Parameters
    ----------
    maps : xarray.Dataset
        Maps on a grid, such as those of :func:`geomiam.predict`.
    layer : str
        Layer with the dims species, y and x, or y and x.
    species : list of str, optional
        Default: all.
    cmap : str
        Colour map of matplotlib.

    Returns
    -------
    InteractiveMap
        ``map.save("map.html")`` writes a page; the last line of a notebook cell shows it. A map with more
        than two million cells of all species is drawn with every second, third, … cell.

    Raises
    ------
    SettingError
        If the maps have no such layer, or it has other dims.
    GeomiamError
        If bokeh is not installed.

    See Also
    --------
    geomiam.plot.suitability : a figure for print.

    Examples
    --------
    >>> page = gm.plot.interactive(gm.predict(cube, model))
    >>> page.html.lstrip().startswith("<!DOCTYPE html>")
    True
    """
    if layer not in maps:
        raise SettingError(
            f"the maps have no layer '{layer}'; pass layer= as one of {', '.join(map(str, maps.data_vars))}"
        )
    array = maps[layer]
    y, x = array.dims[-2:]
    if set(array.dims) - {"species", y, x}:
        raise SettingError(
            f"layer '{layer}' has dims {', '.join(map(str, array.dims))}; choose one step of each except "
            "species, y and x, e.g. maps.isel(group=0)"
        )
    if "species" not in array.dims:
        array = array.expand_dims(species=[layer])
    elif species is not None:
        array = array.sel(species=species)
    step = int(np.ceil(max(1.0, (array.size / MOST_CELLS) ** 0.5)))
    array = array.isel({y: slice(None, None, step), x: slice(None, None, step)})
    array = array.sortby([str(y), str(x)]).transpose("species", y, x)
    return InteractiveMap(_page(array, layer, cmap))


def _page(array: xr.DataArray, layer: str, cmap: str) -> str:
    try:
        import bokeh.models
        from bokeh.embed import file_html
        from bokeh.layouts import column
        from bokeh.resources import INLINE
    except ImportError:
        raise GeomiamError(
            "an interactive map needs bokeh: pip install 'geomiam[interactive]'"
        ) from None
    import matplotlib
    from matplotlib.colors import to_hex

    models: Any = bokeh.models  # whose types state only some names

    names = [str(s) for s in array["species"].values]
    values = np.ascontiguousarray(array.values, dtype="f4")
    low, high = _limits(array, layer)
    palette = [to_hex(matplotlib.colormaps[cmap](v)) for v in np.linspace(0, 1, 256)]
    mapper = models.LinearColorMapper(
        palette=palette, low=low, high=high, nan_color="rgba(0, 0, 0, 0)"
    )
    (left, width), (bottom, height) = (
        _extent(array[d].values) for d in (array.dims[2], array.dims[1])
    )
    plot = _frame(names[0], (left, left + width), (bottom, bottom + height))
    source = models.ColumnDataSource({"image": [values[0]]})
    place: dict[str, Any] = {"x": left, "y": bottom, "dw": width, "dh": height}
    image = plot.image(image="image", source=source, color_mapper=mapper, **place)
    tips = [(layer.replace("_", " "), "@image{0.000}"), ("x, y", "$x{0.0000}, $y{0.0000}")]
    plot.add_tools(models.HoverTool(renderers=[image], tooltips=tips))
    plot.add_layout(models.ColorBar(color_mapper=mapper, title=layer.replace("_", " ")), "right")
    parts: list[Any] = [plot]
    if len(names) > 1:
        parts = [_species_choice(names, values, source=source, plot=plot), plot]
    return str(file_html(column(*parts, sizing_mode="stretch_width"), INLINE, title="geomiam map"))


def _frame(title: str, x_range: tuple[float, float], y_range: tuple[float, float]) -> Any:
    """Return an empty figure to pan and zoom."""
    import bokeh.models
    from bokeh.plotting import figure

    models: Any = bokeh.models
    # Ranges may be pairs, which the types of bokeh do not state.
    ranges: dict[str, Any] = {"x_range": x_range, "y_range": y_range}
    plot: Any = figure(
        match_aspect=True,
        sizing_mode="stretch_width",
        height=HEIGHT,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        background_fill_color=EMPTY,
        title=title,
        **ranges,
    )
    for axis in (plot.xaxis, plot.yaxis):
        axis.formatter = models.BasicTickFormatter(use_scientific=False)
    return plot


def _species_choice(names: list[str], values: np.ndarray, *, source: Any, plot: Any) -> Any:
    """Return a menu of species; the choice puts an image of ``(species, y, x)`` into the source of the plot."""
    import bokeh.models

    models: Any = bokeh.models
    choice = models.Select(title="species", value=names[0], options=names)
    # The page has no server, so the browser holds the images of all species.
    code = (
        "source.data = {image: [layers.data.image[names.indexOf(choice.value)]]};"
        "plot.title.text = choice.value;"
    )
    layers = models.ColumnDataSource({"image": list(values)})
    arguments = {"source": source, "layers": layers, "names": names, "choice": choice, "plot": plot}
    choice.js_on_change("value", models.CustomJS(args=arguments, code=code))
    return choice


def _limits(array: xr.DataArray, layer: str) -> tuple[float, float]:
    if layer == "suitability" and array.attrs.get("scale") != "logit":
        return 0.0, 1.0
    low, high = float(array.min()), float(array.max())
    return (low, high) if low < high else (0.0, 1.0)


def _extent(centres: np.ndarray) -> tuple[float, float]:
    """Return the first edge of ascending cells, and their length."""
    cell = float(centres[-1] - centres[0]) / max(len(centres) - 1, 1) or 1.0
    return float(centres[0]) - cell / 2, cell * len(centres)
