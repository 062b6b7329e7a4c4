"""Texts of a report that follow from the metadata of a model: fields of ODMAP, limits, sources, citations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geomiam._version import __version__
from geomiam.reports.evidence import (
    FEW,
    Evidence,
    coordinate,
    grid_text,
    map_extent,
    mappings,
    number,
)

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 40
"""Most names in a list."""
CITATIONS = (
    f"geomiam {__version__}: species distribution models from incomplete data. Software, MIT licence.",
    "Zbinden, R., Monteith-Finas, W., Sumbul, G., van Tiel, N., Vanalli, C. and Tuia, D. (2026). MIAM: Modality "
    "imbalance-aware masking for multimodal ecological applications. International Conference on Learning "
    "Representations. https://openreview.net/forum?id=oljjAkgZN4",
    "Zbinden, R., van Tiel, N., Sumbul, G., Vanalli, C., Kellenberger, B. and Tuia, D. (2025). MaskSDM with Shapley "
    "values to improve flexibility, robustness and explainability in species distribution modelling. Methods in "
    "Ecology and Evolution. https://doi.org/10.1111/2041-210X.70200",
    "Zurell, D. et al. (2020). A standard protocol for reporting species distribution models. Ecography 43, "
    "1261-1277. https://doi.org/10.1111/ecog.04960",
)
"""Works to cite: software, method, protocol."""


def names_of(names: Any) -> str:
    """Return names as a list of limited length."""
    names = list(map(str, names))
    more_text = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more_text


def field_texts(evidence: Evidence) -> dict[str, str]:
    """Return the texts of fields of ODMAP by key; a field that the metadata do not determine is left out."""
    texts = {
        "title": evidence.title,
        **_objective(evidence),
        **_records(evidence),
        **_partitions(evidence),
        **_predictors(evidence),
        **_algorithm(evidence),
        **_assessment(evidence),
        **_prediction(evidence),
        **_transfer(evidence),
    }
    return {k: v for k, v in {**texts, **evidence.options.texts}.items() if v}


def _objective(evidence: Evidence) -> dict[str, str]:
    quantity, dates = evidence.model.quantity, evidence.about.get("dates")
    return {
        "target": f"{quantity.name}. {quantity.meaning}" if quantity else "",
        "taxon": names_of(evidence.model.species),
        "taxa": names_of(evidence.model.species),
        "extent": extent(evidence),
        "resolution": evidence.grid,
        "period": " to ".join(map(str, dates)) if isinstance(dates, list) else "",
        "response": "presence and background" if evidence.background else "presence and absence",
    }


def extent(evidence: Evidence) -> str:
    """Return the bounding box of the training sites."""
    box = evidence.about.get("extent")
    if not isinstance(box, list) or len(box) != 4:
        return ""
    crs = evidence.about.get("crs", "the CRS of the training sites")
    west, south, east, north = (
        coordinate(v) if isinstance(v, (int, float)) else "unknown" for v in box
    )
    return f"training sites: x {west} to {east}, y {south} to {north} ({crs})"


def _records(evidence: Evidence) -> dict[str, str]:
    records, counts = evidence.entry("records"), evidence.presences
    cleaning, sampling = records.get("cleaning"), evidence.entry("sampled")
    scaling = []
    if isinstance(thinning := records.get("thinning"), (Mapping, list)):
        scaling.append(f"thinning: {json.dumps(thinning, ensure_ascii=False)}")
    if merged_count := number(sampling, "merged"):
        scaling.append(
            f"{merged_count} records that share cell and species with another record count once"
        )
    background = evidence.entry("background")
    count = number(background, "points")
    points = f", {count} points" if count else ""
    words = "".join(f"; {background[k]}" for k in ("bias", "area") if background.get(k))
    background_text = (
        f"{background['kind']}{points}, by gm.add_background{words}"
        if background.get("kind")
        else ""
    )
    in_training = "the training contains background points" if evidence.background else "none"
    absences = number(sampling, "absences")
    return {
        "records_source": records_source(evidence),
        "sample_size": "; ".join(f"{s}: {c:,} presences" for s, c in list(counts.items())[:SHOWN])
        + (f"; and {len(counts) - SHOWN:,} more species" if len(counts) > SHOWN else ""),
        "scaling": "; ".join(scaling),
        "cleaning": _cleaning(cleaning) if isinstance(cleaning, Mapping) else "",
        "absence": f"{absences} records state an absence" if absences else "",
        "background": background_text or in_training,
    }


def _cleaning(cleaning: Mapping[str, Any]) -> str:
    """Return the tests that flagged records, with their counts."""
    rows = mappings(cleaning.get("tests"))
    tests = [f"{t.get('test')} ({count})" for t in rows if (count := number(t, "flagged"))]
    total = f"{number(cleaning, 'removed') or 0} of {number(cleaning, 'rows') or 0} records removed"
    return f"{total}; flagged by test: {', '.join(tests) or 'none'}"


def records_source(evidence: Evidence) -> str:
    """Return title, DOI, date, licence, query and file of the records, as far as they are recorded."""
    origin = evidence.origin()
    keys = ("citation", "title", "doi", "date", "licence", "format", "file", "query")
    parts = [f"{key}: {origin[key]}" for key in keys if origin.get(key)]
    return "; ".join(parts)


def _partitions(evidence: Evidence) -> dict[str, str]:
    sites, validation = evidence.entry("sites"), evidence.entry("validation")
    parts = [f"{title}: {_sites(t)}" for title, t in evidence.tables.items()]
    blocks = evidence.entry("blocks") or validation.get("blocks")
    blocks = blocks if isinstance(blocks, Mapping) else {}
    km = number(blocks, "km")
    size = f", blocks of {km} km ({blocks.get('reason')})" if km else ""
    held_out = number(sites, "validation")
    valid = f"{held_out} sites in spatial blocks that do not train{size}" if held_out else ""
    if folds := number(validation, "folds"):
        kind = "one spatial hold-out" if folds == "1" else f"{folds} spatial folds"
        valid = f"{kind}{size}; the final members train on all training sites"
    train = number(sites, "train")
    return {
        "training_data": f"{train} sites" if train else "",
        "validation_data": valid,
        "test_data": "; ".join(parts),
    }


def _sites(table: Any) -> str:
    if "block_km" in table.attrs:
        attrs = table.attrs
        return f"{attrs.get('block_count')} spatial blocks of {float(attrs['block_km']):g} km"
    return f"{float(table['sites'].max()):,.0f} sites" if "sites" in table else "sites of the table"


def _predictors(evidence: Evidence) -> dict[str, str]:
    schema = evidence.model.schema
    names = [v.name + (f" [{v.units}]" if v.units else "") for v in schema.variables.values()]
    sources = evidence.rows("sources")
    coverage = evidence.entry("coverage")
    gaps = [f"{k}: {float(v):.0%}" for k, v in coverage.items() if isinstance(v, (int, float))]
    resampling = dict.fromkeys(
        f"{r.get('source')}: resampling {r['resampling']}" for r in sources if r.get("resampling")
    )
    resolutions = dict.fromkeys(
        f"{r.get('source')}: {r['resolution']}" for r in sources if r.get("resolution")
    )
    scaling_text = "means and deviations of the training sites scale the predictors; missing values stay missing"
    return {
        "predictor_types": "; ".join(
            m.title or m.name for m in list(schema.modalities.values())[:SHOWN]
        ),
        "predictors": names_of(names),
        "predictors_source": "; ".join(
            f"{m.name}: {text}" for m in schema.modalities.values() if (text := source_of(m))
        ),
        "predictors_resolution": "; ".join(resolutions),
        "predictors_extent": f"map: {evidence.map_extent}" if evidence.map_extent else "",
        "predictors_crs": str(evidence.about.get("crs", "")),
        "predictors_processing": "; ".join([*resampling, scaling_text]),
        "predictors_errors": f"share of training sites with data: {', '.join(gaps)}"
        if gaps
        else "",
        "collinearity": "groups of predictors are hidden at random in training, so the model predicts from any of "
        "them; Shapley values are per group of predictors, which shares the effect of correlated groups evenly",
    }


def source_of(modality: Any) -> str:
    """Return source, licence and citation of a modality, as far as they are stated."""
    return "; ".join(filter(None, (modality.source, modality.license, modality.citation)))


def _algorithm(evidence: Evidence) -> dict[str, str]:
    model, about = evidence.model, evidence.about
    config, masking = model.config, evidence.entry("masking").get("name", "")
    weights = sum(p.numel() for p in model.network.parameters())
    members = len(model.network.members)
    network = f"{members} neural network{'s' if members > 1 else ''} of fusion '{config.fusion}'"
    settings = {k: about.get(k) for k in ("training", "masking", "seeds") if k in about}
    rule = evidence.entry("rule").get("settings")
    rule = rule if isinstance(rule, list) else []
    versions = evidence.entry("software") or {"geomiam": __version__}
    average = f"the logits of {members} members are averaged" if members > 1 else "one network"
    importance = "exact Shapley values of groups of predictors, per cell and species"
    blocks = evidence.entry("validation") or evidence.entry("blocks")
    return {
        "techniques": f"{network}, trained with hidden predictors (masking '{masking}') so that it predicts from any "
        "subset of the predictors",
        "complexity": f"{weights:,} weights" + (f"; {'; '.join(map(str, rule))}" if rule else ""),
        "averaging": average,
        "workflow": "read records and predictors; sample predictors at the records; fit with masking; measure the "
        "skill on spatial blocks; predict; explain by Shapley values",
        "software": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "data_availability": _doi(evidence),
        "settings": json.dumps(settings, ensure_ascii=False),
        "extrapolation": "predictions outside the training range are not clamped; the layer 'outside_range' shows the "
        "share of predictors outside it",
        "coefficients": f"weights in model.safetensors, model id {model.id}",
        "importance": importance if evidence.explanation is not None else "",
        "selection": "; ".join(map(str, rule)),
        "ensemble_averaging": f"{average}, with equal weights" if members > 1 else "",
        "ensembles": f"{members} members ({config.fusion})" if members > 1 else "none",
        "threshold": _thresholds(evidence),
        "spatial_autocorrelation": "the skill is measured on spatial blocks" if blocks else "",
    }


def _thresholds(evidence: Evidence) -> str:
    """Return kinds and source of the thresholds that are stored with the model."""
    limits = evidence.model.thresholds
    kinds = ", ".join(str(k) for k in limits["kind"].values)
    source = f"stored with the model ({kinds}), chosen on {limits.attrs.get('source')}"
    return f"{source}; maps of presence are classified by one of them" if kinds else ""


def _doi(evidence: Evidence) -> str:
    doi = evidence.origin().get("doi")
    return f"records: https://doi.org/{doi}" if doi else ""


def _assessment(evidence: Evidence) -> dict[str, str]:
    has_curves = evidence.sites is not None and evidence.options.responses
    return {
        "training_skill": _aucs(
            evidence.entry("training_auc" if evidence.held_out else "validation_auc")
        ),
        "validation_skill": _aucs(evidence.entry("validation_auc")) if evidence.held_out else "",
        "test_skill": "; ".join(f"{k}: {_scores(t)}" for k, t in evidence.tables.items()),
        "response_shapes": "partial dependence in the section on response curves"
        if has_curves
        else "",
    }


def _aucs(scores: Mapping[str, Any]) -> str:
    parts = [f"{k} {float(v):.3f}" for k, v in scores.items() if isinstance(v, (int, float))]
    return (
        f"mean AUC over species, by subset of the predictors: {', '.join(parts)}" if parts else ""
    )


def _scores(table: Any) -> str:
    row = table.isel(subset=-1)
    values = {str(k).removeprefix("mean_"): row[k] for k in table if str(k).startswith("mean_")}
    scores = ", ".join(f"{k} {float(v):.3f}" for k, v in values.items() if v.ndim == 0)
    return f"{scores} (subset {row['subset'].item()}, mean over species)"


def _prediction(evidence: Evidence) -> dict[str, str]:
    quantity, outside = evidence.model.quantity, evidence.outside()
    novel = ""
    if outside:
        novel = f"layer 'outside_range': mean {outside[0]:.1%} of the predictors of a cell"
    return {
        "unit": f"{quantity.name}, 0 to 1" if quantity else "",
        "novelty": novel,
        "novel_environments": novel,
        "input_uncertainty": _observed(evidence),
    }


def _transfer(evidence: Evidence) -> dict[str, str]:
    """Return the fields on scenarios."""
    if evidence.projection is None:
        return {}
    table = evidence.projection.table
    outside = [f"{n}: {v:.1%}" for n, v in table["outside_range"].items() if math.isfinite(v)]
    novelty = ""
    if outside:
        novelty = f"layer 'outside_range', mean share of the predictors: {', '.join(outside)}"
    maps = {str(n): evidence.projection[n] for n in table.index}
    texts = {
        "scenarios": f"maps for {names_of(maps)}",
        "transfer_extent": _by_scenario({n: map_extent(m) for n, m in maps.items()}),
        "transfer_resolution": _by_scenario({n: grid_text(m) for n, m in maps.items()}),
        "transfer_processing": " ".join(_left_out(table)),
        "novelty": novelty,
        "novel_environments": novelty,
    }
    if len(table) > 1:
        count = f"{len(table)} scenarios are mapped separately"
        texts["scenario_uncertainty"] = count + (
            ", with range changes from one to another" if evidence.changes else ""
        )
    return {k: v for k, v in texts.items() if v}


def _by_scenario(texts: Mapping[str, str]) -> str:
    """Return one text for all scenarios, or one for each."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _left_out(table: pd.DataFrame) -> list[str]:
    """Return sentences on the predictors that scenarios lack."""
    lines = [
        f"{name} is predicted without {left_out}, which the scenario lacks."
        for name, left_out in table["left_out"].items()
        if left_out
    ]
    return lines or ["All scenarios have all predictors of the model."]


