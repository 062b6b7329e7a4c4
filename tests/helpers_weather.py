"""Weather as the Climate Data Store writes it: NetCDF files of a year or of a day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

LAT = ("lat", np.arange(51.5, 49.9, -0.1), {"units": "degrees_north"})
LON = ("lon", np.arange(3.0, 5.1, 0.1), {"units": "degrees_east"})
Files = tuple[dict[str, Path], dict[str, Any]]
"""Roots of a catalog by source, and the values of its variables."""


def era5_land(folder: Path) -> Files:
    """Files of two years as the Climate Data Store writes them, with its auxiliary coordinates."""
    for year, first in ((2023, 500), (2024, 0)):
        months = np.arange(f"{year}-01", f"{year + 1}-01", dtype="M8[M]").astype("M8[ns]")
        number = first + np.arange(12.0)[:, None, None] + np.zeros((12, LAT[1].size, LON[1].size))
        dims = ("valid_time", "latitude", "longitude")
        ds = xr.Dataset(
            {
                "t2m": (dims, (273.15 + number).astype("f4"), {"units": "K"}),
                "tp": (dims, (number / 1000).astype("f4"), {"units": "m"}),
                "swvl1": (dims, (number / 100).astype("f4"), {"units": "m**3 m**-3"}),
            },
            {
                "valid_time": months,
                "latitude": ("latitude", *LAT[1:]),
                "longitude": ("longitude", *LON[1:]),
                "number": 0,
                "expver": ("valid_time", np.full(12, "0001")),
            },
        )
        folder.mkdir(parents=True, exist_ok=True)
        ds.to_netcdf(folder / f"data_stream-moda-{year}.nc", engine="h5netcdf")
    steps = np.arange(12.0)
    return {"era5-land": folder}, {"t2m": steps, "tp": steps, "swvl1": steps / 100}


def agera5(folder: Path) -> Files:
    """A file for each of some days, named as in versions 1 and 2, and one of another year."""
    layers = {
        "Temperature_Air_2m_Mean_24h": ("Temperature-Air-2m-Mean-24h", 273.15, "K"),
        "Precipitation_Flux": ("Precipitation-Flux", 0.0, "mm d-1"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for number, day in enumerate(("20230101", "20240101", "20240102", "20240201")):
        date = np.array([f"{day[:4]}-{day[4:6]}-{day[6:]}"], "M8[ns]")
        for name, (stem, zero, units) in layers.items():
            values = np.full((1, LAT[1].size, LON[1].size), zero + number, "f4")
            axes = {"time": date, "lat": LAT}
            axes |= {"lon": LON}
            ds = xr.Dataset({name: (("time", "lat", "lon"), values, {"units": units})}, axes)
            file = f"{stem}_C3S-glob-agric_AgERA5_{day}_final-v1.1.nc"
            ds.to_netcdf(folder / file, engine="h5netcdf")
    return {"agera5": folder}, {"tmean": np.arange(1.0, 4), "precipitation": np.arange(1.0, 4)}
