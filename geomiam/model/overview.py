"""A short table of a model's properties, for its ``repr`` and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomiam.model.model import Model

SHOWN = 3
"""Number of species that are named."""


def title(model: Model) -> str:
    """Return the name of the model's schema and the start of its id."""
    return f"geomiam model {model.schema.title or model.schema.name} ({model.id[:12]})"


def overview(model: Model) -> dict[str, str]:
    """Return species, quantity, AUC, sites, dates, groups and fusion, as far as they are recorded."""
    about = model.about
    quantity = model.quantity
    entries = {
        "species": _species(model),
        "predicts": quantity.name if quantity and not model.is_encoder else "",
        "validation AUC": _auc(about),
        "sites": _sites(about.get("sites")),
        "dates": _dates(about.get("dates")),
        "groups": ", ".join(model.schema.groups),
        "fusion": model.config.fusion,
    }
    return {name: text for name, text in entries.items() if text}


def _species(model: Model) -> str:
    if model.is_encoder:
        return "none: an encoder from gm.pretrain"
    ellipsis = ", …" if len(model.species) > SHOWN else ""
    return f"{len(model.species):,} ({', '.join(model.species[:SHOWN])}{ellipsis})"


def _auc(about: Mapping[str, Any]) -> str:
    """Return the AUC of held-out sites, with its standard error if there are folds."""
    scores, validation = about.get("validation_auc"), about.get("validation")
    auc = scores.get("all") if isinstance(scores, Mapping) else None
    if not isinstance(auc, float) or not (validation or _held_out(about)):
        return ""
    error = validation.get("standard_error") if isinstance(validation, Mapping) else None
    return f"{auc:.3f}" + (f" ± {error:.3f}" if isinstance(error, float) else "")


def _held_out(about: Mapping[str, Any]) -> bool:
    sites = about.get("sites")
    return isinstance(sites, Mapping) and bool(sites.get("validation"))


def _sites(sites: Any) -> str:
    counts = sites if isinstance(sites, Mapping) else {}
    numbers = {k: v for k, v in counts.items() if isinstance(v, int) and v}
    return ", ".join(f"{count:,} {name}" for name, count in numbers.items())


def _dates(dates: Any) -> str:
    return " to ".join(map(str, dates)) if isinstance(dates, list) else ""