def projection_notes(evidence: Evidence) -> list[str]:
    """Return sentences on the table of scenarios: missing predictors, and the sites of the skill."""
    if evidence.projection is None:
        return []
    table = evidence.projection.table
    lines = _left_out(table)
    metric = next(
        (m.attrs["skill_metric"] for m in evidence.scenarios.values() if "skill_metric" in m.attrs),
        "auc",
    )
    sources = dict.fromkeys({"sites": "held-out sites"}.get(s, s) for s in table["skill_from"] if s)
    if sources:
        lines.append(
            f"The skill is the mean {metric} over species, on {' and '.join(sources)}; 'with all' is that of all predictors."
        )
    lines.append(
        "'Outside' is the mean share of the predictors of a cell that are outside the training range."
    )
    return lines


def _skills_without(evidence: Evidence) -> list[str]:
    """Return the skill of each scenario that lacks predictors, as far as it is recorded."""
    if evidence.projection is None:
        return []
    table = evidence.projection.table
    rows = table.loc[table["left_out"] != "", ["skill", "skill_all"]].dropna()
    return [
        f"{name} ({skill:.3f} in place of {best:.3f})" for name, skill, best in rows.itertuples()
    ]


def _observed(evidence: Evidence) -> str:
    shares = evidence.observed()
    parts = [f"{k} {v:.0%}" for k, v in shares.items()]
    return f"share of the predicted cells that use the group: {', '.join(parts)}" if parts else ""


