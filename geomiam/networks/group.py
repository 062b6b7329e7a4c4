"""Group fusion: tokens meet inside their group first, then the groups' summaries meet.

A summary depends on its own group only, so all 2^G coalitions of groups share the same G summaries;
what is left per coalition is a small transformer over at most G + 1 vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import TransformerBlock, buckets, gather, key_bias
from geomiam.networks.meetings import Meetings, meet
from geomiam.networks.packs import Pack, Seen, packs, spread, unpack
from geomiam.tokens.rows import Rows

TOKENS_AT_ONCE = 4096
"""Tokens encoded at a time: small enough for the cache, large enough for the matrix products."""


class GroupFusion(nn.Module):
    """One encoder shared by all groups, a summary for each, fused over those that are visible.

    The summary is the mean of a group's visible tokens plus a learned vector of the group. A learned
    query token reads the visible summaries; with none visible it gives the base value.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        width: int,
        heads: int,
        inner: int,
        depth: int,
        dropout: float,
    ):
        super().__init__()
        self.groups = [list(g) for g in groups]
        self.inner = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(inner))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        drawn = torch.randn(len(groups), width) * 0.02
        self.identity = nn.ParameterList(drawn.clone().unbind())  # apart: a new group learns alone
        self.query = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        own = [(tokens[:, g], visible[:, g]) for g in self.groups]
        summaries = [self.summarise(g, x, seen) for g, (x, seen) in enumerate(own)]
        return self.fuse(torch.stack(summaries, 1), torch.stack([s.any(1) for _, s in own], 1))

    def grown_from(self, old: GroupFusion) -> list[nn.Parameter]:
        """Take over a fusion of fewer groups; return what is new: the identities of new groups."""
        known = {tuple(g): i for g, i in zip(old.groups, old.identity)}
        new = [i for g, i in zip(self.groups, self.identity) if tuple(g) not in known]
        with torch.no_grad():
            for group, identity in zip(self.groups, self.identity):
                identity.copy_(known.get(tuple(group), identity))
            self.query.copy_(old.query)
        for part in ("inner", "blocks", "norm"):
            getattr(self, part).load_state_dict(getattr(old, part).state_dict())
        return new

    def view(self, rows: Rows, shown: Tensor) -> GroupView:
        """Return what coalitions ``shown (c, t)`` see of rows."""
        return GroupView(self, rows, shown)

    def summarise(self, group: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Summaries ``(n, d)`` of one group's tokens ``(n, k, d)``; garbage where none is visible."""
        return self.norm(self._encode_visible(tokens, visible)) + self.identity[group]

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, d)`` in training: only visible tokens meet, and only summaries of some."""
        n, groups = len(seen.visible), len(self.groups)
        own = [seen.visible[:, g] for g in self.groups]
        place = [seen.place[:, g] for g in self.groups]
        summaries = self._means(seen.made, _stacked(own), _stacked(place))
        summaries = self.norm(summaries.view(n, groups, -1)) + torch.stack(list(self.identity))
        whole = torch.cat([self.query[None].to(summaries.dtype), summaries.flatten(0, 1)])
        stands = torch.nn.functional.pad(1 + torch.arange(n * groups).view(n, groups), (1, 0))
        there = torch.stack([v.any(1) for v in own], 1)
        found = packs(torch.cat([there.new_ones(n, 1), there], 1), device=whole.device)
        vectors = spread(whole, [stands[p.rows[:, None], p.index] for p in found])
        return unpack(
            [self._read(x, _pack_bias(x, p)) for x, p in zip(vectors, found)], found, rows=n
        )

    def _means(self, made: Tensor, visible: Tensor, place: Tensor) -> Tensor:
        """Mean ``(s, d)`` of the visible tokens of s = n · G parts ``(s, k)``, after they met."""
        found = packs(visible, device=made.device)
        tokens = spread(made, [place[p.rows[:, None], p.index].clamp(min=0) for p in found])
        return unpack(
            [self._part_mean(x, p) for x, p in zip(tokens, found)], found, rows=len(place)
        )

    def _part_mean(self, x: Tensor, pack: Pack) -> Tensor:
        bias = _pack_bias(x, pack)
        for block in self.inner:
            x = block(x, bias)
        if pack.seen is None:
            return x.mean(1)
        weight = pack.seen.to(x.device, x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _read(self, x: Tensor, bias: Tensor | None) -> Tensor:
        for block in self.blocks[:-1]:
            x = block(x, bias)
        return self.blocks[-1](x, bias, read=1).squeeze(1)

    def fuse(self, summaries: Tensor, present: Tensor) -> Tensor:
        """Features ``(n, d)`` from summaries ``(n, G, d)`` of the groups that are present ``(n, G)``."""
        query = torch.ones_like(present[:, :1])
        bias = key_bias(torch.cat([query, present], 1), summaries.dtype)
        return self._read(self.with_query(summaries), bias)

    def with_query(self, summaries: Tensor) -> Tensor:
        """Put the query before the summaries: ``(n, 1 + G, d)``."""
        query = self.query.to(summaries.dtype).expand(len(summaries), 1, -1)
        return torch.cat([query, summaries], 1)

    def _encode_visible(self, tokens: Tensor, visible: Tensor) -> Tensor:
        means = tokens.new_zeros(len(tokens), tokens.shape[-1])
        for rows, index in buckets(visible):
            if index.shape[1]:
                means[rows] = self._mean(gather(tokens, rows, index))
        return means

    def _mean(self, x: Tensor) -> Tensor:
        if not len(self.inner):
            return x.mean(1)
        *blocks, last = self.inner
        for block in blocks:
            x = block(x)
        x = last.attend(x, *last.project(x))  # type: ignore[operator]
        return last.widen_mean(x, x.new_full((x.shape[1],), 1 / x.shape[1]))  # type: ignore[operator]


class GroupView:
    """What coalitions see of n rows: summaries of all rows, made once, and which of them they show.

    A group has a summary for each distinct part of it that coalitions show, one where the players
    are the groups; rows that are equal in that part share it. A part that no row has is left out,
    so that a group without data costs nothing and changes no bit of the answer.
    """

    def __init__(self, fusion: GroupFusion, rows: Rows, shown: Tensor):
        self.fusion = fusion
        summaries: list[Tensor] = []
        present: list[Tensor] = []
        which: list[Tensor] = []
        for g, own in enumerate(fusion.groups):
            there = shown[:, own] & rows.visible[:, own].any(0)
            parts, index = there.unique(dim=0, return_inverse=True)
            some = parts.any(1)
            number = torch.where(some, some.cumsum(0) - 1 + len(summaries), -1)
            which.append(number[index])
            for part in parts[some]:
                tokens = [t for t, is_shown in zip(own, part.tolist()) if is_shown]
                summaries.append(self._summary(g, rows, tokens))
                present.append(rows.visible[:, tokens].any(1))
        self.which = torch.stack(which, 1)  # (c, G); -1: nothing of the group
        empty = fusion.query.new_zeros(len(rows.visible), 0, len(fusion.query))
        self.table = torch.stack(summaries, 1) if summaries else empty  # (n, v, d)
        self.present = torch.stack(present, 1) if present else rows.visible[:, :0]  # (n, v)
        self.meetings: dict[tuple[bytes, int], Meetings] = {}

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return coalitions * (1 + int((self.which >= 0).any(0).sum()) // 2)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        out = self.table.new_empty(len(rows), len(which), self.table.shape[-1])
        for present, mine in _patterns(self.present[rows]):
            x = self.fusion.with_query(self.table[rows[mine]])
            out[mine] = meet(self.fusion.blocks, x, self._meetings(present, which))
        return out

    def _summary(self, group: int, rows: Rows, tokens: list[int]) -> Tensor:
        """Summaries ``(n, d)`` of some tokens of a group."""
        first, same = rows.distinct(tokens)
        made = [
            self.fusion.summarise(group, rows.tokens(some, tokens), rows.visible[some][:, tokens])
            for some in first.split(max(1, TOKENS_AT_ONCE // len(tokens)))
        ]
        return torch.cat(made)[same]

    def _meetings(self, present: Tensor, which: Tensor) -> Meetings:
        """Who meets in coalitions of rows in which these summaries are present ``(v,)``."""
        key = bytes(present.tolist()) + bytes(which.cpu().numpy().tobytes()), len(which)
        if key not in self.meetings:
            chosen = self.which[which]
            there = (chosen >= 0) & present[chosen.clamp(min=0)] if len(present) else chosen >= 0
            self.meetings[key] = Meetings.of(
                [
                    [int(v) + 1 for v, t in zip(*pair) if t]
                    for pair in zip(chosen.tolist(), there.tolist())
                ],
                among=self.table.shape[1] + 1,
                device=self.table.device,
            )
        return self.meetings[key]


def _patterns(present: Tensor) -> Iterator[tuple[Tensor, Tensor | slice]]:
    """Distinct rows of ``present (n, v)``, and which rows have each."""
    if not present.shape[1]:
        yield present[0], slice(None)
        return
    patterns, which = present.unique(dim=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        yield pattern, torch.nonzero(which == p).squeeze(1) if len(patterns) > 1 else slice(None)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Parts ``(n, k_g)`` of G groups as ``(n · G, k)``, filled up with zeros."""
    most = max(p.shape[1] for p in parts)
    filled = [torch.nn.functional.pad(p, (0, most - p.shape[1])) for p in parts]
    return torch.stack(filled, 1).flatten(0, 1)


def _pack_bias(x: Tensor, pack: Pack) -> Tensor | None:
    return None if pack.seen is None else key_bias(pack.seen.to(x.device), x.dtype)
