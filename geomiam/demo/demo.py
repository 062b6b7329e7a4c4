"""The built-in demo: from real records and predictors to a map and its Shapley values."""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.errors import OutsideTrainingRange, RecordsMerged
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import DEMO
from geomiam.outputs.paths import real_path
from geomiam.outputs.write import atomic_path
from geomiam.schema.catalogs import catalogs
from geomiam.schema.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

    from geomiam.model.model import Model
    from geomiam.networks.config import NetworkConfig
    from geomiam.training.config import TrainingConfig

HERE = Path(__file__).parent
DATA = HERE / "western_usa"
FOLDS, BLOCK = 5, "100 km"
"""Skill is measured by cross-validation over blocks of 100 km: the block of a record does not train the model
that predicts it. The species occurs in few blocks, so a single held-out set would be too small."""

LOCATION = "location"
"""Left out of the map by ``using=``: longitude and latitude reproduce where people have recorded, while the
map shall follow the environment. A second map with location shows the difference."""
SIERRA = {"x": (-121.3, -118.0), "y": (37.5, 40.5)}
"""The foothills of the Sierra Nevada (degrees), where the species is rare and far from the coast."""

VERSIONS = ("torch", "numpy", "xarray", "dask", "zarr")


@dataclass
class Timer:
    """Seconds per step."""

    seconds: dict[str, float | None] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 2)


def run(out: str | Path = "out/demo", *, overwrite: bool = False) -> dict[str, Any]:
    """Run the demo and return its summary.

    Parameters
    ----------
    out : str or pathlib.Path
        Folder for ``cube.zarr``, ``model/``, ``maps.zarr``, three figures and ``summary.json``.
    overwrite : bool
        Replace the results of an earlier run.

    Raises
    ------
    OutputExists
        If the folder is not empty and ``overwrite`` is False.
    OutputRefused
        If the folder holds other files than those of a finished demo.

    Examples
    --------
    >>> summary = gm.demo.run("out/demo")  # doctest: +SKIP
    """
    replaces = overwrite or _is_empty(out)
    with locked_output(out, replaces, kind=DEMO) as target, atomic_path(target) as partial:
        partial.mkdir()
        summary, explanation = _run(partial)
        check_output(target, replaces, kind=DEMO)  # again: minutes have passed
    _print_summary(summary, explanation, Path(out))
    return summary


def _is_empty(folder: str | Path) -> bool:
    path = real_path(folder)
    return path.is_dir() and not any(path.iterdir())


def _run(out: Path) -> tuple[dict[str, Any], xr.Dataset]:
    """Write all results into an empty folder; return the summary and the map with Shapley values."""
    from geomiam.data.store.store import write_cube
    from geomiam.inference.cells import torch_threads  # a small network is faster in one thread
    from geomiam.training.fit import fit

    timer = Timer({"install": _install_seconds()})
    schema, records = load_schema(), load_records()
    cube = load_cube()
    write_cube(cube, out / "cube.zarr")
    sites = sample_records(cube, records)
    say(f"{len(records):,} records at {sites.sizes['site']:,} distinct sites")
    say("training for the maps, on all sites")
    with timer("train"), torch_threads(1):
        model = fit(sites, schema, network=network(), training=training(), rng=0)
    model.save(out / "model")
    say(f"testing: {FOLDS} more trainings, each without a fifth of the {BLOCK} blocks")
    with timer("cross_validate"), torch_threads(1):
        scores = _score(sites, schema)
    explanation, with_location = _maps(model, cube, out, timer)
    present = sites.isel(site=sites["presence"].isel(species=0).values == 1)
    summary = _summary(model, cube, explanation, scores, timer)
    summary["sierra"] = _sierra(present, explanation, with_location)
    _figures(model, (explanation, with_location), present, out)
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary, explanation


def load_schema() -> Schema:
    """Read the demo's catalog.

    Examples
    --------
    >>> list(gm.demo.load_schema().modalities)
    ['topography', 'climate', 'turbidity', 'satellite', 'location']
    """
    return Schema.from_yaml(catalogs()["western-usa"])


