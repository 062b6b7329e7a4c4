"""Pre-training of an encoder on predictors without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.infer import read_schema
from geomiam.data.sites.draw import random_cells
from geomiam.data.sites.table import SiteTable
from geomiam.errors import SchemaError
from geomiam.geo.dims import SITE
from geomiam.masking import MIAM, Strategy, to_dict
from geomiam.masking.registry import as_strategy
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.torch_defaults import standard_torch
from geomiam.on_disk import in_parts
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, torch_seed, train
from geomiam.training.provenance import place_and_time, site_counts
from geomiam.training.reconstruction import Reconstructing, Reconstruction, Targets
from geomiam.training.rule import changed
from geomiam.training.table import HoldOut, make_tables


@standard_torch()
@with_progress
def pretrain(
    data: xr.Dataset | xr.DataTree,
    schema: Schema | str | Path | None = None,
    *,
    masking: Strategy | str | None = None,
    network: NetworkConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    validation: np.ndarray | None = None,
    checkpoint: str | Path | None = None,
    rng: int | np.random.Generator | None = 0,
    n: int | None = 10_000,
    progress: bool | None = None,
) -> Model:
    """Train an encoder without labels: hidden tokens are predicted from the visible ones.

    Each batch hides tokens, and the network learns to predict the values of hidden tokens that are
    observed. Errors are in shares of each variable's variance (angles: of cosine and sine; classes:
    cross-entropy in shares of their entropy), averaged over tokens inside a modality and then over
    modalities. This follows the self-supervised variant of MIAM (Zbinden et al., ICLR 2026), which
    reconstructs all modalities as MultiMAE does (Bachmann et al. 2022). The decoder, the
    weights of the loss and the score below are choices of geomiam: the paper states only that
    reconstruction takes the place of skill.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataTree
        Sites ``(site, *own dims)``, whose labels are not read, or a cube ``(y, x, *own dims)``;
        NaN = missing.
    schema : Schema or path, optional
        As for :func:`geomiam.fit`.
    masking : Strategy or str, optional
        Default: ``MIAM(kappa=10, lam=1)``. The scores that it follows are, for each modality, the
        mean R² of all other modalities' tokens with that modality alone visible: 1 − error / error
        of the training means. With one modality, half of its tokens predict the other half.
    network : NetworkConfig or mapping, optional
        Settings, or a mapping that changes single ones; of one member. :func:`geomiam.fit` can start
        several members from it.
    training : TrainingConfig or mapping, optional
        Settings, or a mapping that changes single ones. The loss is not used.
    validation : numpy.ndarray, optional
        Boolean ``(n,)``: these sites are scored and do not train, in place of spatial blocks. For sites,
        not for cubes.
    checkpoint : str or pathlib.Path, optional
        As for :func:`geomiam.fit`.
    rng : int, numpy.random.Generator or None
        Equal seed, data and settings give an equal model on the same machine.
    n : int or None
        Number of cells of a cube, drawn evenly over the area among those with a predictor observed;
        None for all. They are held in memory.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        Without species: the start of ``gm.fit(sites, warm_start=model)`` and of
        ``gm.evaluation.probe(model, sites)``. Its weights are those of the epoch with the highest mean of the
        R² of each modality alone and of ``r2_all``, the mean R² of each modality predicted from all others.

    Raises
    ------
    SchemaError
        If there is only one token, or the network has several members.
    MissingVariable, VariableMismatch, GridError, LabelError
        If predictors cannot be used, or no block can be held out.

    See Also
    --------
    geomiam.evaluation.probe : fit a linear head on the encoder.
    geomiam.fit : train all weights, with ``warm_start=encoder``.

    Examples
    --------
    >>> network = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=8)
    >>> encoder = gm.pretrain(cube, schema, network=network, training={"epochs": 2}, n=100)
    >>> encoder.species
    ()
    """
    masking = as_strategy(masking, default=MIAM())
    config, network = changed(TrainingConfig(), training), changed(NetworkConfig(), network)
    seeds = np.random.default_rng(rng)
    sites = as_dataset(data)
    schema = read_schema(sites, schema)
    cells_rng = seeds.spawn(1)[0]
    if SITE not in sites.dims:
        sites = random_cells(sites[list(schema.variables)], n=n, rng=cells_rng)[0]
    layout = Layout.of(schema)
    _check_encoder(layout, network)
    predictors = SiteTable.read(sites, schema, include_labels=False).checked()
    held_out = HoldOut.of(sites, validation, config)
    mask = held_out.draw(_observed_modalities(predictors.arrays, schema), seeds)
    seed = int(seeds.integers(2**31))
    (table,), scaler = make_tables(predictors, held_out=[mask])
    with torch_seed(seed):
        plain = network.model_copy(update={"explainer": 0})
        model = Model.untrained(schema, scaler=scaler, species=(), config=plain)
        targets = Targets.of(layout, table, {k: len(v) for k, v in scaler.classes.items()})
        module = Reconstruction(model.network, first=targets.constant)
    run = Run(model, module, table, masking, config, seed, Reconstructing(targets))
    end = train(run, Path(checkpoint) if checkpoint else None, name="pre-training")
    best = end.history[end.best_epoch]
    model.about.update(
        {
            "masking": to_dict(run.masking),
            "training": run.config.model_dump(),
            "seeds": [run.seed],
            "sites": site_counts(run),
            "best_epochs": [end.best_epoch],
            "validation_r2": {k[3:]: v for k, v in best.items() if k.startswith("r2_")},
            "history": end.history,
            **place_and_time(sites),
            **held_out.about(),
        }
    )
    return model


def _check_encoder(layout: Layout, network: NetworkConfig) -> None:
    if layout.size < 2:
        raise SchemaError(
            f"there is one token only ({layout.names[0]}), and no other to predict it from: add variables"
        )
    if network.backbones:
        raise SchemaError("pretrain takes no backbones: pass them to gm.fit")
    if network.members > 1:
        raise SchemaError(
            f"an encoder has one member, found members={network.members}: pre-train with members=1; "
            "gm.fit(sites, network=..., warm_start=model) starts every member from it"
        )


def _observed_modalities(arrays: dict[str, np.ndarray], schema: Schema) -> np.ndarray:
    """Return which modalities have a value at each site ``(n, M)``, 1 or 0, to balance the blocks."""
    has = {
        k: np.concatenate([np.isfinite(x).reshape(len(x), -1).any(1) for x in in_parts(a)])
        for k, a in arrays.items()
    }
    by_modality = [np.any([has[v] for v in m.variables], 0) for m in schema.modalities.values()]
    return np.stack(by_modality, 1).astype(np.float32)
