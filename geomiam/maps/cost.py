"""The cost of a map of any size, from the plan of a sample of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite

from geomiam.errors import SettingError
from geomiam.outputs.text import facts_html

HOUR, GIGABYTE = 3600, 10**9
HEADROOM = 1.5
"""Memory limit of a worker over its estimated peak: dask pauses a worker at 80 % of its limit."""


@dataclass(frozen=True)
class MapCost:
    """Core hours, workers, memory, storage and price of a map.

    See Also
    --------
    geomiam.plan_map : return the plan whose method ``cost`` returns it.

    Examples
    --------
    >>> cost = gm.plan_map(cube, model).cost(0.05, cells=580_000_000, hours=12)
    >>> cost.workers * 12 >= cost.core_hours > (cost.workers - 1) * 12
    True
    """

    cells: int
    """Cells with data."""
    rate: float
    """Cells with data per second and core."""
    core_hours: float
    workers: int
    """Workers with one thread each."""
    hours: float
    """Duration with these workers."""
    price: float
    """Price of the core hours."""
    bytes_per_worker: int
    """Memory limit of a worker with one thread: 1.5 times its estimated peak."""
    bytes_of_cube: int
    """Bytes of the predictors before compression."""
    bytes_of_map: int
    """Bytes of the map before compression."""
    price_of_storage: float
    """Price of cube and map for a month, before compression."""

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self._rows().items())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return facts_html("Cost of a map", self._rows())

    def _rows(self) -> dict[str, str]:
        from dask.utils import format_bytes

        rows = {
            "cells with data": f"{self.cells:,}, at {self.rate:,.0f} per second and core",
            "core hours": f"{self.core_hours:,.1f}",
            "workers": f"{self.workers:,} of one thread and {format_bytes(self.bytes_per_worker)} each",
            "duration": f"{self.hours:,.1f} hours",
            "price": f"{self.price:,.2f}",
            "storage": f"{self.bytes_of_cube / GIGABYTE:,.1f} GB of predictors and "
            f"{self.bytes_of_map / GIGABYTE:,.1f} GB of maps, before compression",
        }
        if self.price_of_storage:
            rows["price of storage"] = f"{self.price_of_storage:,.2f} per month"
        return rows


def check_cost(
    *,
    cells: float | None,
    hours: float | None,
    price_per_core_hour: float,
    price_per_gb_month: float,
) -> None:
    """Refuse prices below 0, and cells or hours that are not above 0; None is the default of the plan."""
    prices = {
        "price_per_core_hour": price_per_core_hour,
        "price_per_gb_month": price_per_gb_month,
    }
    for name, price in prices.items():
        if not (isfinite(price) and price >= 0):
            raise SettingError(f"{name}={price} is no price; pass a number such as 0.05")
    for name, value in {"cells": cells, "hours": hours}.items():
        if value is not None and not (isfinite(value) and value > 0):
            raise SettingError(f"{name}={value} is not above 0; pass a number above 0")


def cost_of(
    cells: float,
    rate: float,
    *,
    bytes_per_cell: tuple[float, float],
    peak_per_worker: int,
    workers: int,
    hours: float | None,
    price_per_core_hour: float,
    price_per_gb_month: float,
) -> MapCost:
    """Return the cost of a number of cells with data; ``bytes_per_cell`` are those of cube and map."""
    check_cost(
        cells=cells,
        hours=hours,
        price_per_core_hour=price_per_core_hour,
        price_per_gb_month=price_per_gb_month,
    )
    core_hours = cells / rate / HOUR
    if hours is not None:
        workers = ceil(core_hours / hours)
    of_cube, of_map = (int(n * cells) for n in bytes_per_cell)
    return MapCost(
        cells=int(cells),
        rate=rate,
        core_hours=core_hours,
        workers=workers,
        hours=core_hours / workers,
        price=core_hours * price_per_core_hour,
        bytes_per_worker=int(HEADROOM * peak_per_worker),
        bytes_of_cube=of_cube,
        bytes_of_map=of_map,
        price_of_storage=(of_cube + of_map) / GIGABYTE * price_per_gb_month,
    )
