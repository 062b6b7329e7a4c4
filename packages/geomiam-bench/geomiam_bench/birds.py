"""Make sites of the French breeding bird survey for ``geomiam-bench missingness``.

    geomiam-bench bird-sites FOLDER out/birds.zarr
    geomiam-bench missingness out/birds.zarr --json out/bench/missing-birds.json

FOLDER holds ``europe_50km.zarr`` (14 layers in 5 modalities) and ``sites.parquet`` (mean counts of 20
species at 1,003 sites in two periods; the second is used). Presence is a count above zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import geomiam as gm
from geomiam_bench.options import Overwrite

PERIOD = "2012-2017"
KINDS = {"koeppen": "categorical", "aspect": "circular"}


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with europe_50km.zarr, sites.parquet.")],
    out: Annotated[Path, typer.Argument(help="Zarr store to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write sites of the French breeding bird survey."""
    cube = gm.open_cube(folder / "europe_50km.zarr", chunks=None).load()
    records = pd.read_parquet(folder / "sites.parquet").query("period == @PERIOD")
    species = [c for c in records if "_" in c and c[0].isupper()]
    sites = gm.sample(cube, records, species=species, thin=False)  # surveys, of which none repeats
    for name, kind in KINDS.items():
        sites[name].attrs["type"] = kind
    gm.write_sites(sites, out, overwrite=overwrite)
    print(f"{sites.sizes['site']:,} sites, {sites.sizes['species']} species → {out}")
