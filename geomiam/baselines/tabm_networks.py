"""TabM as a baseline: networks that share most of their weights, from its authors' library.

Gorishniy et al. (2025, arXiv:2410.24210). One network predicts all species of a region. Its likelihood is that of ``maxent-like``
and ``deepmaxent``, so the baselines differ in their layers only. Hidden predictors are replaced by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.baselines.base import Training
from geomiam.errors import SettingError
from geomiam.labels import label_counts
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import progress_bar
from geomiam.training.losses import maxent, record_weight


@dataclass(frozen=True)
class TabM:
    """Settings of the training; those of the library, except for narrower layers and a fixed number of epochs."""

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "tabm"
    networks: int = 32
    """Networks that share their weights, except for a factor of each input and output of a layer."""
    width: int = 256
    """Units of a hidden layer; 512 in the library, which trains four times as long."""
    epochs: int = 60
    batch: int = 250
    rate: float = 2e-3
    decay: float = 3e-4

    def __post_init__(self) -> None:
        if find_spec("tabm") is None:
            raise SettingError("tabm is not installed: pip install geomiam[tabm]")

    @standard_torch()
    def fit(self, training: Training) -> Network:
        """Train on a table ``(n, p)``."""
        import tabm

        species = len(training.species)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            layers = tabm.TabM.make(
                n_num_features=training.table.shape[1],
                d_out=species,
                k=self.networks,
                d_block=self.width,
            )
            _train(layers, training, self)
        return Network(layers.eval())


@dataclass(frozen=True)
class Network:
    """Logarithm of the relative intensity of each species."""

    layers: nn.Module

    @torch.inference_mode()
    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → mean over the networks ``(n, S)`` of their scores, on the scale of a logarithm."""
        parts = [self.layers(_inputs(rows)).mean(1) for rows in torch.as_tensor(table).split(4096)]
        return torch.cat(parts).double().numpy()


def _train(layers: nn.Module, training: Training, settings: TabM) -> None:
    rng = np.random.default_rng(training.seed)
    table, labels = torch.as_tensor(training.table), torch.as_tensor(training.labels)
    weight = record_weight(label_counts(training.labels), evenness=0)
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    for _ in progress_bar(range(settings.epochs), desc="training", unit="epoch", leave=False):
        for rows in torch.as_tensor(rng.permutation(len(table))).split(settings.batch):
            scores = layers(_inputs(table[rows]))  # (n, networks, S): each network has a loss
            loss = torch.stack([maxent(z, labels[rows], weight) for z in scores.unbind(1)]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _inputs(table: Tensor) -> Tensor:
    """Return the predictors with 0, the mean, where hidden."""
    return table.nan_to_num(0.0)
