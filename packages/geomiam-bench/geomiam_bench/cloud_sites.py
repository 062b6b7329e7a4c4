"""Make sites of a cloudy NDVI series, a modality per season, for ``geomiam-bench systems``.

    geomiam-bench cloud-sites FOLDER out/cloud-sites.zarr
    geomiam-bench systems out/cloud-sites.zarr --schema out/cloud-sites.yaml --json systems-clouds.json

FOLDER, classes and pixels are those of ``geomiam-bench cloud-gaps``. The dates of all years that fall
into one season are a separate modality, read month by month, so that a season can go missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import xarray as xr
import yaml

import geomiam as gm
from geomiam_bench.cloud_series import make_sites, read_cube
from geomiam_bench.options import Overwrite

PER_CLASS = 400
SEASONS = {"DJF": "winter", "MAM": "spring", "JJA": "summer", "SON": "autumn"}


def by_season(sites: xr.Dataset) -> xr.Dataset:
    """Split the series: ``ndvi_<season>(site, <season>_time)``."""
    parts = {
        f"ndvi_{name}": part.rename(time=f"{name}_time")
        for season, name in SEASONS.items()
        if (part := sites["ndvi"].isel(time=sites["time"].dt.season == season)).sizes["time"]
    }
    return sites.drop_vars(["ndvi", "time", "row", "column"]).assign(parts)


def catalog() -> dict:
    """The predictors: elevation, and a series per season."""
    series = {"kind": "series", "window": "1MS"}
    seasons = {name: {"variables": {f"ndvi_{name}": series}} for name in SEASONS.values()}
    return {
        "name": "cloud-sites",
        "modalities": {"terrain": {"variables": {"elevation": {}}}, **seasons},
    }


def main(
    folder: Annotated[Path, typer.Argument(help="Zarr cube, as cloud-gaps reads.")],
    out: Annotated[Path, typer.Argument(help="Zarr store to write; a catalog is put beside it.")],
    overwrite: Overwrite = False,
) -> None:
    """Write sites of a cloudy series, with one modality per season."""
    sites = by_season(make_sites(read_cube(folder), per_class=PER_CLASS))
    gm.write_sites(sites, out, overwrite=overwrite)
    text = yaml.safe_dump(catalog(), sort_keys=False)
    out.with_suffix(".yaml").write_text(text, encoding="utf-8")
    print(f"{sites.sizes['site']:,} sites, {sites.sizes['species']} classes → {out}")
