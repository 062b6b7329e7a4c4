"""Token fusion: the transformer of MaskSDM and MIAM, with all hidden tokens computed as one.

Shapes: n rows, t tokens, l tokens that are computed, k visible tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks import pooling
from geomiam.networks.blocks import HIDDEN, Modules, key_bias
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import token_block
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import modality_tokens

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class TokenFusion(Fusion):
    """Transformer over all tokens; its output is the mean of the tokens after the last block.

    As in MaskSDM (Zbinden et al. 2025), one learned mask vector replaces every hidden token. The mask
    vector has no position, so the k hidden tokens of a row are equal on entry and stay equal through
    every block. One token therefore replaces them, with ``log k`` added to its attention logit::

        k exp(a) = exp(a + log k)

    and with weight k in the mean. The result is the same.

    In training, dropout would make the k tokens differ. The one token gets noise with the mean and the
    variance of the mean of k tokens. Sparse attention treats it as one token. Experts process it and do
    not count it as load.

    Tokens of the modalities ``config.grown``, which were added to a trained model, do not count while
    they are hidden. Without them the predictions are the old ones.
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
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and boolean visible ``(n, t)``."""
        return SharedTokens(self, tokens).features(visible)

    def plain(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return the features ``(n, d)`` by the definition, with every hidden token computed."""
        x = torch.where(
            visible.unsqueeze(-1), tokens, self.mask
        )  # MaskSDM: one vector for hidden tokens
        if not self.grown:
            for block in self.blocks:
                x = block(x)
            # The mean runs over all t tokens, hidden ones included, as in MaskSDM.
            return x.mean(1)
        counts = visible | ~self._is_grown(range(tokens.shape[1]), visible.device)
        for block in self.blocks:
            x = block(x, key_bias(counts, x.dtype))
        weight = counts.to(x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1)

    def training_features(self, tokens: pooling.VisibleTokens) -> Tensor:
        """Return features ``(n, d)`` in training."""
        # Rows with about equally many visible tokens form a bucket. Shorter rows of a bucket are filled up
        # with single mask vectors, so the last slot stands for the same number of tokens in every row.
        n, t = tokens.visible.shape
        if self.grown:  # rows hide different numbers of counting tokens, so no bucket fits
            return self.plain(tokens.padded(), tokens.visible.to(tokens.vectors.device))
        vectors = torch.cat([tokens.vectors, self.mask[None].to(tokens.vectors.dtype)])
        place = torch.where(tokens.visible, tokens.place, len(tokens.vectors))
        place = torch.cat([place, place.new_full((n, 1), len(tokens.vectors))], 1)
        with_mask = torch.cat([tokens.visible, tokens.visible.new_ones(n, 1)], 1)
        buckets = pooling.length_buckets(with_mask, device=vectors.device)
        inputs = pooling.gather_vectors(vectors, [place[b.rows[:, None], b.index] for b in buckets])
        mean = self._mean if self.blocks[0].collapses else self._sparse_mean
        return pooling.to_rows([mean(x, b, t) for x, b in zip(inputs, buckets)], buckets, rows=n)

    def _mean(self, x: Tensor, bucket: pooling.Bucket, t: int) -> Tensor:
        """Return the mean ``(b, d)`` of t tokens after all blocks, from the l of a bucket ``(b, l, d)``."""
        # The last of the l tokens stands for the remaining t − l + 1.
        copies, load_mask = t - x.shape[1] + 1, None
        if self.blocks[0].mixture:
            slots, counts = _slots(bucket)
            load_mask = (slots < counts).to(x.device)
        weight = x.new_ones(x.shape[1])
        weight[-1] = copies
        # k exp(a) = exp(a + log k).
        bias = None if copies == 1 else weight.log()[None, None, None]  # (1, 1, 1, l)
        for block in self.blocks:
            x = block(x, bias, copies=copies, load_mask=load_mask)
        return (weight / weight.sum()) @ x

    def _sparse_mean(self, x: Tensor, bucket: pooling.Bucket, t: int) -> Tensor:
        """Return the mean as :meth:`_mean`, where the number of tokens of a row matters."""
        # Sparse attention samples among the tokens, so a row has one mask token and then padding.
        slots, counts = _slots(bucket)
        # Weights: 1 for a visible token, t − visible for the mask token, 0 for padding.
        copies = torch.where(slots < counts, 1, torch.where(slots == counts, t - counts, 0))
        weight = copies.to(x.device, x.dtype)
        bias = weight.log().clamp(min=HIDDEN)[:, None, None]
        for block in self.blocks:
            x = block(x, bias, copies=weight, load_mask=(slots < counts).to(x.device))
        return ((weight / t).unsqueeze(1) @ x).squeeze(1)

    @classmethod
    def check(cls, config: NetworkConfig) -> None:
        super().check(config)
        if config.grown and config.attention == "sparse":
            raise ValueError(
                "a token model with sparse attention cannot grow: it counts hidden tokens as one; use "
                "attention='dense', or fusion='group'"
            )

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        return BlockCounts(config.depth, 0)

    def extend(self, old: TokenFusion) -> list[nn.Parameter]:
        self.load_state_dict(old.state_dict())
        return []

    def view(self, rows: Rows, coalitions: Tensor) -> TokenView:
        return TokenView(self, rows, coalitions)

    def _is_grown(self, tokens: Iterable[int], device: torch.device) -> Tensor:
        return torch.tensor([t in self.grown for t in tokens], dtype=torch.bool, device=device)


