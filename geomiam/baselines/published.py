"""The published recipes by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from geomiam import masking
from geomiam.baselines.recipes import Recipe
from geomiam.errors import SelectionError
from geomiam.masking import Strategy, named

PARTS = "MAESTRO's parts"
"""Family of MAESTRO's recipe and of the recipes that each lack one of its parts."""


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
