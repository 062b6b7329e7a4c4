"""Late fusion: one network per modality, whose predictions are combined at the end.

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

from geomiam.networks.blocks import HIDDEN, Modules
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import token_block
from geomiam.networks.pooling import PooledSets, VisibleTokens, bucketed_mean, visible_mean
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class Branch(nn.Module):
    """The encoder of one modality: ReLU(LN(mean of the tokens after the blocks)) ``(n, d)``."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.blocks = Modules(token_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` of tokens ``(n, k, d)``; arbitrary but finite if none is visible."""
        return self.activate(visible_mean(self.blocks, tokens, visible))

    def activate(self, mean: Tensor) -> Tensor:
        """Return features ``(n, d)`` from the mean of the tokens ``(n, d)``."""
        return torch.relu(self.norm(mean))


class LateFusion(Fusion):
    """One branch per modality; visible branches are averaged or summed before one linear head.

    The blocks of ``config`` are those of each branch. With ``weights="equal"`` w_m is 1. With
    ``weights="learned"`` it is exp of a learned score, so the weights of a mean are the softmax of the
    scores. ``pool="sum"`` omits the division, so the logits of modalities add up and so do their
    Shapley values.
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
        is_learned = config.weights == "learned"
        self.scores = nn.Parameter(torch.zeros(len(sizes))) if is_learned else None
        self.feature_width = len(sizes) * (config.width + 1)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, M·(d + 1))`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        features = [self.pool(m, tokens[:, s], visible[:, s]) for m, s in enumerate(self.sets)]
        present = torch.stack([visible[:, s].any(1) for s in self.sets], 1)
        return self.fuse(torch.stack(features, 1), present)

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        return BlockCounts(config.depth * modalities, 0)

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Return features ``(n, M·(d + 1))`` in training; only visible tokens are computed."""
        features = []
        for branch, positions in zip(self.branches, self.sets):
            visible, place = tokens.visible[:, positions], tokens.place[:, positions]
            mean = bucketed_mean(branch.blocks, tokens.vectors, visible, place)
            features.append(branch.activate(mean))
        present = torch.stack([tokens.visible[:, positions].any(1) for positions in self.sets], 1)
        return self.fuse(torch.stack(features, 1), present.to(features[0].device))

    def view(self, rows: Rows, coalitions: Tensor) -> LateView:
        return LateView(self, rows, coalitions)

    def branch_weights(self, modality: int) -> Iterator[Tensor]:
        """Yield the weights of the branch, and its score where scores are learned."""
        yield from self.branches[modality].parameters()
        if self.scores is not None:
            yield self.scores[modality]

    def branch_features(self, modality: int) -> tuple[slice, int]:
        """Return the positions of α_m f_m and of α_m among the features."""
        start = modality * self.width
        return slice(start, start + self.width), len(self.sets) * self.width + modality

    def pool(self, modality: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` of a modality's tokens ``(n, k, d)``."""
        return self.branches[modality](tokens, visible)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Combine branch features ``(..., M, d)`` to ``(..., M·(d + 1))``.

        ``present (..., M)`` is True for modalities with a visible token; the others add 0.
        """
        alpha = self.alpha(present)
        # float32, because the head is a long sum over M·d features. A branch without a visible token is
        # arbitrary: 0 replaces it before the product.
        products = alpha.unsqueeze(-1) * features.float().masked_fill(~present.unsqueeze(-1), 0)
        return torch.cat([products.flatten(-2), alpha], -1)

    def alpha(self, present: Tensor) -> Tensor:
        """Return α ``(..., M)``, float32; 0 for absent modalities, also if all are absent."""
        scores = present.new_zeros(present.shape[-1]) if self.scores is None else self.scores
        scores = scores.float().expand(present.shape)
        if self.pooling == "sum":
            return present * scores.exp()  # α_m = a_m w_m
        # α_m = a_m w_m / Σ a_m w_m, with w_m = exp(score): a softmax over the present modalities.
        # The factor makes α exactly 0 where no modality is present and the softmax is uniform.
        return present * torch.where(present, scores, HIDDEN).softmax(-1)


class LateView(CoalitionView):
    """Branch features of all rows, computed once; a coalition is a weighted sum of them."""

    fusion: LateFusion

    def __init__(self, fusion: LateFusion, rows: Rows, coalitions: Tensor):
        super().__init__(fusion, rows, coalitions)
        self.pooled = PooledSets.of(
            fusion.sets, rows, coalitions, width=fusion.width, pool=fusion.pool
        )

    def cost(self, count: int) -> int:
        return count * (1 + len(self.fusion.sets))

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, M·(d + 1))`` of rows in the coalitions ``selection (c,)``."""
        index, present = self.pooled.select(rows, selection)
        if not self.pooled.table.shape[1]:
            features = self.pooled.table.new_zeros(*present.shape, self.fusion.width)
        else:
            features = self.pooled.table[rows][:, index.clamp(min=0)]
        return self.fusion.fuse(features, present)
