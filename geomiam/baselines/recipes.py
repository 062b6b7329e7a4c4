"""Whole systems by name: which network, which masks and which kind of training belong together.

What differs between published ways to learn from modalities that go missing is often several things
at once. A system keeps them together, so that one name trains what a paper describes, and so that
:mod:`geomiam.evaluation.comparison` can change one part and leave the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from geomiam import masking
from geomiam.baselines.registry import Baseline, fit_baseline
from geomiam.errors import SelectionError
from geomiam.evaluation.masked import Masked
from geomiam.masking import Strategy, named
from geomiam.networks.config import NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit

PARTS = "MAESTRO's parts"
"""Family of the systems that take one part of another one off."""
LOSS = "weighted-bce"
"""Of all systems, as published for MaskSDM and MIAM, unless another one is asked for."""
TRAINING = TrainingConfig(warmup=100, epoch_steps=1)
"""As published: an epoch is one pass over the sites, and the learning rate rises for 100 steps."""
SIDE_BY_SIDE = ("token", "late")
"""Fusions with no blocks inside groups: they get as many blocks in a row as the others."""


@dataclass(frozen=True, eq=False)
class System:
    """How one whole system is trained.

    Parameters
    ----------
    name, what : str
        What it is called, and what it is, in a sentence.
    family : str
        Systems of a family share a colour in figures.
    network, training : mapping
        Changes to a :class:`geomiam.NetworkConfig` and a :class:`geomiam.TrainingConfig`.
    mask : callable
        Makes the masking strategy.
    symbols : mapping, optional
        Series are read as symbols, by ``Schema.symbolic(**symbols)``.
    warm_start : bool
        Every branch is trained alone first.
    baseline : str, optional
        Trained by :func:`geomiam.fit_baseline` instead; then nothing of the above counts.
    without : str, optional
        The part that another system of the family has and this one has not.
    """

    name: str
    what: str
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
        """Return the keywords of :func:`geomiam.fit` that train this system.

        Parameters
        ----------
        schema : Schema, optional
            If given, it is among the keywords, its series read as the system reads them.
        network, training : optional
            Sizes and training to start from, with the loss ``"weighted-bce"`` for ``"auto"``; blocks are counted so that a token passes equally many
            in every fusion.

        Raises
        ------
        SelectionError
            If the system is no network, or needs what this version does not have.

        Examples
        --------
        >>> model = gm.fit(sites, **gm.system("miam-group").options(schema))  # doctest: +SKIP
        """
        if self.baseline:
            raise SelectionError(
                f"'{self.name}' is no network: train it with gm.fit_baseline('{self.baseline}', sites, schema)"
            )
        try:
            return self._options(schema, network or NetworkConfig(), training or TRAINING)
        except (AttributeError, TypeError, ValueError) as error:
            raise SelectionError(f"system '{self.name}' cannot be made: {error}") from None

    def _options(
        self, schema: Schema | None, network: NetworkConfig, training: TrainingConfig
    ) -> dict[str, Any]:
        changes = dict(self.network)
        if changes["fusion"] in SIDE_BY_SIDE:
            changes["depth"] = network.depth + network.inner
        settings = training.model_dump() | dict(self.training)
        if training.loss == "auto":
            settings["loss"] = LOSS
        made: dict[str, Any] = {
            "network": NetworkConfig(**network.model_dump() | changes),
            "training": TrainingConfig(**settings),
            "masking": self.mask(),
        }
        if self.warm_start:
            made["warm_start"] = True
        return made if schema is None else made | {"schema": self.reads(schema)}

    def reads(self, schema: Schema) -> Schema:
        """Return the schema as the system reads it: the same, or with its series as symbols."""
        if self.symbols is None or not has_series(schema):
            return schema
        return schema.symbolic(**self.symbols)  # type: ignore[attr-defined]

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
        """Train the system on sites; the parameters are those of :func:`geomiam.fit`."""
        if self.baseline:
            return fit_baseline(self.baseline, sites, schema, rng=rng)
        options = self.options(schema, network=network, training=training)
        return Masked(fit(sites, validation=validation, rng=rng, **options))

    def differs(self, schema: Schema) -> bool:
        """Whether leaving its part off changes anything on such data."""
        return self.without != "symbols" or has_series(schema)

    def note(self, schema: Schema) -> str:
        """Say what could not be done on such data."""
        lacking = self.symbols is not None and not has_series(schema)
        return "no series here, so no symbols" if lacking else ""


def has_series(schema: Schema) -> bool:
    """Whether any variable is a series."""
    return any(v.kind == "series" for v in schema.variables.values())


def _subset() -> Strategy:
    return named("subset", per_sample=True)


def _dropout() -> Strategy:
    return masking.ModalityDropout(0.4, keep_one=True, per_sample=True)  # type: ignore[call-arg]


def _ramp() -> Strategy:
    return masking.Ramp(_dropout(), warmup=10, over=30)  # type: ignore[attr-defined]


CROSS = {
    "fusion": "cross",
    "attention": "sparse",
    "budget": 5.0,
    "gate": True,
    "experts": 4,
    "top_experts": 1,
}
SYMBOLS = {"alphabet": 20, "every": 2}
_MAESTRO = System(
    "maestro",
    "MAESTRO's parts (Mohapatra et al. 2025): series as symbols, encoders per modality, sparse "
    "cross-modal attention with a budget gate, experts, and modality dropout that ramps up to 0.4",
    PARTS,
    network=CROSS,
    mask=_ramp,
    symbols=SYMBOLS,
)


def _off(name: str, part: str, what: str, **changes: Any) -> System:
    """MAESTRO's parts without one of them."""
    return replace(_MAESTRO, name=name, what=f"MAESTRO's parts {what}", without=part, **changes)


