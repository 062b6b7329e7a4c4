"""Sum fusion: what the tokens say is added up and read by a plain network of two layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomiam.networks.packs import Seen, spread
from geomiam.tokens.rows import Rows


class SumFusion(nn.Module):
    """A hidden token says what it has learned to say when hidden, so the sum knows what is missing.

    Its scalar tokens are linear (no frequencies), so this is a network of two hidden layers over all predictors and their
    hidden-indicators, as in DeepMaxent (Ryckewaert et al. 2024, arXiv:2412.19217), which is hard to
    beat on small data. There is no normalisation in it: a large value stays large.

    The last ``grown`` tokens are of modalities that a trained model was given later. Hidden, they add
    exactly nothing, so that the old answers stay as they are.
    """

    def __init__(self, tokens: int, *, width: int, dropout: float, grown: int = 0):
        super().__init__()
        self.grown, tokens = grown, tokens - grown
        self.hidden = nn.Parameter(torch.zeros(tokens, width))
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = (2 * tokens) ** -0.5

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        shown = torch.where(visible.unsqueeze(-1), tokens, self.every_hidden)
        old, new = shown.split([len(self.hidden), self.grown], 1)
        return self.read(old.sum(1) + new.sum(1) if self.grown else old.sum(1))

    def packed(self, seen: Seen) -> Tensor:
        """Features ``(n, d)`` in training."""
        hidden = self.every_hidden
        index = torch.where(seen.visible, seen.place, torch.arange(len(hidden)) + len(seen.made))
        return self.read(spread(torch.cat([seen.made, hidden]), [index])[0].sum(1))

    @property
    def every_hidden(self) -> Tensor:
        """What each token adds when hidden ``(t, d)``."""
        return torch.nn.functional.pad(self.hidden, (0, 0, 0, self.grown))

    def grown_from(self, old: SumFusion) -> list[nn.Parameter]:
        """Take over a fusion of fewer tokens; nothing but tokenizers is new."""
        self.load_state_dict(old.state_dict())
        return []

    def read(self, total: Tensor) -> Tensor:
        """Features ``(..., d)`` from the sum of what all tokens say ``(..., d)``."""
        return self.inner(self.dropout(torch.relu(total * self.scale)))

    def view(self, rows: Rows, shown: Tensor) -> SumView:
        """Return what coalitions ``shown (c, t)`` see of rows."""
        return SumView(self, rows, shown)


class LinearFusion(SumFusion):
    """The sum of the tokens itself, with no hidden layer.

    Each variable adds its part to the logit, and a hidden variable adds a learned constant: a
    logistic regression (with linear scalar tokens) or a generalised additive model (with squares),
    of rank ``width`` over the species, trained by masking. It has the least variance of all members,
    so it leads where sites are few and effects are monotone.
    """

    def __init__(self, tokens: int, *, width: int, dropout: float, grown: int = 0):
        super().__init__(tokens, width=width, dropout=dropout, grown=grown)
        del self.inner, self.dropout

    def read(self, total: Tensor) -> Tensor:
        """Features ``(..., d)`` from the sum of all tokens ``(..., d)``."""
        return total * self.scale


class SumView:
    """Tokens that no coalition parts are added up once; a coalition adds its parts."""

    def __init__(self, fusion: SumFusion, rows: Rows, shown: Tensor):
        self.fusion, self.rows = fusion, rows
        self.players, self.owner = shown.unique(dim=1, return_inverse=True)  # (c, P), (t,)

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return len(self.owner) + coalitions

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        tokens = self.rows.tokens(rows, range(len(self.owner)))
        seen = self.rows.visible[rows].unsqueeze(-1)
        gain = torch.where(seen, tokens - self.fusion.every_hidden, 0)
        sums = gain.new_zeros(len(gain), self.players.shape[1], gain.shape[-1])
        sums.index_add_(1, self.owner, gain)
        return self.fusion.read(
            self.fusion.hidden.sum(0) + self.players[which].to(gain.dtype) @ sums
        )
