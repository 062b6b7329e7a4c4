"""Options of the novelty of predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geomiam.errors import SettingError

if TYPE_CHECKING:
    import numpy as np

    from geomiam.tokens.select import Selector

Measure = Literal["dissimilarity", "mess", "exdet"]
Space = Literal["predictors", "tokens"]


@dataclass(frozen=True, kw_only=True)
class NoveltyOptions:
    """Options of :func:`geomiam.novelty`.

    Parameters
    ----------
    measures : sequence of {"dissimilarity", "mess", "exdet"}
        Measures to compute; the dissimilarity index takes most of the time.
    weights : mapping of str to float, optional
        Weight of each variable, group or modality in the dissimilarity index, such as its importance;
        variables that are not listed have 0. Default: all predictors weigh the same.
    folds : numpy.ndarray, optional
        Whole number for each site of ``reference`` ``(n,)``: its fold of a cross-validation. The
        threshold compares sites with those of other folds. Default: the spatial folds of the fit, or each
        site with all others.
    space : {"predictors", "tokens"}
        Space of the distances: standardised predictors, or the vectors that the head of the network reads.
        The latter needs ``reference``.
    require, mask, memory_limit
        As :class:`geomiam.PredictOptions`.

    Examples
    --------
    >>> options = gm.NoveltyOptions(measures=["mess"], mask="land")
    >>> new = gm.novelty(cube, model, options=options)  # doctest: +SKIP
    """

    measures: Sequence[Measure] = ("dissimilarity", "mess", "exdet")
    weights: Mapping[str, float] | None = None
    folds: np.ndarray | None = None
    space: Space = "predictors"
    require: Selector | Sequence[Selector] = ()
    mask: str | None = None
    memory_limit: int | str | None = None

    @classmethod
    def of(cls, options: NoveltyOptions | None) -> NoveltyOptions:
        """Return checked options, or the defaults for None."""
        options = cls() if options is None else options
        if not isinstance(options, cls):
            raise SettingError(f"options={options!r}: pass gm.NoveltyOptions(...)")
        choices = cls().measures
        if isinstance(options.measures, str) or not set(options.measures) <= set(choices):
            raise SettingError(
                f"measures={options.measures!r}: pass a list with some of {', '.join(choices)}"
            )
        if not options.measures:
            raise SettingError(f"measures=[] computes nothing: name some of {', '.join(choices)}")
        if options.space not in ("predictors", "tokens"):
            raise SettingError(f"space={options.space!r}; use 'predictors' or 'tokens'")
        if options.space == "tokens" and options.weights is not None:
            raise SettingError(
                "weights= has no effect with space='tokens', in which the network weighs the predictors: "
                "leave one of them out"
            )
        return options
