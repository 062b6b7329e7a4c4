"""Maps of occurrence records, with the tests that they fail, and of sites with their background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.geo.dims import spatial_pair
from geomiam.plot.canvas import INK, RED, one_axes, palette, plain
from geomiam.plot.cartography import frame_map, units_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FLAG = "flag_"
MARKS = "sD^vP*X<>ph"
"""Markers of the tests."""
STYLE: dict[str, Any] = {"ls": "none", "alpha": 0.8}


def records(
    records: pd.DataFrame | xr.Dataset, *, species: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw occurrence records on a map: presences, absences, background, and records that fail a test.

    Parameters
    ----------
    records : pandas.DataFrame or xarray.Dataset
        From :func:`geomiam.read_records`, or from :func:`geomiam.clean_records` with ``remove=False``: then
        each record that fails has the colour of the first test that it fails. Or the sites of
        :func:`geomiam.sample` or :func:`geomiam.add_background`.
    species : str, optional
        Default: all.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If there are no records to draw, or sites have no coordinates or no ``presence``.

    Examples
    --------
    >>> import geomiam as gm, pandas as pd
    >>> table = pd.DataFrame({"species": "oak", "lon": [3.9, 0.0], "lat": [43.6, 0.0]})
    >>> ax = gm.plot.records(gm.clean_records(table, remove=False))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['presence (1)', 'fails zero (1)']
    """
    units = ""
    if isinstance(records, xr.Dataset):
        records, units = _table_of(records, species)
    names = [n for n in (("lon", "lat"), ("x", "y")) if set(n) <= set(records.columns)]
    if not names or "presence" not in records:
        raise SettingError(
            f"records have columns {list(records.columns)[:8]}, and a map needs lon, lat and presence; read them with "
            "gm.read_records"
        )
    table = records if species is None else records[records["species"] == species]
    table = table[np.isfinite(table[list(names[0])].to_numpy(float)).all(axis=1)]
    if table.empty:
        raise SettingError(
            f"there are no records with coordinates of species {species!r}; check the name"
        )
    ax = one_axes(ax, (7.2, 6))
    x, y = (table[n].to_numpy(float) for n in names[0])
    failed_test = _first_failed(table)
    for label, rows, style in _layers(table, failed_test):
        ax.plot(x[rows], y[rows], label=f"{label} ({int(rows.sum()):,})", **(STYLE | style))
    frame_map(ax, "degrees" if names[0] == ("lon", "lat") else units, y)
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    ax.legend(fontsize=8, frameon=False, markerscale=1.5, **beside)
    if species is not None:
        ax.set_title(plain(species), style="italic")
    return ax


def _table_of(sites: xr.Dataset, species: str | None) -> tuple[pd.DataFrame, str]:
    """Return sites as records, of one species or with the highest label of any, and the units of x and y."""
    import pandas as pd

    pair = spatial_pair(sites.variables)
    if pair is None or "presence" not in sites:
        raise SettingError(
            f"the data have {[str(n) for n in sites.variables][:8]}, and a map of sites needs coordinates and presence(site, "
            "species); pass sites of gm.sample"
        )
    labels = sites["presence"]
    labels = labels.max("species") if species is None else labels.sel(species=species)
    units = units_of(sites, pair[1])
    x, y = ("lon", "lat") if "degree" in units else ("x", "y")
    columns = {x: sites[pair[1]].values, y: sites[pair[0]].values, "presence": labels.values}
    table = pd.DataFrame({**columns, "species": species})
    table["background"] = sites["background"].values if "background" in sites.variables else False
    return table, units


def _first_failed(table: pd.DataFrame) -> np.ndarray:
    """Return the first test that each record fails, or no text ``(row,)``."""
    tests = [c for c in table.columns if str(c).startswith(FLAG)]
    failed_test = np.full(len(table), "", dtype=object)
    for name in reversed(tests):
        failed_test[table[name].to_numpy(bool)] = str(name).removeprefix(FLAG)
    return failed_test


def _layers(
    table: pd.DataFrame, failed_test: np.ndarray
) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return label, rows and style of each layer that has records."""
    presence = table["presence"].to_numpy(float)
    passes = failed_test == ""
    is_background = np.asarray(table.get("background", False), bool) & (presence == 0)
    layers: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        ("background", is_background, {"marker": ".", "ms": 3.5, "color": "0.6", "mew": 0}),
        (
            "absence",
            passes & (presence == 0) & ~is_background,
            {"marker": "o", "ms": 3, "mfc": "none", "mec": INK, "mew": 0.6},
        ),
        ("not surveyed", passes & np.isnan(presence), {"marker": ".", "ms": 3, "color": "0.6"}),
        ("presence", passes & (presence > 0), {"marker": "o", "ms": 3, "color": RED, "mew": 0}),
    ]
    for k, test in enumerate(dict.fromkeys(failed_test[~passes])):
        style = {"marker": MARKS[k % len(MARKS)], "ms": 6, "mfc": "none", "mec": palette(k)}
        layers.append((f"fails {test.replace('_', ' ')}", failed_test == test, style))
    return [layer for layer in layers if layer[1].any()]
