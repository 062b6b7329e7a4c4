"""Observations of species as predictors in training: hidden at random, and never seen with their own label.

See :func:`geomiam.add_community`. After CISO (Abdelwahed et al. 2025, arXiv:2508.06704), the observations of
a site are hidden at a rate that is drawn for the site, and a species is learned where its own are hidden.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from geomiam.errors import SettingError
from geomiam.masking import hide
from geomiam.model.model import Model
from geomiam.training.config import TrainingConfig

WHOLLY = 0.25
"""Share of the sites of a batch where all observations are hidden, since most maps have none."""
EPOCH_TURNS = 2
"""Passes of the scores after an epoch, in each of which the observations of one part of the species are hidden."""
TURNS = 20
"""The same for the validation that is reported; up to so many species each is hidden alone."""
LOSSES = ("bce", "weighted-bce")


def draw_hidden(
    p: np.ndarray, model: Model, *, n: int, config: TrainingConfig, rng: np.random.Generator
) -> np.ndarray:
    """Draw the hidden tokens ``(n, t)`` from the probabilities of the strategy ``(n, M)`` or ``(1, M)``.

    The rate of observations of species is 1 at a share ``WHOLLY`` of the sites, else uniform on
    [0, 1], so that the model learns from none, few and all of them.
    """
    mask = hide(p, n=n, sizes=model.layout.sizes, rng=rng)
    # A share of complete rows, after masking so that the random numbers before do not depend on it.
    if config.complete:
        mask[rng.random(n) < config.complete] = False
    if tokens := model.observation_tokens:
        rate = np.where(rng.random((n, 1)) < WHOLLY, 1.0, rng.random((n, 1)))
        mask[:, tokens] = rng.random((n, len(tokens))) < rate
    return mask


def mean_rate(model: Model, p: np.ndarray) -> np.ndarray:
    """Return the mean probabilities ``(M,)`` to hide a token, with that of observations of species."""
    variables = [m.variables.values() for m in model.schema.modalities.values()]
    of_species = [all(v.species for v in vs) for vs in variables]
    return np.where(of_species, WHOLLY + (1 - WHOLLY) / 2, p)


def learned_labels(labels: Tensor, visible: Tensor, own_tokens: Mapping[int, list[int]]) -> Tensor:
    """Return labels ``(n, S)``, NaN where an observation of the species itself is ``visible (n, t)``."""
    if not own_tokens:
        return labels
    pairs = [(s, t) for s, tokens in own_tokens.items() for t in tokens]
    species, tokens = torch.tensor(pairs, device=labels.device).T
    visible_count = torch.zeros_like(labels).index_add_(
        1, species, visible[:, tokens].to(labels.dtype)
    )
    return labels.masked_fill(visible_count > 0, torch.nan)


def turns(model: Model, count: int) -> list[tuple[list[int], list[int]]]:
    """Split the species into parts with the tokens that are hidden in their scores: those of the whole part.

    With fewer parts than species, a species is scored without a few other observations beside its own,
    since a pass for each species would cost more than the training.
    """
    own_tokens = model.own_tokens
    common = [i for i in range(len(model.species)) if i not in own_tokens]
    parts = [list(own_tokens)[i::count] for i in range(min(count, len(own_tokens)))]
    of_parts = [(part, [t for s in part for t in own_tokens[s]]) for part in parts]
    return [(common, []), *of_parts] if common else of_parts


def check_loss(model: Model, loss: str) -> None:
    """Refuse a loss that compares species or sites, for which single labels cannot be left out."""
    if model.own_tokens and loss not in LOSSES:
        raise SettingError(
            f"loss='{loss}' cannot leave out single labels, as observations of species among the predictors "
            f"require; use training={{'loss': 'bce'}} or 'weighted-bce', or leave the community out with "
            "schema.subset(...)"
        )
