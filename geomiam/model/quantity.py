"""The quantity that a model predicts; the loss of the training determines it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quantity:
    """Name, link and meaning of the predictions of a loss."""

    name: str
    """Short name, for axes and attributes."""
    link: str
    """Key of :data:`geomiam.model.model.LINKS`."""
    meaning: str
    """Meaning of the numbers, and whether they may be summed over species."""


QUANTITIES = {
    "bce": Quantity(
        "probability of presence",
        "logit",
        "Probability that a survey like the training survey records the species at the place. The sum "
        "over species is the expected number of recorded species.",
    ),
    "weighted-bce": Quantity(
        "suitability",
        "logit",
        "Relative suitability: presences and absences of a species have equal total weight in training, "
        "so 0.5 marks a place of average odds, whatever the prevalence. It is not a probability of "
        "occupancy, and sums over species are not a number of species.",
    ),
    "maxent": Quantity(
        "suitability",
        "cloglog",
        "Relative suitability on the cloglog scale of Maxent, against the training background. It is "
        "not a probability of occupancy, and sums over species are not a number of species.",
    ),
    "cross-entropy": Quantity(
        "share of the species",
        "softmax",
        "Probability that an observed individual belongs to the species. The values of all species sum "
        "to 1 at every place.",
    ),
}
"""Quantity by loss."""


def loss_of(about: Mapping[str, Any]) -> str | None:
    """Return the loss that is recorded in a model's provenance; None if there is none."""
    for entry, key in (("loss", "name"), ("training", "loss")):
        record = about.get(entry)
        name = record.get(key) if isinstance(record, Mapping) else None
        if isinstance(name, str) and name in QUANTITIES:
            return name
    return None
