"""Train an explainer that predicts Shapley values in one pass, and measure its error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomiam.data.sites.table import read_arrays
from geomiam.errors import SelectionError
from geomiam.inference.engine import base_value, coalition_block
from geomiam.inference.shapley_block import amortised_block, group_states, shapley_block
from geomiam.inference.slabs import Scale
from geomiam.inference.terms import members
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.networks.network import Explainer, Network
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import progress_bar, with_progress
from geomiam.splits import hold_out_blocks
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.select import group_masks

COALITIONS = 64
"""Coalitions per site; up to six groups have no more than these."""
CHECKED = 256
"""Most held-out sites that are explained exactly to measure the error."""
VALUES = 2**28
"""Most values of coalitions in memory; larger data train on a sample of the sites."""
BATCH = 256


@standard_torch()
@with_progress
def fit_explainer(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    scale: Scale = "probability",
    width: int = 128,
    epochs: int = 200,
    holdout: float = 0.2,
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> Model:
    """Train a model of token fusion to predict its Shapley values in one pass.

    The model is frozen. A small network reads the summaries of the groups and learns to explain the
    predictions from many coalitions (FastSHAP, Jethani et al. 2022), at the sites as they are and with groups
    hidden at random. Its values always add up to the prediction. At sites in held-out spatial blocks they are
    compared with the exact values. ``about["explainer"]`` has the error, and so has every map.

    Parameters
    ----------
    model : Model or path
        A model of token fusion. Exact values of group fusion cost about two predictions.
    sites : xarray.Dataset
        Predictors with coordinates; labels are not needed.
    scale : {"probability", "logit"}
        Scale on which values add up to the prediction.
    width : int
        Width of the small network.
    epochs : int
        Passes over the sites.
    holdout : float
        Share of the sites that measure the error, 0 to 1.
    rng : int, numpy.random.Generator or None
        Draws held-out blocks, coalitions, hidden groups and initial weights.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        The same predictions, with an explainer for ``ShapleyOptions(method="amortised")`` of
        :func:`geomiam.shapley`.

    Raises
    ------
    SelectionError
        If the model has another fusion, or only one group.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.shapley : exact values, and those of the explainer.

    Examples
    --------
    >>> import geomiam as gm
    >>> network = gm.NetworkConfig(fusion="token", width=16, heads=2, depth=1)
    >>> training = gm.TrainingConfig(epochs=1, holdout=0, keep="last")
    >>> model = gm.fit(sites, network=network, training=training)
    >>> model = gm.explain.fit_explainer(model, sites, epochs=2)
    >>> options = gm.explain.ShapleyOptions(method="amortised")
    >>> gm.shapley(sites, model, options=options).attrs["method"]
    'amortised'
    """
    model = as_model(model)
    masks = _groups(model)
    draws = np.random.default_rng(rng)
    block = model.encode(read_arrays(sites, model.schema))
    # every block counts the same, whatever its labels
    bare = sites.drop_vars("presence", errors="ignore")
    is_test = hold_out_blocks(bare, share=holdout, rng=draws)
    has_value = block.observed.any(1)
    data = _training_data(model, block.take(~is_test & has_value), masks, scale=scale, rng=draws)
    with torch.random.fork_rng():
        torch.manual_seed(int(draws.integers(2**31)))
        explained_model = with_explainer(model, width)
        _train(explained_model.network.explainer, data, epochs=epochs, rng=draws)
    error = _error(explained_model, block.take(is_test & has_value), masks, scale=scale)
    about = {"scale": scale, "groups": list(model.schema.groups), **error}
    return replace(explained_model, about={**model.about, "explainer": about})


def _groups(model: Model) -> np.ndarray:
    if not all(f.learned_explainer for f in model.config.fusions):
        raise SelectionError(
            f"an explainer is for token fusion, this model has fusion='{model.config.fusion}': its "
            "exact values cost little, call gm.shapley(ds, model)"
        )
    if model.own_tokens:
        raise SelectionError(
            "an explainer reads all observations at once, and here observations of species are predictors, "
            "which are hidden for the species itself; call gm.shapley(ds, model) for exact values"
        )
    masks = np.stack(list(group_masks(model.layout).values()))
    if len(masks) < 2:
        raise SelectionError(
            "the model has one group, whose value is the prediction minus the base value; an "
            "explainer needs two groups or more"
        )
    return masks


@dataclass(frozen=True)
class TrainingData:
    """Inputs and targets of the explainer at n sites."""

    states: Tensor
    """``(n, G, d)``."""
    features: Tensor
    present: Tensor
    """``(n, G)``."""
    gains: Tensor
    """v(S) − v(∅) of c coalitions ``(c, n, S)``."""
    gain: Tensor
    """v(all groups) − v(∅) ``(n, S)``."""
    member: Tensor
    """``(c, G)``."""
    weight: Tensor
    """Weights ``(c,)`` of the coalitions in the regression whose solution are the Shapley values."""


def _training_data(
    model: Model, block: TokenArrays, masks: np.ndarray, *, scale: Scale, rng: np.random.Generator
) -> TrainingData:
    member, weight = _coalitions(len(masks), rng)
    row_limit = max(1, VALUES // (len(member) * len(model.species)) // 2)
    sample = block.take(rng.permutation(len(block))[:row_limit])
    rows = _doubled(sample, masks, rng)
    species = np.arange(len(model.species))
    with_full = np.concatenate([member, np.ones((1, len(masks)), bool)])
    visible = np.any(with_full[:, :, None] & masks, axis=1)
    values = coalition_block(model, rows, visible=visible, species=species, scale=scale)
    values -= base_value(model, species=species, scale=scale)
    states, features, present = _states(model, rows)
    gains = torch.as_tensor(values)
    regression = torch.as_tensor(member), torch.as_tensor(weight, dtype=torch.float32)
    return TrainingData(states, features, present, gains[:-1], gains[-1], *regression)


def _coalitions(groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coalitions without ∅ and the full one, and their weights.

    Up to :data:`COALITIONS` all are returned. Beyond, pairs of S and its complement are drawn by the kernel
    weights of Shapley values (Lundberg and Lee 2017).
    """
    sizes = np.arange(1, groups)
    # Kernel SHAP (Lundberg and Lee 2017, theorem 2): (G − 1) / [C(G, s) s (G − s)] for |S| = s. Least
    # squares with these weights give the Shapley values.
    kernel = np.array([(groups - 1) / (comb(groups, int(k)) * k * (groups - k)) for k in sizes])
    if 2**groups <= COALITIONS:
        member = members(groups)[1:-1]
        return member, kernel[member.sum(1) - 1]
    # C(G, s) coalitions have the size s.
    mass = kernel * np.array([comb(groups, int(k)) for k in sizes])
    size = rng.choice(sizes, COALITIONS // 2, p=mass / mass.sum())
    member_half = rng.random((len(size), groups)).argsort(1) < size[:, None]
    # Drawn by their weight, coalitions count the same in the loss; complements reduce its variance.
    return np.concatenate([member_half, ~member_half]), np.ones(COALITIONS)


def _doubled(block: TokenArrays, masks: np.ndarray, rng: np.random.Generator) -> TokenArrays:
    """Return the rows, and again with groups hidden at random, since cells of maps lack groups too."""
    # One uniform share per row: rows with few and with many groups are equally frequent.
    is_hidden = rng.random((len(block), len(masks))) < rng.random((len(block), 1))
    # One group per row stays, so that there is something to explain.
    is_hidden[np.arange(len(block)), rng.integers(len(masks), size=len(block))] = False
    observed = block.observed & ~np.any(is_hidden[:, :, None] & masks, axis=1)
    values = tuple(np.concatenate([v, v]) for v in block.values)
    return TokenArrays(values, np.concatenate([block.observed, observed]))


@torch.inference_mode()
def _states(model: Model, block: TokenArrays) -> tuple[Tensor, Tensor, Tensor]:
    network, parts = model.network.eval(), []
    all_tokens = torch.ones(1, model.layout.size, dtype=torch.bool, device=model.device)
    for rows in np.array_split(np.arange(len(block)), max(1, len(block) // BATCH)):
        values = [torch.as_tensor(v[rows], device=model.device) for v in block.values]
        observed = torch.as_tensor(block.observed[rows], device=model.device)
        view = network.view(values, observed, all_tokens)
        parts.append(group_states(model, view, torch.arange(len(rows), device=model.device)))
    states, features, present = (torch.cat(part).cpu() for part in zip(*parts))
    return states.clone(), features.clone(), present.clone()  # for gradients, out of inference mode


def with_explainer(model: Model, width: int) -> Model:
    """Return the same model with an untrained explainer."""
    config = model.config.model_copy(update={"explainer": width})
    classes = {k: len(v) for k, v in model.scaler.classes.items()}
    network = Network(
        config,
        layout=model.layout,
        classes=classes,
        species=len(model.species),
        backbones=model.network.backbones,
    )
    weights = model.network.state_dict()
    kept_weights = {k: v for k, v in weights.items() if not k.startswith("explainer.")}
    network.load_state_dict(kept_weights, strict=False)
    return replace(model, config=config, network=network.to(model.device).eval())


def _train(
    explainer: Explainer | None, data: TrainingData, *, epochs: int, rng: np.random.Generator
) -> None:
    assert explainer is not None
    explainer.cpu().train()
    steps = -(-len(data.states) // BATCH)
    optimizer = torch.optim.AdamW(explainer.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=epochs * steps
    )
    for _ in progress_bar(range(epochs), desc="explainer", unit="epoch", leave=False):
        for rows in torch.as_tensor(rng.permutation(len(data.states))).split(BATCH):
            optimizer.zero_grad()
            _loss(explainer, data, rows).backward()
            optimizer.step()
            schedule.step()
    explainer.eval()


def _loss(explainer: Explainer, data: TrainingData, rows: Tensor) -> Tensor:
    """Return the weighted mean square of v(S) − v(∅) − Σ φ, divided by the variance of each species' gain."""
    inputs = (data.states[rows], data.features[rows], data.present[rows], data.gain[rows])
    values = explainer(*inputs)  # (r, G, S)
    sums = torch.einsum("cg,rgs->crs", data.member.float(), values)
    # In units of the deviation of each species, so that rare species with small gains count too.
    difference = (sums - data.gains[:, rows]) / data.gain.std(0).clamp(min=1e-6)
    return (data.weight[:, None, None] * difference**2).mean()


def _error(model: Model, block: TokenArrays, masks: np.ndarray, *, scale: Scale) -> dict[str, Any]:
    """Return the error of predicted values against exact ones, on rows that were not trained on."""
    sample = block.take(np.arange(min(len(block), CHECKED)))
    species = np.arange(len(model.species))
    visible = np.ones(model.layout.size, bool)
    exact = shapley_block(model, sample, groups=masks, species=species, scale=scale).terms
    predicted_values, _ = amortised_block(
        model, sample, visible=visible, species=species, scale=scale
    )
    difference = predicted_values - exact
    spread = float((exact - exact.mean((0, 2), keepdims=True)).std()) or 1.0
    return {
        "sites": len(sample),
        "mean_absolute_error": float(np.abs(difference).mean()),
        "mean_absolute_value": float(np.abs(exact).mean()),
        "explained_variance": 1 - float(difference.std() / spread) ** 2,
    }
