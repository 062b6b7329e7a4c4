"""Token fusion: the papers' transformer (MaskSDM, MIAM), with hidden tokens collapsed to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.blocks import HIDDEN, TransformerBlock, buckets, gather, key_bias
from geomiam.networks.packs import Pack, Seen, packs, spread, unpack
from geomiam.tokens.rows import Rows


class TokenFusion(nn.Module):
    """All tokens attend to all; hidden ones are one learned vector; the mean is read out.

    The k hidden tokens of a row are computed as one. They are equal on entry and carry no position, so
    they stay equal through every block: one token with ``log k`` added to its attention logit and
    weight k in the mean gives the same result. In training dropout would part them; the one token
    gets noise of the mean and variance that the mean of k has. To sparse attention it is one token, to
    experts one that is routed and not counted.

    Tokens of ``grown`` modalities, which a trained model was given later, do not count while they are
    hidden: without them the model is the one that it was.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        depth: int,
        dropout: float,
        grown: Sequence[int] = (),
        over_tokens: Callable[[], TransformerBlock] | None = None,
    ):
        super().__init__()
        self.grown = list(grown)
        make = over_tokens or partial(TransformerBlock, width, heads, dropout)
        self.mask = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.blocks = nn.ModuleList(make() for _ in range(depth))

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self.collapsed(tokens, visible)

    def grown_from(self, old: TokenFusion) -> list[nn.Parameter]:
        """Take over a fusion of fewer tokens; return what is new: nothing."""
        self.load_state_dict(old.state_dict())
        return []

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, d)`` in training.

        Rows that show less than the longest of their pack are filled up with single mask vectors, so
        in every row of a pack the last slot stands for equally many.
        """
        n, t = seen.visible.shape
        if self.grown:  # rows hide differently many that count, so they do not fit into packs
            place = seen.place.clamp(min=0).to(seen.made.device)
            return self.plain(seen.made[place], seen.visible.to(seen.made.device))
        made = torch.cat([seen.made, self.mask[None].to(seen.made.dtype)])
        place = torch.where(seen.visible, seen.place, len(seen.made))
        place = torch.cat([place, place.new_full((n, 1), len(seen.made))], 1)
        some = torch.cat([seen.visible, seen.visible.new_ones(n, 1)], 1)  # and one mask vector
        found = packs(some, device=made.device)
        tokens = spread(made, [place[p.rows[:, None], p.index] for p in found])
        mean = self._sparse_mean if self.blocks[0].budget is not None else self._mean
        return unpack([mean(x, p, t) for x, p in zip(tokens, found)], found, rows=n)

    def _mean(self, x: Tensor, pack: Pack, t: int) -> Tensor:
        """Mean after all blocks over tokens ``(b, l, d)``; the last stands for what of t is left."""
        copies, counted = t - x.shape[1] + 1, None
        if self.blocks[0].mixture:
            counted = (_slots(pack) < _shown(pack)).to(x.device)
        weight = x.new_ones(x.shape[1])
        weight[-1] = copies
        bias = None if copies == 1 else weight.log()[None, None, None]
        for block in self.blocks:
            x = block(x, bias, copies=copies, counted=counted)
        return (weight / weight.sum()) @ x

    def _sparse_mean(self, x: Tensor, pack: Pack, t: int) -> Tensor:
        """The same where the number of tokens matters: a row has one mask token, the rest is padding."""
        slots, shown = _slots(pack), _shown(pack)
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

    def collapsed(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Visible tokens and one for all hidden; rows that show equally many go together."""
        return Shared(self, tokens).features(visible)

    def _is_grown(self, tokens: Iterable[int], device: torch.device) -> Tensor:
        return torch.tensor([t in self.grown for t in tokens], dtype=torch.bool, device=device)

    def view(self, rows: Rows, shown: Tensor) -> TokenView:
        """Return what coalitions ``shown (c, t)`` see of rows."""
        return TokenView(self, rows, shown)


class TokenView:
    """Coalitions one after another; of each row, tokens and their first products once."""

    def __init__(self, fusion: TokenFusion, rows: Rows, shown: Tensor):
        self.fusion, self.rows, self.shown = fusion, rows, shown
        self.last: tuple[Tensor, Shared] | None = None
        seen = shown.any(0) & rows.visible.any(0)
        absent = {t for t in fusion.grown if not seen[t]}  # they change no bit of the answer
        self.tokens = [t for t in range(shown.shape[1]) if t not in absent]

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return len(self.tokens)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        observed, shared = self.rows.visible[rows], self._shared(rows)
        return torch.stack([shared.features(observed & c) for c in self.shown[which]], 1)

    def states(self, rows: Tensor, which: int, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Features ``(r, d)`` of rows in one coalition, and last tokens by group ``(r, G, d)``."""
        visible = self.rows.visible[rows] & self.shown[which]
        return self._shared(rows).states(visible, owner, groups)

    def _shared(self, rows: Tensor) -> Shared:
        if self.last is None or self.last[0] is not rows:
            made = self.rows.tokens(rows, self.tokens)
            self.last = rows, Shared(self.fusion, made, self.tokens)
        return self.last[1]


class Shared:
    """Tokens ``(n, l, d)`` of which any part may be visible: norm and projections of the first block
    are made once, and the last product of the last block after the mean, which is linear.

    ``index (l,)`` says which of all tokens they are; those left out are hidden, and do not count.
    """

    def __init__(self, fusion: TokenFusion, tokens: Tensor, index: Sequence[int] | None = None):
        self.fusion, self.index = fusion, list(range(tokens.shape[1]) if index is None else index)
        self.grown = fusion._is_grown(self.index, tokens.device)
        first: TransformerBlock = fusion.blocks[0]  # type: ignore[assignment]
        self.parts = [tokens, *first.project(tokens)]
        mask = fusion.mask.to(tokens.dtype)[None, None]
        self.mask = [mask, *first.project(mask)]

    def features(self, visible: Tensor) -> Tensor:
        """Features ``(n, d)`` of the tokens that are visible ``(n, t)``."""
        out = torch.empty_like(self.parts[0][:, 0])
        for rows, index, hidden in self._sizes(visible):
            out[rows] = self.fusion.blocks[-1].widen_mean(*self._one_size(rows, index, hidden))  # type: ignore[operator]
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
            y = self.fusion.blocks[-1].widen(x)  # type: ignore[operator]
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
            for rows, index in buckets(visible[own]):
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
        x = self.fusion.blocks[0].attend(*parts, bias=bias)  # type: ignore[operator]
        for block, following in zip(self.fusion.blocks, self.fusion.blocks[1:]):
            x = block.widen(x, counted=counted)  # type: ignore[operator]
            x = following.attend(x, *following.project(x), bias=bias)  # type: ignore[operator]
        return x, weight / weight.sum(), counted


def _slots(pack: Pack) -> Tensor:
    return torch.arange(pack.index.shape[1])[None]


def _shown(pack: Pack) -> Tensor:
    """Visible tokens of each row ``(b, 1)`` of a pack of those and one mask vector."""
    if pack.seen is None:
        return torch.full((len(pack.index), 1), pack.index.shape[1] - 1)
    return pack.seen.sum(1, keepdim=True) - 1