def load_cube() -> xr.Dataset:
    """Open the bundled predictors, with location added; in memory, about 2 MB.

    Examples
    --------
    >>> dict(gm.demo.load_cube()["altitude"].sizes)
    {'y': 168, 'x': 168}
    """
    from geomiam.data.grid.location import add_location
    from geomiam.data.store.store import as_cube

    return add_location(as_cube(DATA / "predictors.zarr.zip", chunks=None).load())


def load_records() -> pd.DataFrame:
    """Read the bundled records: presences and background of *Ariolimax buttoni*.

    Examples
    --------
    >>> list(gm.demo.load_records().columns[:4])
    ['species', 'presence', 'x', 'y']
    """
    import pandas as pd

    return pd.read_csv(DATA / "occurrences.csv.gz")


def sample_records(cube: xr.Dataset, records: pd.DataFrame) -> xr.Dataset:
    """Return sites with the predictors of the cube and the satellite covariates of the records.

    Examples
    --------
    >>> sites = gm.demo.sample_records(gm.demo.load_cube(), gm.demo.load_records())
    >>> sites["presence"].dims
    ('site', 'species')
    """
    from geomiam.data.sites.sites import sample

    satellite = list(load_schema().modalities["satellite"].variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsMerged)  # the demo prints the number of sites
        sites = sample(cube, records, keep=satellite)
    background = (sites["presence"] == 0).all("species")  # the records have no surveyed absences
    return sites.assign_coords(background=background)


def network() -> NetworkConfig:
    """Return two small members of the default fit, so that the demo takes two minutes.

    Examples
    --------
    >>> gm.demo.network().fusion
    'sum+group'
    """
    from geomiam.networks.config import NetworkConfig

    return NetworkConfig(fusion="sum+group", members=2, width=64, heads=4, depth=1, inner=0)


def training() -> TrainingConfig:
    """Return a short fixed schedule on all sites: the folds of the demo measure the skill.

    Examples
    --------
    >>> gm.demo.training().steps
    600
    """
    from geomiam.training.config import TrainingConfig

    return TrainingConfig(steps=600, lr=3e-3, holdout=0, keep="last", block=BLOCK)


def say(*words: str) -> None:
    """Print without buffering, so that progress and text keep their order."""
    print(*words, flush=True)


def _score(sites: xr.Dataset, schema: Schema) -> dict[str, float]:
    """AUC of every subset of modalities, from the predictions of all folds."""
    from geomiam.evaluation.cross_validate import cross_validate
    from geomiam.splits import SpatialBlocks

    table = cross_validate(
        sites,
        schema,
        splits=SpatialBlocks(FOLDS, size=BLOCK),
        subsets="every",
        network=network(),
        training=training(),
    )
    scores = {
        str(s): round(float(v), 4) for s, v in zip(table["subset"].values, table["mean_auc"].values)
    }
    say("\nAUC on held-out blocks, by modalities in use:")
    for name, score in scores.items():
        if name == "all" or name.count("+") in (0, len(schema.modalities) - 2):
            say(f"  {score:.3f}  {name}")
    return scores


