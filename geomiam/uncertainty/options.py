"""Options of the novelty of predictors, and of the value of those that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from geomiam.checks.settings import check_count
from geomiam.errors import SettingError

if TYPE_CHECKING:
    from geomiam.model.model import Model
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


@dataclass(frozen=True, kw_only=True)
class ValueOptions:
    """Options of :func:`geomiam.value_of_information`.

    Parameters
    ----------
    neighbours : int
        Training sites from which a group is drawn, 2 or more. The time is proportional to it, and the standard
        error falls with its square root; more sites are less similar to the cell.
    weights : mapping of str to float, optional
        Weight of each species in one value for the set of them; species that are not listed have 0. Default: a
        value for each species.
    require, mask, clamp, memory_limit
        As :class:`geomiam.PredictOptions`.

    Examples
    --------
    >>> options = gm.ValueOptions(weights=dict.fromkeys(model.species, 1))
    >>> value = gm.value_of_information(cube, model, groups=["terrain"], options=options)
    >>> value["value_of_information"].dims
    ('group', 'y', 'x')
    """

    neighbours: int = 20
    weights: Mapping[str, float] | None = None
    require: Selector | Sequence[Selector] = ()
    mask: str | None = None
    clamp: bool = False
    memory_limit: int | str | None = None

    @classmethod
    def of(cls, options: ValueOptions | None) -> ValueOptions:
        """Return checked options, or the defaults for None."""
        options = cls() if options is None else options
        if not isinstance(options, cls):
            raise SettingError(f"options={options!r}: pass gm.ValueOptions(...)")
        check_count(
            "neighbours", options.neighbours, minimum=2, hint="it is the number of sites to draw"
        )
        return options

    def species_of(
        self, model: Model, species: str | Sequence[str] | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the positions of the species ``(s,)`` and their weights ``(s,)``, which add up to 1."""
        if self.weights is None:
            return model.species_index(species), None
        if species is not None:
            raise SettingError(
                "weights= names the species of the set, so species= has no effect: leave one of them out"
            )
        for name, weight in self.weights.items():
            if not (np.isfinite(weight) and weight >= 0):
                raise SettingError(
                    f"the weight of '{name}' is {weight}: pass a number of 0 or more"
                )
        positive = {name: float(w) for name, w in self.weights.items() if w > 0}
        if not positive:
            raise SettingError("all weights= are 0: pass one above 0")
        weights = np.array(list(positive.values()))
        return model.species_index(list(positive)), weights / weights.sum()
