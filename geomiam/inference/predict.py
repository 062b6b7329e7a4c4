"""Predict suitability from the predictors that each cell or site has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.cells import Output, over_cells
from geomiam.inference.conformal import PredictionSets, prediction_sets
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.members import base_spread, check_members, spread_block
from geomiam.inference.options import PredictOptions
from geomiam.inference.outside import outside_output, outside_share, warn_if_many
from geomiam.inference.required import leave_out, require_groups, warn_if_few
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model, Precision
from geomiam.model.saved_model import as_model
from geomiam.networks.network import MOST_GROUPS
from geomiam.progress import with_progress
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.select import Selector, group_masks, symbolic_tokens, visible_tokens

SCALES = {"probability": "", "logit": " (log-odds)"}
"""Suffix of the name of the quantity, by scale."""


@dataclass(frozen=True)
class PredictBlock:
    """Function of a block: suitability ``(n, s)``, observed ``(n,)``, :func:`layer_shares`, and on request spread and
    prediction sets ``(n, s)``.
    """

    model: Model
    visible: np.ndarray
    groups: np.ndarray
    species: np.ndarray
    scale: Scale
    precision: Precision
    base: tuple[np.ndarray, ...] = ()
    """Suitability and spread ``(s,)`` of rows where nothing is visible; empty: NaN."""
    spread: bool = False
    sets: PredictionSets | None = None

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        model = self.model.in_precision(self.precision)
        settings: Any = {"visible": self.visible, "species": self.species, "scale": self.scale}
        if self.spread:
            suitability, *spread = spread_block(model, block, **settings)
        else:
            suitability, spread = predict_block(model, block, **settings), []
        for layer, value in zip((suitability, *spread), self.base):
            np.copyto(layer, value, where=np.isnan(layer))
        bits = observed_bits(block, self.groups)
        shares = layer_shares(self.model, block, visible=self.visible)
        sets = [] if self.sets is None else [self.sets(model, block, suitability)]
        return suitability, bits, *shares, *spread, *sets


@with_progress
def predict(
    ds: Data,
    model: Model | str | Path,
    *,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    spread: bool = False,
    interval: float | None = None,
    options: PredictOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Predict every cell or site from the predictors that it has.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataTree, xarray.DataArray, pandas.DataFrame or list
        Cube ``(y, x)`` or sites ``(site)``; NaN = missing. numpy in, numpy out; dask in, dask out. An
        array with named bands is a Dataset of its bands, a list is joined, a table has one site per
        row, and a dim of geometries, as in xvec, counts as ``site``.
    model : Model or path
    using : selector or sequence of selectors, optional
        Predictors to use: modalities, variables, or parts such as ``"landsat[time=2018]"`` or
        ``"sentinel2[centre]"``; default all. See :mod:`geomiam.tokens.select`.
    species : str or sequence of str, optional
        Default all.
    scale : {"probability", "logit"}
    spread : bool
        Add the standard deviation over the members of the ensemble, on this scale.
    interval : float, optional
        Add the prediction sets of this level, such as 0.9, of a model with calibration sites; see
        :func:`geomiam.calibrate`.
    options : PredictOptions, optional
        Cells to leave out (``require``, ``mask``), the value of cells where nothing is observed
        (``empty``), ``precision`` and ``memory_limit``; see :class:`geomiam.PredictOptions`.
    progress : bool, optional
        Show a bar while data in memory are predicted; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``suitability(species, y, x)``: float32, 0 to 1 or log-odds; NaN where nothing is observed, unless
        ``options`` set ``empty``. ``observed(y, x)``: one bit per group with an observed predictor
        (``flag_masks``, ``flag_meanings``). ``outside_range(y, x)``: share of the observed predictors with
        a value outside the training range or a class absent from training, 0 to 1; NaN where no predictor
        is observed. Models saved before ranges were stored have no such layer. Models that read series as
        symbols also return ``saturated(y, x)``, see :func:`geomiam.explain.saturation`.
        With ``spread=True`` also ``spread(species, y, x)``: standard deviation over members, computed from the
        same pass of the network. With ``interval=`` also ``prediction_set(species, y, x)``: 1 absent, 2
        present, 3 both, 0 neither (``flag_values``, ``flag_meanings``); NaN as the suitability.

    Raises
    ------
    SelectionError
        If ``using``, ``species``, ``scale`` or an option has an unknown name.
    MissingVariable, VariableMismatch
        If predictors are missing in part, or differ in units, dims or labels.
    MemoryRefused
        If a dask block would need more than ``memory_limit``.
    SettingError
        If ``spread`` is requested of a model of one member, or ``interval`` of one without calibration sites.

    Warns
    -----
    OutsideTrainingRange
        For data in memory, if predictors are outside the training range in more than a fifth of their cells.
        The warning lists them with both ranges and a change of units that may correct them. It needs
        values, so there is none for dask arrays: check the layer ``outside_range``, for example by
        ``maps.outside_range.mean()``, or call :func:`geomiam.write_map`, which reads a few blocks first.
    OtherYear
        If embeddings or images state another year than those of the training.
    FewGroups
        For data in memory, if more than 5 % of the predicted cells have less than half of the groups that
        training sites had.

    See Also
    --------
    geomiam.write_map : maps of any size, resumable.
    geomiam.shapley : the contribution of each group of predictors.
    geomiam.classify : maps of presence and absence.
    geomiam.export : write GeoTIFF or netCDF.
    geomiam.calibrate : calibration sites, for prediction sets.
    geomiam.plot.bivariate : draw suitability and its spread in one map.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube, model = gm.open_cube("cube.zarr"), gm.load_model("model")  # doctest: +SKIP
    >>> maps = gm.predict(cube, model, using="climate")
    >>> maps["suitability"].dims
    ('species', 'y', 'x')
    """
    options = PredictOptions.of(options)
    model, precision = as_model(model), options.precision
    data = as_data(ds, model)
    model.in_precision(precision)
    visible = visible_tokens(model.layout, using)
    index = model.species_index(species)
    groups = group_masks(model.layout)
    names = [model.species[i] for i in index]
    outputs = [suitability_output(model, names, scale=scale), observed_output(list(groups))]
    outputs += layer_outputs(model)
    if spread:
        check_members(model)
        outputs.append(spread_output(outputs[0]))
    masks = np.stack(list(groups.values())) & visible
    base = base_of_empty(model, options, species=index, scale=scale, spread=spread)
    sets = None
    if interval is not None:
        sets = prediction_sets(model, masks, index, scale=scale, level=interval)
        outputs.append(sets_output(outputs[0], sets))
    block_task = PredictBlock(model, visible, masks, index, scale, precision, base, spread, sets)
    task = require_groups(block_task, model.layout, options.require, visible=visible)
    out = over_cells(
        data,
        model,
        task,
        outputs=outputs,
        visible=visible,
        memory_limit=options.memory_limit,
        clamp=options.clamp,
    )
    out = leave_out(out, data, options.mask)
    warn_if_many(out, data, model, visible=visible)
    warn_if_few(out, model, visible=visible)
    return like_data(out.assign_attrs(precision=precision), ds)


