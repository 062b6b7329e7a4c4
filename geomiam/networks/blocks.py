"""The transformer block that every fusion is built of, and the gathering of visible tokens.

Shapes: n rows, t tokens, r tokens read out, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.config import NetworkConfig
from geomiam.networks.dropout import drop
from geomiam.networks.experts import Experts
from geomiam.networks.sparse import sparse

HIDDEN = -1e9
"""Attention logit of a hidden key: its weight underflows to exactly 0, a row of them stays finite."""


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and a ReLU feed-forward layer of 4/3 the width (as MaskSDM).

    Parameters
    ----------
    width, heads, dropout
        Sizes.
    budget : float, optional
        Of sparse attention; default: dense.
    experts : dict, optional
        ``experts``, ``top`` and ``balance`` of :class:`Experts` in place of the feed-forward layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        budget: float | None = None,
        experts: dict | None = None,
    ):
        super().__init__()
        self.heads, self.dropout, self.budget = heads, dropout, budget
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        hidden = width * 4 // 3
        if experts:
            self.experts = Experts(width, hidden, **experts)
        else:
            self.forward_in, self.forward_out = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mixture = bool(experts)

    @classmethod
    def over_tokens(cls, config: NetworkConfig, *, mixture: bool = True) -> TransformerBlock:
        """Make a block over tokens as configured; blocks over summaries are always plain."""
        facts = {"experts": config.experts, "top": config.top_experts, "balance": config.balance}
        return cls(
            config.width,
            config.heads,
            config.dropout,
            budget=config.budget if config.attention == "sparse" else None,
            experts=facts if mixture and config.experts else None,
        )

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        read: int | None = None,
        *,
        copies: int | Tensor = 1,
        counted: Tensor | None = None,
        budget: Tensor | None = None,
    ) -> Tensor:
        """Mix the tokens of each row.

        Parameters
        ----------
        x : Tensor
            ``(n, t, d)``.
        bias : Tensor, optional
            Added to the attention logits of the keys; broadcasts to ``(n, h, r, t)``.
        read : int, optional
            Compute only the first ``read`` tokens: in a last block, those that are read out.
        copies : int or Tensor
            The last token stands for so many, or each for its own number ``(n, t)``, which dropout
            knows; ``bias`` must too.
        counted : Tensor, optional
            Boolean ``(n or 1, t)``: tokens that count as load of experts; default: those not hidden.
        budget : Tensor, optional
            Of each row's sparse attention ``(n,)``, in place of the block's own.

        Returns
        -------
        Tensor
            ``(n, r, d)``.
        """
        q, k, v = self.project(x, read)
        y = self.attend(x[:, :read], q, k, v, bias=bias, copies=copies, budget=budget)
        return self.widen(y, copies, bias=bias, counted=counted)

    def project(self, x: Tensor, read: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(n, r, d)``, keys and values ``(n, t, d)`` of tokens ``(n, t, d)``."""
        y = self.norm_attention(x)
        k, v = self.key_value(y).chunk(2, -1)
        return self.query(y[:, :read]), k, v

    def attend(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        bias: Tensor | None = None,
        copies: int | Tensor = 1,
        budget: Tensor | None = None,
    ) -> Tensor:
        """Add to tokens ``(n, r, d)`` what their queries find."""
        q, k, v = self.split(q), self.split(k), self.split(v)  # (n, h, r or t, d/h)
        if self.budget is None or q.shape[2] < k.shape[2]:  # a few that are read out: dense
            mixed = self._mix(q, k, v, bias, copies)
        else:
            u = self.budget if budget is None else budget
            mix = partial(self._mix, copies=copies)
            mixed = sparse(mix, q, k, v, bias=bias, budget=u, random=self.training)
        found = self.out(mixed.transpose(1, 2).flatten(2))
        return x + drop(found, self._share, copies=copies)

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, copies: int | Tensor
    ) -> Tensor:
        """Dense attention of queries ``(n, h, r, d/h)`` to keys ``(n, h, t, d/h)``."""
        if not self._share:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        logits = q * k.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        weight = (logits if bias is None else logits + bias).softmax(-1)
        return drop(weight, self._share, copies=copies, axis=-1).to(v.dtype) @ v

    def widen(
        self,
        x: Tensor,
        copies: int | Tensor = 1,
        *,
        bias: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``."""
        lose = partial(drop, share=self._share, copies=copies)
        if self.mixture:
            routed = None if bias is None else bias[:, 0, 0].exp() > 0
            y = self.norm_forward(x)
            return x + lose(self.experts(y, drop=lose, routed=routed, counted=counted))
        return x + lose(self.forward_out(lose(self._hidden(x))))

    def widen_mean(self, x: Tensor, weight: Tensor, counted: Tensor | None = None) -> Tensor:
        """Weighted mean over tokens ``(n, t, d)`` after the feed-forward layer: ``(n, d)``.

        The last product is linear, so it is made of the mean, unless experts differ from token to
        token. ``weight (t,)`` adds up to 1.
        """
        if self.mixture:
            return weight @ self.widen(x, counted=counted)
        return weight @ x + self.forward_out(weight @ self._hidden(x))

    def _hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.forward_in(self.norm_forward(x)), inplace=True)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @property
    def _share(self) -> float:
        """Of numbers that are dropped now."""
        return self.dropout if self.training else 0.0


def key_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an attention bias ``(n, 1, 1, t)`` that takes hidden keys out."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill(~visible, HIDDEN)[:, None, None, :]


def buckets(visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Group rows by how many tokens they show, so that no hidden token is computed.

    Parameters
    ----------
    visible : Tensor
        Boolean ``(n, t)``.

    Yields
    ------
    rows : Tensor
        ``(b,)`` rows that show k tokens.
    tokens : Tensor
        ``(b, k)`` which tokens these are, in order.
    """
    counts = visible.sum(1)
    order = torch.argsort(visible.to(torch.uint8), dim=1, descending=True, stable=True)
    for k in counts.unique().tolist():
        rows = torch.nonzero(counts == k).squeeze(1)
        yield rows, order[rows, :k]


def gather(tokens: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Return ``tokens[rows]`` at ``index (b, k)``: ``(b, k, d)``."""
    if index.shape == tokens.shape[:2]:  # all tokens of all rows, in order
        return tokens
    return tokens[rows.unsqueeze(1), index]
