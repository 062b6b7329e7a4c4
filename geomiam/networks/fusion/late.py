"""Late fusion: a network of its own for each modality; their predictions are combined at the end.

Uni-modal ensembles (UME; Du et al. 2023, arXiv:2305.01233). The logits are

    c + Σ_m α_m (W_m f_m + b_m),

with f_m the features of modality m's branch, W_m and b_m its linear head, α_m = a_m w_m / Σ a_m w_m
over the modalities of which anything is visible (a_m = 1), and c the base value. As one linear map of
the features (α_1 f_1, …, α_M f_M, α_1, …, α_M) this is the head that every network has.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import HIDDEN
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import token_block
from geomiam.networks.length_buckets import VisibleTokens
from geomiam.networks.modules import Modules
from geomiam.networks.pooling import PooledSets, bucketed_mean, visible_mean
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class Branch(nn.Module):
    """The encoder of one modality: the mean of its tokens after attention, normalised, with a ReLU."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.blocks = Modules(token_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of tokens ``(n, k, d)``; arbitrary, but finite, where none is visible."""
        return self.activate(visible_mean(self.blocks, tokens, visible))

    def activate(self, mean: Tensor) -> Tensor:
        """Features from the mean of the tokens ``(n, d)``."""
        return torch.relu(self.norm(mean))


class LateFusion(Fusion):
    """A branch per modality; the visible ones are averaged (or added up) before one linear head.

    The blocks of ``config`` are those of each branch. ``weights``: w_m is 1 ("equal"), or exp of a
    learned number ("learned"), so that a mean over the visible is their softmax. ``pool="sum"`` leaves
    out the division: logits add up, and so do their Shapley values.
    """

    mixes = False
    normalized = False
    branched = True

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        sizes = layout.sizes.tolist()
        self.pooling, self.width = config.pool, config.width
        self.sets = [list(range(a, b)) for a, b in pairwise(accumulate(sizes, initial=0))]
        self.branches = Modules(Branch(config) for _ in sizes)
        learned = config.weights == "learned"
        self.scores = nn.Parameter(torch.zeros(len(sizes))) if learned else None
        self.feature_width = len(sizes) * (config.width + 1)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, M·(d + 1))`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        own = [visible[:, s] for s in self.sets]
        features = [self.pool(m, tokens[:, s], v) for m, (s, v) in enumerate(zip(self.sets, own))]
        return self.fuse(torch.stack(features, 1), torch.stack([v.any(1) for v in own], 1))

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        """Return the blocks of all branches."""
        return BlockCounts(config.depth * modalities, 0)

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Features ``(n, M·(d + 1))`` in training: only visible tokens are computed."""
        features = []
        for branch, own in zip(self.branches, self.sets):
            visible, place = tokens.visible[:, own], tokens.place[:, own]
            mean = bucketed_mean(branch.blocks, tokens.made, visible, place)
            features.append(branch.activate(mean))
        there = torch.stack([tokens.visible[:, own].any(1) for own in self.sets], 1)
        return self.fuse(torch.stack(features, 1), there.to(features[0].device))

    def view(self, rows: Rows, shown: Tensor) -> LateView:
        """Return the features of rows in coalitions of tokens ``shown (c, t)``."""
        return LateView(self, rows, shown)

    def branch_weights(self, modality: int) -> Iterator[Tensor]:
        """Weights of the branch, and its score where scores are learned."""
        yield from self.branches[modality].parameters()
        if self.scores is not None:
            yield self.scores[modality]

    def branch_features(self, modality: int) -> tuple[slice, int]:
        """Positions of α_m f_m and of α_m among the features."""
        start = modality * self.width
        return slice(start, start + self.width), len(self.sets) * self.width + modality

    def pool(self, modality: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of a modality's tokens ``(n, k, d)``."""
        return self.branches[modality](tokens, visible)

    def fuse(self, features: Tensor, there: Tensor) -> Tensor:
        """Combine branch features ``(..., M, d)`` to ``(..., M·(d + 1))``.

        ``there (..., M)`` is True for modalities of which anything is visible; the others add nothing.
        """
        alpha = self.alpha(there)
        weighted = alpha.unsqueeze(-1) * features.float().masked_fill(~there.unsqueeze(-1), 0)
        return torch.cat([weighted.flatten(-2), alpha], -1)

    def alpha(self, there: Tensor) -> Tensor:
        """α ``(..., M)``, float32; 0 for what is not there, also where nothing is."""
        scores = there.new_zeros(there.shape[-1]) if self.scores is None else self.scores
        scores = scores.float().expand(there.shape)
        if self.pooling == "sum":
            return there * scores.exp()
        return there * torch.where(there, scores, HIDDEN).softmax(-1)


class LateView(CoalitionView):
    """Branch features of all rows, made once; a coalition is a weighted sum of them."""

    fusion: LateFusion

    def __init__(self, fusion: LateFusion, rows: Rows, shown: Tensor):
        super().__init__(fusion, rows, shown)
        self.pooled = PooledSets.of(fusion.sets, rows, shown, width=fusion.width, pool=fusion.pool)

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return coalitions * (1 + len(self.fusion.sets))

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, M·(d + 1))`` of rows in coalitions."""
        chosen, there = self.pooled.there(rows, which)
        if not self.pooled.table.shape[1]:
            features = self.pooled.table.new_zeros(*there.shape, self.fusion.width)
        else:
            features = self.pooled.table[rows][:, chosen.clamp(min=0)]
        return self.fusion.fuse(features, there)
