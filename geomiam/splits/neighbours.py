"""Folds whose test sites are as far from training sites as the prediction area is: kNNDM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count, check_number
from geomiam.errors import BlockError
from geomiam.geo.places import Places
from geomiam.splits.area import site_and_area_places
from geomiam.splits.blocks import Seed, Splits, check_folds, each_fold
from geomiam.splits.reading import Where

CONFIGURATIONS = 100
"""Largest number of cluster counts that are compared, as in the authors' R package CAST."""
MOST_PLACES = 3000
"""Places that are clustered one by one; of more, groups of neighbours are clustered."""
SIGNIFICANCE = 0.05
"""Level of the test whether the sites are clustered."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Folds of :class:`NearestNeighbourMatching`, with the distances that they match.

    Examples
    --------
    >>> matching = gm.splits.NearestNeighbourMatching(cube, folds=3).match(sites)
    >>> matching.fold.shape == (sites.sizes["site"],)
    True
    """

    fold: np.ndarray
    """Fold of each site ``(n,)``."""
    statistic: float
    """W in km: Wasserstein distance of ``test_to_training`` and ``area_to_sites``; 0 is a perfect match."""
    clusters: int
    """Number of clusters that were joined to folds; 0 for random folds."""
    reason: str
    """Reason for clusters or random folds."""
    site_to_site: np.ndarray
    """Distance of each place to the nearest other place, in km: that of leaving one out."""
    area_to_sites: np.ndarray
    """Distance of each point of the prediction area to the nearest place, in km."""
    test_to_training: np.ndarray
    """Distance of each place to the nearest place of another fold, in km."""


