"""Strategies by name, as on the command line and in a model's config."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from geomiam.errors import SettingError
from geomiam.masking.miam import MIAM, BetaCube
from geomiam.masking.ramp import Ramp
from geomiam.masking.simple import Constant, Dirichlet, Uniform, UniformCube
from geomiam.masking.strategy import Strategy
from geomiam.masking.whole_modalities import OPM, ModalityDropout, RandomSubset

__all__ = ["named", "to_dict"]

# Name -> class and the fields that the name fixes; the first name of a class is its own.
_NAMES: dict[str, tuple[type, dict[str, Any]]] = {
    "miam": (MIAM, {}),
    "uniform": (Uniform, {}),
    "dirichlet": (Dirichlet, {}),
    "dirichlet-visible": (Dirichlet, {"simplex": "visible"}),
    "dropout": (ModalityDropout, {}),
    "opm": (OPM, {}),
    "constant": (Constant, {}),
    "uniform-cube": (UniformCube, {}),
    "beta-cube": (BetaCube, {}),
    "subset": (RandomSubset, {}),
    "ramp": (Ramp, {}),
}


def named(name: str, **settings: Any) -> Strategy:
    """Strategy from its name, as on the command line; ``named(**to_dict(s)) == s``.

    ``"ramp-miam"`` is a ramp around ``"miam"``, and so with every name; settings that a ramp does not
    have are those of the strategy inside.

    Raises
    ------
    SettingError
        When no strategy has that name, or it has not these settings; the message lists them.
    """
    if name.startswith("ramp-"):
        own = {k: settings.pop(k) for k in ("warmup", "over") if k in settings}
        return Ramp(named(name.removeprefix("ramp-"), **settings), **own)
    if isinstance(inner := settings.get("strategy"), dict):
        settings["strategy"] = named(**inner)
    if name not in _NAMES:
        raise SettingError(f"no masking strategy {name!r}; choose from: {', '.join(_NAMES)}")
    kind, fixed = _NAMES[name]
    if unknown := sorted(set(settings) - (names := {f.name for f in fields(kind)})):
        raise SettingError(f"'{name}' has no setting {unknown}; it has {', '.join(sorted(names))}")
    return kind(**fixed | settings)


def to_dict(strategy: Strategy) -> dict[str, Any]:
    """Name and fields of a strategy, for the model's config.

    Raises
    ------
    ValueError
        When the strategy is not one of this module.
    """
    for name, (kind, _) in _NAMES.items():
        if type(strategy) is kind:
            own = {f.name: getattr(strategy, f.name) for f in fields(strategy)}
            nested = {k: to_dict(v) for k, v in own.items() if isinstance(v, Strategy)}
            return {"name": name, **own, **nested}
    raise SettingError(
        f"{type(strategy).__name__} has no name in geomiam; use one of: {', '.join(_NAMES)}"
    )