def base_of_empty(
    model: Model, options: PredictOptions, *, species: np.ndarray, scale: Scale, spread: bool
) -> tuple[np.ndarray, ...]:
    """Return suitability and spread ``(s,)`` of cells where nothing is observed; empty for NaN."""
    if options.empty not in ("nan", "base"):
        raise SelectionError(
            f"empty={options.empty!r}; use 'nan', or 'base' for the prediction without predictors"
        )
    if options.empty == "nan":
        return ()
    model = model.in_precision(options.precision)
    base = base_value(model, species=species, scale=scale)
    return (base, base_spread(model, species=species, scale=scale)) if spread else (base,)


def suitability_output(model: Model, species: Sequence[str], *, scale: Scale) -> Output:
    """Return the description of ``suitability``, whose attributes name the predicted quantity."""
    if scale not in SCALES:
        raise SelectionError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
    quantity = model.quantity
    attrs = {
        "long_name": (quantity.name if quantity else "suitability") + SCALES[scale],
        "units": "1",
        "scale": scale,
        "ancillary_variables": "observed",
    }
    if quantity and scale == "probability":
        attrs["comment"] = quantity.meaning
    return Output("suitability", {"species": species}, np.dtype(np.float32), attrs)


def spread_output(suitability: Output) -> Output:
    """Return the description of ``spread``, and name it in the attributes of the suitability."""
    suitability.attrs["ancillary_variables"] += " spread"
    attrs = {
        "long_name": f"standard deviation over ensemble members of {suitability.attrs['long_name']}",
        "units": "1",
        "scale": suitability.attrs["scale"],
    }
    return Output("spread", suitability.labels, suitability.dtype, attrs)


