"""Coverage of prediction sets on held-out spatial blocks, per pattern of observed groups; and the spread against the error.

    geomiam-bench conformal --data FOLDER --json out/bench/conformal.json

A model is fitted on half of the spatial blocks. The other blocks are divided at random, many times, into blocks that calibrate
and blocks that test. For every subset of the groups the test sites are predicted from these groups alone. Their sets come from bounds of the
same subset ("own": geomiam), from those of all groups ("all": the usual threshold, which ignores what is missing), or from
those of the subset with blocks that count alike ("blocks": geomiam with ``blocks=``).
FOLDER is that of ``geomiam-bench defaults``; surveys of disdat are not read.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from scipy.stats import spearmanr

import geomiam as gm
from geomiam.data.sites.table import SiteTable
from geomiam.inference.conformal import class_bounds, observed_groups
from geomiam.splits import site_blocks
from geomiam.tokens.select import group_masks
from geomiam_bench.defaults_data import readers
from geomiam_bench.options import Json, Names, listed
from geomiam_bench.results import as_text, write_json

SIDES = {
    "French birds": "100 km",
    "neotropical plants": "400 km",
    "disdat AWT": "10 km",
    "disdat SWI": "15 km",
}
"""Side of the spatial blocks; it gives 50 blocks and more that are held out."""
SETS = ",".join(SIDES)
KINDS = ("own", "all", "blocks")
QUINTILES = 5
LABELS = {"present": 1, "absent": 0}


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    level: float = 0.9
    fits: int = 3
    divisions: int = 30
    calibrate: float = 0.8
    """Share of the held-out blocks that calibrate; the others test."""
    steps: int = 400
    fewest: int = 50
    """Least presences and absences of a species on the held-out blocks."""
    sites: int = 2500
    """Larger data sets are drawn at random to this number of sites."""
    network: str = "sum+linear"
    members: int = 4


def at_most(sites: xr.Dataset, limit: int) -> xr.Dataset:
    """Return the sites, or ``limit`` of them that are drawn at random, in their order."""
    n = sites.sizes["site"]
    if n <= limit:
        return sites
    return sites.isel(site=np.sort(np.random.default_rng(0).choice(n, limit, replace=False)))


def held_out_fit(
    sites: xr.Dataset, settings: Settings, side: str, *, seed: int
) -> tuple[gm.Model, xr.Dataset]:
    """Return a model of half of the blocks, and the sites of the other half with the frequent species."""
    apart = gm.splits.hold_out_blocks(sites, share=0.5, block=side, rng=seed)
    labels = sites["presence"].transpose("site", "species").values[apart]
    frequent = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= settings.fewest
    model = gm.fit(
        sites.isel(site=~apart),
        network={"fusion": settings.network, "members": settings.members},
        training={"steps": settings.steps},
        validation=False,
        rng=seed,
    )
    return model, sites.isel(site=apart, species=np.flatnonzero(frequent))


def divisions(
    blocks: np.ndarray, count: int, *, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Return which sites calibrate ``(count, n)``: a share of the blocks, drawn at random."""
    numbers = np.unique(blocks)
    size = round(share * len(numbers))
    return np.stack([np.isin(blocks, rng.permutation(numbers)[:size]) for _ in range(count)])


