"""The transformer block of all fusions, with dropout for tokens that stand for several.

Shapes: n rows, t tokens, r tokens that are read out, d width, h heads, e = d / h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Generic, TypeVar, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = -1e9
"""Attention logit of a hidden key.

Its softmax weight underflows to exactly 0. With minus infinity a row of hidden keys would be NaN.
"""


class TransformerBlock(nn.Module):
    """One transformer layer: pre-norm self-attention, then a feed-forward layer.

    The equations are those of MaskSDM (Zbinden et al. 2025), with LN for LayerNorm::

        y   = x + W_o Attention(W_q LN(x), W_k LN(x), W_v LN(x))
        out = y + W_2 ReLU(W_1 LN(y))

    A subclass with another feed-forward layer passes ``feed_forward=False`` and defines it.
    """

    collapses: bool = True
    """Whether one token with ``log k`` on its attention logit equals k equal tokens."""
    mixture: bool = False
    """Whether the feed-forward layer is a mixture of experts, which counts tokens."""

    def __init__(self, width: int, heads: int, dropout: float, *, feed_forward: bool = True):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        if feed_forward:
            hidden = feed_forward_width(width)
            self.forward_in, self.forward_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        read: int | None = None,
        *,
        copies: int | Tensor = 1,
        load_mask: Tensor | None = None,
        budget: Tensor | None = None,
    ) -> Tensor:
        """Return tokens ``(n, r, d)`` after the block, of tokens ``(n, t, d)``.

        ``bias`` is added to the attention logits of the keys; it broadcasts to ``(n, h, r, t)``. Only the
        first ``read`` tokens are computed. ``copies`` is the number of tokens that the last one stands
        for, or that each does ``(n, t)``; ``bias`` contains its logarithm. Only blocks with extras read
        the others: ``load_mask (n or 1, t)`` are the tokens that count as load of experts, by default all
        visible ones; ``budget (n,)`` is that of sparse attention.
        """
        q, k, v = self.project(x, read)
        # y = x + W_o Attention(W_q LN(x), W_k LN(x), W_v LN(x))
        y = self.attend(x[:, :read], q, k, v, bias=bias, copies=copies, budget=budget)
        # out = y + W_2 ReLU(W_1 LN(y))
        return self.feed_forward(y, copies, bias=bias, load_mask=load_mask)

    def project(self, x: Tensor, read: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``(n, r, d)``, keys and values ``(n, t, d)`` of tokens ``(n, t, d)``."""
        # The first `read` tokens need queries; every token gives a key and a value.
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
        """Add attention of queries ``(n, r, d)`` to keys and values ``(n, t, d)`` to tokens ``(n, r, d)``."""
        q, k, v = self.split(q), self.split(k), self.split(v)  # (n, h, r or t, e)
        attention = self.attention(q, k, v, bias, copies=copies, budget=budget)
        projection = self.out(attention.transpose(1, 2).flatten(2))
        return x + drop(projection, self.drop_share, copies=copies)

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
        """Return softmax(q kᵀ / √e + bias) v ``(n, h, r, e)``; keys and values are ``(n, h, t, e)``."""
        if not self.drop_share:
            # One fused call, which keeps no (r, t) matrix in memory.
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        # Torch's kernel drops every attention weight alike; the weight of k copies needs less noise.
        logits = q * k.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        weight = (logits if bias is None else logits + bias).softmax(-1)
        return drop(weight, self.drop_share, copies=copies, axis=-1).to(v.dtype) @ v

    def feed_forward(
        self,
        x: Tensor,
        copies: int | Tensor = 1,
        *,
        bias: Tensor | None = None,
        load_mask: Tensor | None = None,
    ) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``; only experts read ``bias`` and ``load_mask``."""
        hidden = drop(self.hidden(x), self.drop_share, copies=copies)
        return x + drop(self.forward_out(hidden), self.drop_share, copies=copies)

    def feed_forward_mean(
        self, x: Tensor, weight: Tensor, load_mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean ``(n, d)`` of tokens ``(n, t, d)`` after the feed-forward layer; Σ weight = 1."""
        # W_2 is linear: it is applied once to the mean and not to t tokens.
        return weight @ x + self.forward_out(weight @ self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Return ReLU(W_1 LN(x)) ``(..., 4/3 d)`` of tokens ``(..., d)``."""
        return F.relu(self.forward_in(self.norm_forward(x)), inplace=True)

    def split(self, x: Tensor) -> Tensor:
        """Split vectors ``(n, t, d)`` into heads ``(n, h, t, e)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @property
    def drop_share(self) -> float:
        """Share of numbers that dropout sets to zero; 0 in evaluation."""
        return self.dropout if self.training else 0.0


def feed_forward_width(width: int) -> int:
    """Return the hidden width of the feed-forward layer: 4/3 of ``width``, as in MaskSDM."""
    return width * 4 // 3


def key_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an attention bias ``(n, 1, 1, t)`` that removes the keys outside ``visible (n, t)``."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill(~visible, HIDDEN)[:, None, None, :]


def drop(x: Tensor, share: float, *, copies: int | Tensor = 1, axis: int = 1) -> Tensor:
    """Set a share of ``x (n, …, t, …)`` to zero and scale the rest, so that the mean stays.

    ``copies`` is the number of equal tokens that the last position along ``axis``, 1 or −1, stands for, or
    one number per position ``(n, t)``.
    """
    if not share:
        return x
    if x.device.type != "cpu":
        # Scaled by 1 / (1 − share) in training, so that evaluation needs no factor.
        noise = torch.empty_like(x).bernoulli_(1 - share).div_(1 - share)
    else:
        # Torch draws CPU dropout number by number; 16 bits of a 64-bit word per element are ten times faster.
        count = prod(x.shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        threshold = round(share * 2**16)  # of the 2^16 values of an element, so many mean 0
        keep = words.view(torch.int16)[:count].view(x.shape) >= threshold - 2**15
        noise = keep.to(x.dtype).mul_(2**16 / (2**16 - threshold))
    # With independent noise the mean of k tokens has 1/k of the variance of one: scale it by k^(-1/2).
    if isinstance(copies, Tensor):
        n, t = copies.shape
        shape = (n, *[1] * (x.ndim - 2), t) if axis == -1 else (n, t, *[1] * (x.ndim - 2))
        # noise − 1 has mean 0; only this deviation is scaled.
        noise.sub_(1).mul_(copies.clamp(min=1).rsqrt().to(noise.dtype).view(shape)).add_(1)
    elif copies > 1:
        noise.select(axis, -1).sub_(1).mul_(copies**-0.5).add_(1)
    return x * noise


M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """A :class:`torch.nn.ModuleList` whose items are of type ``M`` for type checkers."""

    def __init__(self, modules: Iterable[M] = ()):
        super().__init__(modules)

    def __iter__(self) -> Iterator[M]:
        return cast("Iterator[M]", super().__iter__())

    @overload
    def __getitem__(self, idx: slice) -> Modules[M]: ...

    @overload
    def __getitem__(self, idx: int) -> M: ...

    def __getitem__(self, idx: int | slice) -> M | Modules[M]:
        return cast("M | Modules[M]", super().__getitem__(idx))
