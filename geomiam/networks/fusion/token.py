"""Token fusion: the papers' transformer (MaskSDM, MIAM), with hidden tokens collapsed to one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.blocks import HIDDEN, gather, key_bias, rows_of_equal_length
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import token_block
from geomiam.networks.length_buckets import (
    Bucket,
    VisibleTokens,
    gather_vectors,
    length_buckets,
    to_rows,
)
from geomiam.networks.modules import Modules
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import modality_tokens

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class TokenFusion(Fusion):
    """All tokens attend to all; hidden ones are one learned vector; the mean is read out.

    The k hidden tokens of a row are computed as one. They are equal on entry and carry no position, so
    they stay equal through every block: one token with ``log k`` added to its attention logit and
    weight k in the mean gives the same result. In training dropout would make them differ; the one
    token gets noise of the mean and variance that the mean of k has. To sparse attention it is one
    token, to experts one that is routed and not counted.

    Tokens of the modalities ``config.grown``, which were added to a trained model, do not count while
    they are hidden: without them the predictions are the old ones.
    """

    mixes = False
    extendable = True
    learned_explainer = True

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        width = config.width
        self.grown = modality_tokens(layout, config.grown)
        self.mask = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.blocks = Modules(token_block(config) for _ in range(config.depth))

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``.

        Visible tokens and one for all hidden; rows that show equally many go together.
        """
        return SharedTokens(self, tokens).features(visible)

    @classmethod
    def check(cls, config: NetworkConfig) -> None:
        """Refuse sparse attention in an extended model."""
        super().check(config)
        if config.grown and config.attention == "sparse":
            raise ValueError(
                "a token model with sparse attention cannot grow: it counts hidden tokens as one; use "
                "attention='dense', or fusion='group'"
            )

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        """Return the blocks over all tokens."""
        return BlockCounts(config.depth, 0)

    def extend(self, old: TokenFusion) -> list[nn.Parameter]:
        """Copy the weights of a fusion of fewer tokens; none is new."""
        self.load_state_dict(old.state_dict())
        return []

    def view(self, rows: Rows, shown: Tensor) -> TokenView:
        """Return the features of rows in coalitions of tokens ``shown (c, t)``."""
        return TokenView(self, rows, shown)

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Features ``(n, d)`` in training.

        Rows that show less than the longest of their bucket are filled up with single mask vectors, so
        in every row of a bucket the last slot stands for equally many.
        """
        n, t = tokens.visible.shape
        if self.grown:  # rows hide different numbers that count, so they do not fit into buckets
            return self.plain(tokens.padded(), tokens.visible.to(tokens.made.device))
        made = torch.cat([tokens.made, self.mask[None].to(tokens.made.dtype)])
        place = torch.where(tokens.visible, tokens.place, len(tokens.made))
        place = torch.cat([place, place.new_full((n, 1), len(tokens.made))], 1)
        with_mask = torch.cat([tokens.visible, tokens.visible.new_ones(n, 1)], 1)
        buckets = length_buckets(with_mask, device=made.device)
        vectors = gather_vectors(made, [place[b.rows[:, None], b.index] for b in buckets])
        mean = self._mean if self.blocks[0].collapses else self._sparse_mean
        return to_rows([mean(x, b, t) for x, b in zip(vectors, buckets)], buckets, rows=n)

    def _mean(self, x: Tensor, bucket: Bucket, t: int) -> Tensor:
        """Mean after all blocks over tokens ``(b, l, d)``; the last stands for what of t is left."""
        copies, counted = t - x.shape[1] + 1, None
        if self.blocks[0].mixture:
            counted = (_slots(bucket) < _shown(bucket)).to(x.device)
        weight = x.new_ones(x.shape[1])
        weight[-1] = copies
        bias = None if copies == 1 else weight.log()[None, None, None]
        for block in self.blocks:
            x = block(x, bias, copies=copies, counted=counted)
        return (weight / weight.sum()) @ x

    def _sparse_mean(self, x: Tensor, bucket: Bucket, t: int) -> Tensor:
        """The same where the number of tokens matters: a row has one mask token, the rest is padding."""
        slots, shown = _slots(bucket), _shown(bucket)
        copies = torch.where(slots < shown, 1, torch.where(slots == shown, t - shown, 0))
        weight = copies.to(x.device, x.dtype)
        bias = weight.log().clamp(min=HIDDEN)[:, None, None]
        for block in self.blocks:
            x = block(x, bias, copies=weight, counted=(slots < shown).to(x.device))
        return ((weight / t).unsqueeze(1) @ x).squeeze(1)

    def plain(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Every token computed; hidden ones replaced by the mask vector, grown ones taken out."""
        x = torch.where(visible.unsqueeze(-1), tokens, self.mask)
        if not self.grown:
            for block in self.blocks:
                x = block(x)
            return x.mean(1)
        counts = visible | ~self._is_grown(range(tokens.shape[1]), visible.device)
        for block in self.blocks:
            x = block(x, key_bias(counts, x.dtype))
        weight = counts.to(x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1)

    def _is_grown(self, tokens: Iterable[int], device: torch.device) -> Tensor:
        return torch.tensor([t in self.grown for t in tokens], dtype=torch.bool, device=device)


