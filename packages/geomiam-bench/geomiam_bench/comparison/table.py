"""Results of a comparison as one table, and what they say: means, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

REFERENCE = "miam-group"
"""The system that the others are compared with."""


def as_table(results: Sequence[Mapping]) -> xr.Dataset:
    """Turn results into ``auc(system, seed, subset, species)`` and what else they hold; NaN = not run.

    Parameters
    ----------
    results : sequence of mapping
        From :func:`geomiam_bench.comparison.trials.compare`; species are numbered.

    Returns
    -------
    xarray.Dataset
        ``auc``, ``sweep(system, seed, pattern, share)``, ``seconds(system, seed)`` and
        ``parameters(system)``; shares are numbered.
    """
    systems = list(dict.fromkeys(r["system"] for r in results))
    seeds = sorted({r["seed"] for r in results})
    one = results[0]
    scores = np.array([list(one["scores"].values())], float)
    sweep = np.array([list(one["sweep"].values())], float)
    at = (len(systems), len(seeds))
    auc, curves, seconds = (
        np.full(at + s, np.nan) for s in (scores.shape[1:], sweep.shape[1:], ())
    )
    for r in results:
        where = systems.index(r["system"]), seeds.index(r["seed"])
        auc[where] = np.array([r["scores"][s] for s in one["scores"]], float)
        curves[where] = np.array([r["sweep"][p] for p in one["sweep"]], float)
        seconds[where] = r["seconds"]
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
            "subset": list(one["scores"]),
            "pattern": list(one["sweep"]),
        },
    )


def situations(modalities: Sequence[str], subsets: Sequence[str]) -> dict[str, list[str]]:
    """Return subsets by what is missing: nothing, one modality, all but one.

    Of two modalities, the second and the third are the same, and one of them is told.
    """
    alone = [s for s in subsets if s in modalities]
    others = [s for s in subsets if s not in modalities and s != "all"]
    found = {"all": ["all"], "one missing": others, "one alone": alone}
    return {name: subsets for name, subsets in found.items() if subsets}


def in_situations(table: xr.Dataset, modalities: Sequence[str]) -> xr.DataArray:
    """Mean AUC over the subsets of each situation ``(system, seed, situation, species)``."""
    kinds = situations(modalities, [str(s) for s in table["subset"].values])
    parts = [table["auc"].sel(subset=s).mean("subset", skipna=False) for s in kinds.values()]
    found = xr.concat(parts, "situation").assign_coords(situation=list(kinds))
    return found.transpose("system", "seed", "situation", "species")


def paired(one: xr.DataArray, other: xr.DataArray) -> dict[str, Any]:
    """Mean of the differences between two systems, and how sure it is.

    Parameters
    ----------
    one, other : xarray.DataArray
        ``(seed, species)``, NaN where either was not scored.

    Returns
    -------
    dict
        ``mean`` over species × seeds; ``error``, its standard error; ``pairs``; ``species`` and
        ``gain``: how many, and how many of them gain in the mean over seeds.

    Notes
    -----
    Differences of one species go together over seeds, and those of one seed go together over species
    because they share a network. The variance counts both (two-way clusters, Cameron, Gelbach &
    Miller 2011): that of the species' sums, plus that of the seeds' sums, minus that of the single
    differences, each cluster count G weighing G / (G - 1).
    """
    both = (one - other).transpose("seed", "species").values
    known = np.isfinite(both)
    n = int(known.sum())
    if n == 0:
        return {"mean": None, "error": None, "pairs": 0, "species": 0, "gain": 0}
    mean = float(both[known].mean())
    rest = np.where(known, both - mean, 0.0)
    species, seeds = known.any(0), known.any(1)
    single = _spread(rest[known])
    error = np.sqrt(
        max(_spread(rest.sum(0)[species]) + _spread(rest.sum(1)[seeds]) - single, single)
    )
    means = np.where(known, both, 0).sum(0) / np.maximum(known.sum(0), 1)
    return {
        "mean": mean,
        "error": float(error / n) if n > 1 else None,
        "pairs": n,
        "species": int(species.sum()),
        "gain": int((means[species] > 0).sum()),
    }


def _spread(sums: np.ndarray) -> float:
    """Variance of a total from the sums of its clusters; 0 for one cluster, which tells nothing."""
    g = len(sums)
    return float((sums**2).sum()) * g / (g - 1) if g > 1 else 0.0


def summary(run: Mapping[str, Any]) -> dict[str, dict]:
    """What a run says of each system: means by situation and share, differences, and what it costs.

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
    own, one = kinds.sel(system=name), table.sel(system=name)
    seeds = own.mean("species")
    names = [str(s) for s in kinds["situation"].values]
    against = {}
    if name != REFERENCE and REFERENCE in kinds["system"]:
        best = kinds.sel(system=REFERENCE)
        against = {s: paired(own.sel(situation=s), best.sel(situation=s)) for s in names}
    cost = run.get("costs", {}).get(name)
    return {
        "auc": {s: _number(own.sel(situation=s).mean()) for s in names},
        "seeds": {s: [_number(v) for v in seeds.sel(situation=s)] for s in names},
        "against": against,
        "sweep": {
            str(p): [_number(v) for v in one["sweep"].sel(pattern=p).mean("seed")]
            for p in table["pattern"].values
        },
        "seconds": _number(one["seconds"].mean()),
        "parameters": _number(one["parameters"]),
        "cost": float(np.median(cost)) if cost else None,
    }


def _number(value: xr.DataArray) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
