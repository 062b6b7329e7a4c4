"""Texts on a model: a table of its properties for ``repr`` and notebooks, and a summary of a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geomiam.model.quantity import loss_of

if TYPE_CHECKING:
    from geomiam.model.model import Model

SHOWN = 3
"""Number of species that are named."""


def title(model: Model) -> str:
    """Return the name of the model's schema and the start of its id."""
    return f"geomiam model {model.schema.title or model.schema.name} ({model.id[:12]})"


def overview(model: Model) -> dict[str, str]:
    """Return species, quantity, AUC, sites, dates, groups and fusion, as far as they are recorded."""
    about, quantity = model.about, model.quantity
    sites, dates = about.get("sites"), about.get("dates")
    counts = sites if isinstance(sites, Mapping) else {}
    numbers = {k: v for k, v in counts.items() if isinstance(v, int) and v}
    species = f"{len(model.species):,} ({_first_species(model)})"
    entries = {
        "species": "none: an encoder from gm.pretrain" if model.is_encoder else species,
        "predicts": quantity.name if quantity and not model.is_encoder else "",
        "validation AUC": _auc(model),
        "sites": ", ".join(f"{count:,} {name}" for name, count in numbers.items()),
        "dates": " to ".join(map(str, dates)) if isinstance(dates, list) else "",
        "groups": ", ".join(model.schema.groups),
        "fusion": model.config.fusion,
    }
    return {name: text for name, text in entries.items() if text}


def summary(model: Model) -> str:
    """Return species, loss, modalities, network, masking and validation in a few lines."""
    about, config = model.about, model.config
    groups = ", ".join(f"{m} ({n})" for m, n in zip(model.schema.modalities, model.layout.sizes))
    weights = sum(p.numel() for p in model.network.parameters())
    prediction = f"{len(model.species)} species ({_first_species(model)})"
    lines = [f"geomiam model {model.id[:12]}: {'an encoder' if model.is_encoder else prediction}"]
    if model.quantity and not model.is_encoder:
        record = about.get("loss")
        reason = f", {record['reason']}" if isinstance(record, dict) and "reason" in record else ""
        lines.append(f"  predicts: {model.quantity.name} (loss {loss_of(about)}{reason})")
    lines += [
        f"  modalities (tokens): {groups}",
        f"  fusion: {config.fusion}, width {config.width}, {weights:,} weights",
        f"  masking: {json.dumps(about.get('masking', {}))}",
    ]
    rule, validation = about.get("rule"), about.get("validation")
    if rule:
        lines.append(f"  training, by the rule: {'; '.join(rule['settings'])}")
    if rule and rule.get("inner_auc"):
        reason = f" ({rule['choice']})" if "choice" in rule else ""  # not in older models
        lines.append(f"  members, chosen on spatial folds: {rule['fusion']}{reason}")
    if validation:
        auc, folds = about["validation_auc"]["all"], validation["folds"]
        value = "unknown" if auc is None else f"{auc:.3f} ± {validation['standard_error']:.3f}"
        place = f"{folds} spatial folds" if folds > 1 else "a spatial hold-out"
        lines.append(f"  validation AUC on {place}: {value}")
    return "\n".join(lines)


def _first_species(model: Model) -> str:
    return ", ".join(model.species[:SHOWN]) + (", …" if len(model.species) > SHOWN else "")


def _auc(model: Model) -> str:
    """Return the AUC of held-out sites, with its standard error if there are folds."""
    scores, validation, sites = (
        entry if isinstance(entry, Mapping) else {}
        for entry in map(model.about.get, ("validation_auc", "validation", "sites"))
    )
    auc, error = scores.get("all"), validation.get("standard_error")
    if not isinstance(auc, float) or not (validation or sites.get("validation")):
        return ""
    return f"{auc:.3f}" + (f" ± {error:.3f}" if isinstance(error, float) else "")
