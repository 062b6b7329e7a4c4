"""Learning without labels: hidden tokens are told from the visible ones.

Every batch hides tokens, as in :mod:`geomiam.training.supervised`, and a small decoder says from the
features of a site what was hidden: MultiMAE's idea (Bachmann et al. 2022) as MIAM's authors use it,
with a decoder and a loss of our own, for theirs are not published.

Shapes: n rows, t tokens, k tokens of a part, w values per token, P numbers said about a site,
M modalities, p patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.network import Network
from geomiam.tokens.layout import Layout, Part
from geomiam.training.devices import Fabric
from geomiam.training.loop import Objective, Run
from geomiam.training.supervised import share, together
from geomiam.training.table import Table

AT_ONCE = 512
"""Rows looked at together when no gradient is asked for."""


class Reconstruction(nn.Module):
    """A network without a head, and a decoder that says what all tokens of a site are.

    The decoder is a layer that all tokens share and then a linear map for each: what it cannot do,
    the encoder must, and it is thrown away afterwards.
    """

    def __init__(self, network: Network, outputs: int, *, first: Tensor | None = None):
        super().__init__()
        self.network = network
        network.head.requires_grad_(False)  # nothing reads it
        inputs = network.head.in_features
        self.decoder = nn.Sequential(
            nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs)
        )
        if first is not None:  # numbers ``(outputs,)`` to begin at, since not all are near 0
            nn.init.zeros_(self.decoder[-1].bias).data.add_(first)  # type: ignore[arg-type]

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Say what all tokens are ``(n, P)`` from those that are visible ``(n, t)``."""
        return self.decode(self.features(values, visible))

    def features(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """What a head would read ``(n, d)``; in training, what is hidden is not computed."""
        if not self.training:
            return self.network.features(self.network.tokens(values, visible), visible)
        return self.network.training_features(values, visible)

    def decode(self, features: Tensor) -> Tensor:
        """Numbers ``(n, P)`` about all tokens from features ``(n, d)``."""
        return self.decoder(features).float()


@dataclass(frozen=True)
class Targets:
    """What is to be told about each token, and what one would say without seeing anything."""

    kinds: tuple[str, ...]
    """Of each part of the layout."""
    shapes: tuple[tuple[int, int], ...]
    """Of each part, how many tokens, and how many numbers are told about one."""
    owner: Tensor
    """Modality of each token ``(t,)``."""
    constant: Tensor
    """Means of the training rows, and log-frequencies of classes ``(P,)``."""
    variance: Tensor
    """Mean error of the constant over each token's variable ``(t,)``: a variance, or an entropy;
    NaN where there is nothing to tell, since the variable is never observed or always the same."""

    @classmethod
    def of(cls, layout: Layout, table: Table, classes: dict[str, int]) -> Targets:
        """Learn constant and variance from the training rows of a table."""
        shapes = tuple((p.size, _numbers(p, classes)) for p in layout.parts)
        owner = np.repeat(np.arange(len(layout.sizes)), layout.sizes)
        variable = np.repeat(np.arange(len(layout.spans)), [s.size for s in layout.spans])
        kinds = tuple(p.kind for p in layout.parts)
        parts = zip(kinds, shapes, table.values)
        constant = torch.cat([_constant(k, x, s, rows=table.train) for k, s, x in parts])
        blank = torch.full((layout.size,), torch.nan)
        made = cls(kinds, shapes, torch.as_tensor(owner), constant, blank)
        return made._with_variance(table, torch.as_tensor(variable))

    @property
    def outputs(self) -> int:
        """Numbers told about a site, P."""
        return len(self.constant)

    def errors(self, predicted: Tensor, values: list[Tensor]) -> Tensor:
        """Error of each token ``(n, t)`` of predicted ``(n, P)``; any number where it has no value.

        The mean squared error of a token's finite values; of cosine and sine of an angle; the
        cross-entropy of a class.
        """
        said = predicted.split([k * o for k, o in self.shapes], 1)
        parts = zip(self.kinds, said, values, self.shapes)
        return torch.cat([_errors(kind, p.unflatten(1, s), x) for kind, p, x, s in parts], 1)

    def totals(
        self, predicted: Tensor, values: list[Tensor], wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of the errors of wanted tokens ``(n, t)`` per modality ``(M,)``, and their number.

        An error is in shares of its variable's variance, or entropy.
        """
        variance, owner = self.variance.to(predicted.device), self.owner.to(predicted.device)
        wanted = wanted & variance.isfinite()
        errors = self.errors(predicted, values) / variance.nan_to_num(1.0)
        none = errors.new_zeros(int(owner.max()) + 1)
        total = none.index_add(0, owner, torch.where(wanted, errors, 0).sum(0))
        return total, none.index_add(0, owner, wanted.sum(0).to(none.dtype))

    def loss(self, predicted: Tensor, values: list[Tensor], wanted: Tensor) -> Tensor:
        """Mean over modalities of their mean error, so none weighs more for having more tokens."""
        total, count = self.totals(predicted, values, wanted)
        some = (count > 0).sum().clamp(min=1)
        return (total / count.clamp(min=1)).sum() / some

    def _with_variance(self, table: Table, variable: Tensor) -> Targets:
        """The same, with the mean error of the constant over each variable's training tokens."""
        total = torch.zeros(int(variable.max()) + 1, dtype=torch.float64)
        count = torch.zeros_like(total)
        for rows in table.train.split(AT_ONCE):
            values, observed, _ = table.batch(rows)
            errors = self.errors(self.constant.expand(len(rows), -1), values)
            total.index_add_(0, variable, torch.where(observed, errors, 0).sum(0).double())
            count.index_add_(0, variable, observed.sum(0).double())
        mean = total / count
        variance = torch.where(mean > 1e-9, mean, torch.nan).float()[variable]
        return Targets(self.kinds, self.shapes, self.owner, self.constant, variance)


@dataclass(frozen=True)
class Reconstructing:
    """The task of :func:`geomiam.pretrain`; the run's module is a :class:`Reconstruction`."""

    metric: ClassVar[str] = "r2"
    targets: Targets

    def objective(self, run: Run) -> Objective:
        """Return the loss: of tokens that are observed and hidden, and of no others."""
        return partial(batch_loss, targets=self.targets)

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """R² of what each modality alone tells of the others, and of each told by all others."""
        assert isinstance(run.module, Reconstruction)
        names = list(run.model.schema.modalities)
        shown, wanted = patterns(run.model.layout.sizes)
        told = r2(run.module, table, self.targets, shown=shown, wanted=wanted)
        if len(names) == 1:
            return {f"r2_{names[0]}": float(told[0, 0]), "r2_all": float(told[0, 0])}
        alone, rest = told[: len(names)], told[len(names) :]
        scores = {f"r2_{m}": _mean(alone[i]) for i, m in enumerate(names)}
        return scores | {"r2_all": _mean(rest.diagonal())}

    def finish(self, run: Run) -> None:
        """Nothing is left to do."""


def batch_loss(
    module, table: Table, rows: Tensor, *, hidden: Tensor, targets: Targets, fabric: Fabric
) -> Tensor:
    """Loss of a batch, of which each process computes its share."""
    values, observed, _ = table.batch(rows)
    mine = share(len(rows), fabric)
    predicted = module([v[mine] for v in values], (observed & ~hidden)[mine])
    return targets.loss(together(predicted, len(rows), fabric), values, observed & hidden)


def patterns(sizes: np.ndarray) -> tuple[Tensor, Tensor]:
    """What is shown and what is asked for when scoring: two times boolean ``(p, t)``.

    Each modality alone, asked for all others; then each modality asked for, told by all others.
    One modality alone shows every other of its tokens.
    """
    owner = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes))
    own = torch.stack([owner == m for m in range(len(sizes))])
    if len(sizes) > 1:
        return torch.cat([own, ~own]), torch.cat([~own, own])
    even = (torch.arange(len(owner)) % 2 == 0)[None]
    return even, ~even


