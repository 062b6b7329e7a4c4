"""Cross-modal fusion: an encoder of its own for each modality, then all visible tokens side by side.

The two stages of MAESTRO (Mohapatra et al. 2025, arXiv:2509.25278). Two things differ. Hidden tokens
are left out, where MAESTRO keeps a reserved symbol among keys and values: so what is hidden changes
nothing, and nothing depends on why it is hidden. And no convolution distils the tokens between
blocks: each token stays one variable, window or patch.

Shapes: n rows, t tokens, M modalities, c coalitions, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import TransformerBlock, buckets, gather, key_bias
from geomiam.networks.config import NetworkConfig
from geomiam.networks.packs import Pack, Seen, packs, spread, unpack
from geomiam.networks.sparse import BudgetGate
from geomiam.tokens.rows import Rows

MOST_BLOCKS = 4096
"""Blocks of all encoders; a guard for saved models."""


class CrossFusion(nn.Module):
    """Tokens meet inside their modality, then all of them meet; the mean is read out.

    Every modality has ``inner`` blocks with weights of its own and a learned vector that is added
    after them; ``depth`` blocks over the tokens of all modalities follow, the only ones with
    experts. A row without a visible token is a learned vector.

    Parameters
    ----------
    config : NetworkConfig
    sizes : sequence of int
        Tokens of each modality, which stand one after the other.

    Raises
    ------
    ValueError
        If the encoders have more than ``MOST_BLOCKS`` blocks.
    """

    def __init__(self, config: NetworkConfig, *, sizes: Sequence[int]):
        super().__init__()
        if len(sizes) * config.inner > MOST_BLOCKS:
            raise ValueError(
                f"{len(sizes)} modalities of inner={config.inner} blocks are over {MOST_BLOCKS} "
                "blocks; use fewer inner blocks"
            )
        self.own = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes)]
        """Where the tokens of each modality stand."""
        make = TransformerBlock.over_tokens
        self.encoders = nn.ModuleList(
            nn.ModuleList(make(config, mixture=False) for _ in range(config.inner)) for _ in sizes
        )
        self.identity = nn.Parameter(torch.randn(len(sizes), config.width) * 0.02)
        self.blocks = nn.ModuleList(make(config) for _ in range(config.depth))
        self.nothing = nn.Parameter(torch.randn(config.width) * 0.02)
        self.gate = BudgetGate(len(sizes), config.budget) if config.gate else None

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        budgets = self.budgets(visible)
        encoded = [self.encode(m, tokens, visible, budgets) for m in range(len(self.own))]
        return self.fuse(torch.cat(encoded, 1), visible)

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
        for rows, index in buckets(visible[:, own]):
            if index.shape[1]:
                x = gather(tokens[:, own], rows, index)
                budget = None if budgets is None else budgets[rows, modality]
                out[rows[:, None], index] = self._within(modality, x, None, budget)
        return out

    def fuse(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` from encoded tokens ``(n, t, d)`` and visible ``(n, t)``."""
        out = self.nothing.to(encoded.dtype).repeat(len(encoded), 1)
        *before, last = self.blocks
        for rows, index in buckets(visible):
            if size := index.shape[1]:
                x = gather(encoded, rows, index)
                for block in before:
                    x = block(x)
                x = last.attend(x, *last.project(x))  # type: ignore[operator]
                out[rows] = last.widen_mean(x, x.new_full((size,), 1 / size))  # type: ignore[operator]
        return out

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, d)`` in training: only visible tokens meet."""
        n = len(seen.visible)
        budgets = self.budgets(seen.visible)
        made, place, start = [], torch.zeros_like(seen.place), 0
        for modality, own in enumerate(self.own):
            found = packs(seen.visible[:, own], device=seen.made.device)
            for x, pack in zip(_spread(seen.made, seen.place[:, own], found), found):
                budget = None if budgets is None else budgets[pack.rows.to(x.device), modality]
                made.append(self._within(modality, x, _bias(x, pack), budget).flatten(0, 1))
                stands = start + torch.arange(pack.index.numel()).view(pack.index.shape)
                place[pack.rows[:, None], own.start + pack.index] = stands
                start += pack.index.numel()
        found = packs(seen.visible, device=seen.made.device)
        tokens = _spread(torch.cat(made), place, found)
        means = [self._packed_mean(x, pack) for x, pack in zip(tokens, found)]
        some = seen.visible.any(1, keepdim=True).to(seen.made.device)
        return torch.where(some, unpack(means, found, rows=n), self.nothing)

    def view(self, rows: Rows, shown: Tensor) -> CrossView:
        """Return what coalitions ``shown (c, t)`` see of rows."""
        return CrossView(self, rows, shown)

    def _within(
        self, modality: int, x: Tensor, bias: Tensor | None, budget: Tensor | None
    ) -> Tensor:
        """Tokens of one modality after they met ``(b, k, d)``."""
        for block in self.encoders[modality]:  # type: ignore[attr-defined]
            x = block(x, bias, budget=budget)
        return x + self.identity[modality]

    def _packed_mean(self, x: Tensor, pack: Pack) -> Tensor:
        bias = _bias(x, pack)
        for block in self.blocks:
            x = block(x, bias)
        if pack.seen is None:
            return x.mean(1)
        weight = pack.seen.to(x.device, x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class CrossView:
    """Coalitions one after another; tokens once, and encoded once where a modality is shown whole.

    A gate reads which modalities a coalition shows, so with one every coalition encodes by itself.
    """

    def __init__(self, fusion: CrossFusion, rows: Rows, shown: Tensor):
        self.fusion, self.rows, self.shown = fusion, rows, shown
        self.last: tuple[Tensor, Tensor, dict[int, Tensor]] | None = None

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory: tokens, encoded whole, and as a coalition sees them."""
        return 3 * self.shown.shape[1]

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        return torch.stack([self._one(rows, shown) for shown in self.shown[which]], 1)

    def _one(self, rows: Tensor, shown: Tensor) -> Tensor:
        tokens, whole = self._made(rows)
        observed = self.rows.visible[rows]
        visible, fusion = observed & shown, self.fusion
        budgets, encoded = fusion.budgets(visible), []
        for m, own in enumerate(fusion.own):
            if budgets is None and bool(shown[own].all()):
                if m not in whole:
                    whole[m] = fusion.encode(m, tokens, observed)
                encoded.append(whole[m])
            else:
                encoded.append(fusion.encode(m, tokens, visible, budgets))
        return fusion.fuse(torch.cat(encoded, 1), visible)

    def _made(self, rows: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Tokens of rows ``(r, t, d)``, and what is encoded of their modalities so far."""
        if self.last is None or self.last[0] is not rows:
            self.last = rows, self.rows.tokens(rows, range(self.shown.shape[1])), {}
        return self.last[1:]


def _spread(made: Tensor, place: Tensor, found: Sequence[Pack]) -> list[Tensor]:
    """Tokens ``(b, l, d)`` of each pack, from where they stand ``(n, k)``."""
    return spread(made, [place[p.rows[:, None], p.index].clamp(min=0) for p in found])


def _bias(x: Tensor, pack: Pack) -> Tensor | None:
    return None if pack.seen is None else key_bias(pack.seen.to(x.device), x.dtype)
