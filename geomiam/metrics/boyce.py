"""The continuous Boyce index: agreement of presences with the predicted suitability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomiam.checks.settings import check_count, check_number
from geomiam.metrics.labelled import by_name
from geomiam.metrics.tables import Array, Block, per_species

WINDOW = 0.1
RESOLUTION = 100


@by_name
def boyce(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    window: float = WINDOW,
    resolution: int = RESOLUTION,
    drop_duplicates: bool = True,
) -> Array:
    """Continuous Boyce index, one per species (Hirzel et al. 2006).

    A window moves from the lowest to the highest score of the species' sites. In each, P is the share
    of the presences with a score inside, both ends included, and E the share of all sites, presences
    among them; the index is Spearman's correlation of P/E (rounded to ten decimals) with the window's
    place. Windows without sites are left out. As the windows have one width on the scale of the
    scores, the index depends on that scale: give probabilities, as the literature does, not logits.

    Parameters
    ----------
    labels, scores
        As for :func:`geomiam.metrics.auc`; absences may be background sites.
    window : float
        Width of the window as a share of the range of the scores, in (0, 1).
    resolution : int
        Steps from the first window to the last, so ``resolution + 1`` windows. The R package ecospat
        moves the last of them up by 1, which loses it on scores in [0, 1]; here it stays.
    drop_duplicates : bool
        Of neighbouring windows with equal P/E keep the last one only, as ecospat does by default.

    Returns
    -------
    (S,) array
        −1 to 1. NaN for a species with one class, with an infinite score, with one score everywhere,
        or with the same P/E in all windows.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`, or when window or resolution make no windows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.random((2000, 1))
    >>> labels = rng.random((2000, 1)) < scores  # more presences where the score is high
    >>> bool(gm.metrics.boyce(labels, scores)[0] > 0.9)
    True
    """
    check_number(
        "window",
        window,
        requirement="must be a share in (0, 1)",
        accepts=lambda x: 0 < x < 1,
        hint=f"the usual one is {WINDOW}",
    )
    check_count("resolution", resolution, minimum=1, hint=f"the usual one is {RESOLUTION}")
    return per_species(
        lambda block: _boyce(block, window, resolution, thin=drop_duplicates), labels, scores
    )[0]


boyce.kernel = lambda block: _boyce(block, WINDOW, RESOLUTION, thin=True)


def _boyce(block: Block, window: float, resolution: int, *, thin: bool) -> Array:
    ratio = _ratios(block, window, resolution)
    return _spearman_with_place(_thinned(ratio) if thin else ratio)


def _ratios(block: Block, window: float, resolution: int) -> Array:
    """P/E of each species and window ``(s, resolution + 1)``."""
    rows = zip(block.curve.score, block.curve.hits, block.ones + block.zeros)
    ratios = [_ratio(z[:n].astype(np.float64), h[:n], window, resolution) for z, h, n in rows]
    return np.stack(ratios)


def _ratio(score: Array, hits: NDArray[Any], window: float, resolution: int) -> Array:
    """P/E of each window ``(resolution + 1,)``; NaN where it is empty."""
    no_ratio = np.full(resolution + 1, np.nan)
    if not len(score) or not hits[-1] or not 0 < (span := score[0] - score[-1]) < np.inf:
        return no_ratio
    width = span * window
    low = np.linspace(score[-1], score[0] - width, resolution + 1)
    high = low + width
    high[-1] = np.inf  # rounding must not lose the highest score
    down_to, above = np.searchsorted(-score, -low, "right"), np.searchsorted(-score, -high, "left")
    hits_above = np.append(0, hits)
    inside, expected = hits_above[down_to] - hits_above[above], down_to - above
    # P/E of Hirzel et al. (2006): the share of presences in a window by the share of sites.
    share = inside * (len(score) / hits[-1])
    # Rounded, since runs of equal ratios are found by comparison.
    return np.divide(share, expected, out=no_ratio, where=expected > 0).round(10)


def _thinned(ratio: Array) -> Array:
    """Hide all but the last of a run of equal ratios, looking past empty windows."""
    empty = np.isnan(ratio)
    after = np.where(empty, len(ratio[0]), np.arange(ratio.shape[1]))
    after = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]  # next window that is not empty
    following = np.append(after[:, 1:], np.full((len(ratio), 1), ratio.shape[1]), 1)
    with_end = np.append(ratio, np.full((len(ratio), 1), np.nan), 1)
    return np.where(ratio == np.take_along_axis(with_end, following, 1), np.nan, ratio)


def _spearman_with_place(ratio: Array) -> Array:
    """Spearman's correlation of each row with its column numbers, NaN left out."""
    is_used = ~np.isnan(ratio)
    n = np.maximum(is_used.sum(1), 1)[:, None]
    from scipy.stats import rankdata  # its import takes as long as a short training

    ranks = rankdata(ratio, axis=1, nan_policy="omit")
    # Ranks 1 … n have the mean (n + 1) / 2.
    x, y = (np.where(is_used, r - (n + 1) / 2, 0) for r in (ranks, np.cumsum(is_used, axis=1)))
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), size, out=np.full(len(n), np.nan), where=size > 0)
