"""Coverage of prediction sets on sites, per pattern of observed groups and per species."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.data.sites.table import read_labels
from geomiam.errors import LabelError
from geomiam.inference.conformal import ABSENT, PRESENT
from geomiam.inference.options import PredictOptions
from geomiam.inference.predict import predict
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.tokens.select import Selector
from geomiam.training.provenance import warn_if_trained_on

FEWEST = 30
"""Least labels of a species for a share that counts as the worst."""
LABELS = {"present": (1, PRESENT), "absent": (0, ABSENT)}


def set_coverage(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    interval: float = 0.9,
    using: Selector | Sequence[Selector] | None = None,
    fewest: int = FEWEST,
) -> xr.Dataset:
    """Return how often prediction sets have the true label: per pattern of observed groups, species and label.

    Parameters
    ----------
    model : Model or path
        With calibration sites, from :func:`geomiam.calibrate`.
    sites : xarray.Dataset
        Sites with ``presence(site, species)``, neither training nor calibration sites. Patterns are those
        that occur; :func:`geomiam.evaluation.hide` makes others.
    interval : float
        Level of the sets, as for :func:`geomiam.predict`.
    using : selector or sequence of selectors, optional
        Predictors to use, as for :func:`geomiam.predict`.
    fewest : int
        Shares of fewer labels do not count as the worst, since they vary by chance.

    Returns
    -------
    xarray.Dataset
        ``coverage(pattern, species, label)``: share of the sites with this label whose set has it; NaN
        without such a site. ``count``: number of these sites. ``of_pattern(pattern, label)`` and
        ``of_species(species, label)``: shares over all sites of a pattern or species. ``worst(label)``: the
        least coverage of a pattern and species with at least ``fewest`` labels. ``share(set, pattern)``: how
        often a set is neither, absent, present or both. A pattern is named by its groups, joined by ``+``.

    Raises
    ------
    SettingError
        If the model has no calibration sites.
    LabelError
        If the sites have no label of a species of the model.

    Warns
    -----
    TrainedOnTheseSites
        If the model was fitted on some of the sites.

    See Also
    --------
    geomiam.calibrate : attach calibration sites to a model.
    geomiam.evaluation.hide : hide predictors of sites.

    Examples
    --------
    >>> apart = gm.splits.hold_out_blocks(sites, share=0.5, rng=0)
    >>> halves = sites.isel(site=apart), sites.isel(site=~apart)
    >>> calibration, rest = halves
    >>> test = gm.splits.hold_out_blocks(rest, share=0.5, rng=0)
    >>> short = {"steps": 20, "loss": "weighted-bce"}
    >>> model = gm.fit(rest.isel(site=~test), schema, training=short, validation=False)
    >>> calibrated = gm.calibrate(model, calibration)
    >>> table = gm.evaluation.set_coverage(calibrated, rest.isel(site=test), interval=0.8)
    >>> table["of_species"].dims
    ('species', 'label')
    """
    model = as_model(model)
    warn_if_trained_on(model.about, sites)
    labels, names = read_labels(sites)
    species = [n for n in names if n in model.species]
    if not species:
        raise LabelError(f"the sites have no label of the model's species, found {list(names[:5])}")
    labels = labels[:, [names.index(n) for n in species]]
    options = PredictOptions(empty="nan")
    maps = predict(sites, model, using=using, species=species, interval=interval, options=options)
    sets = maps["prediction_set"].transpose("site", "species").values
    bits, pattern = np.unique(maps["observed"].values, return_inverse=True)
    observed = np.flatnonzero(bits > 0)  # a site with nothing observed has no set
    is_of = pattern.ravel() == observed[:, None]  # (pattern, site)
    return (
        _table(sets, labels, is_of, fewest=fewest)
        .assign_coords(
            pattern=[_name(int(bits[i]), list(model.schema.groups)) for i in observed],
            species=species,
        )
        .assign_attrs(interval=interval, sites=len(sets), model_id=model.id)
    )


def _name(bits: int, groups: list[str]) -> str:
    return "+".join(g for i, g in enumerate(groups) if bits >> i & 1)


def _table(sets: np.ndarray, labels: np.ndarray, is_of: np.ndarray, *, fewest: int) -> xr.Dataset:
    """Return the table of sets ``(n, s)`` and labels ``(n, s)`` by pattern ``(p, n)``."""
    shape = len(is_of), labels.shape[1], len(LABELS)
    hits, count = np.zeros(shape), np.zeros(shape)
    for k, (label, bit) in enumerate(LABELS.values()):
        has_label = labels == label
        has_both = has_label & (np.nan_to_num(sets).astype(int) & bit > 0)
        count[..., k], hits[..., k] = (
            is_of @ has_label.astype(float),
            is_of @ has_both.astype(float),
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        coverage = hits / count
        of_pattern, of_species = hits.sum(1) / count.sum(1), hits.sum(0) / count.sum(0)
    frequent = np.where(count >= fewest, coverage, np.inf).min((0, 1), initial=np.inf)
    kinds = np.stack([is_of @ (sets == kind).mean(1) for kind in range(4)]) / is_of.sum(1)
    out = xr.Dataset(
        {
            "coverage": (("pattern", "species", "label"), coverage),
            "count": (("pattern", "species", "label"), count.astype(int)),
            "of_pattern": (("pattern", "label"), of_pattern),
            "of_species": (("species", "label"), of_species),
            "worst": ("label", np.where(np.isinf(frequent), np.nan, frequent)),
            "share": (("set", "pattern"), kinds),
        }
    )
    return out.assign_coords(label=list(LABELS), set=["neither", "absent", "present", "both"])
