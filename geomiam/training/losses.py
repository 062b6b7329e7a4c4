"""Losses on logits ``(n, S)`` and labels ``(n, S)`` with 1, 0 and NaN = not surveyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geomiam.errors import LabelError
from geomiam.labels import Counts, Labels, label_counts
from geomiam.model.quantity import QUANTITIES
from geomiam.training.config import TrainingConfig

Loss = Callable[[Tensor, Tensor], Tensor]

LINK_OF = {name: quantity.link for name, quantity in QUANTITIES.items()}
COMPLETE = 0.9
"""Smallest share of labelled sites of every species in a complete survey."""


def resolve_loss(
    config: TrainingConfig, labels: Labels, *, background: bool
) -> tuple[TrainingConfig, str]:
    """Replace ``loss="auto"`` by a loss that suits the labels ``(n, S)``; return the reason, too.

    ``background``: zeros of any site are background.
    """
    if config.loss != "auto":
        return config, "set in TrainingConfig"
    counts = label_counts(labels)
    shares = counts.surveyed[counts.surveyed > 0] / max(1, counts.sites)
    smallest_share = shares.min(initial=1.0)
    # The number of background points is a choice, so with them prevalence has no meaning.
    loss = "weighted-bce"
    if background:
        reason = "the sites contain background"
    elif not shares.size or smallest_share < COMPLETE:
        reason = f"a species was surveyed at only {smallest_share:.0%} of the sites"
    elif labels.shape[1] > 2 and counts.single == counts.sites:
        reason = "every site has exactly one present species, as single records have"
    else:  # predictions of plain bce are probabilities
        loss = "bce"
        reason = (
            f"a complete survey: every species was surveyed at {smallest_share:.0%} of the sites"
        )
    return config.model_copy(update={"loss": loss}), reason


def make_loss(name: str, counts: Counts, *, evenness: float = 0.0) -> Loss:
    """Return the loss function, with weights from the numbers of the training labels."""
    # ``evenness`` applies to maxent only: 0 gives every record the same weight, 1 every species.
    # Raises LabelError if the labels do not suit the loss.
    if name == "bce":
        return bce
    if name == "weighted-bce":
        weight = presence_weight(counts)
        return lambda logits, y: weighted_bce(logits, y, weight.to(logits.device))
    if name == "cross-entropy":
        if wrong := counts.sites - counts.single:
            raise LabelError(
                f"cross-entropy needs exactly one present species per site; {wrong} of {counts.sites} "
                "sites have none or several: use loss='auto'"
            )
        return cross_entropy
    if name != "maxent":
        raise LabelError(f"loss={name!r} is not resolved; pass one of {', '.join(QUANTITIES)}")
    share = record_weight(counts, evenness=evenness)
    return lambda logits, y: maxent(logits, y, share.to(logits.device))


def base_logits(name: str, counts: Counts) -> Tensor:
    """Return the constant logits ``(S,)`` that minimise a loss: the prevalence on the logit scale."""
    # Log-odds of a species' presences among its surveyed sites, each with its weight in the loss
    # (weighted-bce: both classes have the same weight, so 0), or the log of its share (cross-entropy).
    # Maxent's logits have no level before the end of the training: 0.
    present, absent = _float(counts.present), _float(counts.absent)
    if name == "maxent":
        return torch.zeros_like(present)
    if name == "cross-entropy":
        return (present.clamp(min=1) / counts.sites).log()
    if name == "weighted-bce":
        w = presence_weight(counts)
        # w = n / n_s gives presences n_s w = n, and w / (w − 1) = n / (n − n_s) gives absences n: log-odds 0.
        present, absent = present * w, absent * w / (w - 1)
    return (present.clamp(min=1) / absent.clamp(min=1)).log()


def presence_weight(counts: Counts) -> Tensor:
    """Return w_s = n / n_s over the surveyed sites ``(S,)``, limited from below."""
    # A species that is present at every site would have w = 1 and an absence weight w/(w − 1) = ∞.
    # The limit (n + 1) / n, as with one further absence, keeps both finite.
    n, present = _float(counts.surveyed).clamp(min=1), _float(counts.present)
    return torch.maximum(n / present.clamp(min=1), (n + 1) / n)


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy, the mean over the labels that are not NaN."""
    # It is a proper score: σ(z) equal to the probability of presence minimises it.
    has_label = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.where(has_label, labels, 0), reduction="none"
    )
    return torch.where(has_label, loss, 0).sum() / has_label.sum().clamp(min=1)


def weighted_bce(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the binary cross-entropy with equal total weight of presences and absences of a species."""
    # y w [−log σ(z)] + (1 − y) w/(w − 1) [−log(1 − σ(z))], the full-weighted loss of
    # Zbinden et al. (2024), computed on logits to avoid saturation.
    has_label = ~labels.isnan()
    y = torch.where(has_label, labels, 0)
    present, absent = weight * F.softplus(-logits), weight / (weight - 1) * F.softplus(logits)
    loss = y * present + (1 - y) * absent
    return torch.where(has_label, loss, 0).sum() / has_label.sum().clamp(min=1)


def record_weight(counts: Counts, *, evenness: float) -> Tensor:
    """Return the weight of one record of each species, n_s^(−evenness), ``(S,)``."""
    # n_s^0 = 1 counts records; n_s^−1 makes every species count the same.
    return _float(counts.present).clamp(min=1) ** -evenness


def maxent(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the normalised Poisson loss for presence-only data: Maxent's likelihood over the batch."""
    # The cross-entropy, per species, between its presences and the distribution exp(z)/Σ exp(z) over
    # the surveyed rows (Phillips et al. 2006; Renner and Warton 2013 for the Poisson form), as the
    # mean over records with the weights ``weight (S,)``.
    has_label = ~labels.isnan()
    # log exp(z_i) / Σ_i exp(z_i) over the surveyed rows of the batch.
    # Rows without a survey have weight exp(−1e9) = 0; −∞ in all rows would be NaN.
    log_share = torch.log_softmax(logits.masked_fill(~has_label, -1e9), 0)
    y = torch.where(has_label, labels, 0) * weight
    return -(y * log_share).sum() / y.sum().clamp(min=1e-12)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the softmax cross-entropy of rows with exactly one species."""
    return F.cross_entropy(logits, labels.nan_to_num(0.0).argmax(1))


def maxent_offset(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the shift ``(S,)`` of the logits that makes 1 − exp(−exp(z)) Maxent's cloglog suitability.

    ``parts`` have logits ``(n, S)`` of some sites, and which of them are background.
    """
    # −log Z normalises exp(z) over the background, and the entropy H of that distribution sets the
    # level (Phillips et al. 2017): H − log Z = −Σ z exp(z) / Σ exp(z). A species without background is
    # not shifted. The sums are relative to the greatest logit so far, so that they do not overflow.
    top: Tensor | float = -1e9
    total: Tensor | float = 0.0
    logit_sum, is_shifted = total, torch.tensor(False)
    for logits, background in parts:
        z = logits.double().masked_fill(~background, -1e9)
        higher = torch.clamp(z.max(0).values, min=torch.as_tensor(top))
        mass, scale = (z - higher).exp(), (top - higher).exp()
        total, logit_sum = total * scale + mass.sum(0), logit_sum * scale + (mass * z).sum(0)
        top, is_shifted = higher, is_shifted | background.any(0)
    return torch.where(is_shifted, -logit_sum / total, 0).float()


def _float(counts: np.ndarray) -> Tensor:
    return torch.as_tensor(counts, dtype=torch.float32)