@torch.inference_mode()
def r2(
    module: Reconstruction, table: Table, targets: Targets, *, shown: Tensor, wanted: Tensor
) -> np.ndarray:
    """R² of each modality in each pattern ``(p, M)`` on the validation rows; NaN = nothing to tell.

    1 − error / error of the constant on the same tokens: 0 for who says the training means (of
    classes, their frequencies), 1 for who is always right. Rows that show nothing do not count.
    """
    module.eval()
    made = np.zeros((2, len(shown), int(targets.owner.max()) + 1))
    for rows in table.valid.split(AT_ONCE):
        values, observed, _ = table.batch(rows)
        constant = targets.constant.to(observed.device).expand(len(rows), -1)
        for i, (said, see) in enumerate(_said(module, values, observed, shown)):
            asked = observed & wanted[i].to(observed.device) & see
            for j, predicted in enumerate((said, constant)):
                made[j, i] += targets.totals(predicted, values, asked)[0].double().cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(made[1] > 0, 1 - made[0] / made[1], np.nan)


def _said(
    module: Reconstruction, values: list[Tensor], observed: Tensor, shown: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per pattern, what the module says ``(n, P)``, and which rows show anything ``(n, 1)``."""
    shown = shown.to(observed.device)
    view = module.network.view(values, observed, shown)
    every = torch.arange(len(observed), device=observed.device)
    features = view.features(every, torch.arange(len(shown), device=observed.device))
    for i, own in enumerate(shown):
        yield module.decode(features[:, i]), (observed & own).any(1, keepdim=True)


def _numbers(part: Part, classes: dict[str, int]) -> int:
    """How many numbers are told about a token of a part."""
    if part.kind == "categorical":
        return max(classes[part.spans[0].variable.name], 1)
    return 2 if part.kind == "circular" else part.width


def _encoded(kind: str, x: Tensor, numbers: int) -> Tensor:
    """Values ``(n, k, w)`` as numbers whose mean means something ``(n, k, numbers)``, NaN = unknown."""
    if kind == "circular":
        return torch.cat([x.cos(), x.sin()], -1)
    if kind == "categorical":
        which = F.one_hot(x.squeeze(-1).nan_to_num(0.0).long(), numbers)
        return torch.where(x.isnan(), torch.nan, which.float())
    return x


def _errors(kind: str, predicted: Tensor, x: Tensor) -> Tensor:
    """Error of each token ``(n, k)`` of predicted ``(n, k, numbers)``."""
    if kind == "categorical":
        rank = x.squeeze(-1).nan_to_num(0.0).long()
        return F.cross_entropy(predicted.transpose(1, 2), rank, reduction="none")
    y = _encoded(kind, x, predicted.shape[-1])
    there = y.isfinite()
    off = torch.where(there, predicted - torch.where(there, y, 0), 0)
    return off.square().sum(-1) / there.sum(-1).clamp(min=1)


def _constant(kind: str, x: Tensor, shape: tuple[int, int], *, rows: Tensor) -> Tensor:
    """What the training rows say on average about a part ``(k · numbers,)``; 0 where nothing."""
    total, count = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for some in rows.split(AT_ONCE):
        y = _encoded(kind, x[some], shape[1])
        there = y.isfinite()
        total += torch.where(there, y, 0).sum(0).double()
        count += there.sum(0).double()
    mean = (total / count.clamp(min=1)).float().flatten()
    return mean.clamp(min=1e-9).log() if kind == "categorical" else mean


def _mean(scores: np.ndarray) -> float:
    """Mean of those that are known."""
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if len(known) else float("nan")
