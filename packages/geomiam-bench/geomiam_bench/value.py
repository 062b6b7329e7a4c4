"""Expected against realised change of predictions when hidden groups are shown, on held-out spatial blocks.

    geomiam-bench value --data FOLDER --json out/bench/value.json

A model is fitted on the sites outside of the held-out blocks. Sites in them lose modalities at random.
``gm.value_of_information`` gives the expected change for each group that a site lost, drawn from the training sites that the model
stores. The realised change is that of the prediction when this group alone is shown again. Simple rules are compared on the same
pairs of a site and a group, by species and as mean over species. FOLDER is that of ``geomiam-bench defaults``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from scipy.stats import spearmanr

import geomiam as gm
from geomiam_bench.conformal import SIDES, at_most
from geomiam_bench.defaults_data import readers
from geomiam_bench.options import Json, Names, listed
from geomiam_bench.results import as_text, write_json

EXPECTED = "value of information"
TRAINING = "mean change in training"
SHAPLEY = "mean size of Shapley values"
VARIANCE = "p (1 - p)"
SCALED = "mean change in training × p (1 - p)"
MISSING = "number of missing groups"
RULES = (EXPECTED, TRAINING, SHAPLEY, VARIANCE, SCALED, MISSING)
CHOOSING = (EXPECTED, TRAINING, SHAPLEY)
"""Rules whose values differ between the groups of a site."""
SETS = ",".join([*SIDES, "Bryce Canyon plants"])


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    share: float = 0.3
    """Share of the blocks that are held out."""
    hidden: float = 0.4
    """Share of the modalities that held-out sites lose."""
    neighbours: int = 20
    fewest: int = 20
    """Presences of a species in the training sites, at least."""
    sites: int = 2500
    """Larger data sets are drawn at random to this number of sites."""
    network: str = "sum+linear"
    members: int = 4
    steps: int = 400
    seed: int = 0


def divided(
    sites: xr.Dataset, settings: Settings, side: str | None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return training sites and held-out sites with the species that are frequent in training."""
    sites = at_most(sites, settings.sites)
    apart = gm.splits.hold_out_blocks(sites, share=settings.share, block=side, rng=settings.seed)
    frequent = (sites["presence"].isel(site=~apart) == 1).sum("site") >= settings.fewest
    sites = sites.isel(species=np.flatnonzero(frequent.values))
    return sites.isel(site=~apart), sites.isel(site=apart)


def changes(
    model: gm.Model, sites: xr.Dataset, settings: Settings, *, seed: int
) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """Return sites without modalities, their predictions ``(n, s)``, and the changes ``(n, G, s)`` when one is shown.

    NaN where the site has the group, or never had it.
    """
    schema = model.schema
    pattern = gm.evaluation.by_modality(sites, schema, share=settings.hidden, rng=seed)
    hidden = gm.evaluation.hide(sites, pattern, schema)
    prediction = predicted(hidden, model)
    groups_of_sites = gm.predict(sites, model)["observed"].values
    sizes = []
    for number, name in enumerate(schema.groups):
        with_group = gm.evaluation.hide(sites, pattern & (pattern["modality"] != name), schema)
        is_shown = pattern.sel(modality=name).values & ((groups_of_sites >> number) & 1 > 0)
        size = np.abs(predicted(with_group, model) - prediction)
        sizes.append(np.where(is_shown[:, None], size, np.nan))
    return hidden, prediction, np.stack(sizes, 1)


def predicted(sites: xr.Dataset, model: gm.Model) -> np.ndarray:
    """Return predictions ``(n, s)``."""
    return gm.predict(sites, model)["suitability"].transpose("site", "species").values