class TokenView(CoalitionView):
    """Coalitions one after another; they share the tokens of the rows and their first products."""

    fusion: TokenFusion

    def __init__(self, fusion: TokenFusion, rows: Rows, coalitions: Tensor):
        super().__init__(fusion, rows, coalitions)
        self.last: tuple[Tensor, SharedTokens] | None = None
        ever_visible = coalitions.any(0) & rows.visible.any(0)
        # A grown token that is never visible must not change the last bit of a prediction.
        absent = {t for t in fusion.grown if not ever_visible[t]}
        self.index = [t for t in range(coalitions.shape[1]) if t not in absent]

    def cost(self, count: int) -> int:
        return len(self.index)

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, d)`` of ``rows (r,)`` in the coalitions ``selection (c,)``."""
        observed, shared = self.rows.visible[rows], self._shared(rows)
        return torch.stack([shared.features(observed & c) for c in self.coalitions[selection]], 1)

    def states(
        self, rows: Tensor, coalition: int, owner: Tensor, groups: int
    ) -> tuple[Tensor, Tensor]:
        """Return features ``(r, d)`` in one coalition, and last tokens by group ``(r, G, d)``."""
        visible = self.rows.visible[rows] & self.coalitions[coalition]
        return self._shared(rows).states(visible, owner, groups)

    def _shared(self, rows: Tensor) -> SharedTokens:
        if self.last is None or self.last[0] is not rows:
            tokens = self.rows.tokens(rows, self.index)
            self.last = rows, SharedTokens(self.fusion, tokens, self.index)
        return self.last[1]


class SharedTokens:
    """Tokens ``(n, l, d)`` that are read with different subsets of them visible.

    LayerNorm and projections of the first block are computed once for all subsets. The last product of
    the last block is linear, so it follows the mean.

    ``index (l,)`` holds the positions of the tokens among all t. Tokens that are left out are hidden
    and do not count.
    """

    def __init__(self, fusion: TokenFusion, tokens: Tensor, index: Sequence[int] | None = None):
        self.fusion, self.index = fusion, list(range(tokens.shape[1]) if index is None else index)
        self.grown = fusion._is_grown(self.index, tokens.device)
        first = fusion.blocks[0]
        self.parts = [tokens, *first.project(tokens)]
        mask = fusion.mask.to(tokens.dtype)[None, None]
        self.mask = [mask, *first.project(mask)]

    def features(self, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` of rows in which the tokens ``visible (n, t)`` are visible."""
        out = torch.empty_like(self.parts[0][:, 0])
        for rows, index, hidden in self._equal_counts(visible):
            x, weight, load_mask = self._before_last(rows, index, hidden)
            out[rows] = self.fusion.blocks[-1].feed_forward_mean(x, weight, load_mask)
        return out

    def states(self, visible: Tensor, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Return features ``(n, d)``, and means of the last tokens by group ``(n, G, d)``.

        ``owner (t,)`` is the group of each token. The mean of a group without a visible token is 0.
        """
        out = self.parts[0].new_zeros(len(visible), groups, self.parts[0].shape[-1])
        features = torch.empty_like(self.parts[0][:, 0])
        owner = owner[self.index]
        for rows, index, hidden in self._equal_counts(visible):
            x, weight, _ = self._before_last(rows, index, hidden)
            y = self.fusion.blocks[-1].feed_forward(x)
            features[rows] = weight @ y
            share = F.one_hot(owner[index], groups).to(y.dtype).transpose(1, 2)  # (b, G, k)
            # Means and not sums: the states of groups with many and with few tokens are then alike.
            share = share / share.sum(-1, keepdim=True).clamp(min=1)
            out[rows] = share @ y[:, : index.shape[1]]
        return features, out

    def _equal_counts(self, visible: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield rows ``(b,)``, positions ``(b, k)`` of their visible tokens, and their counting hidden ones."""
        visible = visible[:, self.index]
        grown_counts = visible[:, self.grown].sum(1)
        permanent = len(self.index) - int(self.grown.sum())
        for count in grown_counts.unique().tolist():
            same_count = torch.nonzero(grown_counts == count).squeeze(1)
            for rows, index in pooling.rows_of_equal_length(visible[same_count]):
                yield same_count[rows], index, permanent + count - index.shape[1]

    def _before_last(
        self, rows: Tensor, index: Tensor, hidden: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the state of ``rows (b,)`` before the feed-forward layer of the last block.

        ``index (b, k)`` are the positions of their visible tokens; one more token stands for the
        ``hidden`` ones that count. Return tokens ``(b, k + 1, d)``, or ``(b, k, d)`` without hidden ones,
        their weights ``(k + 1,)`` in the mean, which sum to 1, and which are visible ``(1, k + 1)``.
        """
        parts = [pooling.gather(part, rows, index) for part in self.parts]
        copies = parts[0].new_ones(index.shape[1] + bool(hidden))
        if hidden:
            mask = (m.expand(len(rows), 1, -1) for m in self.mask)
            parts = [torch.cat([p, m], 1) for p, m in zip(parts, mask)]
            copies[-1] = hidden
        # One token for k hidden ones: k exp(a) = exp(a + log k).
        bias = copies.log()[None, None, None] if hidden > 1 else None  # (1, 1, 1, k + 1)
        load_mask = torch.arange(len(copies), device=copies.device)[None] < index.shape[1]
        x = self.fusion.blocks[0].attend(*parts, bias=bias)
        for block, following in zip(self.fusion.blocks, self.fusion.blocks[1:]):
            x = block.feed_forward(x, load_mask=load_mask)
            x = following.attend(x, *following.project(x), bias=bias)
        return x, copies / copies.sum(), load_mask


def _slots(bucket: pooling.Bucket) -> tuple[Tensor, Tensor]:
    """Return positions of slots ``(1, l)``, and visible tokens of each row ``(b, 1)``."""
    slots = torch.arange(bucket.index.shape[1])[None]
    if bucket.visible is None:
        count = torch.full((len(bucket.index), 1), slots.shape[1])
    else:
        count = bucket.visible.sum(1, keepdim=True)
    return slots, count - 1  # one slot of each row is the mask vector
