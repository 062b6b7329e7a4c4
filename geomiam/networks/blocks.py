"""The transformer block that fusions are built of, and the gathering of visible tokens.

Shapes: n rows, t tokens, r tokens read out, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.dropout import drop

HIDDEN = -1e9
"""Attention logit of a hidden key: its weight underflows to exactly 0, a row of them stays finite."""


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and a ReLU feed-forward layer of 4/3 the width (as MaskSDM).

    A subclass with another feed-forward layer passes ``feed_forward=False`` and adds its own.
    """

    collapses: bool = True
    """Whether a token with ``log k`` on its attention logit acts as k equal tokens."""
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
        counted: Tensor | None = None,
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
            The last token stands for so many, or each for its own number ``(n, t)``. Dropout and
            ``bias`` must both use it.
        counted : Tensor, optional
            Boolean ``(n or 1, t)``: tokens that count as load of experts; default: those not hidden.

        Returns
        -------
        Tensor
            ``(n, r, d)``.
        """
        y = self.attend(x[:, :read], *self.project(x, read), bias=bias, copies=copies)
        return self.feed_forward(y, copies, bias=bias, counted=counted)

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
    ) -> Tensor:
        """Add attention to tokens ``(n, r, d)``, from queries ``(n, r, d)``, keys and values ``(n, t, d)``."""
        q, k, v = self.split(q), self.split(k), self.split(v)  # (n, h, r or t, d/h)
        mixed = self.dense_attention(q, k, v, bias, copies)
        return self.add_attention(x, mixed, copies)

    def dense_attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, copies: int | Tensor = 1
    ) -> Tensor:
        """Attention of queries ``(n, h, r, d/h)`` to keys and values ``(n, h, t, d/h)``."""
        if not self.drop_share:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        logits = q * k.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        weight = (logits if bias is None else logits + bias).softmax(-1)
        return drop(weight, self.drop_share, copies=copies, axis=-1).to(v.dtype) @ v

    def add_attention(self, x: Tensor, mixed: Tensor, copies: int | Tensor) -> Tensor:
        """Tokens ``(n, r, d)`` plus the projection of mixed values ``(n, h, r, d/h)``."""
        return x + drop(self.out(mixed.transpose(1, 2).flatten(2)), self.drop_share, copies=copies)

    def feed_forward(
        self,
        x: Tensor,
        copies: int | Tensor = 1,
        *,
        bias: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``; only experts use bias and counted."""
        hidden = drop(self._hidden(x), self.drop_share, copies=copies)
        return x + drop(self.forward_out(hidden), self.drop_share, copies=copies)

    def feed_forward_mean(self, x: Tensor, weight: Tensor, counted: Tensor | None = None) -> Tensor:
        """Weighted mean over tokens ``(n, t, d)`` after the feed-forward layer: ``(n, d)``.

        The last product is linear, so it is made of the mean. ``weight (t,)`` adds up to 1.
        """
        return weight @ x + self.forward_out(weight @ self._hidden(x))

    def _hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.forward_in(self.norm_forward(x)), inplace=True)

    def split(self, x: Tensor) -> Tensor:
        """Split vectors ``(n, t, d)`` into heads ``(n, h, t, d/h)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @property
    def drop_share(self) -> float:
        """Share of numbers that are dropped now."""
        return self.dropout if self.training else 0.0


def feed_forward_width(width: int) -> int:
    """Width of the hidden layer."""
    return width * 4 // 3


def key_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an attention bias ``(n, 1, 1, t)`` that takes hidden keys out."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill(~visible, HIDDEN)[:, None, None, :]


def rows_of_equal_length(visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
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