@dataclass(frozen=True, eq=False)
class NearestNeighbourMatching:
    """Folds by k-fold nearest-neighbour distance matching, kNNDM (Linnenbrink et al. 2024).

    A cross-validation estimates the error of a map if test sites are as far from the training sites as
    the cells of the map are. Sites are clustered hierarchically (Ward), and the clusters joined to
    folds, for many numbers of clusters. The folds are taken whose distances from test to
    training sites are distributed most like those from the prediction area to the sites: least W, the
    Wasserstein distance of the two distributions. Where sites are not clustered relative to the area,
    by a one-sided Kolmogorov-Smirnov test, folds are random. Distances are geodesic on
    geographic coordinates; sites at one place stay in one fold and count once.

    Parameters
    ----------
    area : xarray.Dataset or (m, 2) array_like
        The prediction area: a cube, whose cells with any value count, sites, or coordinates.
    folds : int
        At least 2.
    max_share : float
        Largest share of the places in one fold, from 1 / folds to 1.
    points : int
        Number of random points of the area that distances are measured from.
    rng : int, numpy.random.Generator or None
        Draws the points and random folds. A seed gives the same folds at every call.
    crs : any, optional
        CRS of coordinates that are passed as arrays, of the area too; sites and cubes carry theirs.

    See Also
    --------
    geomiam.cross_validate : the call that takes it.
    geomiam.splits.SpatialBlocks : square blocks.

    Examples
    --------
    >>> splitter = gm.splits.NearestNeighbourMatching(cube, folds=3)
    >>> sum(len(test) for _, test in splitter.split(sites)) == sites.sizes["site"]
    True
    """

    area: Where
    folds: int = 5
    max_share: float = 0.5
    points: int = 1000
    rng: Seed = 0
    crs: Any = None

    def __post_init__(self) -> None:
        check_folds(self.folds)
        check_count("points", self.points, minimum=1, hint="1000 are usual")
        check_number(
            "max_share",
            self.max_share,
            requirement=f"must be from 1 / folds to 1, here {1 / self.folds:.2g} to 1",
            accepts=lambda x: 1 / self.folds <= x <= 1,
            hint="0.5 is usual",
        )

    def __repr__(self) -> str:
        return (
            f"NearestNeighbourMatching(folds={self.folds}, points={self.points}, rng={self.rng!r})"
        )

    def match(self, X: Where, groups: ArrayLike | None = None) -> Matching:
        """Return the folds of sites, their statistic and distances; ``X`` and ``groups`` as :meth:`split`."""
        sample = _Sample.of(*self._places(X, groups), folds=self.folds)
        rng = np.random.default_rng(self.rng)
        candidates = [(0, rng.permutation(np.arange(len(sample.points)) % self.folds))]
        reason = "the sites are not clustered relative to the prediction area"
        if sample.is_clustered():
            reason = "the sites are clustered relative to the prediction area"
            candidates = sample.clusterings(self.folds, self.max_share, rng) or candidates
        distances = [sample.between(fold) for _, fold in candidates]
        statistics = [sample.statistic(d) for d in distances]
        best = int(np.argmin(statistics))
        clusters, fold = candidates[best]
        return Matching(
            fold[sample.place],
            statistics[best],
            clusters,
            reason,
            sample.site_to_site,
            sample.area_to_sites,
            distances[best],
        )

    def statistic(self, X: Where, fold: ArrayLike, groups: ArrayLike | None = None) -> float:
        """Return W in km of other folds, such as random ones or spatial blocks.

        Parameters
        ----------
        X, groups
            As :meth:`split`.
        fold : (n,) array_like
            Fold of each site, as ``fold`` of the table of :func:`geomiam.cross_validate`; of
            sites at one place, the fold of the first counts.

        Returns
        -------
        float
        """
        sample = _Sample.of(*self._places(X, groups), folds=self.folds)
        first = np.unique(sample.place, return_index=True)[1]
        return sample.statistic(sample.between(np.asarray(fold)[first]))

    def split(
        self, X: Where, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Splits:
        """Yield rows as :meth:`SpatialBlocks.split`, without ``y``.

        Raises
        ------
        GridError
            If there are no coordinates, some are not finite, or the area has no cell with a value.
        BlockError
            If there are fewer places than folds.
        """
        yield from each_fold(self.match(X, groups).fold)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return self.folds

    def _places(self, X: Where, groups: ArrayLike | None) -> tuple[Places, Places]:
        return site_and_area_places(
            X, groups, self.area, points=self.points, rng=self.rng, crs=self.crs
        )


@dataclass(frozen=True, eq=False)
class _Sample:
    """Distinct places of sites in Cartesian coordinates, and their distances."""

    points: np.ndarray
    place: np.ndarray
    """Number of the place of each site ``(n,)``."""
    flat: Places
    site_to_site: np.ndarray
    area_to_sites: np.ndarray

    @classmethod
    def of(cls, sites: Places, area: Places, *, folds: int) -> _Sample:
        from scipy.spatial import cKDTree

        points = sites.points()
        _, first, place = np.unique(points.round(6), axis=0, return_index=True, return_inverse=True)
        points = points[first]
        if len(points) < max(folds, 2):
            raise BlockError(
                f"{len(points)} place(s) of sites cannot be dealt into {folds} folds: use fewer folds or add sites"
            )
        tree = cKDTree(points)
        return cls(
            points,
            place.ravel(),
            sites,
            sites.along_surface(tree.query(points, 2)[0][:, 1]),
            sites.along_surface(tree.query(area.points())[0]),
        )

    def is_clustered(self) -> bool:
        """Return whether places are nearer to each other than the area is to them."""
        from scipy.stats import ks_2samp

        first, second = self.site_to_site, self.area_to_sites
        method = "exact" if len(first) * len(second) < 10_000 else "asymp"  # as R does
        test = ks_2samp(first, second, alternative="greater", method=method)
        return bool(test.pvalue < SIGNIFICANCE)

    def between(self, fold: np.ndarray) -> np.ndarray:
        """Return the distance of each place to the nearest place of another fold, in km."""
        from scipy.spatial import cKDTree

        chords = np.empty(len(self.points))
        for number in np.unique(fold):
            is_test = fold == number
            chords[is_test] = cKDTree(self.points[~is_test]).query(self.points[is_test])[0]
        return self.flat.along_surface(chords)

    def statistic(self, test_to_training: np.ndarray) -> float:
        from scipy.stats import wasserstein_distance

        return float(wasserstein_distance(test_to_training, self.area_to_sites))

    def clusterings(
        self, folds: int, max_share: float, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Return numbers of clusters with their folds ``(places,)``, none of which exceeds the share."""
        from scipy.cluster.hierarchy import cut_tree, linkage

        micro, points = self._micro_clusters(rng)
        tree = linkage(points, "ward")
        steps = np.geomspace(folds, max(folds, len(points) - 2), CONFIGURATIONS)
        counts = np.unique(steps.round().astype(int))
        labels = cut_tree(tree, counts)[micro]
        configurations = []
        for count, label in zip(counts.tolist(), labels.T):
            fold = self._joined(label, folds)
            sizes = np.bincount(fold, minlength=folds) / len(fold)
            if sizes.max() <= max_share and sizes.min() > 0:
                configurations.append((count, fold))
        return configurations

    def _micro_clusters(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the group of each place and the centres of the groups, which hierarchical clustering can hold."""
        if len(self.points) <= MOST_PLACES:
            return np.arange(len(self.points)), self.points
        from sklearn.cluster import MiniBatchKMeans

        seed = int(rng.integers(2**31))
        means = MiniBatchKMeans(MOST_PLACES, n_init=1, random_state=seed).fit(self.points)
        labels, micro = np.unique(means.labels_, return_inverse=True)
        return micro.ravel(), means.cluster_centers_[labels]

    def _joined(self, label: np.ndarray, folds: int) -> np.ndarray:
        """Join clusters to folds: a large one is a fold, the others follow each other along the main axis."""
        sizes = np.bincount(label)
        if len(sizes) == folds:
            return label
        offsets = self.points - self.points.mean(0)
        axis = np.linalg.svd(offsets, full_matrices=False)[2][0]
        axis = axis * np.sign(axis[np.argmax(np.abs(axis))])  # its sign is arbitrary
        order = np.argsort(np.bincount(label, offsets @ axis) / sizes, kind="stable")
        is_large = sizes[order] >= len(label) / folds
        fold = np.empty(len(sizes), np.int64)
        fold[order[is_large]] = np.arange(is_large.sum()) % folds
        free = np.arange(is_large.sum(), folds) if is_large.sum() < folds else np.arange(folds)
        fold[order[~is_large]] = np.resize(free, int((~is_large).sum()))
        return fold[label]
