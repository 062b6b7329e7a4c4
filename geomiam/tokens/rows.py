"""Rows of a block that become tokens when they are asked for, equal rows once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geomiam.tokens.tokenizers import Tokenizers

COMPARED = 1024
"""Bytes of a row up to which equal rows are looked for; images never are equal."""


class Rows:
    """n rows of values, of which any tokens of any rows can be made.

    Parameters
    ----------
    tokenizers : Tokenizers
    values : list of Tensor
        ``(n, tokens, width)`` per part; NaN = not observed.
    visible : Tensor
        Boolean ``(n, t)``.
    dtype : torch.dtype
        Of the tokens. They are made in float32: the sine of a number needs its digits.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        values: list[Tensor],
        visible: Tensor,
        dtype: torch.dtype = torch.float32,
    ):
        self.tokenizers, self.values, self.visible = tokenizers, values, visible
        self.dtype = dtype

    def tokens(self, rows: Tensor, index: Sequence[int]) -> Tensor:
        """Tokens ``(r, k, d)`` at ``index (k,)`` of ``rows (r,)``; hidden ones are made from zeros."""
        made: list[Tensor] = []
        place: dict[int, int] = {}
        start = 0
        for part, x, shown in self._parts(index):
            tokens = self.tokenizers.one(part, x[rows], self.visible[rows, shown])
            made.append(tokens.to(self.dtype))
            place |= {t: start + i for i, t in enumerate(range(shown.start, shown.stop))}
            start += shown.stop - shown.start
        whole = made[0] if len(made) == 1 else torch.cat(made, 1)
        order = [place[t] for t in index]
        return whole if order == list(range(start)) else whole[:, order]

    def distinct(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Rows ``(u,)`` that differ in some token of ``index``, and which of them each row equals ``(n,)``.

        Long rows are not compared, and count as different.
        """
        every = torch.arange(len(self.visible), device=self.visible.device)
        some = self.visible.any(0).tolist()  # what no row has tells none apart
        index = [t for t in index if some[t]]
        own = [self._bits(x, s.start, index) for _, x, s in self._parts(index)]
        if not own or sum(b[:1].nbytes for b in own) > COMPARED:
            return every, every
        bits = np.ascontiguousarray(np.concatenate(own, 1))
        whole = bits.view(np.dtype((np.void, bits.shape[1] * bits.itemsize))).ravel()
        _, first, which = np.unique(whole, return_index=True, return_inverse=True)
        return torch.as_tensor(first, device=every.device), torch.as_tensor(
            which, device=every.device
        )

    def _bits(self, x: Tensor, start: int, index: Sequence[int]) -> np.ndarray:
        """Values ``(n, …)`` of tokens as integers, in which one NaN is equal to another."""
        mine = [t - start for t in index if start <= t < start + x.shape[1]]
        seen = self.visible[:, start : start + x.shape[1]].unsqueeze(-1)
        own = torch.where(seen, x, torch.nan)[:, mine]
        return own.reshape(len(x), -1).cpu().numpy().view(np.int32)

    def _parts(self, index: Sequence[int]) -> list[tuple[int, Tensor, slice]]:
        """Parts that any of the tokens belongs to: number, values, and where its tokens stand."""
        wanted, found, start = set(index), [], 0
        for part, (x, size) in enumerate(zip(self.values, self.tokenizers.sizes)):
            if not wanted.isdisjoint(range(start, start + size)):
                found.append((part, x, slice(start, start + size)))
            start += size
        return found
