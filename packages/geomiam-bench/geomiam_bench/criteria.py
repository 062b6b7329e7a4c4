"""Which criterion on presence records orders configurations as an independent survey does?

    geomiam-bench criteria FOLDER --json out/bench/criteria.json [--regions AWT,NSW] [--folds blocks,environment]

FOLDER is read as by ``geomiam-bench disdat``. Configurations whose AUC on the survey is stored are trained again
without each of three folds of the training records, and every criterion is computed from the predictions of the
fold left out. The survey is not read: its AUC per species comes from the stored results.
Results are written after every training of the folds; a run that was stopped goes on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam._version import __version__
from geomiam.baselines.columns import Columns
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.geo.lengths import as_text
from geomiam.outputs.write import write_text
from geomiam.splits import site_blocks, spatial_folds
from geomiam.splits.reading import places_of
from geomiam_bench.criteria_configurations import CONFIGURATIONS, TREES, Configuration, survey_auc
from geomiam_bench.disdat import BLOCKS
from geomiam_bench.options import Json, listed
from geomiam_bench.readers.disdat import disdat, disdat_schema
from geomiam_bench.results import continued, with_rows

FOLDS = 3
CLUSTERS = 12
"""Clusters of sites with similar predictors, from which folds are put together."""
RANDOM_SITES = 4000
"""Random background sites of a region that are used, of 10,000."""
WELL_VISITED = 2
"""Species recorded at a site that counts as well visited."""
CLIPPED = (5, 95)
"""Percentiles at which weights are clipped."""


@dataclass(frozen=True)
class Records:
    """Training records of a region: visited sites with their group's species, and random sites."""

    folder: Path
    name: str
    visited: xr.Dataset
    random: xr.Dataset

    @classmethod
    def read(cls, folder: Path, name: str) -> Records:
        """Read a region; published groups share their visited sites."""
        visited_sites = disdat(folder, name)[0]
        all_sites = disdat(folder, name, background="random")[0]
        count = visited_sites.sizes["site"]
        rows = count + _random_rows(all_sites.sizes["site"] - count)
        return cls(folder, name, visited_sites, all_sites.isel(site=rows))

    @property
    def labels(self) -> np.ndarray:
        """Labels ``(n, S)`` of the visited sites."""
        return read_labels(self.visited)[0]

    def training(self, configuration: Configuration) -> xr.Dataset:
        """Return the sites that a configuration trains on: the visited ones first, in their order."""
        sites = disdat(
            self.folder,
            self.name,
            background=configuration.background,
            groups=configuration.groups,
        )[0]
        count = self.visited.sizes["site"]
        rows = _random_rows(sites.sizes["site"] - count)
        return sites.isel(site=np.concatenate([np.arange(count), count + rows]))

    def environment(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the standardised predictors of visited and of random sites ``(n, p), (b, p)``."""
        schema = bind(disdat_schema(self.folder, self.name), self.visited)
        columns = Columns.fit(self.visited, schema, onehot=True)
        return columns.table(self.visited), columns.table(self.random)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates of visited and of random sites, in the units of the CRS ``(n, 2), (b, 2)``."""
        return tuple(  # type: ignore[return-value]
            np.stack([s["x"].values, s["y"].values], 1) for s in (self.visited, self.random)
        )


def _random_rows(count: int) -> np.ndarray:
    """Return which of the random sites are used, the same ones for all configurations."""
    if not count:
        return np.arange(0)
    return np.sort(np.random.default_rng(0).permutation(count)[:RANDOM_SITES])


def block_folds(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Return folds of spatial blocks of the visited sites ``(n,)``, and of the random sites near them ``(b,)``."""
    side = float(np.sqrt(places_of(records.visited, None).span().prod())) / BLOCKS
    blocks = site_blocks(records.visited, as_text(side), min_blocks=2 * FOLDS).number
    return _folds(records, blocks, *records.places())


def environment_folds(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Return folds of clusters in the space of the predictors, and of the random sites near them."""
    from sklearn.cluster import KMeans

    visited_sites, random_sites = records.environment()
    clusters = KMeans(CLUSTERS, n_init=4, random_state=0).fit_predict(visited_sites)
    return _folds(records, clusters, visited_sites, random_sites)


def _folds(
    records: Records, blocks: np.ndarray, visited_sites: np.ndarray, random_sites: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return folds of whole blocks; a random site has the fold of the nearest visited one."""
    from scipy.spatial import cKDTree

    fold = spatial_folds(records.labels, blocks, folds=FOLDS, rng=np.random.default_rng(0))
    return fold, fold[cKDTree(visited_sites).query(random_sites)[1]]


KINDS: dict[str, Callable[[Records], tuple[np.ndarray, np.ndarray]]] = {
    "blocks": block_folds,
    "environment": environment_folds,
}


def even_weights(places: np.ndarray, radius: float) -> np.ndarray:
    """Return weights ``(n,)`` that make sites even in space: one over the number of sites within a radius."""
    from scipy.spatial import cKDTree

    return 1 / np.asarray(cKDTree(places).query_ball_point(places, radius, return_length=True))


def region_weights(visited_sites: np.ndarray, random_sites: np.ndarray) -> np.ndarray:
    """Return weights ``(n,)`` that give visited sites the predictors of random ones: the odds of being random."""
    from sklearn.linear_model import LogisticRegression

    table = np.concatenate([visited_sites, random_sites])
    table = np.concatenate([table, table**2], 1)
    is_random = np.repeat([0, 1], [len(visited_sites), len(random_sites)])
    regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    odds = np.exp(regression.fit(table, is_random).decision_function(table[: len(visited_sites)]))
    return np.clip(odds, *np.percentile(odds, CLIPPED))


def criteria(
    records: Records, folds: tuple[np.ndarray, np.ndarray], scores: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return each criterion as one value per species ``(S,)``, NaN where it cannot be computed.

    ``folds`` and ``scores``, predictions without the site's fold, are of visited sites ``(n, S)`` and of random sites ``(b, S)``.
    """
    auc, labels = gm.metrics.auc_within_folds, records.labels
    places, environment = records.places()[0], records.environment()
    radius = float(np.sqrt(np.ptp(places, 0).prod())) / BLOCKS / 2
    well_visited = (labels == 1).sum(1, keepdims=True) >= WELL_VISITED
    presences = np.where(labels == 1, 1, np.nan)
    zeros = np.zeros((len(folds[1]), labels.shape[1]))
    return {
        "visited sites": auc(labels, scores[0], folds[0]),
        "even in space": auc(labels, scores[0], folds[0], weights=even_weights(places, radius)),
        "weighted to the region": auc(
            labels, scores[0], folds[0], weights=region_weights(*environment)
        ),
        "well-visited sites": auc(np.where(well_visited, labels, np.nan), scores[0], folds[0]),
        "random sites": auc(
            np.concatenate([presences, zeros]), np.concatenate(scores), np.concatenate(folds)
        ),
    }


def predictions(
    records: Records, configuration: Configuration, folds: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of visited ``(n, S)`` and of random sites ``(b, S)`` by models without their fold."""
    sites = records.training(configuration)
    schema = disdat_schema(records.folder, records.name, covariates=configuration.covariates)  # type: ignore[arg-type]
    schema = bind(schema, sites)
    fold_of_row = np.concatenate(folds)[: sites.sizes["site"]]
    scores = tuple(np.full((len(f), sites.sizes["species"]), np.nan) for f in folds)
    for number in range(FOLDS):
        model = configuration.train(sites.isel(site=fold_of_row != number), schema, number)
        for part, fold, values in zip((records.visited, records.random), folds, scores):
            values[fold == number] = model.scores(part.isel(site=fold == number))
    return scores  # type: ignore[return-value]


def main(
    folder: Annotated[Path, typer.Argument(help="Folder as 'disdat' reads.")],
    out: Json = Path("out/bench/criteria.json"),
    results: Annotated[Path, typer.Option(help="Folder with the JSON of 'disdat'.")] = Path(
        "packages/geomiam-bench/results"
    ),
    regions: Annotated[str, typer.Option(help="Regions, separated by commas.")] = "AWT,NSW",
    folds: Annotated[str, typer.Option(help="Kinds of folds.")] = ",".join(KINDS),
    only: Annotated[str, typer.Option(help="Configurations, separated by ';'.")] = "",
) -> None:
    """Compare criteria on presence records with the AUC on surveys that is stored."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names, kinds = listed(only, separator=";") or tuple(CONFIGURATIONS), listed(folds)
    if unknown := [n for n in (*names, *kinds) if n not in {**CONFIGURATIONS, **KINDS}]:
        options = ", ".join([*CONFIGURATIONS, *KINDS])
        raise SelectionError(f"no configuration or folds {unknown[0]!r}; choose from {options}")
    settings = {
        "geomiam": __version__,
        "folds": FOLDS,
        "random_sites": RANDOM_SITES,
        "trees": TREES,
    }
    run = continued(out, settings) or {"settings": settings, "rows": []}
    finished_runs = {(r["region"], r["folds"], r["configuration"]) for r in run["rows"]}
    for kind in kinds:
        for region in listed(regions):
            records = Records.read(folder, region)
            fold_pair = KINDS[kind](records)
            for name in names:
                if (region, kind, name) in finished_runs:
                    continue
                survey = survey_auc(CONFIGURATIONS[name], region, folder=folder, results=results)
                row = judged(records, CONFIGURATIONS[name], fold_pair, survey)
                run["rows"].append({"region": region, "folds": kind, "configuration": name, **row})
                write_text(out, with_rows({"settings": settings}, "rows", run["rows"]))
                print(region, kind, name, _means(row), f"{row['seconds']:.0f} s", flush=True)


def judged(
    records: Records,
    configuration: Configuration,
    folds: tuple[np.ndarray, np.ndarray],
    survey: dict[str, float],
) -> dict:
    """Return species, stored AUC on the survey, every criterion and CPU seconds of one configuration."""
    start = time.process_time()
    values = criteria(records, folds, predictions(records, configuration, folds))
    species = list(map(str, records.visited["species"].values))
    return {
        "is_network": configuration.is_network,
        "background": configuration.background,
        "seconds": round(time.process_time() - start, 1),
        "species": species,
        "survey": _plain(np.array([survey.get(s, np.nan) for s in species], float)),
        "criteria": {name: _plain(v) for name, v in values.items()},
    }


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 4) for v in values]


def _means(row: dict) -> str:
    parts = {"survey": row["survey"], **row["criteria"]}
    return "  ".join(f"{k} {np.nanmean(np.array(v, float)):.4f}" for k, v in parts.items())