class TokenView(CoalitionView):
    """Coalitions one after another; of each row, tokens and their first products once."""

    fusion: TokenFusion

    def __init__(self, fusion: TokenFusion, rows: Rows, shown: Tensor):
        super().__init__(fusion, rows, shown)
        self.last: tuple[Tensor, SharedTokens] | None = None
        seen = shown.any(0) & rows.visible.any(0)
        absent = {t for t in fusion.grown if not seen[t]}  # they change no bit of the prediction
        self.index = [t for t in range(shown.shape[1]) if t not in absent]

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return len(self.index)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        observed, shared = self.rows.visible[rows], self._shared(rows)
        return torch.stack([shared.features(observed & c) for c in self.shown[which]], 1)

    def states(self, rows: Tensor, which: int, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Features ``(r, d)`` of rows in one coalition, and last tokens by group ``(r, G, d)``."""
        visible = self.rows.visible[rows] & self.shown[which]
        return self._shared(rows).states(visible, owner, groups)

    def _shared(self, rows: Tensor) -> SharedTokens:
        if self.last is None or self.last[0] is not rows:
            tokens = self.rows.tokens(rows, self.index)
            self.last = rows, SharedTokens(self.fusion, tokens, self.index)
        return self.last[1]


class SharedTokens:
    """Tokens ``(n, l, d)`` of which any part may be visible: norm and projections of the first block
    are made once, and the last product of the last block after the mean, which is linear.

    ``index (l,)`` says which of all tokens they are; those left out are hidden, and do not count.
    """

    def __init__(self, fusion: TokenFusion, tokens: Tensor, index: Sequence[int] | None = None):
        self.fusion, self.index = fusion, list(range(tokens.shape[1]) if index is None else index)
        self.grown = fusion._is_grown(self.index, tokens.device)
        first = fusion.blocks[0]
        self.parts = [tokens, *first.project(tokens)]
        mask = fusion.mask.to(tokens.dtype)[None, None]
        self.mask = [mask, *first.project(mask)]

    def features(self, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of the tokens that are visible ``(n, t)``."""
        out = torch.empty_like(self.parts[0][:, 0])
        for rows, index, hidden in self._sizes(visible):
            x, weight, counted = self._one_size(rows, index, hidden)
            out[rows] = self.fusion.blocks[-1].feed_forward_mean(x, weight, counted)
        return out

    def states(self, visible: Tensor, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Features ``(n, d)``, and means of the last tokens by group ``(n, G, d)``, 0 without any.

        ``owner (t,)`` is the group of each token.
        """
        out = self.parts[0].new_zeros(len(visible), groups, self.parts[0].shape[-1])
        features = torch.empty_like(self.parts[0][:, 0])
        owner = owner[self.index]
        for rows, index, hidden in self._sizes(visible):
            x, weight, _ = self._one_size(rows, index, hidden)
            y = self.fusion.blocks[-1].feed_forward(x)
            features[rows] = weight @ y
            mine = F.one_hot(owner[index], groups).to(y.dtype).transpose(1, 2)  # (b, G, k)
            mine = mine / mine.sum(-1, keepdim=True).clamp(min=1)
            out[rows] = mine @ y[:, : index.shape[1]]
        return features, out

    def _sizes(self, visible: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Rows ``(b,)``, the k tokens ``(b, k)`` that they show, and how many hidden ones count."""
        visible = visible[:, self.index]
        extra = visible[:, self.grown].sum(1)
        always = len(self.index) - int(self.grown.sum())
        for more in extra.unique().tolist():
            own = torch.nonzero(extra == more).squeeze(1)
            for rows, index in rows_of_equal_length(visible[own]):
                yield own[rows], index, always + more - index.shape[1]

    def _one_size(self, rows: Tensor, index: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of rows ``(b,)`` that show k of them ``(b, k)``, before the last feed-forward layer.

        One stands in place of all hidden ones that count. The second are weights in the mean, the third
        says which tokens are visible.
        """
        parts = [gather(part, rows, index) for part in self.parts]
        weight = parts[0].new_ones(
            index.shape[1] + bool(hidden)
        )  # of each token in softmax and mean
        if hidden:
            mask = (m.expand(len(rows), 1, -1) for m in self.mask)
            parts = [torch.cat([p, m], 1) for p, m in zip(parts, mask)]
            weight[-1] = hidden
        bias = weight.log()[None, None, None] if hidden > 1 else None  # (1, 1, 1, k + 1)
        counted = torch.arange(len(weight), device=weight.device)[None] < index.shape[1]
        x = self.fusion.blocks[0].attend(*parts, bias=bias)
        for block, following in zip(self.fusion.blocks, self.fusion.blocks[1:]):
            x = block.feed_forward(x, counted=counted)
            x = following.attend(x, *following.project(x), bias=bias)
        return x, weight / weight.sum(), counted


def _slots(bucket: Bucket) -> Tensor:
    return torch.arange(bucket.index.shape[1])[None]


def _shown(bucket: Bucket) -> Tensor:
    """Visible tokens of each row ``(b, 1)`` of a bucket of those and one mask vector."""
    if bucket.seen is None:
        return torch.full((len(bucket.index), 1), bucket.index.shape[1] - 1)
    return bucket.seen.sum(1, keepdim=True) - 1
