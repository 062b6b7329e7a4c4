"""Thresholds that turn suitability into presence and absence, for many species at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomiam.errors import SelectionError
from geomiam.metrics.labelled import by_name
from geomiam.metrics.ranking import best_threshold
from geomiam.metrics.tables import Array, Block, per_species

ThresholdKind = Literal[
    "max-tss", "equal-sensitivity-specificity", "omission-10", "prevalence", "minimum-presence"
]
KINDS: tuple[ThresholdKind, ...] = get_args(ThresholdKind)


def threshold(labels: ArrayLike, scores: ArrayLike, *, kind: ThresholdKind = "max-tss") -> Any:
    """Threshold of each species; present where ``score >= threshold``.

    The threshold is one of the scores. Of equally good ones, it is that with the greater true skill
    statistic, and then the highest. Choose it on sites that did not train the model: see
    :func:`geomiam.evaluation.thresholds`.

    Parameters
    ----------
    labels, scores
        As for :func:`geomiam.metrics.auc`; absences may be background sites.
    kind : str
        - ``"max-tss"``: greatest sensitivity + specificity, which suits background sites too (Liu et
          al. 2013).
        - ``"equal-sensitivity-specificity"``: least difference of sensitivity and specificity.
        - ``"omission-10"``: the highest that leaves out at most 10 % of the presences.
        - ``"prevalence"``: the share of sites called present is nearest to the share of presences
          (Freeman and Moisen 2008).
        - ``"minimum-presence"``: the lowest score of a presence (Pearson et al. 2007).

    Returns
    -------
    (S,) array, or DataArray with the dim ``species``
        NaN for a species with one class.

    Raises
    ------
    SelectionError
        If the kind is unknown.
    ValueError
        As for :func:`geomiam.metrics.auc`.

    See Also
    --------
    geomiam.classify : maps of presence.
    geomiam.evaluation.thresholds : thresholds of a cross-validation.

    Examples
    --------
    >>> labels, scores = np.array([1, 1, 0, 0]), np.array([0.9, 0.3, 0.6, 0.1])
    >>> float(gm.metrics.threshold(labels, scores, kind="minimum-presence"))
    0.3
    """
    return by_name(_on_tables(check_kind(kind)))(labels, scores)


def check_kind(kind: str) -> str:
    """Return the name of a kind of threshold; refuse an unknown one."""
    if kind not in KINDS:
        raise SelectionError(f"no threshold {kind!r}; choose from {', '.join(KINDS)}")
    return kind


def _on_tables(kind: str) -> Callable[[ArrayLike, ArrayLike], Array]:
    """Return the function on tables of a kind of threshold."""

    def threshold(labels: ArrayLike, scores: ArrayLike) -> Array:
        return per_species(_KERNELS[kind], labels, scores)[0]

    return threshold


def _reaching(block: Block, *, left_out: Callable[[NDArray[Any]], NDArray[Any]]) -> Array:
    """Highest score that leaves out at most a number of presences."""
    presences = (block.ones - left_out(block.ones))[:, None]
    place = ((block.curve.hits >= presences) & block.curve.last).argmax(1)[:, None]
    return np.take_along_axis(block.curve.score, place, 1)[:, 0]


def _nearest(block: Block, *, gap: Callable[[Block], NDArray[Any]]) -> Array:
    """Score with the least gap; of several, with the greatest true skill statistic."""
    # Gaps and skill are whole numbers, so ties are exact.
    largest = np.iinfo(np.int64).max
    is_score = block.curve.last & ~np.isnan(block.curve.score)
    gaps = np.where(is_score, np.abs(gap(block)), largest)
    skill = block.curve.hits * block.zeros[:, None] - block.curve.false * block.ones[:, None]
    is_least = is_score & (gaps == gaps.min(1, keepdims=True))
    place = np.where(is_least, skill, -largest).argmax(1)[:, None]
    return np.take_along_axis(block.curve.score, place, 1)[:, 0]


def _of_rates(block: Block) -> NDArray[Any]:
    """Sensitivity minus specificity, times the numbers of presences and absences: whole numbers."""
    ones, zeros = block.ones[:, None], block.zeros[:, None]
    return block.curve.hits * zeros - (zeros - block.curve.false) * ones


def _of_shares(block: Block) -> NDArray[Any]:
    """Sites called present minus presences."""
    return block.curve.hits + block.curve.false - block.ones[:, None]


_KERNELS: dict[str, Callable[[Block], Array]] = {
    "max-tss": best_threshold.kernel,  # type: ignore[dict-item]  # @metric sets it
    "equal-sensitivity-specificity": partial(_nearest, gap=_of_rates),
    "omission-10": partial(_reaching, left_out=lambda ones: ones // 10),
    "prevalence": partial(_nearest, gap=_of_shares),
    "minimum-presence": partial(_reaching, left_out=np.zeros_like),
}
