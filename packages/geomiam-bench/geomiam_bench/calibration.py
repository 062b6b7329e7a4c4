"""Calibration of probabilities: of the default fit with and without its shrinkage, and per pattern of observed groups.

    geomiam-bench calibration FOLDER --json out/bench/calibration.json [--draws 5] [--sizes 50,100] [--sets ""]

*Shrinkage.* The default fit is judged on held-out spatial blocks of parts of real surveys, see
:mod:`geomiam_bench.shrinkage`. Results are written after every part; those that are there are not computed again.

*Patterns.*
A model without shrinkage is fitted on half of the spatial blocks. The other sites are predicted from every subset of the groups, and each
calibration is fitted on four fifths of their blocks and judged on the rest. "shared" is fitted on all species together.
FOLDER holds ``maps/france_birds`` and ``maps/bryce_canyon``, two surveys with absences.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

import geomiam as gm
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench import shrinkage
from geomiam_bench.conformal import patterns_of
from geomiam_bench.defaults_data import bryce_canyon, french_birds
from geomiam_bench.options import Json, Names, listed
from geomiam_bench.results import as_text, read_json, write_json

FOLDS = 5
STEPS = 30
BINS = 10
CLIP = 0.001


@dataclass(frozen=True)
class Survey:
    """A survey with absences, and how it is split and fitted."""

    read: Callable[[Path], xr.Dataset]
    side: str
    """Side of the spatial blocks."""
    fewest: int
    """Least presences and absences of a species on the sites that did not train."""
    fit: dict[str, Any]


SURVEYS = {
    "Bryce Canyon plants": Survey(bryce_canyon, "2 km", 10, {"training": {"shrink": False}}),
    "French birds": Survey(
        french_birds,
        "100 km",
        30,
        {
            "network": {"fusion": "sum+linear", "members": 4},
            "training": {"steps": 300},
            "validation": False,
        },
    ),
}
SETS = ",".join(SURVEYS)


def line(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return intercept and slope ``(s,)`` of logit P from logits ``(n, s)``, with the targets of Platt (1999)."""
    positive, negative = (y == 1).sum(0), (y == 0).sum(0)
    target = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    a, b = np.zeros(z.shape[1]), np.ones(z.shape[1])
    for _ in range(STEPS):
        p = expit(a + b * z)
        gain, slope_gain = (target - p).sum(0), ((target - p) * z).sum(0)
        weight = p * (1 - p) + 1e-9
        h00, h01, h11 = weight.sum(0), (weight * z).sum(0), (weight * z * z).sum(0) + 1e-6
        size = h00 * h11 - h01**2
        steps = (h11 * gain - h01 * slope_gain) / size, (h00 * slope_gain - h01 * gain) / size
        shorter = np.maximum(1, np.abs(steps).max(0))
        a, b = a + steps[0] / shorter, b + steps[1] / shorter
    return a, b