def sets_output(suitability: Output, sets: PredictionSets) -> Output:
    """Return the description of ``prediction_set``, and name it in the attributes of the suitability."""
    suitability.attrs["ancillary_variables"] += " prediction_set"
    attrs = {
        "long_name": f"labels that the calibration sites do not reject, level {sets.level:g}",
        "flag_values": [0, 1, 2, 3],
        "flag_meanings": "neither absent present both",
        "level": float(sets.level),
        "calibration_sites": len(sets.calibration),
    }
    return Output("prediction_set", suitability.labels, suitability.dtype, attrs)


def observed_output(groups: Sequence[str]) -> Output:
    """Return the description of ``observed``: CF flags with one bit per group."""
    attrs = {"long_name": "groups of predictors that the prediction uses"}
    return Output("observed", {}, bits_dtype(len(groups)), attrs | flag_attributes(groups))


def flag_attributes(groups: Sequence[str]) -> dict[str, Any]:
    """Return the CF attributes of a layer with one bit per group."""
    masks = np.array([1 << i for i in range(len(groups))], bits_dtype(len(groups)))
    meanings = " ".join(g.replace(" ", "_") for g in groups)
    return {"flag_masks": masks.tolist(), "flag_meanings": meanings}


def layer_outputs(model: Model) -> list[Output]:
    """Return the descriptions of layers that show unusual values, part of every prediction."""
    return [*saturated_output(model), *outside_output(model)]


def layer_shares(
    model: Model, block: TokenArrays, *, visible: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the values of :func:`layer_outputs`, ``(n,)`` each."""
    return (
        *saturated_share(model, block, visible=visible),
        *outside_share(model, block, visible=visible),
    )


def saturated_output(model: Model) -> list[Output]:
    """Return the description of ``saturated``; empty for a model without symbols."""
    if not symbolic_tokens(model.layout).any():
        return []
    name = "share of symbols that stand for values beyond those of the training data"
    return [Output("saturated", {}, np.dtype(np.float32), {"long_name": name, "units": "1"})]


def saturated_share(
    model: Model, block: TokenArrays, *, visible: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the share ``(n,)`` of the observed symbols that are saturated; NaN where none is observed.

    An empty tuple for a model without symbols.
    """
    if block.saturated is None:
        return ()
    bits = block.observed & visible & symbolic_tokens(model.layout)
    count = bits.sum(1)
    share = (block.saturated & bits).sum(1) / np.maximum(count, 1)
    return (np.where(count > 0, share, np.nan).astype(np.float32),)


def bits_dtype(groups: int) -> np.dtype:
    """Return the smallest unsigned integer type with one bit per group."""
    if groups > MOST_GROUPS:
        raise SelectionError(
            f"{groups} groups do not fit into {MOST_GROUPS} bits; join some with groups={{name: [...]}}"
        )
    return next(d for d in map(np.dtype, ("u1", "u2", "u4", "u8")) if d.itemsize * 8 >= groups)


def observed_bits(block: TokenArrays, groups: np.ndarray) -> np.ndarray:
    """Return the bits ``(n,)`` of the groups ``(G, t)`` that have an observed token."""
    return bits_of(np.stack([(block.observed & tokens).any(1) for tokens in groups], 1))


def bits_of(flags: np.ndarray) -> np.ndarray:
    """Return one number per row, whose bit i is the flag i of the row ``(n, G)``."""
    dtype = bits_dtype(flags.shape[1])
    bits = np.zeros(len(flags), dtype)
    for i, flag in enumerate(flags.T):
        bits |= flag.astype(dtype) << dtype.type(i)
    return bits
