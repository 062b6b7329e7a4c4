"""Recipes: a network, a masking strategy and training settings that belong together.

Published methods for missing modalities differ in several parts at once. A recipe keeps the parts
together, so that one name trains the method of a paper and a comparison can change a single part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from geomiam import masking
from geomiam.baselines.base import Baseline
from geomiam.baselines.registry import fit_baseline
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import Masked
from geomiam.masking import Strategy, named
from geomiam.networks.config import NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit

LOSS = "weighted-bce"
"""Loss of every recipe unless the caller sets another one, as published for MaskSDM and MIAM."""
TRAINING = TrainingConfig(warmup=100, epoch_steps=1)
"""Published settings: an epoch is one pass over the sites, and the learning rate rises for 100 steps."""
WITHOUT_INNER = ("token", "late")
"""Fusions without layers inside groups; they get the ``inner`` layers in ``depth`` instead."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """Network, masking and training of one published method.

    Parameters
    ----------
    name, description : str
        Short name, and a description of one sentence.
    family : str
        Recipes of one family have the same colour in figures.
    network, training : mapping
        Changes to a :class:`geomiam.NetworkConfig` and a :class:`geomiam.TrainingConfig`.
    mask : callable
        Returns the masking strategy.
    symbols : mapping, optional
        Series are read as symbols, by ``Schema.symbolic(**symbols)``.
    warm_start : bool
        Every branch is first trained alone.
    baseline : str, optional
        Name of a baseline that :func:`geomiam.baselines.fit_baseline` trains; network, masking and
        training are then not used.
    without : str, optional
        Part of the family's complete recipe that this recipe lacks.
    """

    name: str
    description: str
    family: str
    network: Mapping[str, Any] = field(default_factory=dict)
    mask: Callable[[], Strategy] = lambda: named("miam", per_sample=True)
    training: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, Any] | None = None
    warm_start: bool = False
    baseline: str | None = None
    without: str | None = None

    def options(
        self,
        schema: Schema | None = None,
        *,
        network: NetworkConfig | None = None,
        training: TrainingConfig | None = None,
    ) -> dict[str, Any]:
        """Return the keyword arguments of :func:`geomiam.fit` that train this recipe.

        Parameters
        ----------
        schema : Schema, optional
            If given, the result contains it, with series as symbols where the recipe uses symbols.
        network, training : optional
            Sizes and training settings that the recipe changes. The loss ``"auto"`` becomes
            ``"weighted-bce"``. A token passes through the same number of transformer layers in every
            fusion.

        Raises
        ------
        SelectionError
            If the recipe is a baseline without a network, or has a setting that this version lacks.

        Examples
        --------
        >>> import geomiam as gm
        >>> options = gm.baselines.recipe("masksdm").options()
        >>> options["network"].fusion, options["training"].loss
        ('token', 'weighted-bce')
        """
        if self.baseline:
            raise SelectionError(
                f"recipe '{self.name}' has no network: train it with gm.baselines.fit_baseline("
                f"'{self.baseline}', sites, schema)"
            )
        try:
            return self._options(schema, network or NetworkConfig(), training or TRAINING)
        except (AttributeError, TypeError, ValueError) as error:
            raise SelectionError(f"recipe '{self.name}' has a wrong setting: {error}") from None

    def _options(
        self, schema: Schema | None, network: NetworkConfig, training: TrainingConfig
    ) -> dict[str, Any]:
        changes = dict(self.network)
        if changes["fusion"] in WITHOUT_INNER:
            changes["depth"] = network.depth + network.inner
        settings = training.model_dump() | dict(self.training)
        if training.loss == "auto":
            settings["loss"] = LOSS
        options: dict[str, Any] = {
            "network": NetworkConfig(**network.model_dump() | changes, backbones=network.backbones),
            "training": TrainingConfig(**settings),
            "masking": self.mask(),
        }
        if self.warm_start:
            options["warm_start"] = True
        return options if schema is None else options | {"schema": self.schema_for(schema)}

    def schema_for(self, schema: Schema) -> Schema:
        """Return the schema with its series as symbols, or unchanged if the recipe has no symbols."""
        if self.symbols is None or not has_series(schema):
            return schema
        return schema.symbolic(**self.symbols)

    def fit(
        self,
        sites: xr.Dataset,
        schema: Schema,
        *,
        network: NetworkConfig | None = None,
        training: TrainingConfig | None = None,
        validation: np.ndarray | None = None,
        rng: int = 0,
    ) -> Masked | Baseline:
        """Train the recipe on sites; the parameters are those of :func:`geomiam.fit`."""
        if self.baseline:
            return fit_baseline(self.baseline, sites, schema, rng=rng)
        options = self.options(schema, network=network, training=training)
        return Masked(fit(sites, validation=validation, rng=rng, **options))

    def differs(self, schema: Schema) -> bool:
        """Return whether the missing part changes anything for this schema."""
        return self.without != "symbols" or has_series(schema)

    def note(self, schema: Schema) -> str:
        """Return a note on a part that does not apply to this schema; empty if all parts apply."""
        not_applied = self.symbols is not None and not has_series(schema)
        return "no symbols, since the schema has no series" if not_applied else ""


def has_series(schema: Schema) -> bool:
    """Return whether any variable is a series."""
    return any(v.kind == "series" for v in schema.variables.values())


PARTS = "MAESTRO's parts"
"""Family of MAESTRO's recipe and of the recipes that each lack one of its parts."""


