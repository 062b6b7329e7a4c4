"""Folds of unlike environments, from clusters of the predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count
from geomiam.errors import LabelError, MissingVariable, SettingError
from geomiam.splits.blocks import Seed, Splits, check_folds, deal, each_fold
from geomiam.splits.reading import Where, is_number, labels

STARTS = 4
"""Starts of k-means, of which the best is kept."""


@dataclass(frozen=True)
class EnvironmentalBlocks:
    """Folds of different environments: clusters of the standardised predictors, by k-means.

    They test a model under conditions it was not trained on (Roberts et al. 2017). For the clusters, a
    gap counts as the mean of its variable.

    Parameters
    ----------
    folds : int
        At least 2.
    clusters : int, optional
        Number of clusters, which are assigned to folds; default: one per fold, of any size.
    variables : sequence of str, optional
        Variables of the sites to cluster by. Default: all with one number per site, except labels and
        classes (those with ``flag_values``).
    rng : int, numpy.random.Generator or None
        Starts the clusters and assigns them to folds. A seed gives the same folds at every call.

    See Also
    --------
    geomiam.cross_validate : the call that takes it.
    geomiam.splits.SpatialBlocks : blocks on the map.

    Examples
    --------
    >>> environment = sites[["bio1", "bio12"]].fillna(0)
    >>> folds = list(gm.splits.EnvironmentalBlocks(folds=3).split(environment))
    >>> len(folds)
    3
    """

    folds: int = 5
    clusters: int | None = None
    variables: Sequence[str] | None = None
    rng: Seed = 0

    def __post_init__(self) -> None:
        check_folds(self.folds)
        if self.clusters is None:
            return
        check_count("clusters", self.clusters, minimum=1, hint="each is dealt into a fold")
        if self.clusters < self.folds:
            raise SettingError(
                f"{self.clusters} clusters do not make {self.folds} folds: pass clusters={self.folds} or more"
            )

    def split(
        self, X: Where, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Splits:
        """Yield rows as :meth:`SpatialBlocks.split`; ``X`` has predictors, and ``groups`` is not used.

        Where several clusters make a fold, rows with any 1 are spread evenly.

        Raises
        ------
        MissingVariable
            If a variable is absent, or the sites have no variable to cluster by.
        LabelError
            If there are fewer distinct environments than folds, or not one label per row.
        """
        table = environment(X, self.variables)
        rng = np.random.default_rng(self.rng)
        cluster = clusters(table, self.clusters or self.folds, rng)
        if (distinct_clusters := len(np.unique(cluster))) < self.folds:
            raise LabelError(
                f"the {len(table)} sites fall into {distinct_clusters} distinct environments, too few for "
                f"{self.folds} folds: use fewer folds or more variables"
            )
        yield from each_fold(deal(labels(X, y, len(table)), cluster, self.folds, rng))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return self.folds


def environment(X: Where, variables: Sequence[str] | None) -> np.ndarray:
    """Return predictors ``(n, p)``, each with mean 0 and deviation 1; gaps are 0."""
    table = _stacked(X, variables) if isinstance(X, xr.Dataset) else np.asarray(X, float)
    # Sums depend on the memory layout in their last bits, and clusters of near ties on those.
    table = np.ascontiguousarray(table).reshape(len(table), -1)
    table = np.where(np.isfinite(table), table, np.nan)
    gap = np.isnan(table)
    n = np.maximum((~gap).sum(0), 1)
    table = np.where(gap, 0, table - np.where(gap, 0, table).sum(0) / n)
    deviation = np.sqrt((table**2).sum(0) / n)
    return table / np.where(deviation > 0, deviation, 1)


def _stacked(sites: xr.Dataset, variables: Sequence[str] | None) -> np.ndarray:
    usable = (str(k) for k, v in sites.data_vars.items() if v.dims == ("site",) and is_number(v))
    names = list(usable if variables is None else variables)
    absent = [v for v in names if v not in sites or "site" not in sites[v].dims]
    if absent or not names:
        raise MissingVariable(
            f"sites have no variable {absent or 'with one number per site'} to cluster by "
            f"(found {list(sites.data_vars)}): name some of them with variables=[...]"
        )
    columns = [np.asarray(sites[v].transpose("site", ...).values, float) for v in names]
    return np.hstack([c.reshape(len(c), -1) for c in columns])


def clusters(table: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each row ``(n,)`` by k-means; fewer than ``count`` if there are fewer distinct rows."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(table, axis=0))
    means = KMeans(min(count, distinct), n_init=STARTS, random_state=int(rng.integers(2**31)))
    return means.fit_predict(table)
