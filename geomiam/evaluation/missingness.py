"""Skill under missing and wrong data: sweeps over patterns of entries and their share.

The patterns of :mod:`geomiam.evaluation.patterns` make gaps in training sites and in test sites, so a
model can be trained under one pattern and tested under another::

    gappy = hide(train, at_random(train, schema, share=0.4, rng=0), schema)
    model = gm.fit(gappy, schema)
    gm.evaluation.missingness_sweep(
        gappy, test, schema, predictors={"MIAM": model}, patterns=["belt"]
    )
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any
from zlib import crc32

import numpy as np
import xarray as xr

from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.corruption import EFFECTS
from geomiam.evaluation.evaluate import Predictor, as_predictor
from geomiam.evaluation.patterns import PATTERNS, Pattern, Rng, by_variable
from geomiam.metrics import auc
from geomiam.model.model import Model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)


@with_progress
def missingness_sweep(
    train: xr.Dataset,
    test: xr.Dataset,
    schema: Schema,
    *,
    predictors: Mapping[str, Model | Predictor],
    patterns: Sequence[str] | Mapping[str, Pattern] = tuple(PATTERNS),
    shares: Sequence[float] = SHARES,
    effect: str = "missing",
    repeats: int = 1,
    rng: Rng = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Score fitted predictors with an increasing share of the test data hidden or wrong.

    All predictors get the same gaps. A site without a prediction, because nothing is observed there,
    gets the base value of the predictor: the mean of its scores over the training sites, species by
    species. Without these sites each predictor would be scored on different, easier sites.

    Parameters
    ----------
    train : xarray.Dataset
        The sites that the predictors were trained on, with their gaps, for the base values.
    test : xarray.Dataset
        With ``presence(site, species)``; patterns add to the gaps of the sites.
    schema : Schema
        Variables and modalities to hide.
    predictors : mapping of str to Model or Predictor
        By name: trained models, or anything else with ``species`` and ``scores(sites)`` ``(n, S)`` on
        the logit scale, such as :class:`geomiam.baselines.Imputed`.
    patterns : sequence of str, or mapping of str to pattern
        Of ``at-random``, ``by-modality``, ``belt``, ``region``; or functions.
    shares : sequence of float
        Shares to hide, in [0, 1].
    effect : {"missing", "noise", "shift"}
        ``missing`` hides the entries. The others make them wrong, see
        :func:`geomiam.evaluation.corrupt`. With equal ``rng`` all effects change the same entries.
    repeats : int
        Number of times that gaps are drawn.
    rng : int, numpy.random.Generator or None
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``auc(predictor, pattern, share, repeat, species)``, NaN where the test sites have one class
        of a species; ``mean_auc(predictor, pattern, share, repeat)``, over the other species;
        ``predicted_share`` of the same dims: share of the sites with a prediction;
        ``hidden(pattern, share, repeat)``: share of the observed entries that were hidden or made wrong.

    Raises
    ------
    SelectionError
        If a pattern or the effect is unknown, or a predictor lacks a species of the test sites.
    LabelError, GridError, ValueError
        If the test sites have no labels or coordinates, or a share leaves [0, 1].

    See Also
    --------
    geomiam.plot.missingness : plot the table.
    geomiam.baselines.fit_imputed : imputation as a baseline.

    Examples
    --------
    >>> is_test = gm.splits.hold_out_blocks(sites, share=0.3, block="50 km", rng=0)
    >>> train, test = sites.isel(site=~is_test), sites.isel(site=is_test)
    >>> table = gm.evaluation.missingness_sweep(
    ...     train,
    ...     test,
    ...     schema,
    ...     predictors={"group": model},
    ...     patterns=["at-random"],
    ...     shares=[0, 0.5],
    ... )
    >>> table["mean_auc"].sizes["share"]
    2
    """
    names = read_labels(test)[1]
    pattern_functions = named_patterns(patterns)
    if effect not in EFFECTS:
        raise SelectionError(
            f"effect={effect!r} is not supported; choose from {', '.join(EFFECTS)}"
        )
    scorers = [_Scorer(as_predictor(p), n, train, test) for n, p in predictors.items()]
    seeds = np.random.default_rng(rng).integers(2**31, size=repeats)
    cases = []
    gaps = list(product(pattern_functions.items(), shares, seeds))
    for (name, pattern), share, seed in progress_bar(gaps, desc="gaps"):
        # all shares of a curve have one seed
        draws = np.random.default_rng([int(seed), crc32(name.encode())])
        entries = pattern(test, schema, share=share, rng=draws)
        sites = EFFECTS[effect](test, entries, schema, rng=draws)
        hidden_share = _share_of_observed(test, entries, schema)
        row = [s.case(sites) if hidden_share else s.of_complete for s in scorers]
        cases.append((hidden_share, row))
    coords = {
        "predictor": list(predictors),
        "pattern": list(pattern_functions),
        "share": list(shares),
    }
    return _dataset(cases, {**coords, "repeat": np.arange(repeats), "species": list(names)})