def _subset() -> Strategy:
    return named("subset", per_sample=True)


def _dropout() -> Strategy:
    return masking.ModalityDropout(0.4, keep_one=True, per_sample=True)


def _ramp() -> Strategy:
    return masking.Ramp(_dropout(), warmup=10, over=30)


CROSS = {
    "fusion": "cross",
    "attention": "sparse",
    "budget": 5.0,
    "gate": True,
    "experts": 4,
    "top_experts": 1,
}
SYMBOLS = {"alphabet": 20, "window": 2}
_MAESTRO = Recipe(
    "maestro",
    "MAESTRO's parts (Mohapatra et al. 2025): series as symbols, encoders per modality, sparse "
    "cross-modal attention with a budget gate, experts, and modality dropout that ramps up to 0.4",
    PARTS,
    network=CROSS,
    mask=_ramp,
    symbols=SYMBOLS,
)


def _lacking(name: str, part: str, difference: str, **changes: Any) -> Recipe:
    """Return MAESTRO's recipe without one part."""
    return replace(
        _MAESTRO, name=name, description=f"MAESTRO's parts {difference}", without=part, **changes
    )


_ALL = (
    Recipe(
        "masksdm",
        "MaskSDM: one transformer over all tokens, masks of Uniform, as published",
        "token",
        network={"fusion": "token"},
        mask=lambda: named("uniform", per_sample=True),
    ),
    Recipe(
        "miam-token",
        "MIAM as published: the same transformer, masks of MIAM",
        "token",
        network={"fusion": "token"},
    ),
    Recipe(
        "miam-group",
        "geomiam's group fusion as one large network: tokens attend inside their group, then groups attend to each other; masks of MIAM",
        "group",
        network={"fusion": "group"},
    ),
    Recipe(
        "ume",
        "Uni-modal ensemble (Du et al. 2023): one model per modality, trained alone; mean of the logits",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        mask=_subset,
        training={"joint_epochs": 0},
        warm_start=True,
    ),
    Recipe(
        "ume-mma",
        "UME-MMA-style (Li et al. 2023): the models of UME, then trained together while random "
        "modalities are missing",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        mask=_subset,
        warm_start=True,
    ),
    Recipe(
        "late-miam",
        "the models of UME, then trained together with masks of MIAM",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        warm_start=True,
    ),
    Recipe(
        "group-ramp",
        "geomiam's group fusion, masks of MAESTRO (Mohapatra et al. 2025): the effect of the masks alone",
        "group",
        network={"fusion": "group"},
        mask=_ramp,
    ),
    _MAESTRO,
    replace(
        _MAESTRO,
        name="maestro-miam",
        description="MAESTRO's parts, masks of MIAM instead",
        mask=lambda: named("miam", per_sample=True),
    ),
    _lacking("maestro-no-symbols", "symbols", "with series as windows of values", symbols=None),
    _lacking(
        "maestro-dense",
        "sparse attention",
        "with dense attention",
        network=CROSS | {"attention": "dense", "gate": False},
    ),
    _lacking(
        "maestro-no-experts",
        "experts",
        "with one feed-forward layer",
        network=CROSS | {"experts": 0},
    ),
    _lacking("maestro-no-ramp", "ramp", "with the dropout of 0.4 from the start", mask=_dropout),
    Recipe(
        "xgboost", "boosted trees, one model per species, NaN as it is", "trees", baseline="xgboost"
    ),
)
RECIPES: dict[str, Recipe] = {s.name: s for s in _ALL}
"""Every recipe by name."""


def recipe(name: str) -> Recipe:
    """Return a published recipe by name.

    Parameters
    ----------
    name : str
        One of ``masksdm``, ``miam-token``, ``miam-group``, ``ume``, ``ume-mma``, ``late-miam``,
        ``group-ramp``, ``maestro``, ``maestro-miam``, ``maestro-no-symbols``, ``maestro-dense``,
        ``maestro-no-experts``, ``maestro-no-ramp``, ``xgboost``.

    Returns
    -------
    Recipe
        ``description`` is a sentence; ``options(schema)`` are the keyword arguments of
        :func:`geomiam.fit`.

    Raises
    ------
    SelectionError
        If there is no recipe of that name.

    See Also
    --------
    geomiam.fit : train with single settings.
    geomiam.baselines.fit_baseline : other methods: forest, boosted trees, Maxent.

    Notes
    -----
    MaskSDM: Zbinden et al. 2025. MIAM: Zbinden et al. 2026. UME: Du et al. 2023, arXiv:2305.01233.
    UME-MMA: Li et al. 2023, arXiv:2310.06383; its probabilities and learning rates are not published,
    so the recipe follows its style. MAESTRO: Mohapatra et al. 2025, arXiv:2509.25278; the recipe has
    its parts in the network of this package, not its released code.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.baselines.recipe("miam-token").description
    'MIAM as published: the same transformer, masks of MIAM'
    """
    if name not in RECIPES:
        raise SelectionError(f"no recipe '{name}'; choose from {', '.join(RECIPES)}")
    return RECIPES[name]
