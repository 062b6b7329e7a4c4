"""Pre-training without labels: hidden tokens are predicted from the visible ones.

Every batch hides tokens, as in :mod:`geomiam.training.supervised`. A small decoder predicts the hidden
tokens from the features of a site, as in MultiMAE (Bachmann et al. 2022) and in MIAM's self-supervised
variant. Decoder and loss are geomiam's, since those of MIAM are not published.

Shapes: n rows, t tokens, k tokens of a part, w values per token, P numbers predicted per site,
M modalities, p patterns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.at_once import SCORED_ROWS
from geomiam.networks.network import Network
from geomiam.tokens.layout import Layout, Part
from geomiam.training.devices import Fabric
from geomiam.training.loop import Objective, Run
from geomiam.training.supervised import share, together
from geomiam.training.table import Table


class Reconstruction(nn.Module):
    """A network without a head, and a decoder that predicts all tokens of a site.

    The decoder is one hidden layer that all tokens share and a linear map per token. It is small, so
    that the encoder has to learn, and it is dropped after pre-training.
    """

    def __init__(self, network: Network, *, first: Tensor):
        super().__init__()
        self.network = network
        network.head.requires_grad_(False)  # the head is not used
        inputs = network.head.in_features
        hidden, last = nn.Linear(inputs, inputs), nn.Linear(inputs, len(first))
        last.bias.data.copy_(first)  # start at the training means (P,), which may be far from 0
        self.decoder = nn.Sequential(hidden, nn.ReLU(), last)

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Predict all tokens ``(n, P)`` from the visible ones ``(n, t)``, in training."""
        return self.decode(self.network.training_features(values, visible))

    def decode(self, features: Tensor) -> Tensor:
        """Return the prediction ``(n, P)`` of all tokens from features ``(n, d)``."""
        return self.decoder(features).float()


