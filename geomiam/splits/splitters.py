"""Splitters with scikit-learn's interface: ``split(X, y, groups)`` yields training and test rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geomiam.errors import GridError, SettingError
from geomiam.geo.lengths import Length, as_text, block_side, kilometres
from geomiam.splits.blocks import Seed, Splits, check_folds, deal, each_fold
from geomiam.splits.reading import Where, labels, places_of
from geomiam.splits.site_blocks import Blocks, site_blocks


@dataclass(frozen=True)
class SpatialBlocks:
    """Folds of whole square blocks; every block is tested once and trains in all other folds.

    Parameters
    ----------
    folds : int
        At least 2.
    size : float or str, optional
        Side of a block: km, or text such as ``"100 km"``; the grid of blocks does not depend on the
        sites. Default: from the data, as :func:`geomiam.splits.site_blocks`.
    rng : int, numpy.random.Generator or None
        Assigns the blocks to folds. A seed gives the same folds at every call.
    crs : any, optional
        CRS of coordinates that are passed as arrays; sites carry theirs.

    See Also
    --------
    geomiam.cross_validate : the call that takes it.
    geomiam.splits.EnvironmentalBlocks : blocks of similar environment.
    geomiam.splits.NearestNeighbourMatching : folds as far from training sites as the map.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.model_selection import cross_val_score
    >>> complete = sites[["bio1", "bio12", "presence"]].isel(species=0).dropna("site")
    >>> X = complete[["bio1", "bio12"]].to_dataframe()[["bio1", "bio12"]]
    >>> y = complete["presence"].values
    >>> xy = np.stack([complete["x"], complete["y"]], axis=1)
    >>> cv = gm.splits.SpatialBlocks(3, size="50 km", crs="EPSG:4326")
    >>> cross_val_score(RandomForestClassifier(10), X, y, groups=xy, cv=cv).shape
    (3,)
    """

    folds: int = 5
    size: Length | None = None
    rng: Seed = 0
    crs: Any = None

    def __post_init__(self) -> None:
        check_folds(self.folds)
        if self.size is not None:
            block_side(self.size)

    def blocks(self, X: Where, groups: ArrayLike | None = None) -> Blocks:
        """Return the blocks of sites, with their size and the reason for it; as :meth:`split`."""
        return site_blocks(X, self.size, groups=groups, crs=self.crs, min_blocks=self.folds)

    def split(
        self, X: Where, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Splits:
        """Yield rows to train on and rows to test on.

        Parameters
        ----------
        X : xarray.Dataset or (n, 2) array_like
            Sites with coordinates, or the coordinates. Anything with n rows if ``groups`` is given.
        y : (n,) or (n, S) array_like, optional
            Labels; rows with any 1 are spread evenly over the folds. Default: ``presence`` of the sites.
        groups : (n, 2) array_like, optional
            The coordinates, when ``X`` holds predictors.

        Yields
        ------
        train, test : numpy.ndarray
            Row numbers, rising.

        Raises
        ------
        GridError
            If there are no coordinates, some are not finite, or they have no CRS and are no degrees.
        BlockError
            If there are fewer places than folds.
        LabelError
            If there is not one label per row.
        """
        blocks = self.blocks(X, groups).number
        yield from each_fold(deal(labels(X, y, len(blocks)), blocks, self.folds, self.rng))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return self.folds


@dataclass(frozen=True)
class Checkerboard:
    """Two folds: the black and the white squares of a board that does not depend on the sites.

    Test squares are next to training squares, so this tests interpolation, and neighbours separate
    less than with :class:`BufferedLeaveOut` (Muscarella et al. 2014). On
    geographic coordinates colours alternate along each belt of latitude.

    Parameters
    ----------
    size : float or str, optional
        Side of a square: km, or text such as ``"100 km"``. Default: from the data, as
        :func:`geomiam.splits.site_blocks`.
    crs : any, optional
        CRS of coordinates that are passed as arrays; sites carry theirs.

    See Also
    --------
    geomiam.cross_validate : the call that takes it.
    geomiam.splits.SpatialBlocks : blocks in random folds.

    Examples
    --------
    >>> folds = list(gm.splits.Checkerboard(size="50 km").split(sites))
    >>> len(folds), sum(len(test) for _, test in folds) == sites.sizes["site"]
    (2, True)
    """

    size: Length | None = None
    crs: Any = None

    def __post_init__(self) -> None:
        if self.size is not None:
            block_side(self.size)

    def split(
        self, X: Where, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Splits:
        """Yield rows as :meth:`SpatialBlocks.split`, without ``y``.

        Raises
        ------
        GridError
            If there are no coordinates, some are not finite, or all sites lie on one colour.
        """
        side = site_blocks(X, self.size, groups=groups, crs=self.crs).km
        colour = places_of(X, groups, self.crs).squares(side, even=True).sum(1) % 2
        if len(np.unique(colour)) < 2:
            raise GridError(
                f"all {len(colour)} sites lie on squares of one colour with size='{as_text(side)}': "
                "pass a smaller size=..."
            )
        yield from each_fold(colour)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 2."""
        return 2


