"""The transformer block of all fusions, and the gathering of visible tokens.

Shapes: n rows, t tokens, r tokens that are read out, d width, h heads, e = d / h.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.dropout import drop

HIDDEN = -1e9
"""Attention logit of a hidden key.

Its softmax weight underflows to exactly 0. With minus infinity a row of hidden keys would be NaN.
"""


class TransformerBlock(nn.Module):
    """One transformer layer: pre-norm self-attention, then a feed-forward layer.

    The equations are those of MaskSDM (Zbinden et al. 2025), with LN for LayerNorm::

        y   = x + W_o Attention(W_q LN(x), W_k LN(x), W_v LN(x))
        out = y + W_2 ReLU(W_1 LN(y))

    The hidden width of the feed-forward layer is 4/3 of d. A subclass with another feed-forward layer
    passes ``feed_forward=False`` and defines its own.
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
    ) -> Tensor:
        """Apply attention and the feed-forward layer to the tokens of each row.

        Parameters
        ----------
        x : Tensor
            ``(n, t, d)``.
        bias : Tensor, optional
            Added to the attention logits of the keys; broadcasts to ``(n, h, r, t)``.
        read : int, optional
            Return only the first ``read`` tokens. The last block of a fusion computes only these.
        copies : int or Tensor
            Number of equal tokens that the last token stands for; or one number per token ``(n, t)``.
            ``bias`` must contain its logarithm.
        load_mask : Tensor, optional
            Boolean ``(n or 1, t)``: tokens that count as load of experts. Default: all visible tokens.

        Returns
        -------
        Tensor
            ``(n, r, d)``.
        """
        y = self.attend(x[:, :read], *self.project(x, read), bias=bias, copies=copies)
        return self.feed_forward(y, copies, bias=bias, load_mask=load_mask)

    def project(self, x: Tensor, read: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``(n, r, d)``, keys and values ``(n, t, d)`` of tokens ``(n, t, d)``."""
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
        """Add attention to tokens ``(n, r, d)``.

        ``q`` are queries ``(n, r, d)``, ``k`` and ``v`` are keys and values ``(n, t, d)``.
        """
        q, k, v = self.split(q), self.split(k), self.split(v)  # (n, h, r or t, e)
        attention = self.dense_attention(q, k, v, bias, copies)
        return self.add_attention(x, attention, copies)

    def dense_attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, copies: int | Tensor = 1
    ) -> Tensor:
        """Return softmax(q kᵀ / √e + bias) v ``(n, h, r, e)``; keys and values are ``(n, h, t, e)``."""
        if not self.drop_share:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        # Torch's kernel drops every attention weight alike; the weight of k copies needs less noise.
        logits = q * k.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        weight = (logits if bias is None else logits + bias).softmax(-1)
        return drop(weight, self.drop_share, copies=copies, axis=-1).to(v.dtype) @ v

    def add_attention(self, x: Tensor, attention: Tensor, copies: int | Tensor) -> Tensor:
        """Add W_o times the attention ``(n, h, r, e)`` to tokens ``(n, r, d)``."""
        projection = self.out(attention.transpose(1, 2).flatten(2))
        return x + drop(projection, self.drop_share, copies=copies)

    def feed_forward(
        self,
        x: Tensor,
        copies: int | Tensor = 1,
        *,
        bias: Tensor | None = None,
        load_mask: Tensor | None = None,
    ) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``.

        Only experts read ``bias`` and ``load_mask``.
        """
        hidden = drop(self._hidden(x), self.drop_share, copies=copies)
        return x + drop(self.forward_out(hidden), self.drop_share, copies=copies)

    def feed_forward_mean(
        self, x: Tensor, weight: Tensor, load_mask: Tensor | None = None
    ) -> Tensor:
        """Return the weighted mean ``(n, d)`` over tokens ``(n, t, d)`` after the feed-forward layer.

        The product with W_2 is linear, so it is applied once to the mean and not to t tokens.
        ``weight (t,)`` sums to 1.
        """
        return weight @ x + self.forward_out(weight @ self._hidden(x))

    def _hidden(self, x: Tensor) -> Tensor:
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


def rows_of_equal_length(visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Group rows by their number of visible tokens, so that no hidden token is computed.

    Parameters
    ----------
    visible : Tensor
        Boolean ``(n, t)``.

    Yields
    ------
    rows : Tensor
        ``(b,)`` rows with k visible tokens.
    tokens : Tensor
        ``(b, k)`` positions of these tokens, in order.
    """
    counts = visible.sum(1)
    order = torch.argsort(visible.to(torch.uint8), dim=1, descending=True, stable=True)
    for k in counts.unique().tolist():
        rows = torch.nonzero(counts == k).squeeze(1)
        yield rows, order[rows, :k]


def gather(tokens: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Return the tokens ``(b, k, d)`` of ``rows (b,)`` at positions ``index (b, k)``."""
    if index.shape == tokens.shape[:2]:  # all tokens of all rows, in order
        return tokens
    return tokens[rows.unsqueeze(1), index]
