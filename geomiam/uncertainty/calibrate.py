"""Attach calibration sites to a model, for prediction sets with a stated rate of errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.checks.names import list_names
from geomiam.checks.settings import check_count
from geomiam.data.sites.table import SiteTable
from geomiam.errors import LabelError, SettingError
from geomiam.geo.lengths import Length
from geomiam.labels import as_table
from geomiam.model.calibration import MOST_BYTES, MOST_SITES, UNKNOWN, Calibration
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.splits import site_blocks
from geomiam.tokens.encode import TokenArrays
from geomiam.training.provenance import shared_with
from geomiam.uncertainty.block import random_rows

SITES = 5000
"""Most calibration sites by default."""


def calibrate(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    blocks: ArrayLike | Length | None = None,
    limit: int = SITES,
    rng: int | np.random.Generator | None = 0,
) -> Model:
    """Return the model with calibration sites, from which ``predict(..., interval=0.9)`` derives prediction sets.

    A prediction set lists the labels of a species (present, absent) that the calibration sites do not reject.
    For the groups that a cell has, the calibration sites are predicted from the same groups, so that each
    pattern of observed groups has its own bounds: of each species, and of presences and absences apart. The
    bounds are computed when a pattern first occurs, so nothing else has to be chosen in advance.

    Parameters
    ----------
    model : Model or path
    sites : xarray.Dataset
        Sites with ``presence(site, species)`` that the model was **not** fitted on, in space apart from its training sites:
        see :func:`geomiam.splits.hold_out_blocks`. Species are matched by name.
    blocks : array-like of int or length, optional
        Number of the spatial block of each site, or the side of square blocks, such as ``"50 km"``. Blocks count
        alike, and the interval then holds for a place in a further block. It takes 1 / (1 − interval) − 1
        blocks per label at least, and many more for informative sets. Default: every site counts by itself.
    limit : int
        More sites are drawn at random to this number; it limits the file and the time of a new pattern.
    rng : int, numpy.random.Generator or None
        Draws the sites.

    Returns
    -------
    Model
        With the same weights and :attr:`geomiam.Model.id`. :meth:`geomiam.Model.save` writes the sites as standardised predictors
        and labels, without coordinates, into ``calibration.safetensors``. Where predictors are public, their values can reveal
        places.

    Raises
    ------
    SettingError
        If the model was fitted on some of the sites, or they would need more than 1 GiB.
    LabelError
        If there are no sites, or they have no labels of a species of the model.

    See Also
    --------
    geomiam.predict : prediction sets, with ``interval=``.
    geomiam.evaluation.set_coverage : measure the coverage on further sites.
    geomiam.splits.hold_out_blocks : choose sites that are apart in space.

    Notes
    -----
    If calibration sites and cells of one pattern and label are exchangeable, the set of a cell has its true
    label with a probability of at least the interval. Records of one place resemble each other, and a map is
    no random sample of records, so this is an assumption; the page "Uncertainty" states what remains without it.

    With ``blocks=``, whole blocks have to be exchangeable, and sites within them may resemble each other (Lee, Barber &
    Willett 2023, Distribution-free inference with hierarchical data, arXiv:2306.06342).

    References: Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World; Zaffran, Dieuleveut, Josse &
    Romano (2023), Conformal prediction with missing values, ICML, arXiv:2306.02732.

    Examples
    --------
    >>> held_out = gm.splits.hold_out_blocks(sites, share=0.3, rng=0)
    >>> short = {"steps": 20, "loss": "weighted-bce"}
    >>> model = gm.fit(sites.isel(site=~held_out), schema, training=short, validation=False)
    >>> calibrated = gm.calibrate(model, sites.isel(site=held_out))
    >>> sets = gm.predict(cube, calibrated, interval=0.9)["prediction_set"]
    >>> sets.attrs["flag_meanings"]
    'neither absent present both'
    """
    model = as_model(model)
    model.species_index(None)  # refuses an encoder
    check_count("limit", limit, minimum=1, hint=f"the default is {SITES:,}")
    table = _table(model, sites)
    block = model.encode(table.arrays)
    rows = np.flatnonzero(block.observed.any(1))
    rows = rows[random_rows(len(rows), min(limit, MOST_SITES), rng)]
    labels = _labels(table, model.species)[rows]
    if not (labels != UNKNOWN).any():
        raise LabelError(
            f"the {len(rows)} sites with a predictor have no label of the model's species {list_names(model.species)}; found "
            f"{list_names(table.species)}"
        )
    values = tuple(np.ascontiguousarray(v[rows]) for v in block.values)
    number = _block_numbers(sites, blocks)[rows]
    calibration = Calibration(TokenArrays(values, block.observed[rows]), labels, number)
    _check_size(calibration)
    about = {
        "digest": calibration.digest,
        "sites": len(rows),
        "blocks": len(np.unique(number)),
        "presences": _count(labels, 1, model),
        "absences": _count(labels, 0, model),
        "background": table.has_background,
    }
    return replace(model, calibration=calibration, about={**model.about, "calibration": about})


def _table(model: Model, sites: xr.Dataset) -> SiteTable:
    """Return the sites as arrays; refuse none, and those that the model was fitted on."""
    table = SiteTable.read(sites, model.schema)
    if not len(table):
        raise LabelError(
            "there are no sites: pass sites with labels that the model was not fitted on, such as those of "
            "gm.splits.hold_out_blocks"
        )
    if share := shared_with(model.about, sites):
        raise SettingError(
            f"the model was fitted on about {share:.0%} of these sites, whose predictions are too good to calibrate on: "
            "hold out blocks first with apart = gm.splits.hold_out_blocks(sites, share=0.3), fit on "
            "sites.isel(site=~apart) and calibrate on sites.isel(site=apart) (command line: geomiam split)"
        )
    return table


def _check_size(calibration: Calibration) -> None:
    """Refuse sites that need more memory than the limit."""
    block, labels = calibration.block, calibration.labels
    size = sum(v.nbytes for v in block.values) + block.observed.nbytes + labels.nbytes
    if size > MOST_BYTES:
        fewer = int(len(block) * MOST_BYTES / size)
        raise SettingError(
            f"{len(block):,} calibration sites need {size:,} bytes, the limit is {MOST_BYTES:,}; pass limit={fewer}"
        )


def _labels(table: SiteTable, species: tuple[str, ...]) -> np.ndarray:
    """Return labels ``(n, S)`` in the order of the model's species, as :class:`Calibration` has them."""
    label_table, labels = (
        as_table(table.labels),
        np.full((len(table), len(species)), UNKNOWN, np.uint8),
    )
    column = {name: i for i, name in enumerate(table.species)}
    for i, name in enumerate(species):
        if name in column:
            values = label_table[:, column[name]]
            labels[:, i] = np.where(np.isnan(values), UNKNOWN, np.nan_to_num(values))
    return labels


def _block_numbers(sites: xr.Dataset, blocks: ArrayLike | Length | None) -> np.ndarray:
    """Return the number of the block of each site, int32 ``(n,)``."""
    n = sites.sizes["site"]
    if blocks is None:
        return np.arange(n, dtype=np.int32)
    if isinstance(blocks, (str, int, float)):
        return site_blocks(sites, blocks).number.astype(np.int32)
    numbers = np.asarray(blocks)
    if numbers.shape != (n,):
        raise SettingError(
            f"blocks= has the shape {numbers.shape} for {n} sites: pass one number per site, or a side such as '50 km'"
        )
    return np.unique(numbers, return_inverse=True)[1].astype(np.int32)


def _count(labels: np.ndarray, label: int, model: Model) -> dict[str, int]:
    return dict(zip(model.species, (labels == label).sum(0).tolist()))
