"""Results of a comparison as one table: means, and paired differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

REFERENCES = ("default", "miam-group")
"""The first of these systems that a run has is the one that all others are compared with."""


def reference(systems: Collection[str]) -> str:
    """Return the system that the others of a run are compared with."""
    return next((name for name in REFERENCES if name in systems), REFERENCES[0])


def as_table(results: Sequence[Mapping]) -> xr.Dataset:
    """Turn results of :func:`geomiam_bench.comparison.trials.compare` into a table; NaN = not run.

    It has ``auc(system, seed, subset, species)``, ``sweep(system, seed, pattern, share)``, ``seconds(system, seed)`` and
    ``parameters(system)``; species and shares are numbered.
    """
    systems = list(dict.fromkeys(r["system"] for r in results))
    seeds = sorted({r["seed"] for r in results})
    first_result = results[0]
    scores = np.array([list(first_result["scores"].values())], float)
    sweep = np.array([list(first_result["sweep"].values())], float)
    at = (len(systems), len(seeds))
    auc, curves, seconds = (
        np.full(at + s, np.nan) for s in (scores.shape[1:], sweep.shape[1:], ())
    )
    for r in results:
        cell = systems.index(r["system"]), seeds.index(r["seed"])
        auc[cell] = np.array([r["scores"][s] for s in first_result["scores"]], float)
        curves[cell] = np.array([r["sweep"][p] for p in first_result["sweep"]], float)
        seconds[cell] = r["seconds"]
    sizes = {r["system"]: r["parameters"] or np.nan for r in results}
    return xr.Dataset(
        {
            "auc": (("system", "seed", "subset", "species"), auc),
            "sweep": (("system", "seed", "pattern", "share"), curves),
            "seconds": (("system", "seed"), seconds),
            "parameters": ("system", [sizes[s] for s in systems]),
        },
        coords={
            "system": systems,
            "seed": seeds,
            "subset": list(first_result["scores"]),
            "pattern": list(first_result["sweep"]),
        },
    )


def situations(modalities: Sequence[str], subsets: Sequence[str]) -> dict[str, list[str]]:
    """Return subsets by situation: nothing is missing, one modality is missing, or all but one are.

    With two modalities the second and the third situation are equal, and only one is returned.
    """
    alone = [s for s in subsets if s in modalities]
    all_but_one = [s for s in subsets if s not in modalities and s != "all"]
    by_situation = {"all": ["all"], "one missing": all_but_one, "one alone": alone}
    return {name: subsets for name, subsets in by_situation.items() if subsets}


def in_situations(table: xr.Dataset, modalities: Sequence[str]) -> xr.DataArray:
    """Return the mean AUC over the subsets of each situation ``(system, seed, situation, species)``."""
    kinds = situations(modalities, [str(s) for s in table["subset"].values])
    parts = [table["auc"].sel(subset=s).mean("subset", skipna=False) for s in kinds.values()]
    means = xr.concat(parts, "situation").assign_coords(situation=list(kinds))
    return means.transpose("system", "seed", "situation", "species")


def paired(scores: xr.DataArray, baseline: xr.DataArray) -> dict[str, Any]:
    """Return the mean of the differences between two systems, and its standard error.

    Parameters
    ----------
    scores, baseline : xarray.DataArray
        ``(seed, species)``, NaN where one of them was not scored.

    Returns
    -------
    dict
        ``mean`` over species × seeds; ``error``, its standard error; ``pairs``; ``species`` and
        ``gain``: the number of species, and of those that gain in the mean over seeds.

    Notes
    -----
    Differences of one species are correlated over seeds. Those of one seed are correlated over
    species, because they share a network. The variance has both parts (two-way clusters, Cameron,
    Gelbach & Miller 2011): the variance of the species' sums, plus that of the seeds' sums, minus
    that of the single differences. Each part has the factor G / (G - 1) for its G clusters.
    """
    difference = (scores - baseline).transpose("seed", "species").values
    is_scored = np.isfinite(difference)
    n = int(is_scored.sum())
    if n == 0:
        return {"mean": None, "error": None, "pairs": 0, "species": 0, "gain": 0}
    mean = float(difference[is_scored].mean())
    residuals = np.where(is_scored, difference - mean, 0.0)
    species, seeds = is_scored.any(0), is_scored.any(1)
    single = _spread(residuals[is_scored])
    error = np.sqrt(
        max(_spread(residuals.sum(0)[species]) + _spread(residuals.sum(1)[seeds]) - single, single)
    )
    means = np.where(is_scored, difference, 0).sum(0) / np.maximum(is_scored.sum(0), 1)
    return {
        "mean": mean,
        "error": float(error / n) if n > 1 else None,
        "pairs": n,
        "species": int(species.sum()),
        "gain": int((means[species] > 0).sum()),
    }


def _spread(sums: np.ndarray) -> float:
    """Return the variance of a total from the sums of its clusters; 0 for one cluster, which has no variance."""
    g = len(sums)
    return float((sums**2).sum()) * g / (g - 1) if g > 1 else 0.0


def summary(run: Mapping[str, Any]) -> dict[str, dict]:
    """Return the results of each system: means by situation and share, differences, and costs.

    Parameters
    ----------
    run : mapping
        As :func:`geomiam_bench.comparison.run.write_comparison` writes it.

    Returns
    -------
    dict
        Per system ``auc`` (situation → mean over species and seeds), ``seeds`` (situation → mean per
        seed), ``against`` (situation → :func:`paired` with the reference, if that was run), ``sweep``
        (pattern → mean per share), ``seconds``, ``parameters`` and ``cost``: processor seconds of
        training, and median for 1,000 cells.
    """
    table = as_table(run["results"])
    kinds = in_situations(table, list(run["settings"]["data"]["modalities"]))
    return {str(s): _of_system(str(s), table, kinds, run) for s in table["system"].values}


def _of_system(name: str, table: xr.Dataset, kinds: xr.DataArray, run: Mapping) -> dict[str, Any]:
    system_auc, row = kinds.sel(system=name), table.sel(system=name)
    seeds = system_auc.mean("species")
    names = [str(s) for s in kinds["situation"].values]
    against = {}
    base = reference(table["system"].values.tolist())
    if name != base and base in kinds["system"]:
        reference_auc = kinds.sel(system=base)
        against = {
            s: paired(system_auc.sel(situation=s), reference_auc.sel(situation=s)) for s in names
        }
    cost = run.get("costs", {}).get(name)
    return {
        "auc": {s: _number(system_auc.sel(situation=s).mean()) for s in names},
        "seeds": {s: [_number(v) for v in seeds.sel(situation=s)] for s in names},
        "against": against,
        "sweep": {
            str(p): [_number(v) for v in row["sweep"].sel(pattern=p).mean("seed")]
            for p in table["pattern"].values
        },
        "seconds": _number(row["seconds"].mean()),
        "parameters": _number(row["parameters"]),
        "cost": float(np.median(cost)) if cost else None,
    }


def _number(value: xr.DataArray) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
