"""The section about criteria on presence records, from what ``geomiam-bench criteria`` stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomiam_bench.pages.markdown import table
from geomiam_bench.results import read_json

PRESENT = "blocks, visited sites"
"""The criterion that the settings of ``disdat`` were chosen by."""
DRAWS = 200
ALL = "all configurations"
HEAD = ["criterion", "configurations", "− present", "species", "− present", "loss"]
LEAD = """Can presence records alone show which configuration an independent survey prefers? Configurations that had been scored on the
surveys before are trained without each of three folds of the presence records, and every criterion is computed from the
predictions of the fold left out. No survey was scored for this; its AUC per species comes from the stored runs. Folds are spatial
blocks, a tenth of the extent, or clusters of sites with similar predictors (*environment*, 12 clusters). Presences are compared with the visited sites of their
group; with the same sites weighted to be even in space, or to have the predictors of random sites of the region; with
sites at which two or more species were recorded; or with the random sites. The data have no column of the source of a record, so
folds by source are not possible.

*Configurations*: Spearman correlation, over configurations, of the mean criterion and the mean AUC on the survey. *Species*: the
same over all species and configurations, after the means of the species and of the configuration are subtracted: does the
criterion show which species gains from which configuration? *Loss*: AUC on the survey, in points, of the best configuration
minus that of the one that the criterion chooses. *− present*: minus the first row. ± is the standard deviation over bootstrap draws of the species. Forests
have 100 trees here, networks one seed. In NSW, forests, `maxent-like` and `deepmaxent` trained with the merged groups of publications
and the others with the groups of the files, as when the survey was scored; the criteria use the merged groups. The
first row is the present criterion, by which the settings of `disdat` were chosen; bold differences to it exceed two standard
deviations."""


@dataclass(frozen=True)
class Compared:
    """AUC on the survey and a criterion of the same configurations ``(C, S)``, in percent."""

    survey: np.ndarray
    criterion: np.ndarray

    @property
    def species(self) -> np.ndarray:
        """Return the positions of the species that were surveyed."""
        return np.flatnonzero(np.isfinite(self.survey).any(0))

    def of_configurations(self, species: np.ndarray) -> float:
        """Return the rank correlation of the means over species."""
        return correlation(*(np.nanmean(x[:, species], 1) for x in (self.survey, self.criterion)))

    def of_species(self, species: np.ndarray) -> float:
        """Return the rank correlation of what is left without the means of species and configurations."""
        shared = species[np.isfinite(self.survey + self.criterion)[:, species].all(0)]
        return correlation(*(centred(x[:, shared]).ravel() for x in (self.survey, self.criterion)))

    def loss(self, species: np.ndarray) -> float:
        """Return the best mean AUC on the survey minus that of the chosen configuration."""
        survey, criterion = (np.nanmean(x[:, species], 1) for x in (self.survey, self.criterion))
        return float(survey.max() - survey[criterion.argmax()])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of Spearman."""
    return float(correlations(a[None], b[None])[0])


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rank correlation of Spearman of each row of ``a`` and ``b`` ``(rows, n)``."""
    from scipy.stats import rankdata

    ranks = rankdata(np.stack([a, b]), axis=-1)
    a, b = ranks - ranks.mean(-1, keepdims=True)
    return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def centred(x: np.ndarray) -> np.ndarray:
    """Subtract the means of the rows and of the columns of a table without NaN."""
    return x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()


def criteria_section(path: Path) -> str:
    """Return one table per region, kind of folds and set of configurations."""
    rows = read_json(path)["rows"]
    parts: list[str] = []
    better: list[set[str]] = []
    for region in dict.fromkeys(r["region"] for r in rows):
        of_region = [r for r in rows if r["region"] == region]
        for folds in dict.fromkeys(r["folds"] for r in of_region):
            for title, chosen_rows in _sets(of_region, folds).items():
                count = len({r["configuration"] for r in chosen_rows})
                text = f"**{region}**, folds of {folds}, {title} ({count})"
                lines = _lines(chosen_rows)
                parts += [text, table(HEAD, lines)]
                if title == ALL:
                    better.append({line[0] for line in lines if line[2].startswith("**+")})
    names = ", ".join(sorted(set.intersection(*better))) or "none"
    verdict = f"Better than the present criterion at ordering all configurations, in every region, beyond two standard deviations: {names}."
    head = ["## Criteria on presence records", LEAD, verdict]
    return "\n\n".join([*head, *parts, _configurations(rows)])


def _sets(rows: list[dict], folds: str) -> dict[str, list[dict]]:
    """Return sets of configurations with these folds; other folds than those of the present criterion have it as the first row."""
    of_folds = [r for r in rows if r["folds"] == folds]
    names = [r["configuration"] for r in of_folds]
    present, criterion = PRESENT.split(", ")
    if folds != present:
        reference = {r["configuration"]: r for r in rows if r["folds"] == present}
        first = [
            {**reference[n], "criteria": {criterion: reference[n]["criteria"][criterion]}}
            for n in names
        ]
        return {"the configurations with both": [*first, *of_folds]}
    return {
        ALL: of_folds,
        "target-group background": [r for r in of_folds if r["background"] != "random"],
        "networks": [r for r in of_folds if r["is_network"]],
    }


def compared(rows: list[dict]) -> dict[str, Compared]:
    """Return every criterion by the name of its folds and its own."""
    pairs: dict[str, Compared] = {}
    for folds in dict.fromkeys(r["folds"] for r in rows):
        chosen_rows = [r for r in rows if r["folds"] == folds]
        survey = _array([r["survey"] for r in chosen_rows])
        for name in chosen_rows[0]["criteria"]:
            values = _array([r["criteria"][name] for r in chosen_rows])
            pairs[f"{folds}, {name}"] = Compared(survey, values)
    return pairs


def _array(rows: list[list[float | None]]) -> np.ndarray:
    return 100 * np.array(rows, float)


def _lines(rows: list[dict]) -> list[list[str]]:
    pairs = compared(rows)
    drawn_values = {name: _drawn(pair) for name, pair in pairs.items()}
    lines = []
    for name, pair in pairs.items():
        cells = []
        for position, measure in enumerate((Compared.of_configurations, Compared.of_species)):
            value = measure(pair, pair.species)
            cells.append(f"{value:+.2f} ± {drawn_values[name][:, position].std():.2f}")
            gap = value - measure(pairs[PRESENT], pairs[PRESENT].species)
            gaps = (drawn_values[name] - drawn_values[PRESENT])[:, position]
            cells.append("" if name == PRESENT else _gap(gap, float(gaps.std())))
        label = f"**{name}**" if name == PRESENT else name
        lines.append([label, *cells, f"{pair.loss(pair.species):.1f}"])
    return lines


def _drawn(pair: Compared) -> np.ndarray:
    """Return both correlations ``(draws, 2)`` of bootstrap draws of the species, the same ones for every criterion."""
    rng = np.random.default_rng(0)
    draws = np.array([rng.choice(pair.species, len(pair.species)) for _ in range(DRAWS)])
    # All draws at once: hundreds of thousands of small rankings took most of the time of the page.
    means = (np.nanmean(x[:, draws], -1).T for x in (pair.survey, pair.criterion))
    of_species = [pair.of_species(d) for d in draws]
    return np.stack([correlations(*means), np.array(of_species)], 1)


def _gap(gap: float, error: float) -> str:
    text = f"{gap:+.2f} ± {error:.2f}"
    return f"**{text}**" if abs(gap) > 2 * error else text


def _configurations(rows: list[dict]) -> str:
    """Return a table of the stored AUC on the survey and of the present criterion."""
    regions = list(dict.fromkeys(r["region"] for r in rows))
    folds, criterion = PRESENT.split(", ")
    cells: dict[str, dict[str, list[str]]] = {}
    for row in [r for r in rows if r["folds"] == folds]:
        values = [row["survey"], row["criteria"][criterion]]
        means = [f"{np.nanmean(_array([v])):.1f}" for v in values]
        cells.setdefault(row["configuration"], {})[row["region"]] = means
    head = ["configuration", *(f"{r} {k}" for r in regions for k in ("survey", "blocks"))]
    lines = [[k, *(c for r in regions for c in v.get(r, ["", ""]))] for k, v in cells.items()]
    return "The configurations, mean AUC over species in percent:\n\n" + table(head, lines)
