"""Linear probing: a linear head on the features of a frozen network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr

from geomiam.at_once import SCORED_ROWS
from geomiam.checks.settings import check_number
from geomiam.data.sites.table import SiteTable, check_classes
from geomiam.errors import SelectionError
from geomiam.labels import as_table
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.networks.torch_defaults import standard_torch
from geomiam.schema.schema import refuse_observations
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.scaler import with_limits
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import torch_seed
from geomiam.training.losses import resolve_loss
from geomiam.training.provenance import fingerprint, place_and_time
from geomiam.training.warm_start import load_body, start_config


@standard_torch()
def probe(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    l2: float = 1e-2,
    loss: Literal["auto", "bce", "weighted-bce"] = "auto",
) -> Model:
    """Fit a linear head on the features of a frozen network.

    One logistic regression per species (scikit-learn): the mean of w_i log(1 + exp(∓z_i)) over the
    surveyed sites plus half of ``l2`` times the sum of squared weights. The weights w_i follow
    ``loss``, as in :func:`geomiam.fit`. The solution is unique, so there is no random state and no
    choice of an epoch. The head is fitted to the predictors that each site has; it was not trained for
    features of fewer predictors.

    Parameters
    ----------
    model : Model or path
        From :func:`geomiam.pretrain`, or any other model. It is not changed, and its head is not used.
    sites : xarray.Dataset
        The model's predictors ``(site, *own dims)`` and labels ``presence(site, species)``; NaN =
        missing or not surveyed. All sites are used.
    l2 : float
        Strength of the penalty, > 0.
    loss : {"auto", "bce", "weighted-bce"}
        ``"bce"``: every site has weight 1, so predictions are probabilities; ``"weighted-bce"``:
        presences and absences of a species have equal total weight; ``"auto"``: the first for a
        complete survey, otherwise the second.

    Returns
    -------
    Model
        With the species of the sites and the link ``"logit"``. A species with one class only gets
        the log-odds of (presences + ½) : (absences + ½) everywhere.

    Raises
    ------
    LabelError, MissingVariable, VariableMismatch
        If labels or predictors cannot be used.
    SelectionError
        If the model has several members, or there is no such loss.

    See Also
    --------
    geomiam.pretrain : train the encoder.
    geomiam.finetune : train the other weights, too.

    Examples
    --------
    >>> probe = gm.evaluation.probe(model, sites)
    >>> probe.species == model.species
    True
    """
    model = as_model(model)
    _check(model, l2=l2, loss=loss)
    refuse_observations(model.schema, "a probe reads")
    table = SiteTable.read(sites, model.schema).checked()
    labels, species = as_table(table.labels), table.species
    check_classes(labels, species)
    config, reason = resolve_loss(
        TrainingConfig(loss=loss), labels, background=table.has_background
    )
    weights = "balanced" if config.loss == "weighted-bce" else None
    scaler = with_limits(model.scaler, table.arrays, model.schema)
    with torch_seed(0):
        new_model = Model.untrained(
            model.schema, scaler=scaler, species=species, config=start_config(model)
        )
    load_body(new_model.network, model.network)
    x = features(new_model, new_model.encode(table.arrays))
    heads = [
        _regress(x[is_surveyed], y[is_surveyed], l2=l2, weights=weights)
        for y, is_surveyed in zip(labels.T, ~np.isnan(labels.T))
    ]
    weight, bias = (torch.as_tensor(np.array(v), dtype=torch.float32) for v in zip(*heads))
    new_model.network.head.load_state_dict({"weight": weight, "bias": bias})
    new_model.network.eval()
    new_model.about.update(
        probe={"of": model.id, "l2": l2},
        loss={"name": config.loss, "reason": reason},
        sites={"train": len(x), "validation": 0},
        presences=dict(zip(species, (labels == 1).sum(0).tolist())),
        fingerprint=fingerprint(sites),
        **place_and_time(sites),
    )
    return new_model


def _check(model: Model, *, l2: float, loss: str) -> None:
    if loss not in ("auto", "bce", "weighted-bce"):
        raise SelectionError(f"loss={loss!r}; a probe has 'auto', 'bce' and 'weighted-bce'")
    if model.config.members > 1:
        raise SelectionError(
            f"a probe reads the features of one network, found members={model.config.members}: "
            "pre-train with members=1"
        )
    check_number(
        "l2",
        l2,
        requirement="must be > 0",
        accepts=lambda x: x > 0,
        hint="a small one such as 1e-6 hardly counts",
    )


@torch.inference_mode()
def features(model: Model, block: TokenArrays) -> np.ndarray:
    """Return the features of sites ``(n, d)``, with all observed tokens visible."""
    network = model.network.eval()
    tensors = [torch.as_tensor(v, device=model.device) for v in (*block.values, block.observed)]
    batches = []
    for start in range(0, len(block), SCORED_ROWS):
        *values, observed = (v[start : start + SCORED_ROWS] for v in tensors)
        batches.append(network.features(network.tokens(values, observed), observed).cpu().numpy())
    return np.concatenate(batches)


def _regress(
    x: np.ndarray, y: np.ndarray, *, l2: float, weights: str | None
) -> tuple[np.ndarray, float]:
    """Return weights ``(d,)`` and intercept of one species."""
    from sklearn.linear_model import LogisticRegression

    present = int((y == 1).sum())
    if present in (0, len(y)):
        return np.zeros(x.shape[1]), float(np.log((present + 0.5) / (len(y) - present + 0.5)))
    line = LogisticRegression(C=1 / (l2 * len(y)), class_weight=weights, max_iter=1000)
    line.fit(x.astype(np.float64), y.astype(int))
    return line.coef_[0], float(line.intercept_[0])
