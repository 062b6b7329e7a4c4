"""The target group of species: where records of their class were collected, in counts per site."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.records.cubes import EFFORT, GROUP, TIMES
from geomiam.data.records.labels import Records
from geomiam.geo.dims import SITE

SPECIES_GROUP = "species_group"
"""Coordinate along ``species`` with the target group of each species."""


def has_target_group(table: pd.DataFrame) -> np.ndarray:
    """Return whether each row counts the records of a target group ``(row,)``."""
    if GROUP not in table or EFFORT not in table:
        return np.zeros(len(table), bool)
    return np.asarray(table[GROUP].notna() & (pd.to_numeric(table[EFFORT], errors="coerce") > 0))


def with_target_group(
    sites: xr.Dataset, table: pd.DataFrame, records: Records, *, rows: np.ndarray, site: np.ndarray
) -> xr.Dataset:
    """Add ``target_group_records(site, target_group)`` and ``species_group(species)``, if the table has them.

    ``rows`` are the rows of the table that are used, ``site`` the site of each ``(k,)``.
    """
    counts = has_target_group(table)[rows]
    if not counts.any() or records.wide:
        return sites
    group_rows = table.iloc[rows[counts]]
    columns = {str(c).lower(): c for c in reversed(table.columns)}
    time = next((columns[t] for t in TIMES if t in columns), None)
    frame = pd.DataFrame(
        {
            "site": site[counts],
            "group": group_rows[GROUP].astype(str).to_numpy(),
            "cell": group_rows[["lon", "lat"]].astype(str).agg(" ".join, axis=1).to_numpy(),
            "time": group_rows[time].astype(str).to_numpy() if time else "",
            "records": pd.to_numeric(group_rows[EFFORT]).to_numpy(float),
        }
    )
    totals = frame.groupby(["site", "group", "cell", "time"])["records"].max()
    table_of_sites = totals.groupby(["site", "group"]).sum().unstack(fill_value=0.0)
    table_of_sites = table_of_sites.reindex(range(sites.sizes[SITE]), fill_value=0.0)
    species_group = pd.Series(frame["group"].to_numpy(), index=records.codes[rows[counts]])
    first = species_group[~species_group.index.duplicated()].reindex(
        range(len(records.names)), fill_value=""
    )
    return sites.assign_coords(
        {
            GROUP: table_of_sites.columns.to_numpy(str),
            EFFORT: ((SITE, GROUP), table_of_sites.to_numpy("float32")),
            SPECIES_GROUP: ("species", first.to_numpy(str)),
        }
    )


def searched(sites: xr.Dataset) -> xr.DataArray:
    """Return where species were not recorded although their target group was ``(site, species)``.

    Without counts of target groups, these are the sites at which another species was recorded.
    """
    missing = sites["presence"].isnull()
    if EFFORT not in sites.coords or SPECIES_GROUP not in sites.coords:
        return missing & (missing.any("species") & ~missing.all("species"))
    groups, effort = sites[SPECIES_GROUP], sites[EFFORT]
    if missing.chunks is not None:
        effort = effort.chunk({SITE: missing.chunksizes[SITE]})
    effort = effort.reindex({GROUP: groups.values}, fill_value=0.0)
    at_species = xr.DataArray((effort.transpose(SITE, GROUP) > 0).data, dims=(SITE, "species"))
    return missing & at_species
