"""Rows of a block whose tokens are computed on request, and once for equal rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geomiam.at_once import COMPARED_BYTES
from geomiam.tokens.tokenizers import Tokenizers


class Rows:
    """n rows of values ``(n, tokens, width)`` per part, of which any tokens of any rows can be computed.

    NaN is not observed; ``visible`` is boolean ``(n, t)``. Tokens are computed in float32, since a sine
    needs all digits of its argument, and returned in ``dtype``.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        values: list[Tensor],
        visible: Tensor,
        dtype: torch.dtype = torch.float32,
    ):
        self.tokenizers, self.values, self.visible, self.dtype = tokenizers, values, visible, dtype

    def tokens(self, rows: Tensor, index: Sequence[int]) -> Tensor:
        """Return tokens ``(r, k, d)`` at ``index (k,)`` of ``rows (r,)``; hidden ones are arbitrary."""
        vectors: list[Tensor] = []
        place: dict[int, int] = {}
        start = 0
        for part, x, span in self._parts(index):
            # A part is computed as a whole, since its tokens share one product.
            tokens = self.tokenizers.one(part, x[rows], self.visible[rows, span])
            vectors.append(tokens.to(self.dtype))
            place |= {t: start + i for i, t in enumerate(range(span.start, span.stop))}
            start += span.stop - span.start
        all_vectors = vectors[0] if len(vectors) == 1 else torch.cat(vectors, 1)
        order = [place[t] for t in index]
        return all_vectors if order == list(range(start)) else all_vectors[:, order]

    def distinct(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return distinct rows ``(u,)`` in the tokens of ``index``, and the one that each row equals ``(n,)``."""
        positions = torch.arange(len(self.visible), device=self.visible.device)
        is_visible = self.visible.any(0).tolist()  # tokens that no row has are equal in all rows
        index = [t for t in index if is_visible[t]]
        parts = []
        for _, x, span in self._parts(index):
            columns = [t - span.start for t in index if span.start <= t < span.stop]
            # Hidden values differ between rows and have no effect: they become NaN. Values are compared as
            # integers, in which all NaN are equal.
            values = torch.where(self.visible[:, span].unsqueeze(-1), x, torch.nan)[:, columns]
            parts.append(values.reshape(len(x), -1).cpu().numpy().view(np.int32))
        if not parts or sum(b[:1].nbytes for b in parts) > COMPARED_BYTES:
            return positions, positions  # long rows count as different
        bits = np.ascontiguousarray(np.concatenate(parts, 1))
        row_bytes = bits.view(np.dtype((np.void, bits.shape[1] * bits.itemsize))).ravel()
        _, first, equal_to = np.unique(row_bytes, return_index=True, return_inverse=True)
        return torch.as_tensor(first).to(positions), torch.as_tensor(equal_to).to(positions)

    def _parts(self, index: Sequence[int]) -> list[tuple[int, Tensor, slice]]:
        """Return number, values and token positions of each part with a token in ``index``."""
        requested_tokens, parts, start = set(index), [], 0
        for part, (x, size) in enumerate(zip(self.values, self.tokenizers.sizes)):
            if not requested_tokens.isdisjoint(range(start, start + size)):
                parts.append((part, x, slice(start, start + size)))
            start += size
        return parts
