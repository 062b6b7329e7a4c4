"""Texts of a report that follow from the metadata of a model: limits, sources, scenarios, citations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geomiam._version import __version__
from geomiam.reports.evidence import FEW, Evidence, coordinate

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


def records_source(evidence: Evidence) -> str:
    """Return title, DOI, date, licence, query and file of the records, as far as they are recorded."""
    origin = evidence.origin()
    keys = ("citation", "title", "doi", "date", "licence", "format", "file", "query")
    parts = [f"{key}: {origin[key]}" for key in keys if origin.get(key)]
    return "; ".join(parts)


def source_of(modality: Any) -> str:
    """Return source, licence and citation of a modality, as far as they are stated."""
    return "; ".join(filter(None, (modality.source, modality.license, modality.citation)))


def left_out(table: pd.DataFrame) -> list[str]:
    """Return sentences on the predictors that scenarios lack."""
    lines = [
        f"{name} is predicted without {names}, which the scenario lacks."
        for name, names in table["left_out"].items()
        if names
    ]
    return lines or ["All scenarios have all predictors of the model."]


def projection_notes(evidence: Evidence) -> list[str]:
    """Return sentences on the table of scenarios: missing predictors, and the sites of the skill."""
    if evidence.projection is None:
        return []
    table = evidence.projection.table
    lines = left_out(table)
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
