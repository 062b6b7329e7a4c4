"""The load of experts: shares of tokens by pattern of available modalities."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from geomiam.at_once import SCORED_ROWS
from geomiam.data.sites.table import read_arrays
from geomiam.errors import SelectionError
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.networks.extras.experts import Experts
from geomiam.networks.network import Network
from geomiam.tokens.encode import TokenArrays


def expert_load(model: Model | str | Path, sites: xr.Dataset) -> xr.Dataset:
    """Return the share of tokens that each expert takes, for each transformer layer.

    MAESTRO (Mohapatra et al. 2025) expects experts to specialise in patterns of available modalities. This
    table shows whether they do.

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
        ``share(pattern, block, expert)``: share of the observed tokens of all sites with this pattern that
        the expert takes; the sum over experts is ``top_experts``. ``sites(pattern)`` and
        ``tokens(pattern)``: number of sites and of observed tokens. ``pattern`` lists the modalities with
        an observed value, such as ``climate+soil``; the pattern of most sites is first. ``block`` is the
        number of the ensemble member and the position of the transformer layer.

    Raises
    ------
    SelectionError
        If the model has no experts, or no site has anything observed.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.NetworkConfig : the settings of experts.

    Examples
    --------
    >>> import geomiam as gm
    >>> network = gm.NetworkConfig(fusion="token", width=16, heads=2, depth=1, experts=2)
    >>> training = gm.TrainingConfig(epochs=1, holdout=0, keep="last")
    >>> load = gm.explain.expert_load(gm.fit(sites, network=network, training=training), sites)
    >>> bool(np.allclose(load["share"].sum("expert"), network.top_experts))
    True
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
    loads = [_loads(network, experts, block, rows_of, model.device) for rows_of in rows.values()]
    tokens = np.array([int(block.observed[rows_of].sum()) for rows_of in rows.values()])
    share = np.stack(loads) / tokens[:, None, None]
    return xr.Dataset(
        {
            "share": (("pattern", "block", "expert"), share),
            "sites": ("pattern", [len(rows_of) for rows_of in rows.values()]),
            "tokens": ("pattern", tokens),
        },
        coords={
            "pattern": list(rows),
            "block": list(experts),
            "expert": np.arange(share.shape[-1]),
        },
        attrs={"top_experts": model.config.top_experts, "model_id": model.id},
    )


def _by_pattern(model: Model, block: TokenArrays) -> dict[str, np.ndarray]:
    """Return the rows of each pattern of observed modalities, the most frequent pattern first."""
    starts = np.concatenate([[0], model.layout.sizes.cumsum()[:-1]])
    available = np.bitwise_or.reduceat(block.observed, starts, axis=1)
    patterns, position = np.unique(available, axis=0, return_inverse=True)
    names = np.array(list(model.schema.modalities))
    rows = {
        "+".join(names[pattern]): np.flatnonzero(position.ravel() == i)
        for i, pattern in enumerate(patterns)
        if pattern.any()
    }
    return dict(sorted(rows.items(), key=lambda item: -len(item[1])))


@torch.inference_mode()
def _loads(
    network: Network,
    experts: Mapping[str, Experts],
    block: TokenArrays,
    rows: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """Return the number of tokens that each expert of each transformer layer takes ``(b, E)``."""
    loads = [e.start_counting() for e in experts.values()]
    for start in range(0, len(rows), SCORED_ROWS):
        part = rows[start : start + SCORED_ROWS]
        values = [torch.as_tensor(v[part], device=device) for v in block.values]
        network(values, torch.as_tensor(block.observed[part], device=device))
    return np.stack([load.cpu().numpy() for load in loads])


def _label(name: str) -> str:
    """Return ``0.inner.1`` for ``members.0.fusion.inner.1.experts``."""
    return name.removeprefix("members.").removesuffix(".experts").replace(".fusion.", ".")
