"""sPlotOpen (Sabatini et al. 2021): vegetation plots of the world, with MaskSDM's predictors beside.

``sPlotOpen_header*.txt`` and ``sPlotOpen_DT*.txt`` are tables with tabs. The predictors of MaskSDM
(Zbinden et al. 2025), where they lie in the same folder, are tables by plot: ``worldclim_data.csv``,
``soilgrid_data.csv``, ``topographic_data.csv``, ``metadata_data.csv``, ``cover_data.csv``, ``height_data.csv``,
``human_data.csv``, ``location_data.csv``, and ``satclip_embeddings.npy`` in the order of the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.schema.schema import Schema
from geomiam_bench.readers.files import (
    choose,
    clean,
    described,
    labels,
    need_folder,
    nothing_found,
    read_csv,
)

KEY = "PlotObservationID"
TABLES = {
    "worldclim_data.csv": "worldclim",
    "soilgrid_data.csv": "soil",
    "topographic_data.csv": "topography",
    "location_data.csv": "location",
    "human_data.csv": "human",
    "metadata_data.csv": "metadata",
    "cover_data.csv": "metadata",
    "height_data.csv": "metadata",
}
IN_HEADER = {
    "topography": ("Elevation", "Slope", "Aspect"),
    "metadata": ("Location_uncertainty", "Releve_area"),
}
UNITS = {"Elevation": "m", "Slope": "degrees", "Aspect": "degrees", "Releve_area": "m2"}
CIRCULAR = ("aspect",)


def splotopen_schema(sites: xr.Dataset) -> Schema:
    """Return the schema of sites from :func:`splotopen`; aspect is circular.

    Cover and height of the vegetation are observed with the plants, not before them: leave the modality
    ``metadata`` out for maps.
    """
    return described(sites, "splotopen")


def splotopen(
    folder: str | Path,
    *,
    plots: Sequence[int] | None = None,
    limit: int | None = None,
    min_records: int = 21,
) -> xr.Dataset:
    """Read vegetation plots as sites.

    Parameters
    ----------
    folder : path
        With header and species table; predictors beside them are read too.
    plots : sequence of int, optional
        These plots, in this order.
    limit : int, optional
        The first plots only.
    min_records : int
        Species in fewer of the chosen plots are left out; MaskSDM takes those with more than 20. All
        95,104 plots by 12,738 species are 4.8 GB.

    Returns
    -------
    xarray.Dataset
        Predictors ``(site)``, ``satclip(site, feature)``; terrain and plot facts of the header where no
        table has them; ``presence(site, species)`` 1 or 0, NaN in plots whose species are not listed.
        Coordinates ``lon``, ``lat``, ``siteid`` and ``year``.

    Raises
    ------
    OccurrenceError
        If header or species table are not there, or plots are unknown.
    """
    root = need_folder(folder)
    header, names = _table(root, "sPlotOpen_header"), _table(root, "sPlotOpen_DT")
    rows = choose(header[KEY].to_numpy(), plots, limit, name="plots")
    plot_rows = header.iloc[rows]
    arrays = (
        _of_header(plot_rows)
        | _tables(root, plot_rows[KEY].to_numpy())
        | _satclip(root, rows, len(header))
    )
    coords: dict[str, Any] = {
        "siteid": ("site", plot_rows[KEY].to_numpy()),
        "lon": ("site", plot_rows["Longitude"].to_numpy(float)),
        "lat": ("site", plot_rows["Latitude"].to_numpy(float)),
    }
    if "Date_of_recording" in plot_rows:
        dates = pd.to_datetime(plot_rows["Date_of_recording"], errors="coerce")
        coords["year"] = ("site", dates.dt.year.to_numpy(np.float32))
    sites = xr.Dataset(arrays, coords, {"crs": "EPSG:4326", "data_set": "sPlotOpen"})
    return sites.assign(presence=_presence(names, plot_rows[KEY], min_records))


def _table(root: Path, name: str) -> pd.DataFrame:
    paths = sorted(root.glob(f"{name}*.txt")) + sorted(root.glob(f"{name}*.csv"))
    if not paths:
        raise nothing_found(root, ["sPlotOpen_header*.txt", "sPlotOpen_DT*.txt"])
    table = read_csv(paths[0])
    required_columns = ("Longitude", "Latitude") if "header" in name else ("Species",)
    if missing_columns := [c for c in (KEY, *required_columns) if c not in table]:
        raise OccurrenceError(
            f"{paths[0]} has no columns {missing_columns}, found {list(table.columns)}"
        )
    return table


def _of_header(plot_rows: pd.DataFrame) -> dict[str, Any]:
    return {
        name: ("site", clean(plot_rows[name]), _attrs(name, home))
        for home, names in IN_HEADER.items()
        for name in names
        if name in plot_rows
    }


def _tables(root: Path, ids: np.ndarray) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, home in TABLES.items():
        if (root / name).is_file():
            table = read_csv(root / name)
            table = table.drop(columns=[c for c in table if str(c).startswith("Unnamed")])
            table = table.drop_duplicates(KEY).set_index(KEY).reindex(ids)
            arrays |= {str(c): ("site", clean(table[c]), _attrs(str(c), home)) for c in table}
    return arrays


def _attrs(name: str, home: str) -> dict[str, str]:
    circular = any(word in name.lower() for word in CIRCULAR)
    attributes = {"modality": home, "kind": "circular" if circular else "scalar"}
    return attributes | ({"units": UNITS[name]} if name in UNITS else {})


def _satclip(root: Path, rows: np.ndarray, plots: int) -> dict[str, Any]:
    path = root / "satclip_embeddings.npy"
    if not path.is_file():
        return {}
    values = np.load(path, mmap_mode="r")
    if len(values) != plots:
        raise OccurrenceError(f"{path} has {len(values)} rows, the header {plots}: they must agree")
    attrs = {"modality": "satclip", "kind": "vector"}
    return {"satclip": (("site", "feature"), clean(values[rows]), attrs)}


def _presence(names: pd.DataFrame, plots: pd.Series, min_records: int) -> xr.DataArray:
    site = pd.Index(plots).get_indexer(names[KEY])
    has_species = (site >= 0) & names["Species"].notna().to_numpy()
    species = names["Species"].to_numpy()[has_species]
    presence = labels(site[has_species], species, sites=len(plots), min_records=min_records)
    has_list = np.isin(np.arange(len(plots)), site[has_species])
    return presence.where(xr.DataArray(has_list, dims="site")).astype(np.float32)
