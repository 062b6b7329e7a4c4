"""Means of the results of ``geomiam-bench disdat``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEFT_OUT = "nsw30"
"""Has two training records; published means are usually over the other species."""


def summarise(results: Sequence[dict]) -> dict[str, dict]:
    """Mean AUC per predictor and region, over subsets, and over the species of all regions."""
    labels = dict.fromkeys(r["label"] for r in results)
    return {label: _summary([r for r in results if r["label"] == label]) for label in labels}


def auc_of_species(run: Mapping[str, Any], label: str, region: str) -> dict[str, float]:
    """Return the AUC of each species with every predictor, mean over seeds."""
    rows = [r for r in run["results"] if (r["label"], r["region"]) == (label, region)]
    auc = np.array([r["scores"]["all"]["auc"] for r in rows], float).mean(0)
    return dict(zip(rows[0]["species"], auc.tolist(), strict=True))


def _summary(results: Sequence[dict]) -> dict:
    frames: dict[str, list[dict]] = {}
    for result in results:
        frames.setdefault(result["region"], []).append(result)
    per_region = {name: _region_summary(rows) for name, rows in frames.items()}
    species_auc = np.concatenate([r["species_auc"] for r in per_region.values()])
    names = np.concatenate([rows[0]["species"] for rows in frames.values()])
    sites = [rows[0].get("sites", {}) for rows in frames.values()]
    return {
        "survey_error": survey_error(species_auc, sites) if all(sites) else None,
        "regions": {
            n: {k: v for k, v in r.items() if k != "species_auc"} for n, r in per_region.items()
        },
        "mean_over_species": _mean(species_auc),
        "mean_without_nsw30": _mean(species_auc[names != LEFT_OUT]),
        "mean_over_regions": _mean(np.array([r["all"] for r in per_region.values()])),
        "species": int(np.isfinite(species_auc).sum()),
    }


def _region_summary(rows: Sequence[dict]) -> dict:
    """Means over species; seeds are averaged per species first."""
    tables = {
        column: np.array([_floats(r["scores"][column]["auc"]) for r in rows])
        for column in rows[0]["scores"]
    }
    means = {column: _mean(t.mean(0)) for column, t in tables.items()}
    seeds = [_mean(row) for row in tables["all"]]
    return {
        "all": means["all"],
        "seeds": seeds,
        "subsets": means,
        "mean_over_subsets": _mean(np.array(list(means.values()))),
        "auc_prg_median": float(
            np.nanmedian([_floats(r["scores"]["all"]["auc_prg"]) for r in rows])
        ),
        "cor": _mean(np.array([_floats(r["scores"]["all"]["cor"]) for r in rows])),
        "seconds": [r["seconds"] for r in rows],
        "species_auc": tables["all"].mean(0),
    }


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)


def _mean(values: np.ndarray) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return round(float(finite.mean()), 5) if finite.size else float("nan")


def survey_error(auc: np.ndarray, sites: Sequence[dict]) -> float:
    """Return the standard error of a mean AUC ``(S,)`` that the surveyed sites cause.

    ``sites`` has the numbers of sites with ``presence`` and ``absence`` of each species, by region, in the order of ``auc``.
    It is the root of the summed variances of the species (Hanley & McNeil 1982, Radiology 143, 29-36, equation 1), divided
    by their number. Species count as independent, although they share sites.
    """
    presence, absence = (
        np.concatenate([np.asarray(s[name], float) for s in sites])
        for name in ("presence", "absence")
    )
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (presence - 1) * (q1 - auc**2) + (absence - 1) * (q2 - auc**2)
    is_scored = np.isfinite(auc) & (presence > 0) & (absence > 0)
    variance = spread[is_scored] / (presence * absence)[is_scored]
    return round(float(np.sqrt(variance.sum()) / is_scored.sum()), 5)
