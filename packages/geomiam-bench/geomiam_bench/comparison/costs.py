"""What a prediction costs: systems timed in turn on the same cells."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import xarray as xr

from geomiam_bench.comparison.trials import Data, SystemPlan, chosen, observed, trained

CELLS = 1000
"""Cells that a cost is told for."""


def costs(data: Data, plan: SystemPlan) -> dict[str, list[float]]:
    """Processor seconds for 1,000 cells with all modalities, several times, the systems in turn.

    The weights hardly matter to the cost, so every network is trained for one epoch only. Cells
    are sites with a little noise: no two are alike, as on a map of fine grid.

    Returns
    -------
    dict
        Per system, one number per repetition; the first pass is not counted.
    """
    sites = data.round(0, plan)
    quick = plan.training.model_copy(update={"epochs": 1})
    short = replace(plan, training=quick)
    made = {s.name: trained(s, sites, data.schema, short)[0] for s in chosen(data, plan)}
    cells, found = distinct_cells(data), {name: [] for name in made}  # type: ignore[var-annotated]
    for repeat in range(plan.timings + 1):
        for name, predictor in made.items():
            started = time.process_time()
            predictor.scores(cells)
            if repeat:
                found[name].append(round(time.process_time() - started, 4))
    return found


def distinct_cells(data: Data, *, n: int = CELLS, rng: int = 0) -> xr.Dataset:
    """Draw cells from the sites where every modality is observed, and tell them apart by noise."""
    draws, sites = np.random.default_rng(rng), data.sites
    full = np.all([observed(sites, data.schema, [m]) for m in data.schema.modalities], 0)
    rows = draws.choice(np.flatnonzero(full if full.any() else ~full), n)
    cells = sites[list(data.schema.variables)].isel(site=rows)
    moved = {
        name: cells[name] + 1e-3 * float(cells[name].std()) * draws.normal(size=cells[name].shape)
        for name, v in data.schema.variables.items()
        if v.kind != "categorical"
    }
    moved = {
        name: v.astype(np.float32).assign_attrs(cells[name].attrs) for name, v in moved.items()
    }
    return cells.assign(moved).assign_coords(species=sites["species"])
