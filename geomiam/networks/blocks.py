"""The transformer block that every fusion is built of, and the gathering of visible tokens.

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
    """Pre-norm self-attention and a ReLU feed-forward layer of 4/3 the width (as MaskSDM)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        hidden = width * 4 // 3
        self.forward_in, self.forward_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        read: int | None = None,
        *,
        copies: int = 1,
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
        copies : int
            The last token stands for so many, which dropout knows; ``bias`` must too.

        Returns
        -------
        Tensor
            ``(n, r, d)``.
        """
        q, k, v = self.project(x, read)
        return self.widen(self.attend(x[:, :read], q, k, v, bias=bias, copies=copies), copies)

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
        copies: int = 1,
    ) -> Tensor:
        """Add to tokens ``(n, r, d)`` what their queries find."""
        q, k, v = self.split(q), self.split(k), self.split(v)  # (n, h, r or t, d/h)
        if self._share:
            logits = q * k.shape[-1] ** -0.5 @ k.transpose(-1, -2)
            weight = (logits if bias is None else logits + bias).softmax(-1)
            mixed = drop(weight, self._share, copies=copies, axis=-1).to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        found = self.out(mixed.transpose(1, 2).flatten(2))
        return x + drop(found, self._share, copies=copies)

    def widen(self, x: Tensor, copies: int = 1) -> Tensor:
        """Add the feed-forward layer to tokens ``(..., d)``."""
        hidden = drop(self._hidden(x), self._share, copies=copies)
        return x + drop(self.forward_out(hidden), self._share, copies=copies)

    def widen_mean(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean over tokens ``(n, t, d)`` after the feed-forward layer: ``(n, d)``.

        The last product is linear, so it is made of the mean. ``weight (t,)`` adds up to 1.
        """
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
