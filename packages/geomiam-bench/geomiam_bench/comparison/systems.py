"""The systems of a comparison: geomiam's default fit, and every published recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from geomiam.baselines.recipes import RECIPES, Recipe, recipe
from geomiam.evaluation.evaluate import Masked
from geomiam.schema.schema import Schema
from geomiam.training.fit import fit


@dataclass(frozen=True, eq=False)
class DefaultFit(Recipe):
    """The default fit: all settings follow from the data by a rule.

    It stops after a fixed number of steps and trains on the
    validation sites too, so that network, training and validation of a comparison have no effect.
    ``training`` are changes of the rule.
    """

    def fit(self, sites: xr.Dataset, schema: Schema, *, rng: int = 0, **_: Any) -> Masked:
        """Train on all sites."""
        return Masked(fit(sites, schema, training=dict(self.training) or None, rng=rng))


DEFAULT = DefaultFit(
    "default",
    "geomiam.fit without further settings: a mean of small networks of several kinds, masks of MIAM",
    "default",
    baseline="geomiam.fit",
)
SYSTEMS: dict[str, Recipe] = {DEFAULT.name: DEFAULT, **RECIPES}
"""Every system by name."""


def system(name: str) -> Recipe:
    """Return a system by name.

    Raises
    ------
    SelectionError
        If there is no system of that name.
    """
    return SYSTEMS[name] if name in SYSTEMS else recipe(name)
