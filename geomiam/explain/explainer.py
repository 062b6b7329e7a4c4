"""Amortised explanations: one pass that tells Shapley values, and how far it is from the exact ones."""

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
from geomiam.inference.coalitions import members
from geomiam.inference.engine import (
    Scale,
    amortised_block,
    base_value,
    coalition_block,
    group_states,
    shapley_block,
)
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.networks.explainer import Explainer
from geomiam.networks.network import Network
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import progress_bar, with_progress
from geomiam.splits import hold_out_blocks
from geomiam.tokens.blocks import Block
from geomiam.tokens.select import group_masks

COALITIONS = 64
"""Asked of each site; for up to six groups these are all."""
CHECKED = 256
"""Held-out sites that are explained exactly, at most, to tell the error."""
VALUES = 2**28
"""Values of coalitions in memory, at most; beyond, fewer sites are learned from."""
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

    The model is frozen. A small network learns, from what the model has made of each group, to
    explain its answers from many coalitions (FastSHAP, Jethani et al. 2022), at sites as they are and
    with groups hidden at random; its values always add up to the prediction. On sites in blocks of
    their own they are compared with the exact ones: ``about["explainer"]`` has the error, and so
    has every map.

    Parameters
    ----------
    model : Model or path
        Of token fusion; group fusion explains itself exactly at the price of two predictions.
    sites : xarray.Dataset
        With coordinates; labels are not needed.
    scale : {"probability", "logit"}
        On which values add up.
    width : int
        Of the small network.
    epochs : int
    holdout : float
        Share of the sites on which the error is measured.
    rng : int, numpy.random.Generator or None
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        With the same predictions, and ``gm.shapley(ds, model, method="amortised")``.

    Raises
    ------
    SelectionError
        If the model has another fusion, or one group only.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.
    """
    model = as_model(model)
    masks = _groups(model)
    draws = np.random.default_rng(rng)
    block = model.encode(read_arrays(sites, model.schema))
    held = _held(sites, holdout, draws)
    seen = block.observed.any(1)
    task = _lessons(model, _rows(block, ~held & seen), masks, scale=scale, rng=draws)
    with torch.random.fork_rng():
        torch.manual_seed(int(draws.integers(2**31)))
        made = with_explainer(model, width)
        _train(made.network.explainer, task, epochs=epochs, rng=draws)
    known = _error(made, _rows(block, held & seen), masks, scale=scale)
    about = {"scale": scale, "groups": list(model.schema.groups), **known}
    return replace(made, about={**model.about, "explainer": about})


def _groups(model: Model) -> np.ndarray:
    if not all(f.learned_explainer for f in model.config.fusions):
        raise SelectionError(
            f"an explainer is for token fusion, this model has fusion='{model.config.fusion}': its "
            "exact values cost little, call gm.shapley(ds, model)"
        )
    masks = np.stack(list(group_masks(model.layout).values()))
    if len(masks) < 2:
        raise SelectionError("one group alone has the whole gain: nothing is to be learned")
    return masks


def _rows(block: Block, rows: np.ndarray) -> Block:
    return Block(tuple(v[rows] for v in block.values), block.observed[rows])


def _held(sites: xr.Dataset, share: float, rng: np.random.Generator) -> np.ndarray:
    """Sites ``(n,)`` in spatial blocks that are kept for the error."""
    bare = sites.drop_vars("presence", errors="ignore")
    return hold_out_blocks(bare, share=share, rng=rng)


@dataclass(frozen=True)
class Lessons:
    """What the small network learns from: of n sites, what the frozen one makes and answers."""

    states: Tensor
    """``(n, G, d)``."""
    features: Tensor
    present: Tensor
    """``(n, G)``."""
    gains: Tensor
    """v(S) − v(∅) of c coalitions ``(c, n, S)``."""
    gain: Tensor
    """v(all) − v(∅) ``(n, S)``."""
    member: Tensor
    """``(c, G)``."""
    weight: Tensor
    """Of each coalition in the regression whose solution Shapley values are ``(c,)``."""


def _lessons(
    model: Model, block: Block, masks: np.ndarray, *, scale: Scale, rng: np.random.Generator
) -> Lessons:
    member, weight = _asked(len(masks), rng)
    most = max(1, VALUES // (len(member) * len(model.species)) // 2)
    some = _rows(block, rng.permutation(len(block))[:most])
    both = _joined(some, _hidden(some, masks, rng))
    every = np.arange(len(model.species))
    asked = np.concatenate([member, np.ones((1, len(masks)), bool)])
    visible = np.any(asked[:, :, None] & masks, axis=1)
    values = coalition_block(model, both, visible=visible, species=every, scale=scale)
    values -= base_value(model, species=every, scale=scale)
    states, features, present = _states(model, both)
    gains = torch.as_tensor(values)
    facts = torch.as_tensor(member), torch.as_tensor(weight, dtype=torch.float32)
    return Lessons(states, features, present, gains[:-1], gains[-1], *facts)


def _asked(groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions but ∅ and all, and their weights: all, or drawn by weight in pairs S, not S."""
    sizes = np.arange(1, groups)
    kernel = np.array([(groups - 1) / (comb(groups, int(k)) * k * (groups - k)) for k in sizes])
    if 2**groups <= COALITIONS:
        every = members(groups)[1:-1]
        return every, kernel[every.sum(1) - 1]
    mass = kernel * np.array([comb(groups, int(k)) for k in sizes])
    size = rng.choice(sizes, COALITIONS // 2, p=mass / mass.sum())
    drawn = rng.random((len(size), groups)).argsort(1) < size[:, None]
    return np.concatenate([drawn, ~drawn]), np.ones(COALITIONS)


def _hidden(block: Block, masks: np.ndarray, rng: np.random.Generator) -> Block:
    """The same rows with groups hidden at random, as maps may lack them."""
    gone = rng.random((len(block), len(masks))) < rng.random((len(block), 1))
    gone[np.arange(len(block)), rng.integers(len(masks), size=len(block))] = False
    return Block(block.values, block.observed & ~np.any(gone[:, :, None] & masks, axis=1))


def _joined(a: Block, b: Block) -> Block:
    values = (np.concatenate(pair) for pair in zip(a.values, b.values))
    return Block(tuple(values), np.concatenate([a.observed, b.observed]))


@torch.inference_mode()
def _states(model: Model, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    network, found = model.network.eval(), []
    everything = torch.ones(1, model.layout.size, dtype=torch.bool, device=model.device)
    for rows in np.array_split(np.arange(len(block)), max(1, len(block) // BATCH)):
        values = [torch.as_tensor(v[rows], device=model.device) for v in block.values]
        observed = torch.as_tensor(block.observed[rows], device=model.device)
        view = network.view(values, observed, everything)
        found.append(group_states(model, view, torch.arange(len(rows), device=model.device)))
    states, features, present = (torch.cat(part).cpu() for part in zip(*found))
    return states.clone(), features.clone(), present.clone()  # for gradients, out of inference mode


def with_explainer(model: Model, width: int) -> Model:
    """The same model with an explainer that knows nothing yet."""
    config = model.config.model_copy(update={"explainer": width})
    classes = {k: len(v) for k, v in model.scaler.classes.items()}
    network = Network(
        config,
        layout=model.layout,
        classes=classes,
        species=len(model.species),
        backbones=model.network.backbones,
    )
    known = {k: v for k, v in model.network.state_dict().items() if not k.startswith("explainer.")}
    network.load_state_dict(known, strict=False)
    return replace(model, config=config, network=network.to(model.device).eval())


def _train(
    explainer: Explainer | None, task: Lessons, *, epochs: int, rng: np.random.Generator
) -> None:
    assert explainer is not None
    explainer.cpu().train()
    steps = -(-len(task.states) // BATCH)
    best = torch.optim.AdamW(explainer.parameters(), lr=2e-3, weight_decay=1e-4)
    slower = torch.optim.lr_scheduler.OneCycleLR(best, max_lr=2e-3, total_steps=epochs * steps)
    for _ in progress_bar(range(epochs), desc="explainer", unit="epoch", leave=False):
        for rows in torch.as_tensor(rng.permutation(len(task.states))).split(BATCH):
            best.zero_grad()
            _loss(explainer, task, rows).backward()
            best.step()
            slower.step()
    explainer.eval()


def _loss(explainer: Explainer, task: Lessons, rows: Tensor) -> Tensor:
    """Weighted squares of v(S) − v(∅) − Σ φ over coalitions, in variances of the species' gain."""
    inputs = (task.states[rows], task.features[rows], task.present[rows], task.gain[rows])
    values = explainer(*inputs)  # (r, G, S)
    told = torch.einsum("cg,rgs->crs", task.member.float(), values)
    off = (told - task.gains[:, rows]) / task.gain.std(0).clamp(min=1e-6)
    return (task.weight[:, None, None] * off**2).mean()


def _error(model: Model, block: Block, masks: np.ndarray, *, scale: Scale) -> dict[str, Any]:
    """How far told values are from exact ones, on rows that were not learned from."""
    some = _rows(block, np.arange(min(len(block), CHECKED)))
    every = np.arange(len(model.species))
    visible = np.ones(model.layout.size, bool)
    exact, _, _ = shapley_block(model, some, groups=masks, species=every, scale=scale)
    told, _ = amortised_block(model, some, visible=visible, species=every, scale=scale)
    off = told - exact
    spread = float((exact - exact.mean((0, 2), keepdims=True)).std()) or 1.0
    return {
        "sites": len(some),
        "mean_absolute_error": float(np.abs(off).mean()),
        "mean_absolute_value": float(np.abs(exact).mean()),
        "explained_variance": 1 - float(off.std() / spread) ** 2,
    }
