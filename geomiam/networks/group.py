"""Group fusion: tokens meet inside their group first, then the groups' summaries meet.

A summary depends on its own group only, so all 2^G coalitions of groups share the same G summaries;
what is left per coalition is a small transformer over at most G + 1 vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import TransformerBlock, key_bias
from geomiam.networks.meetings import Meetings, meet
from geomiam.networks.packs import Seen, packs, spread, unpack
from geomiam.networks.summaries import Summaries, pack_bias, packed_mean, visible_mean
from geomiam.tokens.rows import Rows


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
        over_tokens: Callable[[], TransformerBlock] | None = None,
    ):
        super().__init__()
        plain = partial(TransformerBlock, width, heads, dropout)
        self.groups = [list(g) for g in groups]
        self.inner = nn.ModuleList((over_tokens or plain)() for _ in range(inner))
        self.blocks = nn.ModuleList(plain() for _ in range(depth))
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
        return self.norm(visible_mean(self.inner, tokens, visible)) + self.identity[group]

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, d)`` in training: only visible tokens meet, and only summaries of some."""
        n, groups = len(seen.visible), len(self.groups)
        own = [seen.visible[:, g] for g in self.groups]
        place = [seen.place[:, g] for g in self.groups]
        summaries = packed_mean(self.inner, seen.made, _stacked(own), _stacked(place))
        summaries = self.norm(summaries.view(n, groups, -1)) + torch.stack(list(self.identity))
        whole = torch.cat([self.query[None].to(summaries.dtype), summaries.flatten(0, 1)])
        stands = torch.nn.functional.pad(1 + torch.arange(n * groups).view(n, groups), (1, 0))
        there = torch.stack([v.any(1) for v in own], 1)
        found = packs(torch.cat([there.new_ones(n, 1), there], 1), device=whole.device)
        vectors = spread(whole, [stands[p.rows[:, None], p.index] for p in found])
        return unpack(
            [self._read(x, pack_bias(x, p)) for x, p in zip(vectors, found)], found, rows=n
        )

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


class GroupView:
    """What coalitions see of n rows: summaries of all rows, made once, and which of them they show."""

    def __init__(self, fusion: GroupFusion, rows: Rows, shown: Tensor):
        self.fusion = fusion
        self.made = Summaries.of(
            fusion.groups, rows, shown, width=len(fusion.query), summarise=fusion.summarise
        )
        self.meetings: dict[tuple[bytes, int], Meetings] = {}

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return coalitions * (1 + int((self.made.which >= 0).any(0).sum()) // 2)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        out = self.made.table.new_empty(len(rows), len(which), self.made.table.shape[-1])
        for present, mine in _patterns(self.made.present[rows]):
            x = self.fusion.with_query(self.made.table[rows[mine]])
            out[mine] = meet(self.fusion.blocks, x, self._meetings(present, which))
        return out

    def _meetings(self, present: Tensor, which: Tensor) -> Meetings:
        """Who meets in coalitions of rows in which these summaries are present ``(v,)``."""
        key = bytes(present.tolist()) + bytes(which.cpu().numpy().tobytes()), len(which)
        if key not in self.meetings:
            chosen = self.made.which[which]
            there = (chosen >= 0) & present[chosen.clamp(min=0)] if len(present) else chosen >= 0
            self.meetings[key] = Meetings.of(
                [
                    [int(v) + 1 for v, t in zip(*pair) if t]
                    for pair in zip(chosen.tolist(), there.tolist())
                ],
                among=self.made.table.shape[1] + 1,
                device=self.made.table.device,
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