def limits(evidence: Evidence) -> list[str]:
    """Return the limits of the model and of its maps, one sentence or two each."""
    quantity, outside, rare = evidence.model.quantity, evidence.outside(), evidence.rare_species
    lines = [
        quantity.meaning
        if quantity
        else "The loss of the training is not recorded: read the predictions as a ranking of places."
    ]
    if evidence.background:
        lines.append(
            "The zeros of the training are background points, not absences. Uneven sampling of the records biases "
            "the map, unless the background has the same bias."
        )
    if outside:
        lines.append(
            f"On average {outside[0]:.1%} of the predictors of a cell are outside the training range. In "
            f"{outside[1]:.1%} of the cells more than a fifth are: the predictions there are extrapolations."
        )
    absent = [f"{k} ({v:.0%})" for k, v in evidence.observed().items() if v < 0.995]
    if absent:
        lines.append(
            f"Share of the predicted cells that use a group, where it is below 100 %: {names_of(absent)}. Cells "
            "without a group are predicted from the other groups, with the skill of that subset."
        )
    if lacking := _skills_without(evidence):
        lines.append(
            f"Scenarios that lack predictors are mapped with the skill of the others: {names_of(lacking)}. Compare them "
            "with a map of today from the same predictors."
        )
    if rare:
        lines.append(
            f"Fewer than {FEW} presences trained {names_of(rare)}. Predictions for species with so few records are "
            "uncertain (Wisz et al. 2008, doi:10.1111/j.1472-4642.2008.00482.x)."
        )
    if not evidence.tables:
        scores = "come from the training, which used them to choose settings"
        if not evidence.held_out:
            scores = "are those of the training sites, and too high for new places"
        lines.append(f"No independent test is part of this report. The scores {scores}.")
    lines.append("Maps of threatened species can reveal their places: coarsen them before sharing.")
    return lines


def citations(evidence: Evidence) -> list[str]:
    """Return the works to cite: software, method, records, predictors."""
    origin = evidence.origin()
    of_records = origin.get("citation") or origin.get("doi")
    schema = evidence.model.schema
    of_data = [schema.citation, *(m.citation for m in schema.modalities.values())]
    return list(dict.fromkeys(str(c) for c in (*CITATIONS, of_records, *of_data) if c))