@dataclass(frozen=True)
class BufferedLeaveOut:
    """Leave out one site, one block or one fold of blocks, and train on sites beyond a buffer.

    Training sites at most ``buffer`` from any test site are dropped from that fold: the distance that
    autocorrelation reaches, as from a variogram (Le Rest et al. 2014; Roberts et al. 2017).

    Parameters
    ----------
    buffer : float or str
        Distance: km, or text such as ``"100 km"``; 0 drops sites at the place of a test site only.
    size : float or str, optional
        Side of the blocks to leave out, a length; default: single sites are left out.
    folds : int, optional
        Number of folds of blocks; default: one block at a time.
    rng : int, numpy.random.Generator or None
        Assigns the blocks to folds. A seed gives the same folds at every call.
    crs : any, optional
        CRS of coordinates that are passed as arrays; sites carry theirs.

    See Also
    --------
    geomiam.cross_validate : the call that takes it.
    geomiam.splits.SpatialBlocks : fewer trainings.

    Examples
    --------
    >>> splitter = gm.splits.BufferedLeaveOut(buffer="20 km", size="100 km")
    >>> train, test = next(splitter.split(sites))
    >>> bool(set(train) & set(test))
    False
    """

    buffer: Length
    size: Length | None = None
    folds: int | None = None
    rng: Seed = 0
    crs: Any = None

    def __post_init__(self) -> None:
        kilometres(self.buffer, "buffer", zero=True)
        if self.size is not None:
            block_side(self.size)
        if self.folds is not None:
            check_folds(self.folds)
            if self.size is None:
                raise SettingError(f"folds={self.folds} are of blocks: pass their side as size=...")

    def split(
        self, X: Where, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Splits:
        """Yield rows as :meth:`SpatialBlocks.split`; rows in the buffer are in neither set.

        Raises
        ------
        GridError
            If there are no coordinates, some are not finite, or a buffer leaves nothing to train on.
        LabelError
            If there are fewer blocks than folds, or not one label per row.
        """
        places, buffer = places_of(X, groups, self.crs), kilometres(self.buffer, zero=True)
        for test in self._tests(X, y, groups, n=len(places)):
            far = places.distance_to(test) > buffer
            if not far.any():
                raise GridError(
                    f"no site lies farther than buffer='{as_text(buffer)}' from the {len(test)} "
                    "sites left out, so none is left to train on: use a smaller buffer or blocks"
                )
            yield np.flatnonzero(far), test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; sites or coordinates are needed unless ``folds`` is set.

        Raises
        ------
        GridError
            If there are no coordinates, or some are not finite.
        """
        if self.folds is not None:
            return self.folds
        if self.size is None:
            return len(places_of(X, groups, self.crs))
        return site_blocks(X, self.size, groups=groups, crs=self.crs).count

    def _tests(
        self, X: Where, y: ArrayLike | None, groups: ArrayLike | None, *, n: int
    ) -> Iterator[np.ndarray]:
        if self.size is None:
            return iter(np.arange(n)[:, None])
        min_blocks = self.folds or 2
        fold = site_blocks(X, self.size, groups=groups, crs=self.crs, min_blocks=min_blocks).number
        if self.folds is not None:
            fold = deal(labels(X, y, n), fold, self.folds, self.rng)
        return (np.flatnonzero(fold == number) for number in range(fold.max() + 1))
