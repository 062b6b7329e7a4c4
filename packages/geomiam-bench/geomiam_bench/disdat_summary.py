"""Means of the results of ``geomiam-bench disdat``, and the published means beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEFT_OUT = "nsw30"
"""Has two training records; published means are usually over the other species."""


def summarise(results: Sequence[dict]) -> dict[str, dict]:
    """Mean AUC per predictor and region, over subsets, and over the species of all regions."""
    labels = dict.fromkeys(r["label"] for r in results)
    return {label: _summary([r for r in results if r["label"] == label]) for label in labels}


def _summary(results: Sequence[dict]) -> dict:
    frames: dict[str, list[dict]] = {}
    for result in results:
        frames.setdefault(result["region"], []).append(result)
    per_region = {name: _region_summary(rows) for name, rows in frames.items()}
    species_auc = np.concatenate([r["species_auc"] for r in per_region.values()])
    names = np.concatenate([rows[0]["species"] for rows in frames.values()])
    return {
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


PUBLISHED = {
    "target-group": [
        {
            "method": "random forest, equal-sample",
            "regions": {
                "AWT": 0.701,
                "CAN": 0.717,
                "NSW": 0.756,
                "NZ": 0.746,
                "SA": 0.809,
                "SWI": 0.846,
            },
            "mean_of_225_species": 0.759,
            "source": "Valavi et al. 2021, doi:10.1111/ecog.05615, per-species files",
        },
        {
            "method": "random forest, down-sampled",
            "regions": {
                "AWT": 0.687,
                "CAN": 0.717,
                "NSW": 0.757,
                "NZ": 0.744,
                "SA": 0.806,
                "SWI": 0.847,
            },
            "mean_of_225_species": 0.756,
            "source": "Valavi et al. 2021, doi:10.1111/ecog.05615, per-species files",
        },
        {
            "method": "DeepMaxent",
            "mean": 0.768,
            "source": "Ryckewaert et al., arXiv:2412.19217, abstract of HAL hal-05446820",
        },
        {
            "method": "Maxent",
            "mean": 0.760,
            "source": "Ryckewaert et al., arXiv:2412.19217, abstract of HAL hal-05446820",
        },
    ],
    "random": [
        {
            "method": m,
            "mean_of_226_species": v,
            "source": "Dinnage & Warren 2026, doi:10.32942/X2VQ10, abstract",
        }
        for m, v in {
            "MaxNet": 0.732,
            "random forest, down-sampled": 0.727,
            "boosted regression trees": 0.724,
            "GAM": 0.717,
        }.items()
    ],
}
"""Means as published, on other covariates or species where the source states it."""
