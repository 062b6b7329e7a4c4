"""Strategies by name, as on the command line and in a model's config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, cast

from geomiam.errors import SettingError
from geomiam.masking.miam import MIAM, BetaCube
from geomiam.masking.simple import Constant, Dirichlet, Ramp, Uniform, UniformCube
from geomiam.masking.strategy import Strategy
from geomiam.masking.whole_modalities import OPM, ModalityDropout, RandomSubset

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "miam": MIAM,
    "uniform": Uniform,
    "dirichlet": Dirichlet,
    "dirichlet-visible": partial(Dirichlet, simplex="visible"),
    "dropout": ModalityDropout,
    "opm": OPM,
    "constant": Constant,
    "uniform-cube": UniformCube,
    "beta-cube": BetaCube,
    "subset": RandomSubset,
    "ramp": Ramp,
}
"""Every strategy by name. A new one is a frozen dataclass that satisfies :class:`Strategy`, and a line
here, or ``gm.masking.STRATEGIES["mine"] = Mine`` in a user's code. A ``partial`` is a second name of
a class, with some fields set."""


def named(name: str, **settings: Any) -> Strategy:
    """Return a strategy by name, as on the command line; ``named(**to_dict(s)) == s``.

    ``"ramp-miam"`` is a ramp around ``"miam"``, and so with every name; settings that a ramp does not
    have are those of the strategy inside.

    Raises
    ------
    SettingError
        When no strategy has that name, or a setting is unknown; the message lists the valid ones.

    See Also
    --------
    geomiam.masking.to_dict : the inverse.

    Examples
    --------
    >>> gm.masking.named("constant", share=0.5)
    Constant(share=0.5, per_sample=False)
    """
    if name.startswith("ramp-"):
        ramp_settings = {k: settings.pop(k) for k in ("warmup", "over") if k in settings}
        return Ramp(named(name.removeprefix("ramp-"), **settings), **ramp_settings)
    if isinstance(inner := settings.get("strategy"), dict):
        settings["strategy"] = named(**inner)
    if name not in STRATEGIES:
        raise SettingError(f"no masking strategy {name!r}; choose from: {', '.join(STRATEGIES)}")
    make = STRATEGIES[name]
    names = {f.name for f in fields(cast(Any, getattr(make, "func", make)))}
    if unknown := sorted(set(settings) - names):
        raise SettingError(f"'{name}' has no setting {unknown}; it has {', '.join(sorted(names))}")
    return make(**settings)


def as_strategy(masking: Strategy | str | None, *, default: Strategy) -> Strategy:
    """Return a strategy unchanged, the strategy of a name, or the default for None."""
    if isinstance(masking, str):
        return named(masking)
    return masking or default


def to_dict(strategy: Strategy) -> dict[str, Any]:
    """Return name and fields of a strategy, for the model's config.

    Raises
    ------
    ValueError
        When the class of the strategy has no name.

    See Also
    --------
    geomiam.masking.named : the inverse.

    Examples
    --------
    >>> gm.masking.to_dict(gm.masking.Constant(0.5))
    {'name': 'constant', 'share': 0.5, 'per_sample': False}
    """
    for name, kind in STRATEGIES.items():
        if type(strategy) is kind:
            settings = {f.name: getattr(strategy, f.name) for f in fields(strategy)}
            nested = {k: to_dict(v) for k, v in settings.items() if isinstance(v, Strategy)}
            return {"name": name, **settings, **nested}
    raise SettingError(
        f"{type(strategy).__name__} has no name in geomiam; name it with gm.masking.STRATEGIES['name'] = "
        f"{type(strategy).__name__}, or use one of: {', '.join(STRATEGIES)}"
    )