def _maps(model: Model, cube: xr.Dataset, out: Path, timer: Timer) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the explained map without location, and the map with location, both of the same model.

    ``using=`` also leaves out the satellite covariates, which the cube lacks.
    """
    from geomiam.inference.predict import predict
    from geomiam.maps.write import write_map

    using = on_the_map(model, cube)
    with timer("predict"), warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideTrainingRange)  # the map below issues it too
        with_location = predict(cube, model, using=using)
    without_location = [m for m in using if m != LOCATION]
    with timer("explain"):
        explanation = write_map(
            cube, model, out / "maps.zarr", shapley=True, using=without_location
        )
    return explanation.load(), with_location


def _sierra(present: xr.Dataset, *maps: xr.Dataset) -> dict[str, float]:
    """Return the number of sites with presences in the foothills, and their median suitability by map."""
    inside = [(low < present[d]) & (present[d] < high) for d, (low, high) in SIERRA.items()]
    place = present[["x", "y"]].isel(site=(inside[0] & inside[1]).values)
    medians = [
        float(m["suitability"].sel(x=place["x"], y=place["y"], method="nearest").median())
        for m in maps
    ]
    return {
        "sites": place.sizes["site"],
        "without_location": round(medians[0], 3),
        "with_location": round(medians[1], 3),
    }


def on_the_map(model: Model, cube: xr.Dataset) -> list[str]:
    """Return the modalities whose variables are in the cube.

    Examples
    --------
    >>> gm.demo.on_the_map(model, cube[["bio1", "bio12", "slope"]])
    ['climate']
    """
    return [
        m.name for m in model.schema.modalities.values() if set(m.variables) <= set(cube.data_vars)
    ]


def _summary(
    model: Model, cube: xr.Dataset, explanation: xr.Dataset, scores: dict[str, float], timer: Timer
) -> dict[str, Any]:
    from geomiam.data.coverage import coverage

    using = [m for m in on_the_map(model, cube) if m != LOCATION]
    counts, on_map = coverage(cube, model.schema), model.schema.subset(using)
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    effects = abs(explanation["shapley"]).mean(("species", "y", "x"))
    return {
        "auc": scores,
        "auc_on": f"predictions of all {FOLDS} folds of {BLOCK} blocks",
        "auc_of_the_map": scores["+".join(using)],
        "auc_with_location": scores["+".join(on_the_map(model, cube))],
        "land_cells": int(counts["cells"]),
        "cells_predicted": int(explanation["suitability"].notnull().all("species").sum()),
        "cells_with_every_predictor": int(counts["cells_with_every_predictor"]),
        "cells_with_every_predictor_of_the_map": int(
            coverage(cube, on_map)["cells_with_every_predictor"]
        ),
        "efficiency_error": float(np.abs(total - explanation["suitability"]).max()),
        "mean_absolute_shapley": {
            str(g): float(v) for g, v in zip(explanation["group"].values, effects.values)
        },
        "seconds": timer.seconds,
        "versions": {
            "geomiam": __version__,
            "python": platform.python_version(),
            **{p: version(p) for p in VERSIONS},
        },
    }


def _figures(
    model: Model, maps: tuple[xr.Dataset, xr.Dataset], present: xr.Dataset, out: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from geomiam import plot

    points = np.stack([present["x"].values, present["y"].values], 1)
    pair_of_maps, axes = plt.subplots(1, 2, figsize=(13, 5.4), layout="constrained")
    for ax, array, title in zip(axes, maps, ("without location", "with location")):
        plot.suitability(array, points=points, ax=ax)
        ax.set_title(f"{ax.get_title()}, {title}", style="italic")
    figures: dict[str, Any] = {
        "suitability": pair_of_maps,
        "shapley": plot.shapley(maps[0])[0].figure,
        "training": plot.training(model.history)[0].figure,
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=130)


def _print_summary(summary: dict[str, Any], explanation: xr.Dataset, out: Path) -> None:
    effects, sierra = summary["mean_absolute_shapley"], summary["sierra"]
    first = max(effects, key=effects.get)
    say(
        f"\nPredicted:    {summary['cells_predicted']:,} of {summary['land_cells']:,} land cells.\n"
        f"Complete:     {summary['cells_with_every_predictor']:,} cells have every predictor, which a tool that "
        "drops gaps requires: satellite covariates exist at the records only. Without those and location, "
        f"{summary['cells_with_every_predictor_of_the_map']:,} would be complete.\n"
        f"Skill:        AUC {summary['auc']['all']:.3f} with all predictors, {summary['auc_of_the_map']:.3f} with "
        f"those of the map ({summary['auc_on']}).\n"
        f"Location:     the map leaves it out; with it the AUC is {summary['auc_with_location']:.3f}. The median "
        f"suitability of {sierra['sites']} sites in the Sierra foothills, far from the other records, is "
        f"{sierra['without_location']:.2f} without location and {sierra['with_location']:.2f} with it.\n"
        f"Matters most: {first} (mean change of suitability {effects[first]:.3f}).\n"
        f"Efficiency:   the explanations add up to the map within {summary['efficiency_error']:.1e}.\n"
        f"Files:        {out}/suitability.png, shapley.png, training.png, maps.zarr, cube.zarr, model/, summary.json"
    )


def _install_seconds() -> float | None:
    """Return the seconds of the installation, if the Makefile has measured one."""
    text = os.environ.get("GEOMIAM_INSTALL_SECONDS", "")
    return float(text) if text else None
