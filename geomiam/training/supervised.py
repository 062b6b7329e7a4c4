"""Learning from labels: the loss of a batch, and the AUC of each modality alone and of all."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from geomiam.metrics import mean_auc
from geomiam.networks.network import Network
from geomiam.training.devices import Fabric
from geomiam.training.loop import Objective, Run
from geomiam.training.losses import Loss, make_loss, maxent_offset
from geomiam.training.table import Table


class Supervised:
    """The task of :func:`geomiam.fit`; the run's module is a network."""

    metric: ClassVar[str] = "auc"

    def objective(self, run: Run) -> Objective:
        """Return the loss, with what it takes from the training labels."""
        labels = run.table.labels[run.table.train]
        loss = make_loss(run.config.loss, labels, evenness=run.config.evenness)
        return partial(batch_loss, loss=loss)

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """Mean AUC with each modality alone and with all, where any of it is observed."""
        return validate(run, table)

    def finish(self, run: Run) -> None:
        """Give Maxent's logits their level."""
        if run.config.loss == "maxent":
            _set_level(run)


def batch_loss(
    network, table: Table, rows: Tensor, *, hidden: Tensor, loss: Loss, fabric: Fabric
) -> Tensor:
    """Loss of a batch, of which each process computes its share."""
    mine = share(len(rows), fabric)
    values, observed, _ = table.batch(rows[mine])
    logits = network(values, observed & ~hidden[mine])
    return loss(together(logits, len(rows), fabric), table.labels[rows])


def share(n: int, fabric: Fabric) -> Tensor:
    """Which rows of a batch this process computes; all compute equally many."""
    size = fabric.world_size
    every = torch.arange(-(-n // size) * size, device=fabric.device) % n
    return every[fabric.global_rank :: size]


def together(logits: Tensor, n: int, fabric: Fabric) -> Tensor:
    """Logits of a whole batch from all processes, so that no loss need be a sum over rows.

    Gradients flow into one's own rows only; added up over processes they are those of one process.
    """
    if fabric.world_size == 1:
        return logits
    every = list(fabric.all_gather(logits.detach()))
    every[fabric.global_rank] = logits
    return torch.stack(every, 1).flatten(0, 1)[:n]


def validate(run: Run, table: Table) -> dict[str, float]:
    """Mean AUC with each modality alone and with all, where any of it is observed."""
    labels = table.labels[table.valid].cpu().numpy()
    values = subset_logits(run, table, table.valid)
    names = [*run.model.schema.modalities, "all"]
    return {f"auc_{name}": mean_auc(labels, value) for name, value in zip(names, values)}


@torch.inference_mode()
def subset_logits(run: Run, table: Table, rows: Tensor) -> np.ndarray:
    """Scores ``(M + 1, n, S)`` of rows, with each modality alone and with all; NaN = nothing seen."""
    network, layout = run.module.eval(), run.model.layout
    assert isinstance(network, Network)
    owner = np.repeat(np.arange(len(layout.sizes)), layout.sizes)
    subsets = np.vstack([owner == m for m in range(len(layout.sizes))] + [owner >= 0])
    shown = torch.as_tensor(subsets, device=table.observed.device)
    scores = [_subset_scores(run, network, table, some, shown) for some in rows.split(512)]
    return torch.cat(scores, 1).cpu().numpy()


def _subset_scores(run: Run, network: Network, table: Table, rows: Tensor, shown: Tensor) -> Tensor:
    """Scores ``(subsets, n, S)``; NaN where a subset shows nothing of a site."""
    values, observed, _ = table.batch(rows)
    view = network.view(values, observed, shown)
    every = torch.arange(len(observed), device=observed.device)
    which = torch.arange(len(shown), device=observed.device)
    logits = network.head(view.features(every, which)).unbind(1)
    scores = torch.stack([x[view.twins(own)] for x, own in zip(logits, shown)]).float()
    if run.model.link == "softmax":  # a site's logits compare species; log-shares compare sites too
        scores = scores.log_softmax(-1)
    seen = (observed & shown[:, None, :]).any(-1, keepdim=True)
    return scores.masked_fill(~seen, torch.nan)


@torch.inference_mode()
def _set_level(run: Run) -> None:
    """Fold Maxent's normalisation into the head's bias, from the training background."""
    network, table = run.model.network, run.table
    rows = table.train.split(512)
    logits = torch.cat([network(*table.batch(r)[:2]) for r in rows])
    network.head.bias.add_(maxent_offset(logits, table.labels[table.train] == 0))