def named_patterns(patterns: Sequence[str] | Mapping[str, Pattern]) -> dict[str, Pattern]:
    """Return patterns by name."""
    if isinstance(patterns, Mapping):
        return dict(patterns)
    if unknown := [p for p in patterns if p not in PATTERNS]:
        raise SelectionError(f"no pattern of gaps {unknown}; choose from {', '.join(PATTERNS)}")
    return {p: PATTERNS[p] for p in patterns}


@dataclass(frozen=True)
class _Scorer:
    """One predictor, scored for the species of the test sites."""

    predictor: Predictor
    name: str
    train: xr.Dataset
    test: xr.Dataset

    @cached_property
    def of_complete(self) -> tuple[np.ndarray, float]:
        """The result of :meth:`case` for the complete test sites."""
        return self.case(self.test)

    def case(self, sites: xr.Dataset) -> tuple[np.ndarray, float]:
        """Return AUC ``(S,)`` and the share of sites with a prediction."""
        scores = self._scores(sites)
        is_finite = np.isfinite(scores)
        complete_scores = scores if is_finite.all() else np.where(is_finite, scores, self._base)
        return auc(read_labels(self.test)[0], complete_scores), float(is_finite.any(1).mean())

    @cached_property
    def _base(self) -> np.ndarray:
        """Mean score over the training sites ``(S,)``; 0 without any."""
        scores = self._scores(self.train)
        is_finite = np.isfinite(scores)
        return np.where(is_finite, scores, 0).sum(0) / np.maximum(is_finite.sum(0), 1)

    def _scores(self, sites: xr.Dataset) -> np.ndarray:
        """Return scores ``(n, S)``, species in the order of the test sites."""
        species = [str(s) for s in self.predictor.species]
        test_species = [str(s) for s in self.test["species"].values]
        if unknown_species := [s for s in test_species if s not in species]:
            raise SelectionError(
                f"predictor '{self.name}' lacks {len(unknown_species)} of {len(test_species)} species "
                f"({', '.join(unknown_species[:3])}); select the others with sites.sel(species=[...])"
            )
        return np.asarray(self.predictor.scores(sites))[:, [species.index(s) for s in test_species]]


def _share_of_observed(sites: xr.Dataset, entries: xr.DataArray, schema: Schema) -> float:
    """Return the share of the entries ``(site, variable)`` with any value that a pattern marks."""
    by_name = by_variable(entries, schema)
    observed_count = marked_count = 0
    for name in (v for v in schema.variables if v in sites):
        values = sites[name].transpose("site", ...).values
        observed = np.isfinite(values.reshape(len(values), -1)).any(1)
        observed_count += int(observed.sum())
        if name in by_name["variable"].values:
            marked_count += int((observed & by_name.sel(variable=name).values).sum())
    return marked_count / observed_count if observed_count else 0.0


def _dataset(cases: list[Any], coords: dict[str, Any]) -> xr.Dataset:
    case = ("pattern", "share", "repeat")
    shape = tuple(len(coords[d]) for d in case)
    values = np.array([[score for score, _ in row] for _, row in cases])  # (cases, P, S)
    is_scored = ~np.isnan(values)
    mean = np.where(is_scored, values, 0).sum(-1) / np.maximum(is_scored.sum(-1), 1)
    mean = np.where(is_scored.any(-1), mean, np.nan)
    predicted_share = np.array([[share for _, share in row] for _, row in cases])
    tables = {"auc": values, "mean_auc": mean, "predicted_share": predicted_share}
    ds = xr.Dataset(coords=coords).assign(hidden=(case, np.reshape([c[0] for c in cases], shape)))
    for name, table in tables.items():
        species_dim = ("species",) if table.ndim == 3 else ()
        ds[name] = ((*case, "predictor", *species_dim), table.reshape(*shape, *table.shape[1:]))
    return ds.transpose("predictor", ...)
