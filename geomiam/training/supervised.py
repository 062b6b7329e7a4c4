"""Training on labels: the loss of a batch, and the AUC of each modality alone and of all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import cycle
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.at_once import SCORED_ROWS
from geomiam.metrics import mean_auc
from geomiam.networks.network import Network, View
from geomiam.training.choice import scored_step
from geomiam.training.devices import Fabric, OneDevice
from geomiam.training.loop import Objective, Run
from geomiam.training.losses import Loss, make_loss, maxent_offset
from geomiam.training.observations import EPOCH_TURNS, check_loss, learned_labels, turns
from geomiam.training.table import Table

Twins = dict[tuple[int, bytes], Tensor | None]
"""By batch and subset of tokens, the first row that each row equals; None if all rows differ."""


class Supervised:
    """The task of :func:`geomiam.fit`; the run's module is a network."""

    metric: ClassVar[str] = "auc"

    def __init__(self) -> None:
        self._scored: Table | None = None
        self._twins: Twins = {}
        """Of the validation rows of the table that was scored last."""

    def objective(self, run: Run) -> Objective:
        """Return the loss, with weights from the training labels."""
        check_loss(run.model, run.config.loss)
        counts = run.table.counts(run.table.train)
        loss = make_loss(run.config.loss, counts, evenness=run.config.evenness)
        return partial(batch_loss, loss=loss, own_tokens=run.model.own_tokens)

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """Return the mean AUC of each modality alone and of all, on sites where any of it is observed."""
        if table is not self._scored:
            self._scored, self._twins = table, {}
        names = [*run.model.schema.modalities, "all"]
        rows = table.valid[:: scored_step(len(table.valid), len(names) * len(run.model.species))]
        labels = table.labels_of(rows).cpu().numpy()
        values = subset_logits(run, table, rows, twins=self._twins)
        if len(names) == 2:  # a single modality is all of them
            values = values[:1]
        return dict(
            zip((f"auc_{name}" for name in names), cycle(mean_auc(labels, v) for v in values))
        )

    @torch.inference_mode()
    def finish(self, run: Run) -> None:
        """Fold Maxent's normalisation into the head's bias, from the training background."""
        if run.config.loss == "maxent":
            network, table = run.model.network, run.table
            batches = table.train.split(SCORED_ROWS)
            parts = ((network(*table.batch(rows)), table.labels_of(rows) == 0) for rows in batches)
            # The loss compares sites of a batch and leaves the level of the logits free; the level is set here.
            network.head.bias.add_(maxent_offset(parts))


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
    labels = table.labels_of(rows)
    local_rows = share(len(rows), fabric) if fabric.world_size > 1 else slice(None)
    values, observed = table.batch(rows[local_rows])
    masks = hidden.unflatten(0, (-1, len(rows)))[:, local_rows]
    # The NaN rule of training: a token is visible if it is observed and not drawn by the masking.
    logits = network(values, (observed & ~masks).flatten(0, 1)).unflatten(0, masks.shape[:2])
    losses = []
    for z, mask in zip(logits, hidden.split(len(rows))):
        if own_tokens:
            of_mask = learned_labels(labels, table.observed[rows] & ~mask, own_tokens)
        else:
            of_mask = labels
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
def subset_logits(
    run: Run,
    table: Table,
    rows: Tensor,
    *,
    count: int = EPOCH_TURNS,
    twins: Twins | None = None,
) -> np.ndarray:
    """Return scores ``(M + 1, n, S)`` of rows, from each modality alone and all; NaN = nothing observed.

    Observations of a species are hidden in its scores; ``count`` is that of :func:`turns`. ``twins`` are
    those of earlier calls with the same rows, and are extended.
    """
    sizes = run.model.layout.sizes
    owner, twins = np.repeat(np.arange(len(sizes)), sizes), {} if twins is None else twins
    subsets = np.vstack([owner == m for m in range(len(sizes))] + [owner >= 0])
    out = np.empty((len(subsets), len(rows), len(run.model.species)), np.float32)
    if len(sizes) == 1:
        subsets = subsets[:1]  # computed once for both
    for species, tokens in turns(run.model, count):
        subsets_of_turn = subsets.copy()
        subsets_of_turn[:, tokens] = False
        out[..., species] = _logits(run, table, rows, subsets_of_turn, twins)[..., species]
    return out


def _logits(run: Run, table: Table, rows: Tensor, subsets: np.ndarray, twins: Twins) -> np.ndarray:
    """Return scores ``(c, n, S)`` of rows from the visible tokens of each subset ``(c, t)``."""
    network, device = run.module.eval(), table.observed.device
    assert isinstance(network, Network)
    visible = torch.as_tensor(subsets, device=device)
    parts = []
    for number, batch in enumerate(rows.split(SCORED_ROWS)):
        values, observed = table.batch(batch)
        view = network.view(values, observed, visible)
        all_rows, all_subsets = (torch.arange(len(x), device=device) for x in (observed, visible))
        # One view for all subsets: shared parts of the network are computed once.
        logits = network.head(view.features(all_rows, all_subsets)).unbind(1)
        # Equal inputs get equal scores to the last bit, since the AUC ranks them.
        firsts = [
            _first_twins(view, t, (number, t.numpy().tobytes()), twins) for t in visible.cpu()
        ]
        scores = torch.stack([z if f is None else z[f] for z, f in zip(logits, firsts)]).float()
        if run.model.link == "softmax":  # its logits compare species only; log-shares also sites
            scores = scores.log_softmax(-1)
        any_visible = (observed & visible[:, None, :]).any(-1, keepdim=True)
        parts.append(scores.masked_fill(~any_visible, torch.nan))
    return torch.cat(parts, 1).cpu().numpy()


def _first_twins(view: View, tokens: Tensor, key: tuple[int, bytes], twins: Twins) -> Tensor | None:
    """Return the first row that equals each row in ``tokens (t,)``; None if all differ."""
    # It depends on the values only, so it is computed in the first epoch.
    if key not in twins:
        first = view.twins(tokens)
        all_differ = torch.equal(first, torch.arange(len(first), device=first.device))
        twins[key] = None if all_differ else first
    return twins[key]