def counts(
    scores: np.ndarray,
    labels: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    blocks: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return ``(hits, count)`` of each label and of sets with exactly one label; and summed over means of blocks."""
    lowest, highest = bounds
    in_set = {"present": scores >= lowest, "absent": scores <= highest}
    is_of_block = blocks == np.unique(blocks)[:, None]
    sums: dict[str, np.ndarray] = {}
    for name, label in LABELS.items():
        of_label = labels == label
        hits = is_of_block @ (in_set[name] & of_label).astype(float)
        size = is_of_block @ of_label.astype(float)
        sums[name] = np.array([hits.sum(), size.sum()])
        sums[f"{name}, mean of blocks"] = np.array(
            [(hits[size > 0] / size[size > 0]).sum(), (size > 0).sum()]
        )
    single = in_set["present"] ^ in_set["absent"]
    return sums | {"single": np.array([single.sum(), single.size])}


def patterns_of(names: list[str]) -> list[tuple[str, ...]]:
    """Return all non-empty subsets of the groups."""
    return [c for k in range(1, len(names) + 1) for c in combinations(names, k)]


def one_fit(
    sites: xr.Dataset, settings: Settings, side: str, *, seed: int
) -> tuple[list[dict], dict]:
    """Return the counts of every pattern of one fit, and its spread against its error."""
    model, held_out = held_out_fit(sites, settings, side, seed=seed)
    labels = held_out["presence"].transpose("site", "species").values
    names, species = list(model.schema.groups), [str(s) for s in held_out["species"].values]
    masks = np.stack(list(group_masks(model.layout).values()))
    arrays = SiteTable.read(held_out, model.schema).arrays
    has_group = observed_groups(model.encode(arrays), masks)
    blocks, rng = site_blocks(held_out, side).number, np.random.default_rng(seed)
    parts = divisions(blocks, settings.divisions, share=settings.calibrate, rng=rng)

    def predicted(using: tuple[str, ...]) -> np.ndarray:
        maps = gm.predict(held_out, model, using=using, species=species, scale="logit")
        return maps["suitability"].transpose("site", "species").values

    of_all, rows = predicted(tuple(names)), []
    for using in patterns_of(names):
        scores = predicted(using)
        complete = has_group[:, [names.index(g) for g in using]].all(1)
        row: dict[str, Any] = {"groups": using, "sites": 0.0, **{kind: {} for kind in KINDS}}
        for part in parts:
            usable, test = part & complete, ~part & complete
            row["sites"] += usable.sum() / len(parts)
            for kind, source, fit in (
                ("own", scores, usable),
                ("all", of_all, part),
                ("blocks", scores, usable),
            ):
                number = blocks[fit] if kind == "blocks" else None
                bounds = class_bounds(source[fit], labels[fit], level=settings.level, blocks=number)
                for name, value in counts(scores[test], labels[test], bounds, blocks[test]).items():
                    row[kind][name] = row[kind].get(name, 0) + value
        rows.append(row)
    return rows, spread_against_error(model, held_out, species)


def spread_against_error(model: gm.Model, sites: xr.Dataset, species: list[str]) -> dict[str, Any]:
    """Return rank correlations of spread and error, and the error by quintile of the spread, over species."""
    maps = gm.predict(sites, model, species=species, spread=True)
    logits = gm.predict(sites, model, species=species, spread=True, scale="logit")
    order = ("site", "species")
    p, spread = (maps[n].transpose(*order).values for n in ("suitability", "spread"))
    on_logits = logits["spread"].transpose(*order).values
    y = sites["presence"].transpose(*order).values
    usable = np.isfinite(y) & np.isfinite(p)
    error, excess = np.abs(y - p), (y - p) ** 2 - p * (1 - p)
    rank = np.argsort(np.argsort(np.where(usable, on_logits, np.inf), 0), 0) / usable.sum(0)
    quintile = np.minimum((rank * QUINTILES).astype(int), QUINTILES - 1)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        values = [
            spearmanr(*(x[k] for x in (i, j))).statistic for i, j, k in zip(a.T, b.T, usable.T)
        ]
        return float(np.nanmean(values))

    def by_quintile(values: np.ndarray) -> list[float]:
        return [float(values[usable & (quintile == q)].mean()) for q in range(QUINTILES)]

    return {
        "spearman": {
            "spread, absolute error": correlation(spread, error),
            "spread of logits, absolute error": correlation(on_logits, error),
            "spread of logits, excess": correlation(on_logits, excess),
            "p(1 - p), absolute error": correlation(p * (1 - p), error),
        },
        "brier": by_quintile((y - p) ** 2),
        "expected": by_quintile(p * (1 - p)),
    }


def joined_rows(fits: list[list[dict]]) -> list[dict[str, Any]]:
    """Return one row per pattern: mean coverage of each kind of bounds over all fits and divisions."""
    rows = []
    for same in zip(*fits):
        row: dict[str, Any] = {
            "groups": list(same[0]["groups"]),
            "sites": int(np.mean([r["sites"] for r in same])),
        }
        for kind in KINDS:
            total = {n: sum(r[kind][n] for r in same) for n in same[0][kind]}
            row[kind] = {n: round(float(v[0] / max(v[1], 1)), 4) for n, v in total.items()}
        rows.append(row)
    return rows


def summary(rows: list[dict], *, level: float, fewest: int = 200) -> dict[str, Any]:
    """Return how far the coverage of patterns with at least ``fewest`` calibration sites is from the level."""
    usual = [r for r in rows if r["sites"] >= fewest]
    out: dict[str, Any] = {"patterns": len(usual)}
    for kind in KINDS:
        deviations = np.array([[r[kind][n] - level for n in LABELS] for r in usual]).reshape(-1, 2)
        out[kind] = {
            "within_2_points": int((np.abs(deviations) <= 0.02).all(1).sum()),
            "least": round(float(deviations.min() + level), 4) if deviations.size else None,
            "greatest": round(float(deviations.max() + level), 4) if deviations.size else None,
        }
    return out


def main(
    data: Annotated[Path, typer.Option(help="Folder with maps/ and disdat/.")],
    json: Json = Path("out/bench/conformal.json"),
    sets: Names = SETS,
    fits: Annotated[int, typer.Option(help="Models, each of other blocks.")] = Settings.fits,
    steps: Annotated[int, typer.Option(help="Steps of a fit.")] = Settings.steps,
) -> None:
    """Measure the coverage of prediction sets per pattern of observed groups, and the spread against the error."""
    settings = Settings(fits=fits, steps=steps)
    available = readers(data)
    results: dict[str, Any] = {}
    for name in listed(sets):
        start, sites = time.perf_counter(), at_most(available[name](), settings.sites)
        runs = [one_fit(sites, settings, SIDES[name], seed=seed) for seed in range(settings.fits)]
        rows = joined_rows([rows for rows, _ in runs])
        results[name] = {
            "sites": sites.sizes["site"],
            "side": SIDES[name],
            "summary": summary(rows, level=settings.level),
            "patterns": rows,
            "spread": [spread for _, spread in runs],
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(name, as_text(results[name]["summary"] | {"seconds": results[name]["seconds"]}))
        write_json(json, {"settings": asdict(settings), "sets": results})
