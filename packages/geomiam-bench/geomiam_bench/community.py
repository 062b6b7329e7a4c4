"""Skill from a few observed species: a masked community against no community and a joint model.

    geomiam-bench community FOLDER --json out/bench/community.json

FOLDER holds ``maps/``, as for ``geomiam-bench defaults``. Each survey is predicted on three folds of spatial
blocks by models that did not train on the fold; species with fewer than eight presences or absences are left out.
At every site of the fold, each species is predicted from k other species that are drawn at random; every method
gets the same ones. The AUC compares sites of one fold.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam.evaluation.evaluate import Predictor
from geomiam.evaluation.observed_species import scores_with
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench.community_baseline import fit_joint
from geomiam_bench.defaults_data import bryce_canyon, french_birds
from geomiam_bench.options import Json
from geomiam_bench.results import read_json, write_json

SURVEYS: dict[str, Callable[[Path], xr.Dataset]] = {
    "Bryce Canyon plants": bryce_canyon,
    "French birds": french_birds,
}
OBSERVED = (0, 2, 5, 10, 20)
FOLDS, RARE = 3, 8
"""Folds, and the least number of presences and absences of a species."""
OURS, WITHOUT = "community", "without community"
JOINT, PLAIN = "joint logistic", "logistic without community"


def main(
    data: Annotated[Path, typer.Argument(help="Folder with maps/.")],
    out: Json = Path("out/bench/community.json"),
) -> None:
    """Compare models with and without a community with a joint model of scikit-learn parts."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = read_json(out) if out.exists() else {}
    for name, read in SURVEYS.items():
        if name not in results:
            results[name] = judge(read(data))
            write_json(out, results)
        print(name, results[name]["auc"], results[name]["differences"], flush=True)


def judge(sites: xr.Dataset) -> dict[str, Any]:
    """Train and score all methods on one survey."""
    labels = sites["presence"].transpose("site", "species").values
    is_frequent = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= RARE
    sites, labels = sites.isel(species=is_frequent), labels[:, is_frequent]
    blocks = site_blocks(sites, min_blocks=FOLDS).number
    fold = spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(0))
    scores: dict[str, dict[int, np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for number in range(FOLDS):
        train, test = sites.isel(site=fold != number), sites.isel(site=fold == number)
        for name, k, values, cost in scored(train, test):
            of_method = scores.setdefault(name, {})
            of_method.setdefault(k, np.full(labels.shape, np.nan))[fold == number] = values
            seconds[name] = seconds.get(name, 0.0) + cost
    auc = {
        name: {k: gm.metrics.auc_within_folds(labels, z, fold) for k, z in of_method.items()}
        for name, of_method in scores.items()
    }
    return {
        "sites": len(labels),
        "species": labels.shape[1],
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "auc": {m: {str(k): _mean(v) for k, v in of.items()} for m, of in auc.items()},
        "differences": differences(auc),
        "by_species": {
            m: {str(k): np.round(v, 4).tolist() for k, v in of.items()} for m, of in auc.items()
        },
    }


def scored(train: xr.Dataset, test: xr.Dataset) -> list[tuple[str, int, np.ndarray, float]]:
    """Return method, k, scores ``(n_test, S)`` and CPU seconds of one fold."""
    with_train, with_test = gm.add_community(train), gm.add_community(test)
    schema = gm.infer_schema(with_train)
    variables = tuple(n for n, v in schema.variables.items() if v.species is not None)
    fits: dict[str, Callable[[], gm.Model | Predictor]] = {
        WITHOUT: lambda: gm.fit(train, rng=0),
        OURS: lambda: gm.fit(with_train, schema, rng=0),
        PLAIN: lambda: fit_joint(train, (), seed=0),
        JOINT: lambda: fit_joint(with_train, variables, seed=0),
    }
    rows = []
    for name, fit in fits.items():
        start = time.process_time()
        model = fit()
        for k in OBSERVED if name in (OURS, JOINT) else (0,):
            values = scores_with(model, with_test, schema, observed=k, seed=1)
            rows.append((name, k, values, time.process_time() - start))
            start = time.process_time()
    return rows


def differences(auc: dict[str, dict[int, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """Return the mean over species of our AUC minus that of another method, and its standard error, by k."""
    rows: dict[str, dict[str, list[float]]] = {}
    for baseline in (WITHOUT, JOINT):
        for k, values in auc[OURS].items():
            gap = values - auc[baseline].get(k, auc[baseline][0])
            gap = gap[np.isfinite(gap)]
            error = gap.std(ddof=1) / np.sqrt(len(gap))
            rows.setdefault(baseline, {})[str(k)] = [
                round(float(gap.mean()), 4),
                round(float(error), 4),
            ]
    return rows


def _mean(values: np.ndarray) -> float:
    return round(float(np.nanmean(values)), 4)
