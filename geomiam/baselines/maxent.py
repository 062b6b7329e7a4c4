"""A multi-species network on Maxent's likelihood, after DeepMaxent.

Ryckewaert et al. (2024, arXiv:2412.19217): two hidden layers, the normalised Poisson loss over the
sites of a batch, standardised covariates. Here one network serves all species of a region. The
normalisation of a species leaves out the sites where it was not surveyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.baselines.base import Training
from geomiam.labels import label_counts
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import progress_bar
from geomiam.training.losses import maxent, record_weight


@dataclass(frozen=True)
class Network:
    """Logarithm of the relative intensity of each species."""

    layers: nn.Module
    masked: bool

    @torch.inference_mode()
    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n, S)``, on the scale of a logarithm."""
        x = torch.as_tensor(table)
        return self.layers(_inputs(x, x.isnan(), mark_hidden=self.masked)).double().numpy()


@dataclass(frozen=True)
class MaxentNetwork:
    """One network for all species; the defaults are the published settings."""

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "torch"
    masked: bool = True
    """Hide predictors in training, with an input for each that marks it as hidden."""
    hidden: int = 250
    """Units of each of the two hidden layers."""
    epochs: int = 100
    batch: int = 250
    rate: float = 2e-4
    residual: bool = False
    """Add the input of a hidden layer to its output; a linear map brings the predictors to its width."""
    decay: float = 0.0
    """Weight decay of the optimiser, as an L2 penalty on all weights."""

    @standard_torch()
    def fit(self, training: Training) -> Network:
        """Train on a table."""
        width = training.table.shape[1] * (1 + self.masked)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            layers = _layers(self, width, len(training.species))
        _train(layers, training, self)
        return Network(layers.eval(), self.masked)


@dataclass(frozen=True)
class DeepMaxent(MaxentNetwork):
    """DeepMaxent with its published settings: two residual layers of 250, nothing hidden in training."""

    masked: bool = False
    residual: bool = True
    decay: float = 3e-4


class Residual(nn.Module):
    """A hidden layer whose input is added to its output: ``(n, width)`` → ``(n, width)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + relu(linear(x))``."""
        return x + torch.relu(self.linear(x))


def _layers(settings: MaxentNetwork, columns: int, species: int) -> nn.Module:
    width = settings.hidden
    if settings.residual:
        hidden: list[nn.Module] = [nn.Linear(columns, width), Residual(width), Residual(width)]
    else:
        hidden = [nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, species))


def _train(layers: nn.Module, training: Training, settings: MaxentNetwork) -> None:
    rng = np.random.default_rng(training.seed)
    table, labels = torch.as_tensor(training.table), torch.as_tensor(training.labels)
    weight, units = record_weight(label_counts(labels), evenness=0), training.columns.units
    optimizer = torch.optim.Adam(layers.parameters(), lr=settings.rate, weight_decay=settings.decay)
    for _ in progress_bar(range(settings.epochs), desc="training", unit="epoch", leave=False):
        for rows in torch.as_tensor(rng.permutation(len(table))).split(settings.batch):
            x = table[rows]
            is_hidden = x.isnan()
            if settings.masked:  # the share of hidden units of each site is uniform on [0, 1]
                hidden_units = rng.random((len(rows), units.max() + 1)) < rng.random((len(rows), 1))
                is_hidden |= torch.as_tensor(hidden_units[:, units])
            loss = maxent(
                layers(_inputs(x, is_hidden, mark_hidden=settings.masked)), labels[rows], weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _inputs(x: Tensor, hidden: Tensor, *, mark_hidden: bool) -> Tensor:
    """Return the inputs with 0, the mean, where hidden, and indicators of hidden columns beside them."""
    values = torch.where(hidden, 0, x)
    return torch.cat([values, hidden.to(x)], 1) if mark_hidden else values
