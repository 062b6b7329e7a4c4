"""Record of a training in the model: settings, sites, scores, place and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from geomiam.errors import GridError
from geomiam.masking import to_dict
from geomiam.splits import site_coordinates
from geomiam.tokens.select import group_coverage
from geomiam.training.checkpoint import Progress
from geomiam.training.fingerprint import fingerprint
from geomiam.training.loop import Run


def provenance(runs: Sequence[Run], ends: Sequence[Progress], sites: xr.Dataset) -> dict:
    """Return the record of a training; values that differ between members are listed or averaged."""
    run = runs[0]
    labels = run.table.labels
    rows = [{"member": i, **row} for i, end in enumerate(ends) for row in end.history]
    return {
        "masking": to_dict(run.masking),
        "training": min((r.config for r in runs), key=lambda c: c.lr).model_dump(),
        "seeds": [r.seed for r in runs],
        "sites": site_counts(run),
        "presences": dict(zip(run.model.species, (labels == 1).sum(0).tolist())),
        "best_epochs": [end.best_epoch for end in ends],
        "validation_auc": _mean_scores([end.history[end.best_epoch] for end in ends]),
        "history": rows,
        "fingerprint": fingerprint(sites),
        "coverage": group_coverage(run.model.layout, run.table.observed.numpy()),
        **place_and_time(sites),
    }


def site_counts(run: Run) -> dict[str, int]:
    """Return the number of training sites, and of validation sites that do not train."""
    table = run.table
    return {
        "train": len(table.train),
        "validation": len(np.setdiff1d(table.valid, table.train)),
    }


def place_and_time(sites: xr.Dataset) -> dict[str, list]:
    """Return extent and first and last date of sites, as far as the sites have them."""
    about: dict[str, list] = {}
    try:
        xy = site_coordinates(sites)
        about["extent"] = [*np.nanmin(xy, 0).tolist(), *np.nanmax(xy, 0).tolist()]
    except GridError:  # sites without coordinates have no extent to report
        pass
    if "time" in sites.coords and sites["time"].dims == ("site",):
        about["dates"] = [
            str(sites["time"].min().values)[:10],
            str(sites["time"].max().values)[:10],
        ]
    return about


def _mean_scores(rows: Sequence[dict]) -> dict[str, float | None]:
    """Return the mean over members of each validation AUC at the kept epoch."""
    frame = {k: [r[k] for r in rows if r[k] is not None] for k in rows[0] if k.startswith("auc_")}
    return {k.removeprefix("auc_"): float(np.mean(v)) if v else None for k, v in frame.items()}
