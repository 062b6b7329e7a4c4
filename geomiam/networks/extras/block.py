"""A transformer block with sparse attention, experts, or both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from geomiam.networks.blocks import TransformerBlock, drop, feed_forward_width
from geomiam.networks.extras.experts import Experts
from geomiam.networks.extras.sparse import sparse

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class BlockWithExtras(TransformerBlock):
    """A block whose queries may attend sparsely, and whose feed-forward layer may be experts.

    ``budget`` is that of sparse attention; default: dense attention. ``experts`` has the settings
    ``experts``, ``top`` and ``balance`` of :class:`Experts` in place of the feed-forward layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        budget: float | None = None,
        experts: dict[str, Any] | None = None,
    ):
        super().__init__(width, heads, dropout, feed_forward=not experts)
        if experts:
            self.experts = Experts(width, feed_forward_width(width), **experts)
        self.budget, self.mixture, self.collapses = budget, bool(experts), budget is None

    @classmethod
    def of(cls, config: NetworkConfig, *, experts: bool = True) -> BlockWithExtras:
        """Return a new block as configured; without experts if ``experts`` is False."""
        sizes = config.width, config.heads, config.dropout
        budget = config.budget if config.attention == "sparse" else None
        count, top, balance = config.experts, config.top_experts, config.balance
        settings = {"experts": count, "top": top, "balance": balance}
        return cls(*sizes, budget=budget, experts=settings if experts and count else None)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        *,
        copies: int | Tensor = 1,
        budget: Tensor | None = None,
    ) -> Tensor:
        """Return attention ``(n, h, r, e)``, sparse unless only r < t tokens are read out."""
        dense = partial(super().attention, copies=copies)
        if self.budget is None or q.shape[2] < k.shape[2]:
            return dense(q, k, v, bias)
        limit = self.budget if budget is None else budget
        return sparse(dense, q, k, v, bias=bias, budget=limit, random=self.training)

    def feed_forward(
        self,
        x: Tensor,
        copies: int | Tensor = 1,
        *,
        bias: Tensor | None = None,
        load_mask: Tensor | None = None,
    ) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``; experts skip keys that ``bias`` removes."""
        if not self.mixture:
            return super().feed_forward(x, copies)
        dropout = partial(drop, share=self.drop_share, copies=copies)
        route_mask = None if bias is None else bias[:, 0, 0].exp() > 0
        y = self.norm_forward(x)
        y = self.experts(y, drop=dropout, route_mask=route_mask, load_mask=load_mask)
        return x + dropout(y)

    def feed_forward_mean(
        self, x: Tensor, weight: Tensor, load_mask: Tensor | None = None
    ) -> Tensor:
        """Return the weighted mean ``(n, d)`` over tokens; experts are computed for every token."""
        if self.mixture:
            return weight @ self.feed_forward(x, load_mask=load_mask)
        return super().feed_forward_mean(x, weight)
