"""Sum fusion: the tokens are added up and pass through a network of two layers, or of none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.fusion.protocol import CoalitionView, Fusion, Scalars
from geomiam.networks.pooling import VisibleTokens, gather_vectors
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import modality_tokens
from geomiam.tokens.tokenizers import Tokenizers

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class SumFusion(Fusion):
    """The sum of all tokens, in which a learned vector replaces each hidden token::

        features = W ReLU(scale · Σ_j (token_j if visible else hidden_j)) + b

    Scalar tokens are linear (no frequencies). This is therefore a network of two hidden layers over all
    predictors and their missing-indicators, as in DeepMaxent (Ryckewaert et al. 2024,
    arXiv:2412.19217). It has no normalisation, so a large value stays large.

    Tokens of the modalities ``config.grown``, which were added to a trained model, stand last. Where
    they are hidden they add exactly 0, so the old predictions do not change.
    """

    scalars: ClassVar[Scalars] = "linear"
    normalized = False
    half_precision = False
    extendable = True
    hidden_tokens_are_cheap = True  # a token costs one addition

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        self.grown = len(modality_tokens(layout, config.grown))
        tokens = layout.size - self.grown
        self.hidden = nn.Parameter(torch.zeros(tokens, config.width))
        self.inner = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        # A standardised scalar token w x + b has variance Var w + Var b, which are equal at the start: the sum
        # of t tokens grows with √(2t). With this factor the hidden layer starts alike for 3 and for 300 tokens.
        self.scale = (2 * tokens) ** -0.5

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        vectors = torch.where(visible.unsqueeze(-1), tokens, self.every_hidden)
        old, new = vectors.split([len(self.hidden), self.grown], 1)
        # Two sums: one sum over old and new tokens would round differently than the model did before.
        return self.read(old.sum(1) + new.sum(1) if self.grown else old.sum(1))

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Return features ``(n, d)`` in training."""
        hidden = self.every_hidden
        index = torch.arange(len(hidden)) + len(tokens.vectors)
        index = torch.where(tokens.visible, tokens.place, index)
        return self.read(gather_vectors(torch.cat([tokens.vectors, hidden]), [index])[0].sum(1))

    def dense_training_features(
        self, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor
    ) -> Tensor:
        """Return features ``(k·n, d)`` in training, of n rows in k masks, ``visible (k·n, t)``."""
        # float32, since a long sum needs its digits.
        with torch.autocast(visible.device.type, enabled=False):
            total = tokenizers.visible_sum(values, visible)
            total = total + (~visible).to(total.dtype) @ self.every_hidden
        return self.read(total)

    @property
    def every_hidden(self) -> Tensor:
        """The vector that each token adds when hidden ``(t, d)``."""
        return F.pad(self.hidden, (0, 0, 0, self.grown)) if self.grown else self.hidden

    def extend(self, old: SumFusion) -> list[nn.Parameter]:
        self.load_state_dict(old.state_dict())
        return []

    def read(self, total: Tensor) -> Tensor:
        """Return features ``(..., d)`` from the sum of all tokens ``(..., d)``."""
        return self.inner(self.dropout(torch.relu(total * self.scale)))

    def view(self, rows: Rows, coalitions: Tensor) -> SumView:
        return SumView(self, rows, coalitions)


class LinearFusion(SumFusion):
    """The sum of the tokens, without a hidden layer.

    Each variable adds its part to the logit, and a hidden variable adds a learned constant. With linear
    scalar tokens it is a logistic regression, with squares a generalised additive model. Its rank over
    the species is ``width``. It has the least variance of all members, so it is the best one where sites
    are few and effects are monotone.
    """

    linear = True

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        del self.inner, self.dropout

    def read(self, total: Tensor) -> Tensor:
        """Return features ``(..., d)`` from the sum of all tokens ``(..., d)``."""
        return total * self.scale


class QuadraticFusion(LinearFusion):
    """The sum of tokens that are quadratic in scalar variables."""

    scalars = "quadratic"


class SumView(CoalitionView):
    """Tokens that no coalition separates are added up once; a coalition adds its parts.

    Tokens that no coalition shows in any row are not computed. They must not count in the cost either:
    batches of another size round differently, and a model that was extended by a modality must predict
    without it as before, to the bit.
    """

    fusion: SumFusion

    def __init__(self, fusion: SumFusion, rows: Rows, coalitions: Tensor):
        super().__init__(fusion, rows, coalitions)
        self.parts, owner = coalitions.unique(dim=1, return_inverse=True)  # (c, P), (t,)
        ever_visible = coalitions.any(0) & rows.visible.any(0)
        self.index = torch.nonzero(ever_visible).squeeze(1)  # (k,) tokens
        self.owner = owner[self.index]

    def cost(self, count: int) -> int:
        return len(self.index) + count

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, d)`` of rows in the coalitions ``selection (c,)``."""
        hidden = self.fusion.hidden
        sums = hidden.new_zeros(len(rows), self.parts.shape[1], hidden.shape[1])
        if len(self.index):
            tokens = self.rows.tokens(rows, self.index.tolist())
            visible = self.rows.visible[rows][:, self.index].unsqueeze(-1)
            gain = torch.where(visible, tokens - self.fusion.every_hidden[self.index], 0)
            sums = sums.to(gain.dtype).index_add_(1, self.owner, gain)
        # Σ_j hidden_j + Σ_{visible j} (token_j − hidden_j): a coalition adds the gains of its parts.
        total = hidden.sum(0) + self.parts[selection].to(sums.dtype) @ sums
        return self.fusion.read(total)
