"""Cross-modal fusion: an encoder of its own for each modality, then all visible tokens side by side.

The two stages of MAESTRO (Mohapatra et al. 2025, arXiv:2509.25278). Two things differ. Hidden tokens
are left out, where MAESTRO keeps a reserved symbol among keys and values: so what is hidden changes
nothing, and nothing depends on why it is hidden. And no convolution distils the tokens between
blocks: each token stays one variable, window or patch.

Shapes: n rows, t tokens, M modalities, c coalitions, d width.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import gather, rows_of_equal_length
from geomiam.networks.extras.block import BlockWithExtras
from geomiam.networks.extras.sparse import BudgetGate
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion, refuse_gate
from geomiam.networks.length_buckets import VisibleTokens, bucket_tokens, length_buckets
from geomiam.networks.modules import Modules
from geomiam.networks.pooling import bucket_bias, bucketed_mean, visible_mean
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig

MOST_BLOCKS = 4096
"""Blocks of all encoders; a guard for saved models."""


class CrossFusion(Fusion):
    """Attention among the tokens of each modality, then among all of them; the mean is read out.

    Every modality has ``inner`` blocks with weights of its own and a learned vector that is added
    after them; ``depth`` blocks over the tokens of all modalities follow, the only ones with
    experts. A row without a visible token is a learned vector.

    Raises
    ------
    ValueError
        If the encoders have more than ``MOST_BLOCKS`` blocks.
    """

    mixes = False

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        sizes = layout.sizes.tolist()
        if len(sizes) * config.inner > MOST_BLOCKS:
            raise ValueError(
                f"{len(sizes)} modalities of inner={config.inner} blocks are over {MOST_BLOCKS} "
                "blocks; use fewer inner blocks"
            )
        self.own = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes)]
        """Where the tokens of each modality stand."""
        self.encoders = Modules(
            Modules(BlockWithExtras.of(config, experts=False) for _ in range(config.inner))
            for _ in sizes
        )
        self.identity = nn.Parameter(torch.randn(len(sizes), config.width) * 0.02)
        self.blocks = Modules(BlockWithExtras.of(config) for _ in range(config.depth))
        self.nothing = nn.Parameter(torch.randn(config.width) * 0.02)
        self.gate = BudgetGate(len(sizes), config.budget) if config.gate else None

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        budgets = self.budgets(visible)
        encoded = [self.encode(m, tokens, visible, budgets) for m in range(len(self.own))]
        return self.fuse(torch.cat(encoded, 1), visible)

    @classmethod
    def check(cls, config: NetworkConfig) -> None:
        """Refuse a gate without sparse blocks inside the modalities."""
        if config.gate and not (config.attention == "sparse" and config.inner):
            refuse_gate(config)

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        """Return the blocks of all encoders and those over all tokens."""
        return BlockCounts(config.depth + config.inner * modalities, 0)

    def budgets(self, visible: Tensor) -> Tensor | None:
        """Attention budget ``(n, M)`` of rows that show tokens ``(n, t)``; None without a gate."""
        if self.gate is None:
            return None
        available = torch.stack([visible[:, own].any(1) for own in self.own], 1)
        return self.gate(available.to(self.nothing.device))

    def encode(
        self, modality: int, tokens: Tensor, visible: Tensor, budgets: Tensor | None = None
    ) -> Tensor:
        """Encode the tokens of a modality ``(n, k, d)``, out of all ``(n, t, d)``; 0 where hidden."""
        own = self.own[modality]
        out = torch.zeros_like(tokens[:, own])
        for rows, index in rows_of_equal_length(visible[:, own]):
            if index.shape[1]:
                x = gather(tokens[:, own], rows, index)
                budget = None if budgets is None else budgets[rows, modality]
                out[rows[:, None], index] = self._within(modality, x, None, budget)
        return out

    def fuse(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` from encoded tokens ``(n, t, d)`` and visible ``(n, t)``."""
        means = visible_mean(self.blocks, encoded, visible)
        return torch.where(visible.any(1, keepdim=True), means, self.nothing.to(means.dtype))

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Features ``(n, d)`` in training: only visible tokens are computed."""
        visible, device = tokens.visible, tokens.made.device
        budgets = self.budgets(visible)
        encoded, place, start = [], torch.zeros_like(tokens.place), 0
        for modality, own in enumerate(self.own):
            buckets = length_buckets(visible[:, own], device=device)
            parts = bucket_tokens(tokens.made, tokens.place[:, own], buckets)
            for x, bucket in zip(parts, buckets):
                budget = None if budgets is None else budgets[bucket.rows.to(device), modality]
                encoded.append(
                    self._within(modality, x, bucket_bias(x, bucket), budget).flatten(0, 1)
                )
                stands = start + torch.arange(bucket.index.numel()).view(bucket.index.shape)
                place[bucket.rows[:, None], own.start + bucket.index] = stands
                start += bucket.index.numel()
        means = bucketed_mean(self.blocks, torch.cat(encoded), visible, place)
        return torch.where(visible.any(1, keepdim=True).to(device), means, self.nothing)

    def view(self, rows: Rows, shown: Tensor) -> CrossView:
        """Return the features of rows in coalitions of tokens ``shown (c, t)``."""
        return CrossView(self, rows, shown)

    def _within(
        self, modality: int, x: Tensor, bias: Tensor | None, budget: Tensor | None
    ) -> Tensor:
        """Tokens of one modality ``(b, k, d)`` after its encoder."""
        for block in self.encoders[modality]:
            x = block(x, bias, budget=budget)
        return x + self.identity[modality]


class CrossView(CoalitionView):
    """Coalitions one after another; tokens once, and encoded once where a modality is shown whole.

    A gate reads which modalities a coalition shows, so with one every coalition encodes by itself.
    """

    fusion: CrossFusion

    def __init__(self, fusion: CrossFusion, rows: Rows, shown: Tensor):
        super().__init__(fusion, rows, shown)
        self.whole: dict[int, Tensor] = {}
        """Encoded tokens of modalities that are shown whole, of the last rows."""
        self.encoded_from: Tensor | None = None

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory: tokens, encoded whole, and as a coalition shows them."""
        return 3 * self.shown.shape[1]

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        tokens, observed = self.tokens(rows), self.rows.visible[rows]
        if tokens is not self.encoded_from:
            self.encoded_from, self.whole = tokens, {}
        return torch.stack([self._one(tokens, observed, c) for c in self.shown[which]], 1)

    def _one(self, tokens: Tensor, observed: Tensor, shown: Tensor) -> Tensor:
        """Features ``(r, d)`` in one coalition ``(t,)``."""
        visible, fusion = observed & shown, self.fusion
        budgets, encoded = fusion.budgets(visible), []
        for m, own in enumerate(fusion.own):
            if budgets is None and bool(shown[own].all()):
                if m not in self.whole:
                    self.whole[m] = fusion.encode(m, tokens, observed)
                encoded.append(self.whole[m])
            else:
                encoded.append(fusion.encode(m, tokens, visible, budgets))
        return fusion.fuse(torch.cat(encoded, 1), visible)
