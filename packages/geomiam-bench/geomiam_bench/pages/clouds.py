"""The section about cloud gaps, from runs of ``geomiam-bench cloud-gaps``."""

from __future__ import annotations

import json
from pathlib import Path

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
        f"{len(settings['tests'])} folds of spatial blocks of {settings['block']:.0f} m are scored, rounds: "
        f"{rounds}; {settings['draws']} draws of the gaps each. Settings were chosen on the other folds "
        "alone; an earlier scaling of the dates was scored on these folds too, and given up because "
        "filled series collapsed under it. What is lost is a share of what the clouds have left: whole dates, or what real cloud "
        "masks of other dates cover. Training is as it is, or loses the same share the same way. Solid: "
        "the network is trained with MIAM and gaps stay; dashed: the same network, never masked, after "
        "filling; dotted: trees that take NaN as it is. Cells: mean AUC over classes ± deviation between "
        "rounds, and in brackets the balanced accuracy of the class of highest score. The run took "
        f"{run['seconds'] / 60:.0f} minutes on one core.",
        f"![Skill against lost dates](../images/benchmarks/{name})",
    ]
    tables = [cloud_table(sweep, str(p)) for p in sweep["pattern"].values]
    return "\n\n".join([*parts, *tables, elsewhere(tuning)])


def elsewhere(path: Path) -> str:
    """Return the same differences on the folds that chose the settings."""
    table = cloud_gaps.as_table(json.loads(path.read_text(encoding="utf-8"))["rows"])
    mean = table["mean_auc"].mean(("seed", "fold"))
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