def rules_of(
    model: gm.Model, train: xr.Dataset, test: xr.Dataset, settings: Settings
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the value of each rule, the realised change, and the standard error of the first ``(n, G, s)``."""
    hidden, prediction, change = changes(model, test, settings, seed=settings.seed)
    options = gm.ValueOptions(neighbours=settings.neighbours)
    result = gm.value_of_information(hidden, model, options=options)
    order = ("site", "group", "species")
    expected, error = (
        result[n].transpose(*order).values for n in ("value_of_information", "value_standard_error")
    )
    in_training = np.nanmean(changes(model, train, settings, seed=settings.seed + 1)[2], 0)
    contributions = gm.shapley(train, model)["shapley"].transpose(*order).values
    shapley = np.abs(contributions).mean(0)
    variance = (prediction * (1 - prediction))[:, None]
    missing = np.isfinite(change).sum(1)[:, :1, None].astype(float)
    rules = {
        EXPECTED: expected,
        TRAINING: in_training[None],
        SHAPLEY: shapley[None],
        VARIANCE: variance,
        SCALED: in_training * variance,
        MISSING: missing,
    }
    usable = np.isfinite(change) & np.isfinite(expected)
    return (
        {n: np.where(usable, v, np.nan) for n, v in rules.items()},
        np.where(usable, change, np.nan),
        np.where(usable, error, np.nan),
    )


def scores(rules: Mapping[str, np.ndarray], change: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Return rank correlations of each rule with the realised change ``(n, G, s)``, and the size of the expected one."""
    out: dict[str, Any] = {"pairs": int(np.isfinite(change).sum())}
    out["pooled"] = {rule: correlation(v, change) for rule, v in rules.items()}
    out["by_group"] = {
        rule: {g: correlation(v[:, i], change[:, i]) for i, g in enumerate(names)}
        for rule, v in rules.items()
    }
    out["within"] = {
        rule: _mean(
            correlation(v[:, i, j], change[:, i, j])
            for i in range(change.shape[1])
            for j in range(change.shape[2])
        )
        for rule, v in rules.items()
    }
    out["size"] = {"all": size(rules[EXPECTED], change)} | {
        g: size(rules[EXPECTED][:, i], change[:, i]) for i, g in enumerate(names)
    }
    return out


def size(expected: np.ndarray, change: np.ndarray) -> dict[str, float | None]:
    """Return the ratio of the means, and the slope of the realised on the expected change."""
    e, r = (a[np.isfinite(change)] for a in (expected, change))
    if len(e) < 3 or not e.any():
        return {"mean_expected": None, "mean_realised": None, "ratio": None, "slope": None}
    slope = np.cov(e, r)[0, 1] / np.var(e, ddof=1) if np.ptp(e) > 0 else np.nan
    numbers = (e.mean(), r.mean(), e.mean() / r.mean(), slope)
    keys = ("mean_expected", "mean_realised", "ratio", "slope")
    return {k: round(float(n), 4) for k, n in zip(keys, numbers)}


def choice(rules: Mapping[str, np.ndarray], change: np.ndarray) -> dict[str, Any]:
    """Return how much of the largest realised change ``(n, G)`` the group has that each rule ranks first.

    Sites that lost one group only have no choice.
    """
    rows = np.isfinite(change).sum(1) > 1
    changes_of_sites = change[rows]
    best = np.nanmax(changes_of_sites, 1)
    out: dict[str, Any] = {"sites": int(rows.sum())}
    if not rows.any():
        return out
    out["any group"] = round(float(np.nanmean(changes_of_sites, 1).sum() / best.sum()), 4)
    for rule in CHOOSING:
        first = np.where(np.isfinite(changes_of_sites), rules[rule][rows], -np.inf).argmax(1)
        change_of_first = np.take_along_axis(changes_of_sites, first[:, None], 1)
        out[rule] = round(float(change_of_first.sum() / best.sum()), 4)
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Spearman's rank correlation of the pairs that both have; None where one side is constant."""
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = np.broadcast_to(a, b.shape)[usable], b[usable]
    if len(a) < 10 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(spearmanr(a, b).statistic), 4)


def _mean(values: Any) -> float | None:
    numbers = [v for v in values if v is not None]
    return round(float(np.mean(numbers)), 4) if numbers else None


def bins(expected: np.ndarray, change: np.ndarray, count: int = 10) -> dict[str, list[float]]:
    """Return the mean expected and realised change in tenths of the pairs by the expected change."""
    usable = np.isfinite(change)
    e, r = expected[usable], change[usable]
    parts = np.array_split(np.argsort(e, kind="stable"), count)
    return {
        "expected": [round(float(e[p].mean()), 5) for p in parts],
        "realised": [round(float(r[p].mean()), 5) for p in parts],
    }


def one_set(sites: xr.Dataset, settings: Settings, side: str | None) -> dict[str, Any]:
    """Return the scores of one data set."""
    start = time.process_time()
    train, test = divided(sites, settings, side)
    model = gm.fit(
        train,
        network={"fusion": settings.network, "members": settings.members},
        training={"steps": settings.steps},
        validation=False,
        rng=settings.seed,
    )
    end_of_fit = time.process_time()
    rules, change, error = rules_of(model, train, test, settings)
    names = list(model.schema.groups)
    of_set = {rule: v.mean(2, keepdims=True) for rule, v in rules.items()}
    change_of_set = change.mean(2, keepdims=True)
    return {
        "sites": {"training": train.sizes["site"], "held out": test.sizes["site"]},
        "species": len(model.species),
        "groups": names,
        "species_by_species": scores(rules, change, names),
        "set": scores(of_set, change_of_set, names),
        "choice": choice({r: v[..., 0] for r, v in of_set.items()}, change_of_set[..., 0]),
        "bins": bins(rules[EXPECTED], change),
        "mean_standard_error": round(float(np.nanmean(error)), 5),
        "cpu_seconds": {
            "fit": round(end_of_fit - start, 1),
            "values": round(time.process_time() - end_of_fit, 1),
        },
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder with maps/ and disdat/.")],
    json: Json = Path("out/bench/value.json"),
    sets: Names = SETS,
    neighbours: Annotated[int, typer.Option(help="Sites to draw from.")] = Settings.neighbours,
) -> None:
    """Compare the expected with the realised change of predictions when hidden groups are shown."""
    settings, available = Settings(neighbours=neighbours), readers(data)
    results: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name in listed(sets):
            results[name] = one_set(available[name](), settings, SIDES.get(name))
            result = results[name]
            print(name, as_text({k: result[k]["pooled"] for k in ("species_by_species", "set")}))
            write_json(json, {"settings": asdict(settings), "sets": results})
