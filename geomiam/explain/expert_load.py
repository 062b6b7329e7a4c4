"""Which experts take the tokens of which sites."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomiam.data.sites.table import read_arrays
from geomiam.errors import SelectionError
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.networks.extras.experts import Experts
from geomiam.networks.network import Network
from geomiam.tokens.blocks import Block

ROWS_AT_ONCE = 512
"""Sites that go through the network at a time."""


def expert_load(model: Model | str | Path, sites: xr.Dataset) -> xr.Dataset:
    """Return how the tokens of sites are shared among the experts of each block.

    MAESTRO (Mohapatra et al. 2025) expects experts to specialise in what is available; this is the
    table to see it by.

    Parameters
    ----------
    model : Model or path
        With experts: ``NetworkConfig(experts=...)``.
    sites : xarray.Dataset
        Predictors ``(site, *own dims)``; no labels are needed. Sites with nothing observed are left
        out.

    Returns
    -------
    xarray.Dataset
        ``share(pattern, block, expert)``: of the observed tokens of all sites with this pattern, the
        share that the expert takes; over experts it adds up to ``top_experts``. ``sites(pattern)``
        and ``tokens(pattern)``: how many sites, and observed tokens, there are. ``pattern`` names
        the modalities of which something is observed, such as ``climate+soil``, the one of most sites
        first; ``block`` is the member's number and the block's place in it.

    Raises
    ------
    SelectionError
        If the model has no experts, or no site has anything observed.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.
    """
    model = as_model(model)
    network = copy.deepcopy(model.network).eval()
    experts = {_label(n): m for n, m in network.named_modules() if isinstance(m, Experts)}
    if not experts:
        raise SelectionError(
            "the model has no experts; train one with gm.fit(sites, network="
            "gm.NetworkConfig(fusion='token', experts=4))"
        )
    block = model.encode(read_arrays(sites, model.schema))
    rows = _by_pattern(model, block)
    if not rows:
        raise SelectionError("no site has an observed predictor, so no token reaches an expert")
    loads = [_loads(network, experts, block, own, model.device) for own in rows.values()]
    tokens = np.array([int(block.observed[own].sum()) for own in rows.values()])
    share = np.stack(loads) / tokens[:, None, None]
    return xr.Dataset(
        {
            "share": (("pattern", "block", "expert"), share),
            "sites": ("pattern", [len(own) for own in rows.values()]),
            "tokens": ("pattern", tokens),
        },
        coords={
            "pattern": list(rows),
            "block": list(experts),
            "expert": np.arange(share.shape[-1]),
        },
        attrs={"top_experts": model.config.top_experts, "model_id": model.id},
    )


def _by_pattern(model: Model, block: Block) -> dict[str, np.ndarray]:
    """Rows of each pattern of modalities that have something; the most frequent first."""
    starts = np.concatenate([[0], model.layout.sizes.cumsum()[:-1]])
    available = np.bitwise_or.reduceat(block.observed, starts, axis=1)
    patterns, which = np.unique(available, axis=0, return_inverse=True)
    names = np.array(list(model.schema.modalities))
    rows = {
        "+".join(names[pattern]): np.flatnonzero(which.ravel() == i)
        for i, pattern in enumerate(patterns)
        if pattern.any()
    }
    return dict(sorted(rows.items(), key=lambda item: -len(item[1])))


@torch.inference_mode()
def _loads(
    network: Network,
    experts: Mapping[str, Experts],
    block: Block,
    rows: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """Tokens of rows that each expert of each block takes ``(b, E)``."""
    loads = [e.start_counting() for e in experts.values()]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        own = rows[start : start + ROWS_AT_ONCE]

        def sent(x: np.ndarray, own: np.ndarray = own) -> Tensor:
            return torch.as_tensor(x[own], device=device)

        network([sent(v) for v in block.values], sent(block.observed))
    return np.stack([load.cpu().numpy() for load in loads])


def _label(name: str) -> str:
    """``members.0.fusion.inner.1.experts`` → ``0.inner.1``."""
    return name.removeprefix("members.").removesuffix(".experts").replace(".fusion.", ".")
