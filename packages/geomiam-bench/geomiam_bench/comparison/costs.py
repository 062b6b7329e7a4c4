"""The cost of a prediction: processor seconds of systems, timed in turn on the same cells."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import xarray as xr

from geomiam_bench.comparison.trials import Data, SystemPlan, chosen, observed, trained

CELLS = 1000
"""Cells that a cost refers to."""


def costs(data: Data, plan: SystemPlan) -> dict[str, list[float]]:
    """Return processor seconds for 1,000 cells with all modalities, several times, the systems in turn.

    The weights hardly change the cost, so every network is trained for one epoch only. Cells are
    sites with a little noise, so that no two cells are equal, as on a map with a fine grid.

    Returns
    -------
    dict
        Per system, one number per repetition; the first pass is not counted.
    """
    sites = data.round(0, plan)
    quick = plan.training.model_copy(update={"epochs": 1})
    short = replace(plan, training=quick)
    predictors = {s.name: trained(s, sites, data.schema, short)[0] for s in chosen(data, plan)}
    cells, seconds = distinct_cells(data), {name: [] for name in predictors}  # type: ignore[var-annotated]
    for repeat in range(plan.timings + 1):
        for name, predictor in predictors.items():
            start = time.process_time()
            predictor.scores(cells)
            if repeat:
                seconds[name].append(round(time.process_time() - start, 4))
    return seconds


def distinct_cells(data: Data, *, n: int = CELLS, rng: int = 0) -> xr.Dataset:
    """Draw cells from the sites where every modality is observed, and make them differ by noise."""
    draws, sites = np.random.default_rng(rng), data.sites
    full = np.all([observed(sites, data.schema, [m]) for m in data.schema.modalities], 0)
    rows = draws.choice(np.flatnonzero(full if full.any() else ~full), n)
    cells = sites[list(data.schema.variables)].isel(site=rows)
    noisy_layers = {
        name: cells[name] + 1e-3 * float(cells[name].std()) * draws.normal(size=cells[name].shape)
        for name, v in data.schema.variables.items()
        if v.kind != "categorical"
    }
    noisy_layers = {
        name: v.astype(np.float32).assign_attrs(cells[name].attrs)
        for name, v in noisy_layers.items()
    }
    return cells.assign(noisy_layers).assign_coords(species=sites["species"])
