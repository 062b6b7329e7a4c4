"""A diagnostic of whether modalities should be trained jointly or as an ensemble."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.infer import read_schema
from geomiam.data.sites.table import SiteTable, has_background, read_labels
from geomiam.errors import LabelError
from geomiam.evaluation.evaluate import evaluate
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.torch_defaults import standard_torch
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
from geomiam.training.loop import Run, torch_seed, train
from geomiam.training.losses import resolve_loss
from geomiam.training.supervised import Supervised
from geomiam.training.table import HoldOut, make_tables

WAYS = ("average", "linear head")


@standard_torch()
def fusion_diagnostic(
    sites: xr.Dataset,
    schema: Schema | None = None,
    *,
    network: NetworkConfig | None = None,
    training: TrainingConfig | None = None,
    validation: np.ndarray | None = None,
    rng: int = 0,
) -> xr.Dataset:
    """Compare the average of uni-modal predictions with a linear head on the same frozen features.

    The rule of Du et al. (2023, arXiv:2305.01233): encoders are trained separately, one per modality, and
    frozen. If a linear head on all their features together predicts better than the plain average
    of their predictions, combinations of modalities carry information and joint training pays off;
    otherwise the ensemble suffices. Only sites with several modalities distinguish the two. A linear
    head is additive, so an interaction between modalities changes neither score.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``.
    schema : Schema, optional
        Inferred if not given.
    network : NetworkConfig, optional
        Sizes of the branches; the fusion is always late, with one member and equal weights.
    training : TrainingConfig, optional
        Of the branches and of the head. Spatial blocks inside the training sites choose their epochs.
    validation : numpy.ndarray, optional
        Boolean per site: the sites where both are scored; default: spatial blocks. These sites do not
        train and choose no epoch.
    rng : int
        Seeds the blocks and the training.

    Returns
    -------
    xarray.Dataset
        ``auc(way, species)`` and ``mean_auc(way)`` of the ways ``"average"`` and ``"linear head"``;
        ``unimodal_auc(modality, species)``; attributes ``difference`` (linear head − average) and
        ``advice``, ``"joint training"`` or ``"ensemble"``. A difference smaller than that between
        two seeds has no meaning.

    Raises
    ------
    LabelError
        If no site is left to score.
    LabelError, MissingVariable, VariableMismatch, GridError
        As :func:`geomiam.fit`.

    See Also
    --------
    geomiam.fit : train with ``network={"fusion": "late"}``, or another fusion.

    Examples
    --------
    >>> two = sites[["bio1", "slope", "presence"]]
    >>> short = gm.TrainingConfig(epochs=2, block="50 km")
    >>> network = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=8)
    >>> table = gm.evaluation.fusion_diagnostic(two, network=network, training=short)
    >>> table["way"].values.tolist()
    ['average', 'linear head']
    """
    schema = read_schema(sites, schema)
    config = (training or TrainingConfig()).model_copy(update={"joint_epochs": 0})
    labels = read_labels(sites)[0]
    config, _ = resolve_loss(config, labels, background=has_background(sites))
    seeds = np.random.default_rng(rng)
    test = HoldOut.of(sites, validation, config).draw(labels, seeds)
    if not test.any():
        raise LabelError("no site is left to score: pass validation=<boolean per site>")
    unscored_sites = sites.isel(site=~test)
    held_out = HoldOut.of(unscored_sites, None, config).draw(labels[~test], seeds)
    late = {"fusion": "late", "members": 1, "weights": "equal", "pool": "mean", "explainer": 0}
    average = fit(
        unscored_sites,
        schema,
        network=(network or NetworkConfig()).model_copy(update=late),
        training=config,
        validation=held_out if held_out.any() else None,
        rng=rng,
        warm_start=True,
    )
    linear = _linear(
        average, unscored_sites, held_out, config=config, seed=int(seeds.integers(2**31))
    )
    return _compared(average, linear, sites.isel(site=test))


def _linear(
    average: Model, sites: xr.Dataset, held_out: np.ndarray, *, config: TrainingConfig, seed: int
) -> Model:
    """Train a linear head on the frozen branches, without dropout.

    Training starts at the average, which is one of the possible heads, so a short training does not
    make the linear head worse than the average.
    """
    rows = SiteTable.read(sites, average.schema).checked()
    (table,), scaler = make_tables(rows, held_out=[held_out], scaler=average.scaler)
    with torch_seed(seed):
        linear = Model.untrained(
            average.schema,
            scaler=scaler,
            species=average.species,
            config=average.config.model_copy(update={"dropout": 0.0}),
            link=average.link,
        )
    linear.network.load_state_dict(average.network.state_dict())
    linear.network.members.requires_grad_(False)
    run = Run(linear, linear.network, table, Constant(0.0), config, seed, Supervised())
    train(run, name="linear head")
    return linear


def _compared(average: Model, linear: Model, test: xr.Dataset) -> xr.Dataset:
    """Return the scores of both on the same sites, and the advice."""
    ensemble = evaluate(average, test, subsets="unimodal+all")["auc"]
    together = evaluate(linear, test, subsets="all")["auc"].sel(subset="all", drop=True)
    auc_by_way = [ensemble.sel(subset="all", drop=True), together]
    auc = xr.concat(auc_by_way, pd.Index(WAYS, name="way"))
    alone = ensemble.sel(subset=list(average.schema.modalities)).rename(subset="modality")
    means = auc.mean("species")
    difference = float(means.sel(way="linear head") - means.sel(way="average"))
    table = xr.Dataset({"auc": auc, "mean_auc": means, "unimodal_auc": alone})
    advice = "joint training" if difference > 0 else "ensemble"
    return table.assign_attrs(metric="auc", difference=difference, advice=advice)
