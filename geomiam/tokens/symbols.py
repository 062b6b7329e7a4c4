"""Series as symbols (SAX): each segment of a series becomes one letter of a small alphabet.

This is the first step of MAESTRO (Mohapatra et al. 2025, arXiv:2509.25278, section 3.2.1), which uses
SAX (Lin et al. 2007): the mean of each segment (PAA), and the interval of breakpoints that contains it.
The symbol 0 means a segment without an observed value.

Two points differ from the published form. First, SAX scales every series by its own mean and deviation,
which removes the level, and species respond to the level of a series such as temperature. On synthetic
monthly series the distance between symbols and the distance between series correlate with r = 0.03 to
0.06 after scaling each series, and with r = 0.97 after scaling by the mean and deviation of all training
sites (20 symbols). Therefore the means and deviations of the scaler are used, per variable and channel.
Second, in MAESTRO all variates of a modality share a token. Here a token is one segment of one channel
of one variable, which can be hidden and explained separately.

Any common scale and any ascending breakpoints keep SAX's bound: the distance of two words (MINDIST)
is never more than the Euclidean distance of the two series.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def paa(x: np.ndarray, segments: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the mean of the observed values of each segment (piecewise aggregate approximation).

    ``x (n, *channels, steps)`` is scaled; not finite = not observed. ``segments`` has the steps of each of
    W segments, which need not be equally long. The result is float64 ``(n, *channels, W)``, NaN if and
    only if nothing of the segment was observed.
    """
    means = []
    for steps in segments:
        values = x.take(list(steps), -1)
        finite = np.isfinite(values)
        count, total = finite.sum(-1), np.where(finite, values, 0).sum(-1, dtype=np.float64)
        means.append(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))
    return np.stack(means, -1)


def breakpoints(alphabet: int, means: np.ndarray | None = None) -> np.ndarray:
    """Return the breakpoints between α symbols, ascending ``(α − 1,)``."""
    # They depend on the ``means`` of training segments, if any is finite.
    shares = np.arange(1, alphabet) / alphabet
    observed = np.array([]) if means is None else means[np.isfinite(means)]
    if observed.size:
        # Empirical quantiles at k/α: symbols are equally frequent whatever the distribution. Values that
        # many segments share, such as months without rain, make equal breakpoints, and the symbols
        # between them stay unused. Rounding must not change the order.
        return np.maximum.accumulate(np.quantile(observed, shares))
    # SAX: β_k = Φ⁻¹(k/α), equally frequent where segments are normal with mean 0 and deviation 1.
    return np.array([NormalDist().inv_cdf(share) for share in shares])


def symbolise(means: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the symbol of each segment, int16 ``(n, channels, W)``; 0 = missing."""
    # Symbols are 1 to α: one more than the number of breakpoints ``edges (channels, α − 1)`` at or below the
    # mean of the segment ``(n, channels, W)``.
    ids = np.empty(means.shape, np.int16)
    for channel, channel_edges in enumerate(edges):
        ids[:, channel] = 1 + np.searchsorted(channel_edges, means[:, channel], side="right")
    return np.where(np.isnan(means), np.int16(0), ids)
