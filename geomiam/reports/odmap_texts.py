"""Fields of the ODMAP protocol that follow from the metadata of a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from geomiam._version import __version__
from geomiam.reports.evidence import Evidence, grid_text, map_extent, mappings, number
from geomiam.reports.texts import (
    SHOWN,
    extent,
    left_out,
    names_of,
    records_source,
    source_of,
)


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
        "extrapolation": f"{_extrapolation(evidence)}; the layer 'outside_range' shows the share of predictors outside it",
        "coefficients": f"weights in model.safetensors, model id {model.id}",
        "importance": importance if evidence.explanation is not None else "",
        "selection": "; ".join(map(str, rule)),
        "ensemble_averaging": f"{average}, with equal weights" if members > 1 else "",
        "ensembles": f"{members} members ({config.fusion})" if members > 1 else "none",
        "threshold": _thresholds(evidence),
        "spatial_autocorrelation": "the skill is measured on spatial blocks" if blocks else "",
    }


def _extrapolation(evidence: Evidence) -> str:
    """Return whether values outside the training range are clamped."""
    if evidence.maps is not None and evidence.maps.attrs.get("clamped"):
        return "numbers outside the training range are moved to its nearest limit (clamping)"
    return "predictions outside the training range are not clamped"


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
    quantity, novelty = evidence.model.quantity, _novelty(evidence)
    return {
        "unit": f"{quantity.name}, 0 to 1" if quantity else "",
        "novelty": novelty,
        "novel_environments": novelty,
        "algorithm_uncertainty": _layers(evidence),
        "input_uncertainty": _observed(evidence),
    }


def _novelty(evidence: Evidence) -> str:
    """Return the share of cells or predictors that are new, by each measure of the map."""
    parts = [f"{title}: {share:.1%} of the cells" for title, share in evidence.novelty().items()]
    if outside := evidence.outside():
        parts.append(f"layer 'outside_range': mean {outside[0]:.1%} of the predictors of a cell")
    return "; ".join(parts)


def _layers(evidence: Evidence) -> str:
    """Return the layers of the map on uncertainty."""
    if evidence.maps is None:
        return ""
    parts = []
    if "spread" in evidence.maps:
        parts.append(
            f"standard deviation over {len(evidence.model.network.members)} ensemble members"
        )
    if "prediction_set" in evidence.maps:
        attrs = evidence.maps["prediction_set"].attrs
        parts.append(
            f"conformal prediction sets of level {float(attrs['level']):.0%} for each pattern of observed groups, from "
            f"{attrs['calibration_sites']:,} calibration sites"
        )
    return "; ".join(parts)


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
        "transfer_processing": " ".join(left_out(table)),
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


def _observed(evidence: Evidence) -> str:
    shares = evidence.observed()
    parts = [f"{k} {v:.0%}" for k, v in shares.items()]
    return f"share of the predicted cells that use the group: {', '.join(parts)}" if parts else ""
