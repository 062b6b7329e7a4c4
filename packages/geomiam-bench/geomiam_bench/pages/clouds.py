"""The section about cloud gaps, from runs of ``geomiam-bench cloud-gaps``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import xarray as xr

from geomiam import plot
from geomiam_bench import cloud_gaps
from geomiam_bench.pages.markdown import table


def cloud_section(paths: list[Path], pictures: Path) -> str:
    """Return the section about land cover from a cloudy series: gaps kept against gaps filled."""
    tuning, path = sorted(paths, key=lambda p: "tuning" not in p.stem)
    run = json.loads(path.read_text(encoding="utf-8"))
    sweep, settings, name = cloud_gaps.as_table(run["rows"]), run["settings"], f"{path.stem}.png"
    plot.missingness(sweep, styles=cloud_gaps.STYLES)[0].figure.savefig(pictures / name, dpi=120)  # type: ignore[union-attr]
    rounds = " and ".join(f"{n} ({training})" for training, n in _trainings(sweep).items())
    parts = [
        "## Cloud gaps: land cover from a cloudy series",
        f"Land cover in {settings['classes']} classes from NDVI on {settings['dates']} dates and elevation; "
        f"{len(settings['tests'])} folds of spatial blocks of {settings['block']} are scored, rounds: "
        f"{rounds}; {settings['draws']} draws of the gaps each. An earlier scaling of the dates was scored on "
        "these folds too, and given up because filled series collapsed under it; all other settings were chosen on "
        "the other folds alone. What is lost is a share of what the clouds have left: whole dates, or what real cloud "
        "masks of other dates cover. Training is as it is, or loses the same share the same way. Solid: "
        "the network is trained with MIAM and gaps stay; dashed: the same network, never masked, after "
        "filling; dotted: trees that take NaN as it is. Cells: mean AUC over classes ± deviation between "
        "rounds, and in brackets the balanced accuracy of the class of highest score. The run took "
        f"{run['seconds'] / 60:.0f} minutes on one core.",
        f"![Skill against lost dates](../images/benchmarks/{name})",
    ]
    tables = [cloud_table(sweep, str(p)) for p in sweep["pattern"].values]
    rows = json.loads(tuning.read_text(encoding="utf-8"))["rows"]
    return "\n\n".join([*parts, *tables, candidates(rows), elsewhere(rows)])


def candidates(rows: list[dict]) -> str:
    """Return the scores of all candidates on the folds that choose the network."""
    frame = pd.DataFrame(rows)
    networks = frame[frame["predictor"] != "xgboost"]
    rounds = _rounds(networks)
    # Means over the rounds that every candidate has are the ones that compare.
    common = networks[_in_rounds(networks, set.intersection(*rounds.values()))]
    at = {"index": "candidate", "values": "mean_auc", "sort": False}
    means = common.pivot_table(columns="predictor", **at)
    means["mean"] = means.mean(axis=1)
    means["mean of all rounds"] = networks.groupby("candidate")["mean_auc"].mean()
    body = [
        [name, *map(_auc, row), len(rounds[name])]
        for name, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    text = (
        f"The network was chosen on the other folds, each trained on one fold: {len(means)} candidates, one look at "
        "each. The criterion was the mean AUC over the five ways to use a network, both kinds of gaps and all shares. "
        f"The choice is **{cloud_gaps.CHOICE}**. The candidates are one network with squares of the values, or with "
        f"separate weights for each window, or both, and *{cloud_gaps.DEFAULT}*: `gm.fit` without further settings. "
        f"Columns are means over the {_many(common)} that all candidates have, the last but one over all rounds of a candidate."
    )
    return f"{text}\n\n{table(['on the other folds', *means.columns, 'rounds'], body)}"


def _auc(value: float) -> str:
    return f"{value:.3f}"


def _rounds(rows: pd.DataFrame) -> dict[str, set[tuple]]:
    """Return the rounds (seed, fold) of each candidate."""
    groups = rows.groupby("candidate")[["seed", "fold"]]
    return {str(name): set(group.itertuples(index=False, name=None)) for name, group in groups}


def _in_rounds(rows: pd.DataFrame, rounds: set[tuple]) -> pd.Series:
    return pd.Series([at in rounds for at in zip(rows["seed"], rows["fold"])], rows.index)


def _many(rows: pd.DataFrame) -> str:
    return f"{len(rows[['seed', 'fold']].drop_duplicates())} rounds"


def elsewhere(rows: list[dict]) -> str:
    """Return the same differences on the folds that chose the settings."""
    chosen_rows = [row for row in rows if row["candidate"] == cloud_gaps.CHOICE]
    sweep = cloud_gaps.as_table(chosen_rows)
    mean = sweep["mean_auc"].mean(("seed", "fold"))
    best = mean.sel(predictor=list(cloud_gaps.FILLINGS)).max("predictor")
    gain = 100 * (mean.sel(predictor=cloud_gaps.NATIVE) - best)
    differences = "; ".join(
        f"{str(p).partition(',')[0]} "
        + ", ".join(
            f"{float(gain.sel(pattern=p, share=s)):+.1f} at {s:.0%}" for s in gain["share"].values
        )
        for p in gain["pattern"].values
    )
    return (
        "On the folds that settings were chosen on, native gaps minus the best filling are, in AUC points: "
        f"{differences}. Where the two sets of folds differ in sign, one square kilometre is too small for a conclusion."
    )


def cloud_table(sweep: xr.Dataset, pattern: str) -> str:
    """Return a table of methods against shares, the best in bold, and native gaps against the best filling."""
    pattern_sweep = (
        sweep.sel(pattern=pattern).stack(round=("seed", "fold")).dropna("round", how="all")
    )
    auc, accuracy = pattern_sweep["mean_auc"], pattern_sweep["balanced_accuracy"].mean("round")
    mean, spread = auc.mean("round"), auc.std("round", ddof=1)
    rows = []
    for name in auc["predictor"].values:
        at = {"predictor": name}
        cells = zip(
            mean.sel(at), spread.sel(at), accuracy.sel(at), mean.max("predictor"), strict=True
        )
        rows.append([name, *(_cloud_cell(*map(float, cell)) for cell in cells)])
    best = mean.sel(predictor=list(cloud_gaps.FILLINGS)).idxmax("predictor")
    gain = 100 * (auc.sel(predictor=cloud_gaps.NATIVE) - auc.sel(predictor=best))
    rounds_won = (gain > 0).sum("round")
    wins = [
        f"{g:+.1f} ({w} of {gain.sizes['round']})"
        for g, w in zip(gain.mean("round").values, rounds_won.values, strict=True)
    ]
    rows.append(["native − best filling, AUC points (rounds won)", *wins])
    return table([pattern, *(f"{s:.0%}" for s in auc["share"].values)], rows)


def _cloud_cell(mean: float, spread: float, accuracy: float, best: float) -> str:
    text = f"**{mean:.3f}**" if mean == best else f"{mean:.3f}"
    return f"{text} ± {spread:.3f} ({accuracy:.2f})"


def _trainings(sweep: xr.Dataset) -> dict[str, int]:
    """Return the number of rounds (seeds × folds) of each training."""
    rounds_by_pattern = (
        sweep["mean_auc"].notnull().any(["predictor", "share"]).sum(["seed", "fold"])
    )
    trainings = [str(p).rpartition(", ")[2] for p in sweep["pattern"].values]
    return dict(zip(trainings, rounds_by_pattern.values.tolist(), strict=True))
