"""Training on labels: the loss of a batch, and the AUC of each modality alone and of all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.at_once import SCORED_ROWS
from geomiam.metrics import mean_auc
from geomiam.networks.network import Network
from geomiam.training.devices import Fabric, OneDevice
from geomiam.training.loop import Objective, Run
from geomiam.training.losses import Loss, make_loss, maxent_offset
from geomiam.training.observations import EPOCH_TURNS, check_loss, learned_labels, turns
from geomiam.training.table import Table


class Supervised:
    """The task of :func:`geomiam.fit`; the run's module is a network."""

    metric: ClassVar[str] = "auc"

    def objective(self, run: Run) -> Objective:
        """Return the loss, with weights from the training labels."""
        check_loss(run.model, run.config.loss)
        labels = run.table.labels[run.table.train]
        loss = make_loss(run.config.loss, labels, evenness=run.config.evenness)
        return partial(batch_loss, loss=loss, own_tokens=run.model.own_tokens)

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """Return the mean AUC of each modality alone and of all, on sites where any of it is observed."""
        labels = table.labels[table.valid].cpu().numpy()
        names = [*run.model.schema.modalities, "all"]
        values = subset_logits(run, table, table.valid)
        return {f"auc_{name}": mean_auc(labels, value) for name, value in zip(names, values)}

    @torch.inference_mode()
    def finish(self, run: Run) -> None:
        """Fold Maxent's normalisation into the head's bias, from the training background."""
        if run.config.loss == "maxent":
            network, table = run.model.network, run.table
            batches = table.train.split(SCORED_ROWS)
            logits = torch.cat([network(*table.batch(rows)[:2]) for rows in batches])
            # The loss compares sites of a batch and leaves the level of the logits free; the level is set here.
            network.head.bias.add_(maxent_offset(logits, table.labels[table.train] == 0))


def batch_loss(
    network: nn.Module,
    table: Table,
    rows: Tensor,
    *,
    hidden: Tensor,
    loss: Loss,
    fabric: Fabric,
    own_tokens: Mapping[int, list[int]] | None = None,
) -> Tensor:
    """Return the loss of a batch, of which each process computes its share; the mean over masks."""
    local_rows, labels = share(len(rows), fabric), table.labels[rows]
    values, observed, _ = table.batch(rows[local_rows])
    masks = hidden.unflatten(0, (-1, len(rows)))[:, local_rows]
    # The NaN rule of training: a token is visible if it is observed and not drawn by the masking.
    logits = network(values, (observed & ~masks).flatten(0, 1)).unflatten(0, masks.shape[:2])
    losses = []
    for z, mask in zip(logits, hidden.split(len(rows))):
        visible = table.observed[rows] & ~mask
        of_mask = learned_labels(labels, visible, own_tokens or {})
        losses.append(loss(together(z, len(rows), fabric), of_mask))
    return torch.stack(losses).mean()


def share(n: int, fabric: Fabric) -> Tensor:
    """Return the rows of a batch that this process computes; all processes have equally many."""
    size = fabric.world_size
    # Rows are repeated up to a multiple, since all_gather needs equal shapes; together() cuts them off.
    all_rows = torch.arange(-(-n // size) * size, device=fabric.device) % n
    return all_rows[fabric.global_rank :: size]


def together(logits: Tensor, n: int, fabric: Fabric) -> Tensor:
    """Return the logits of a whole batch from all processes, since a loss may depend on all rows."""
    # Gradients reach the rows of this process only; their sum over processes is that of one process.
    if isinstance(fabric, OneDevice) or fabric.world_size == 1:
        return logits
    all_logits = list(fabric.all_gather(logits.detach()))
    all_logits[fabric.global_rank] = logits
    return torch.stack(all_logits, 1).flatten(0, 1)[:n]


@torch.inference_mode()
def subset_logits(run: Run, table: Table, rows: Tensor, *, count: int = EPOCH_TURNS) -> np.ndarray:
    """Return scores ``(M + 1, n, S)`` of rows, from each modality alone and all; NaN = nothing observed.

    Observations of a species are hidden in its scores; ``count`` is that of :func:`turns`.
    """
    sizes = run.model.layout.sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    subsets = np.vstack([owner == m for m in range(len(sizes))] + [owner >= 0])
    out = np.empty((len(subsets), len(rows), len(run.model.species)), np.float32)
    for species, tokens in turns(run.model, count):
        subsets_of_turn = subsets.copy()
        subsets_of_turn[:, tokens] = False
        out[..., species] = _logits(run, table, rows, subsets_of_turn)[..., species]
    return out


def _logits(run: Run, table: Table, rows: Tensor, subsets: np.ndarray) -> np.ndarray:
    """Return scores ``(c, n, S)`` of rows from the visible tokens of each subset ``(c, t)``."""
    network, device = run.module.eval(), table.observed.device
    assert isinstance(network, Network)
    visible = torch.as_tensor(subsets, device=device)
    parts = []
    for batch in rows.split(SCORED_ROWS):
        values, observed, _ = table.batch(batch)
        view = network.view(values, observed, visible)
        all_rows, all_subsets = (torch.arange(len(x), device=device) for x in (observed, visible))
        # One view for all subsets: shared parts of the network are computed once.
        logits = network.head(view.features(all_rows, all_subsets)).unbind(1)
        # Equal inputs get equal scores to the last bit, since the AUC ranks them.
        scores = torch.stack([z[view.twins(t)] for z, t in zip(logits, visible)]).float()
        if run.model.link == "softmax":  # its logits compare species only; log-shares also sites
            scores = scores.log_softmax(-1)
        any_visible = (observed & visible[:, None, :]).any(-1, keepdim=True)
        parts.append(scores.masked_fill(~any_visible, torch.nan))
    return torch.cat(parts, 1).cpu().numpy()
