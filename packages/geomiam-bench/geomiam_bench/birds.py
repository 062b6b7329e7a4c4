"""Make sites of the French breeding bird survey for ``geomiam-bench missingness``.

    python -m geomiam_bench.birds FOLDER out/birds.zarr
    geomiam-bench missingness out/birds.zarr --json out/bench/missing-birds.json

FOLDER holds ``europe_50km.zarr`` (14 layers in 5 modalities) and ``sites.parquet`` (mean counts of 20
species at 1,003 sites in two periods; the second is used). Presence is a count above zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import geomiam as gm

PERIOD = "2012-2017"
KINDS = {"koeppen": "categorical", "aspect": "circular"}


def main() -> None:
    """Read cube and survey, write the sites."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()
    cube = gm.open_cube(args.folder / "europe_50km.zarr", chunks=None).load()
    records = pd.read_parquet(args.folder / "sites.parquet").query("period == @PERIOD")
    species = [c for c in records if "_" in c and c[0].isupper()]
    sites = gm.sample(cube, records, species=species)
    for name, kind in KINDS.items():
        sites[name].attrs["type"] = kind
    gm.write_sites(sites, args.out, overwrite=args.overwrite)
    print(f"{sites.sizes['site']:,} sites, {sites.sizes['species']} species → {args.out}")


if __name__ == "__main__":
    main()