@dataclass(frozen=True)
class Targets:
    """The numbers to predict for each token, and the constant prediction that errors are compared with."""

    kinds: tuple[str, ...]
    """Kind of each part of the layout."""
    shapes: tuple[tuple[int, int], ...]
    """Number of tokens of each part, and of predicted numbers per token."""
    owner: Tensor
    """Modality of each token ``(t,)``."""
    constant: Tensor
    """Means of the training rows, and log-frequencies of classes ``(P,)``."""
    variance: Tensor
    """Mean error of the constant over each token's variable ``(t,)``: a variance or an entropy; NaN for
    a variable that is never observed or constant."""

    @classmethod
    def of(cls, layout: Layout, table: Table, classes: dict[str, int]) -> Targets:
        """Compute constant and variance from the training rows of a table."""
        shapes = tuple((p.size, _numbers(p, classes)) for p in layout.parts)
        owner = torch.as_tensor(np.repeat(np.arange(len(layout.sizes)), layout.sizes))
        kinds = tuple(p.kind for p in layout.parts)
        parts = zip(kinds, shapes, table.values)
        constant = torch.cat([_constant(k, x, s, rows=table.train) for k, s, x in parts])
        targets = cls(kinds, shapes, owner, constant, torch.full((layout.size,), torch.nan))
        spans = layout.spans
        variable = torch.as_tensor(np.repeat(np.arange(len(spans)), [s.size for s in spans]))
        total, count = torch.zeros(2, len(spans), dtype=torch.float64)
        for rows in table.train.split(SCORED_ROWS):
            values, observed = table.batch(rows)
            errors = targets.errors(constant.expand(len(rows), -1), values)
            total.index_add_(0, variable, torch.where(observed, errors, 0).sum(0).double())
            count.index_add_(0, variable, observed.sum(0).double())
        mean = total / count
        variance = torch.where(mean > 1e-9, mean, torch.nan).float()  # a constant has no shares
        return replace(targets, variance=variance[variable])

    def errors(self, prediction: Tensor, values: list[Tensor]) -> Tensor:
        """Return the error of each token ``(n, t)`` of a prediction ``(n, P)``; arbitrary where unobserved."""
        # The mean squared error of a token's finite values; of cosine and sine of an angle; the
        # cross-entropy of a class.
        by_part = prediction.split([k * o for k, o in self.shapes], 1)
        parts = zip(self.kinds, by_part, values, self.shapes)
        return torch.cat([_errors(kind, p.unflatten(1, s), x) for kind, p, x, s in parts], 1)

    def totals(
        self, prediction: Tensor, values: list[Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the errors of target tokens ``(n, t)`` per modality ``(M,)``, and their number."""
        # An error is in shares of its variable's variance, or entropy.
        variance, owner = self.variance.to(prediction.device), self.owner.to(prediction.device)
        targets = targets & variance.isfinite()
        errors = self.errors(prediction, values) / variance.nan_to_num(1.0)
        none = errors.new_zeros(int(owner.max()) + 1)
        total = none.index_add(0, owner, torch.where(targets, errors, 0).sum(0))
        return total, none.index_add(0, owner, targets.sum(0).to(none.dtype))

    def loss(self, prediction: Tensor, values: list[Tensor], targets: Tensor) -> Tensor:
        """Return the mean over modalities of their mean error, whatever their number of tokens."""
        total, count = self.totals(prediction, values, targets)
        # A modality of 200 tokens would otherwise outweigh one of 5.
        return (total / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class Reconstructing:
    """The task of :func:`geomiam.pretrain`; the run's module is a :class:`Reconstruction`."""

    metric: ClassVar[str] = "r2"
    targets: Targets

    def objective(self, run: Run) -> Objective:
        """Return the loss of the tokens that are observed and hidden."""
        return partial(batch_loss, targets=self.targets)

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """Return R² of all others predicted from each modality alone, and of each predicted from all others."""
        assert isinstance(run.module, Reconstruction)
        names = list(run.model.schema.modalities)
        visible, targets = patterns(run.model.layout.sizes)
        values = r2(run.module, table, self.targets, visible=visible, target_tokens=targets)
        if len(names) == 1:
            return {f"r2_{names[0]}": float(values[0, 0]), "r2_all": float(values[0, 0])}
        alone, from_others = values[: len(names)], values[len(names) :]
        scores = {f"r2_{m}": _mean(alone[i]) for i, m in enumerate(names)}
        return scores | {"r2_all": _mean(from_others.diagonal())}

    def finish(self, run: Run) -> None:
        """Do nothing: the decoder is not part of the model."""


def batch_loss(
    module: nn.Module,
    table: Table,
    rows: Tensor,
    *,
    hidden: Tensor,
    targets: Targets,
    fabric: Fabric,
) -> Tensor:
    """Return the loss of a batch, of which each process computes its share; the mean over masks."""
    values, observed = table.batch(rows)
    local_rows, masks = share(len(rows), fabric), hidden.unflatten(0, (-1, len(rows)))
    visible = (observed & ~masks)[:, local_rows]
    predictions = module([v[local_rows] for v in values], visible.flatten(0, 1))
    losses = [
        targets.loss(together(prediction, len(rows), fabric), values, observed & mask)
        for prediction, mask in zip(predictions.unflatten(0, visible.shape[:2]), masks)
    ]
    return torch.stack(losses).mean()


def patterns(sizes: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the visible tokens and the target tokens of each scored pattern, boolean ``(p, t)``."""
    # First each modality alone predicts all others, then all others predict each modality. A single
    # modality predicts every second of its tokens from the others.
    owner = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes))
    of_modality = torch.stack([owner == m for m in range(len(sizes))])
    if len(sizes) > 1:
        return torch.cat([of_modality, ~of_modality]), torch.cat([~of_modality, of_modality])
    even = (torch.arange(len(owner)) % 2 == 0)[None]
    return even, ~even


@torch.inference_mode()
def r2(
    module: Reconstruction,
    table: Table,
    targets: Targets,
    *,
    visible: Tensor,
    target_tokens: Tensor,
) -> np.ndarray:
    """Return R² of each modality in each pattern ``(p, M)`` on the validation rows; NaN = no target."""
    # R² = 1 − error / error of the constant on the same tokens: 0 for a prediction of the training means
    # (of classes, their frequencies), 1 for a perfect one. Rows without a visible token do not count.
    module.eval()
    device = table.observed.device
    constant, visible, target_tokens = (
        x.to(device) for x in (targets.constant, visible, target_tokens)
    )
    patterns = torch.arange(len(visible), device=device)
    errors = np.zeros((2, len(visible), int(targets.owner.max()) + 1))
    for rows in table.valid.split(SCORED_ROWS):
        values, observed = table.batch(rows)
        view = module.network.view(values, observed, visible)
        features = view.features(torch.arange(len(rows), device=device), patterns)
        for i in range(len(visible)):
            usable = (observed & visible[i]).any(1, keepdim=True)
            scored_tokens = observed & target_tokens[i] & usable
            predictions = module.decode(features[:, i]), constant.expand(len(rows), -1)
            for j, prediction in enumerate(predictions):
                total, _ = targets.totals(prediction, values, scored_tokens)
                errors[j, i] += total.double().cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(errors[1] > 0, 1 - errors[0] / errors[1], np.nan)


def _numbers(part: Part, classes: dict[str, int]) -> int:
    """Return the number of predicted numbers per token of a part."""
    if part.kind == "categorical":
        return max(classes[part.spans[0].variable.name], 1)
    return 2 if part.kind == "circular" else part.width


def _encoded(kind: str, x: Tensor, numbers: int) -> Tensor:
    """Return values ``(n, k, w)`` as numbers that can be averaged ``(n, k, numbers)``; NaN = unobserved."""
    if kind == "circular":
        return torch.cat([x.cos(), x.sin()], -1)
    if kind == "categorical":
        classes = F.one_hot(x.squeeze(-1).nan_to_num(0.0).long(), numbers)
        return torch.where(x.isnan(), torch.nan, classes.float())
    return x


def _errors(kind: str, prediction: Tensor, x: Tensor) -> Tensor:
    """Return the error of each token ``(n, k)`` of a prediction ``(n, k, numbers)``."""
    if kind == "categorical":
        rank = x.squeeze(-1).nan_to_num(0.0).long()
        return F.cross_entropy(prediction.transpose(1, 2), rank, reduction="none")
    y = _encoded(kind, x, prediction.shape[-1])
    finite = y.isfinite()
    difference = torch.where(finite, prediction - torch.where(finite, y, 0), 0)
    return difference.square().sum(-1) / finite.sum(-1).clamp(min=1)


def _constant(kind: str, x: Tensor, shape: tuple[int, int], *, rows: Tensor) -> Tensor:
    """Return the mean of the training rows of a part ``(k · numbers,)``; 0 if nothing is observed."""
    total, count = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for batch in rows.split(SCORED_ROWS):
        y = _encoded(kind, x[batch], shape[1])
        finite = y.isfinite()
        total += torch.where(finite, y, 0).sum(0).double()
        count += finite.sum(0).double()
    mean = (total / count.clamp(min=1)).float().flatten()
    # The best constant logits of a cross-entropy are the log-frequencies.
    return mean.clamp(min=1e-9).log() if kind == "categorical" else mean


def _mean(scores: np.ndarray) -> float:
    """Return the mean of the finite scores; NaN if there are none."""
    finite = scores[np.isfinite(scores)]
    return float(finite.mean()) if len(finite) else float("nan")