_ALL = (
    System(
        "masksdm",
        "MaskSDM: one transformer over all tokens, masks of Uniform, as published",
        "token",
        network={"fusion": "token"},
        mask=lambda: named("uniform", per_sample=True),
    ),
    System(
        "miam-token",
        "MIAM as published: the same transformer, masks of MIAM",
        "token",
        network={"fusion": "token"},
    ),
    System(
        "miam-group",
        "geomiam's group fusion as one large network: tokens attend inside their group, then groups attend to each other; masks of MIAM",
        "group",
        network={"fusion": "group"},
    ),
    System(
        "ume",
        "Uni-modal ensemble (Du et al. 2023): one model per modality, trained alone; mean of the logits",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        mask=_subset,
        training={"joint_epochs": 0},
        warm_start=True,
    ),
    System(
        "ume-mma",
        "UME-MMA-style (Li et al. 2023): the models of UME, then trained together while random "
        "modalities are missing",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        mask=_subset,
        warm_start=True,
    ),
    System(
        "late-miam",
        "the models of UME, then trained together with masks of MIAM",
        "late",
        network={"fusion": "late", "weights": "equal", "pool": "mean"},
        warm_start=True,
    ),
    System(
        "group-ramp",
        "fusion of the default, masks of MAESTRO (Mohapatra et al. 2025): what the masks do by themselves",
        "group",
        network={"fusion": "group"},
        mask=_ramp,
    ),
    _MAESTRO,
    replace(
        _MAESTRO,
        name="maestro-miam",
        what="MAESTRO's parts, masks of MIAM instead",
        mask=lambda: named("miam", per_sample=True),
    ),
    _off("maestro-no-symbols", "symbols", "with series as windows of values", symbols=None),
    _off(
        "maestro-dense",
        "sparse attention",
        "with dense attention",
        network=CROSS | {"attention": "dense", "gate": False},
    ),
    _off(
        "maestro-no-experts",
        "experts",
        "with one feed-forward layer",
        network=CROSS | {"experts": 0},
    ),
    _off("maestro-no-ramp", "ramp", "with the dropout of 0.4 from the start", mask=_dropout),
    System(
        "xgboost", "boosted trees, one model per species, NaN as it is", "trees", baseline="xgboost"
    ),
)
SYSTEMS: dict[str, System] = {s.name: s for s in _ALL}
"""Every system by name."""


def system(name: str) -> System:
    """Return a whole system by name: network, masks and training that belong together.

    Parameters
    ----------
    name : str
        Of ``masksdm``, ``miam-token``, ``miam-group``, ``ume``, ``ume-mma``, ``late-miam``,
        ``group-ramp``, ``maestro``, ``maestro-miam``, ``maestro-no-symbols``, ``maestro-dense``,
        ``maestro-no-experts``, ``maestro-no-ramp``, ``xgboost``.

    Returns
    -------
    System
        ``what`` says what it is; ``options(schema)`` are the keywords of :func:`geomiam.fit`.

    Raises
    ------
    SelectionError
        If there is none of that name.

    Notes
    -----
    MaskSDM: Zbinden et al. 2025; MIAM: Zbinden et al. 2026; UME: Du et al. 2023, arXiv:2305.01233;
    UME-MMA: Li et al. 2023, arXiv:2310.06383, whose probabilities and rates are not known, so this is
    its style; MAESTRO: Mohapatra et al. 2025, arXiv:2509.25278, its parts put into this package's
    network rather than its released code.
    """
    if name not in SYSTEMS:
        raise SelectionError(f"no system '{name}'; choose from {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