def platt(z: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the probabilities of test logits ``(..., s)``, by a line for each species."""
    a, b = line(z, y)
    return expit(a + b * test)


def shared_platt(z: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the probabilities of test logits, by one line for all species."""
    return platt(z.reshape(-1, 1), y.reshape(-1, 1), test)


def shared_isotonic(z: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the probabilities of test logits, by one increasing function for all species."""
    curve = IsotonicRegression(out_of_bounds="clip", y_min=0.005, y_max=0.995)
    return curve.fit(z.ravel(), y.ravel()).predict(test.ravel()).reshape(test.shape)


def isotonic(z: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the probabilities of test logits ``(n, s)``, by an increasing function for each species."""
    columns = range(z.shape[1])
    return np.stack([shared_isotonic(z[:, s], y[:, s], test[:, s]) for s in columns], 1)


Kind = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
OF_ALL: dict[str, Kind] = {
    "one, shared": shared_platt,
    "one": platt,
    "isotonic one, shared": shared_isotonic,
}
"""Calibrations that are fitted on the predictions of all patterns together."""
OF_PATTERN: dict[str, Kind] = {
    "own, shared": shared_platt,
    "own": platt,
    "isotonic own, shared": shared_isotonic,
    "isotonic own": isotonic,
}
"""Calibrations of one pattern each."""


def calibrated(
    logits: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the probabilities ``(patterns, test, s)`` of each calibration; ``logits (patterns, n, s)``."""
    z, y, further = logits[:, train], labels[train], logits[:, test]
    every_z, every_y = z.reshape(-1, z.shape[2]), np.tile(y, (len(z), 1))
    results = {"none": expit(further), "all": platt(z[-1], y, further)}
    results |= {name: kind(every_z, every_y, further) for name, kind in OF_ALL.items()}
    for name, kind in OF_PATTERN.items():
        results[name] = np.stack([kind(a, y, b) for a, b in zip(z, further)])
    return results


def calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error of one pattern, in bins of as many sites and species each."""
    p, y = probability.ravel(), labels.ravel()
    bins = np.array_split(np.argsort(p), BINS)
    return float(sum(len(b) * abs(p[b].mean() - y[b].mean()) for b in bins) / len(p))


def one_fit(sites: xr.Dataset, survey: Survey, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the block of each site that did not train ``(n,)``, and losses ``(n,)`` and errors by calibration."""
    apart = gm.splits.hold_out_blocks(sites, share=0.5, block=survey.side, rng=seed)
    model = gm.fit(sites.isel(site=~apart), rng=seed, **survey.fit)
    held_out = sites.isel(site=apart)
    labels = held_out["presence"].transpose("site", "species").values
    frequent = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= survey.fewest
    species = [str(s) for s in held_out["species"].values[frequent]]
    scores = [
        gm.predict(held_out, model, using=using, species=species, scale="logit")["suitability"]
        for using in patterns_of(list(model.schema.groups))
    ]
    logits = np.stack([s.transpose("site", "species").values.astype(float) for s in scores])
    usable = np.isfinite(logits).all((0, 2))
    logits, labels = logits[:, usable], labels[usable][:, frequent]
    blocks = site_blocks(sites, survey.side).number[apart][usable]
    folds = spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(seed))
    parts = [calibrated(logits, labels, folds != f, folds == f) for f in range(FOLDS)]
    by_kind = {}
    for name in parts[0]:
        probability = np.empty_like(logits)
        for f, part in enumerate(parts):
            probability[:, folds == f] = part[name]
        by_kind[name] = losses(np.clip(probability, CLIP, 1 - CLIP), labels)
    return blocks, by_kind


def losses(probability: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return log loss and Brier score of each site, means over patterns and species, and the calibration error."""
    log_loss = -np.log(np.where(labels == 1, probability, 1 - probability))
    return {
        "log_loss": log_loss.mean((0, 2)),
        "brier": ((probability - labels) ** 2).mean((0, 2)),
        "ece": np.mean([calibration_error(p, labels) for p in probability]),
    }


def difference(
    fits: list[tuple[np.ndarray, dict[str, Any]]], kind: str, base: str, loss: str
) -> list[float]:
    """Return the mean difference of two calibrations, and its standard error over spatial blocks of all fits."""
    values = np.concatenate([f[kind][loss] - f[base][loss] for _, f in fits])
    blocks = np.concatenate([b for b, _ in fits])
    sums = np.bincount(blocks, values - values.mean())[np.unique(blocks)]
    count = len(sums)
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / len(values)
    return [round(float(values.mean()), 5), round(float(error), 5)]


def summary(fits: list[tuple[np.ndarray, dict[str, Any]]]) -> dict[str, Any]:
    """Return the scores of each calibration, and its difference from none and from one line for all."""
    table: dict[str, Any] = {}
    for kind in fits[0][1]:
        scores: dict[str, Any] = {
            n: round(float(np.mean([np.mean(f[kind][n]) for _, f in fits])), 4)
            for n in ("log_loss", "brier", "ece")
        }
        for base in ("none", "one, shared"):
            for loss in ("log_loss", "brier"):
                scores[f"{loss} minus {base}"] = difference(fits, kind, base, loss)
        table[kind] = scores
    return table


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with maps/.")],
    json: Json = Path("out/bench/calibration.json"),
    sets: Names = SETS,
    fits: Annotated[int, typer.Option(help="Models, each of other blocks.")] = 3,
    sizes: Annotated[str, typer.Option(help="Sites of the parts for the shrinkage.")] = ",".join(
        shrinkage.SIZES
    ),
    draws: Annotated[
        int, typer.Option(help="Random parts of each size, or draws of the folds.")
    ] = 2,
    nearby: Annotated[bool, typer.Option(help="Hold out random sites in place of blocks.")] = False,
) -> None:
    """Measure the shrinkage of the default fit, and whether a calibration per pattern beats one for all patterns."""
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"settings": {"fits": fits, "folds": FOLDS}}
    if json.exists():
        results = read_json(json)
    for name in (f"{n}, {s} sites" for s in listed(sizes) for n in shrinkage.SETS):
        _shrunk(results, name, folder, draws=draws, nearby=nearby)
        write_json(json, results)
    for name in listed(sets):
        survey, start = SURVEYS[name], time.perf_counter()
        sites = survey.read(folder)
        table = summary([one_fit(sites, survey, seed=seed) for seed in range(fits)])
        seconds = round(time.perf_counter() - start, 1)
        results.setdefault("sets", {})[name] = {"calibrations": table, "seconds": seconds}
        for kind, scores in table.items():
            print(f"{name}, {kind}: {as_text(scores)}")
        write_json(json, results)


def _shrunk(results: dict[str, Any], name: str, folder: Path, *, draws: int, nearby: bool) -> None:
    """Judge the parts of a set that are missing in the results."""
    rows = results.setdefault("nearby" if nearby else "blocks", {})
    parts = rows.get(name, {}).get("parts", [])
    while len(parts) < draws:
        try:
            part = shrinkage.judged(folder, name, draw=len(parts), nearby=nearby)
        except ValueError as error:  # a size that the set does not have
            print(f"{name}: {error}")
            return
        parts.append(part)
        rows[name] = {"parts": parts}
        print(name, part, flush=True)
