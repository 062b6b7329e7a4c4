"""Published results on the NCEAS benchmark: means, and the per-species files of random forests.

The per-species files are those of Valavi et al. (2021), doi:10.1111/ecog.05615, in the repository
``rvalavi/SDMwithRFs`` (CC BY): ``data/ranger_nceas_tgb`` has one CSV per species, with target-group
background. They allow a comparison species by species, which means do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import expand

COLUMNS = ("species", "region", "model", "metric", "value")


def species_auc(
    folder: str | Path, regions: Sequence[str] = ()
) -> dict[str, dict[str, dict[str, float]]]:
    """Read the AUC of each method, region and species from per-species files; all regions by default.

    The files are CSV with the columns ``species``, ``region``, ``model``, ``metric`` and ``value``. Raises OccurrenceError if
    there is no such file, a column is missing, or a species has two values of one method.
    """
    paths = sorted(Path(expand(folder)).glob("*.csv"))
    if not paths:
        raise OccurrenceError(
            f"no CSV file in {folder}; --published takes the folder data/ranger_nceas_tgb of the "
            "repository rvalavi/SDMwithRFs"
        )
    table = pd.concat([_read(path) for path in paths])
    table = table[table["metric"].str.upper() == "AUC"]
    table = table[table["region"].isin(list(regions))] if regions else table
    if (is_repeated := table.duplicated(["species", "region", "model"])).any():
        raise OccurrenceError(
            f"two values of one method for {table[is_repeated]['species'].iloc[0]}"
        )
    result: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.itertuples():
        by_species = result.setdefault(f"{row.model} (published)", {}).setdefault(row.region, {})
        by_species[row.species] = round(float(row.value), 5)
    return result


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    if missing_columns := [c for c in COLUMNS if c not in table]:
        raise OccurrenceError(f"{path} lacks the columns {missing_columns}, found {list(table)}")
    return table


MEANS = {
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
