"""Options of predictions, Shapley values and maps: each a frozen dataclass of what is set rarely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from geomiam.errors import SettingError

if TYPE_CHECKING:
    import numpy as np

    from geomiam.inference.slabs import Scale
    from geomiam.inference.terms import Index
    from geomiam.model.model import Precision
    from geomiam.tokens.select import Selector
    from geomiam.uncertainty.options import ValueOptions

Method = Literal["exact", "latin", "amortised"]
SAMPLES = 8
"""Default number of Latin squares of coalitions."""


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """Options that predictions and Shapley values share: which cells have a value, and how it is computed."""

    require: Selector | Sequence[Selector] = ()
    mask: str | None = None
    clamp: bool = False
    precision: Precision = "fp32"
    memory_limit: int | str | None = None

    @classmethod
    def of(cls, options: CellOptions | None) -> Self:
        """Return the options, or the defaults for None; refuse options of another function."""
        if options is None:
            return cls()
        if not isinstance(options, cls):
            raise SettingError(f"options={options!r}: pass {cls.__name__}(...)")
        return options


@dataclass(frozen=True, kw_only=True)
class PredictOptions(CellOptions):
    """Options of :func:`geomiam.predict`.

    Parameters
    ----------
    require : selector or sequence of selectors
        Groups, modalities, variables or parts. A cell without a value of each of them is NaN.
    mask : str, optional
        Layer of the data, such as a land mask: where it is NaN or 0, cells are NaN.
    clamp : bool
        Move numbers beyond the training range to its nearest limit before the prediction, as Maxent does. The
        layer ``outside_range`` still shows where. Classes that training has not seen count as missing, and
        angles have no range.
    precision : {"fp32", "bf16"}
        ``"bf16"`` computes attention and feed-forward layers in bfloat16. It is faster where the hardware
        supports it; suitability differs in the third decimal.
    memory_limit : int or str, optional
        Most bytes a dask block may need; default 4 GiB.
    empty : {"nan", "base"}
        Value of cells where nothing is observed: NaN, or the base value v(∅), the prediction without any
        predictor. ``observed`` is 0 there in both cases.

    Examples
    --------
    >>> options = gm.PredictOptions(require="climate", mask="land")
    >>> maps = gm.predict(cube, model, options=options)  # doctest: +SKIP
    """

    empty: Literal["nan", "base"] = "nan"


@dataclass(frozen=True, kw_only=True)
class ShapleyOptions(CellOptions):
    """Options of :func:`geomiam.shapley`.

    Parameters
    ----------
    require, mask, clamp, precision, memory_limit
        As :class:`geomiam.PredictOptions`.
    method : {"exact", "latin", "amortised"}, optional
        ``"exact"``: all coalitions, the default up to 12 groups. ``"latin"``: sampled coalitions, the
        default for more groups. ``"amortised"``: predicted in one pass by the explainer of the model, for the
        groups of its schema, see :func:`geomiam.explain.fit_explainer`; ``attrs["explainer"]`` (JSON) has
        its error.
    samples : int
        Latin squares of coalitions, 2 or more; each has at most G·(G − 1) coalitions.
    rng : int, numpy.random.Generator or None
        Draws the squares.
    index : {"shapley-taylor", "shapley", "mobius"}, optional
        Kind of the interactions, with an ``order`` of 2 or more; default ``"shapley-taylor"``. Main effects and
        interactions add up to the prediction with ``"shapley-taylor"`` for every order, with ``"shapley"`` (the
        Shapley interaction index, as in SHAP interaction values) for its only order 2, and with ``"mobius"``
        (Harsanyi dividends) for the order G.

    Examples
    --------
    >>> options = gm.explain.ShapleyOptions(method="latin", samples=16)
    >>> why = gm.shapley(cube, model, options=options)  # doctest: +SKIP
    """

    method: Method | None = None
    samples: int = SAMPLES
    rng: int | np.random.Generator | None = 0
    index: Index | None = None


@dataclass(frozen=True, kw_only=True)
class MapOptions(PredictOptions, ShapleyOptions):
    """Options of :func:`geomiam.write_map` and :func:`geomiam.plan_map`.

    Parameters
    ----------
    scale
        As :func:`geomiam.predict`.
    spread
        As :func:`geomiam.predict`; with ``shapley=True`` as :func:`geomiam.shapley`.
    interval
        As :func:`geomiam.predict`, without ``shapley`` only.
    require, mask, clamp, precision, empty
        As :class:`geomiam.PredictOptions`; ``empty`` without ``shapley`` only.
    groups
        As :func:`geomiam.shapley` with ``shapley=True``, and as :func:`geomiam.value_of_information` with that option.
    order
        As :func:`geomiam.shapley`, with ``shapley=True`` only.
    method, samples, rng, index
        As :class:`geomiam.explain.ShapleyOptions`, with ``shapley=True`` only.
    novelty : bool
        Write the layers of :func:`geomiam.novelty` too, with its defaults.
    value_of_information : ValueOptions, optional
        Write the layers of :func:`geomiam.value_of_information` too, with these options; ``require``, ``mask``,
        ``clamp`` and ``memory_limit`` are those of the map. A group ``rest`` has no value.
    memory_limit : int or str, optional
        Most bytes that one block may need; default 4 GiB.
    resume : bool
        Resume an unfinished map at this path; False deletes it.

    Examples
    --------
    >>> options = gm.MapOptions(memory_limit="500MB", scale="logit")
    >>> print(
    ...     gm.plan_map(cube, model, chunks={"y": 512, "x": 512}, options=options)
    ... )  # doctest: +SKIP
    """

    groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None
    order: int = 1
    scale: Scale = "probability"
    spread: bool = False
    interval: float | None = None
    novelty: bool = False
    value_of_information: ValueOptions | None = None
    resume: bool = True

    def without_effect(self, *, shapley: bool) -> None:
        """Refuse an option of Shapley values in a map without them, or the other way round.

        Raises
        ------
        SettingError
            With the names of these options.
        """
        of_shapley = ("groups", "order", "method", "samples", "rng", "index")
        without_use: tuple[str, ...] = ("empty", "interval") if shapley else of_shapley
        if self.value_of_information is not None:
            without_use = tuple(n for n in without_use if n != "groups")
        if names := [f"{k}=" for k in without_use if k in self.changed()]:
            raise SettingError(
                f"{', '.join(names)} has no effect with shapley={shapley}; "
                f"leave them out, or pass shapley={not shapley}"
            )

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {k: v for k, (v, default) in values.items() if not _equal(v, default)}


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (str, int, tuple, list)) and value == default)
