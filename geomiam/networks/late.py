"""Late fusion: a network of its own for each modality, whose answers meet at the end.

Uni-modal ensembles (UME; Du et al. 2023, arXiv:2305.01233). The logits are

    c + Σ_m α_m (W_m f_m + b_m),

with f_m the features of modality m's branch, W_m and b_m its linear head, α_m = a_m w_m / Σ a_m w_m
over the modalities of which anything is visible (a_m = 1), and c the base value. As one linear map of
the features (α_1 f_1, …, α_M f_M, α_1, …, α_M) this is the head that every network has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import HIDDEN, TransformerBlock
from geomiam.networks.config import NetworkConfig
from geomiam.networks.packs import Seen
from geomiam.networks.summaries import Summaries, packed_mean, visible_mean
from geomiam.tokens.rows import Rows


class Branch(nn.Module):
    """The encoder of one modality: its tokens meet, their mean is normalised and bent."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        blocks = (TransformerBlock.over_tokens(config) for _ in range(config.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of tokens ``(n, k, d)``; garbage, but finite, where none is visible."""
        return self.activate(visible_mean(self.blocks, tokens, visible))

    def activate(self, mean: Tensor) -> Tensor:
        """Features from the mean of the tokens ``(n, d)``."""
        return torch.relu(self.norm(mean))


class LateFusion(nn.Module):
    """A branch per modality; the visible ones are averaged (or added up) before one linear head.

    Parameters
    ----------
    config : NetworkConfig
        Its blocks are those of each branch. ``weights``: w_m is 1 ("equal"), or exp of a learned number
        ("learned"), so that a mean over the visible is their softmax. ``pool="sum"`` leaves out the
        division: logits add up, and so do their Shapley values.
    sizes : sequence of int
        Tokens per modality ``(M,)``.
    """

    def __init__(self, config: NetworkConfig, *, sizes: Sequence[int]):
        super().__init__()
        self.pool, self.width = config.pool, config.width
        self.sets = [list(range(a, b)) for a, b in pairwise(accumulate(sizes, initial=0))]
        self.branches = nn.ModuleList(Branch(config) for _ in sizes)
        learned = config.weights == "learned"
        self.scores = nn.Parameter(torch.zeros(len(sizes))) if learned else None
        self.features = len(sizes) * (config.width + 1)
        """Numbers that the head reads."""

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, M·(d + 1))`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        own = [visible[:, s] for s in self.sets]
        made = [self.summarise(m, tokens[:, s], v) for m, (s, v) in enumerate(zip(self.sets, own))]
        return self.fuse(torch.stack(made, 1), torch.stack([v.any(1) for v in own], 1))

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, M·(d + 1))`` in training: only visible tokens are computed."""
        made = []
        for branch, own in zip(self.branches, self.sets):
            visible, place = seen.visible[:, own], seen.place[:, own]
            mean = packed_mean(branch.blocks, seen.made, visible, place)  # type: ignore[arg-type]
            made.append(branch.activate(mean))  # type: ignore[operator]
        there = torch.stack([seen.visible[:, own].any(1) for own in self.sets], 1)
        return self.fuse(torch.stack(made, 1), there.to(made[0].device))

    def view(self, rows: Rows, shown: Tensor) -> LateView:
        """Return what coalitions ``shown (c, t)`` see of rows."""
        return LateView(self, rows, shown)

    def summarise(self, modality: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of a modality's tokens ``(n, k, d)``."""
        return self.branches[modality](tokens, visible)

    def fuse(self, made: Tensor, there: Tensor) -> Tensor:
        """What the head reads ``(..., M·(d + 1))``, from branch features ``(..., M, d)``.

        ``there (..., M)`` says of which modalities anything is visible; the others add nothing.
        """
        alpha = self.alpha(there)
        weighted = alpha.unsqueeze(-1) * made.float().masked_fill(~there.unsqueeze(-1), 0)
        return torch.cat([weighted.flatten(-2), alpha], -1)

    def alpha(self, there: Tensor) -> Tensor:
        """α ``(..., M)``, float32; 0 for what is not there, also where nothing is."""
        scores = there.new_zeros(there.shape[-1]) if self.scores is None else self.scores
        scores = scores.float().expand(there.shape)
        if self.pool == "sum":
            return there * scores.exp()
        return there * torch.where(there, scores, HIDDEN).softmax(-1)


class LateView:
    """Branch features of all rows, made once; a coalition is a weighted sum of them."""

    def __init__(self, fusion: LateFusion, rows: Rows, shown: Tensor):
        self.fusion = fusion
        self.made = Summaries.of(
            fusion.sets, rows, shown, width=fusion.width, summarise=fusion.summarise
        )

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return coalitions * (1 + len(self.fusion.sets))

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, M·(d + 1))`` of rows in coalitions."""
        chosen, there = self.made.there(rows, which)
        if not self.made.table.shape[1]:
            made = self.made.table.new_zeros(*there.shape, self.fusion.width)
        else:
            made = self.made.table[rows][:, chosen.clamp(min=0)]
        return self.fusion.fuse(made, there)
