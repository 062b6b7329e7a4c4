"""Novelty: how different each cell is from the training sites in the predictors that it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.required import leave_out, require_groups
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import with_progress
from geomiam.tokens.features import Features, features_of
from geomiam.tokens.select import Selector, visible_tokens
from geomiam.uncertainty.block import NoveltyBlock, coordinate_tokens, novelty_block
from geomiam.uncertainty.options import NoveltyOptions


@with_progress
def novelty(
    ds: Data,
    model: Model | str | Path,
    *,
    using: Selector | Sequence[Selector] | None = None,
    reference: xr.Dataset | None = None,
    options: NoveltyOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure how different each cell or site is from the training sites, in the predictors that it has.

    A cell is compared with training sites in its observed predictors only. Distances, their normalisation
    and the threshold are computed from the same predictors of the training sites, so a predictor that a
    cell lacks makes it neither more nor less novel.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Cube ``(y, x)`` or sites ``(site)``, as for :func:`geomiam.predict`. numpy in, numpy out; dask in,
        dask out.
    model : Model or path
    using : selector or sequence of selectors, optional
        Predictors to compare, as for :func:`geomiam.predict`; default all.
    reference : xarray.Dataset, optional
        Sites to compare with, at most 5,000 of which are used. Default: the sample of the training sites
        that the model stores.
    options : NoveltyOptions, optional
        Measures, weights of the predictors, folds of the threshold, the space of the distances, and cells
        to leave out; see :class:`geomiam.NoveltyOptions`.
    progress : bool, optional
        Show a bar while data in memory are compared; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        float32 layers ``(y, x)`` or ``(site)``; NaN where nothing is observed.

        ``dissimilarity``: dissimilarity index, the distance to the nearest training site divided by the
        mean distance between training sites; 0 = equal to a site, no upper limit.
        ``inside``: 1 in the area of applicability, where the index is at most the threshold; 0 outside.
        ``point_density``: number of training sites that are nearer than the threshold.

        ``mess``: multivariate environmental similarity, at most 100; below 0 where a predictor is outside
        the range of the sites. ``most_dissimilar``: the predictor with that value, an integer that
        ``flag_values`` and ``flag_meanings`` explain; -1 = nothing is observed.

        ``exdet``: below 0 where predictors are outside their range (type 1), above 1 where their
        combination is new (type 2). ``most_influential``: the predictor that contributes most; -1 = no
        novelty.

    Raises
    ------
    SelectionError
        If the model stores no sites and there is no ``reference``, ``using`` or ``weights`` have an unknown
        name, or ``using`` selects a part of a predictor and there is no ``reference``.
    SettingError
        If an option has an unknown value.
    LabelError
        If ``folds`` do not have one whole number for each site.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.predict : its layer ``outside_range`` is the share of predictors outside their range.
    geomiam.plot.novelty : a map of it.
    geomiam.write_map : write it beside a prediction with ``MapOptions(novelty=True)``.

    Notes
    -----
    Predictors are standardised by the sites. A series or an image counts by the mean of each channel, an
    angle by its sine and cosine, a class by one column per class. Every predictor has the same variance,
    however many channels or classes it has. Coordinates are not compared.

    *Dissimilarity index and area of applicability*: Meyer & Pebesma 2021, doi:10.1111/2041-210X.13650. The
    threshold is the third quartile plus 1.5 interquartile ranges of the index of the training sites, each
    compared with the sites of other folds, but at most its maximum, as in CAST 1.1. *Point density*:
    Schumacher et al. 2025, doi:10.5194/gmd-18-10185-2025. *MESS*: Elith et al. 2010,
    doi:10.1111/j.2041-210X.2010.00036.x; a class counts as 100 if it was in training and as -100 if not.
    *ExDet*: Mesgaran et al. 2014, doi:10.1111/ddi.12209, in which a class that was not in training counts as
    one range, and classes are no part of the combinations.

    Where fewer than 30 training sites have all predictors of a cell, the predictors are compared in several
    sets that so many sites have, each predictor in at least one; the cell has the value of the set in which it is
    newest.

    Examples
    --------
    >>> import geomiam as gm
    >>> new = gm.novelty(cube, model)
    >>> float(new["dissimilarity"].min()) >= 0
    True
    >>> outside = new["inside"] == 0
    """
    options = NoveltyOptions.of(options)
    model = as_model(model)
    data = as_data(ds, model)
    visible = visible_tokens(model.layout, using) & ~coordinate_tokens(model)
    if not visible.any():
        raise SelectionError(
            "there is nothing to compare: novelty leaves coordinates out; select other predictors with using="
        )
    block = novelty_block(model, visible, reference, options)
    outputs = novelty_outputs(block)
    task = require_groups(block, model.layout, options.require, visible=visible)
    out = over_cells(
        data, model, task, outputs=outputs, visible=visible, memory_limit=options.memory_limit
    )
    return like_data(_without_numbers(leave_out(out, data, options.mask)), ds)


def _without_numbers(out: xr.Dataset) -> xr.Dataset:
    """Return the layers with the number −1 in cells that ``require`` or ``mask`` leave out."""
    for number, measure in (("most_dissimilar", "mess"), ("most_influential", "exdet")):
        if number in out:
            layer = out[number].where(out[measure].notnull(), np.int16(-1))
            out[number] = layer.assign_attrs(out[number].attrs)
    return out


def novelty_outputs(block: NoveltyBlock) -> list[Output]:
    """Return the descriptions of the layers of a block, in their order."""
    features = features_of(block.model.layout)
    outputs: list[Output] = []
    if block.tokens or block.predictors:
        space = "in the space of the network" if block.tokens else "in the predictors"
        outputs += [
            _layer("dissimilarity", f"dissimilarity index {space} that are observed"),
            _layer(
                "inside",
                "area of applicability",
                flag_values=[0, 1],
                flag_meanings="outside inside",
            ),
            _layer("point_density", "training sites nearer than the threshold of applicability"),
        ]
    if block.similarity:
        name = "multivariate environmental similarity to the training sites"
        outputs += [
            _layer("mess", name, units="percent"),
            _variable("most_dissimilar", "predictor least similar to the training sites", features),
        ]
    if block.extrapolation:
        comment = (
            "below 0: outside the training range; 0 to 1: no novelty; above 1: new combination"
        )
        outputs += [
            _layer("exdet", "extrapolation detection", comment=comment),
            _variable(
                "most_influential", "predictor that contributes most to the novelty", features
            ),
        ]
    return outputs


def _layer(name: str, long_name: str, **attrs: object) -> Output:
    return Output(name, {}, np.dtype(np.float32), {"long_name": long_name, "units": "1", **attrs})


def _variable(name: str, long_name: str, features: Sequence[Features]) -> Output:
    """Return the description of a layer with the number of a variable, -1 for none."""
    names = ["none", *(f.variable.replace(" ", "_") for f in features)]
    attrs = {
        "long_name": long_name,
        "flag_values": list(range(-1, len(features))),
        "flag_meanings": " ".join(names),
    }
    return Output(name, {}, np.dtype(np.int16), attrs)
