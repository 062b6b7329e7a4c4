"""The protocol that every fusion satisfies, with a default for all of it but the forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from geomiam.networks.pooling import VisibleTokens
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.tokenizers import Tokenizers

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig

Scalars = Literal["periodic", "linear", "quadratic"]


class BlockCounts(NamedTuple):
    """Numbers of transformer blocks of a fusion."""

    over_tokens: int
    """Blocks over tokens; they may have sparse attention and experts."""
    over_summaries: int
    """Blocks over summaries of groups."""


class Fusion(nn.Module, ABC):
    """Map the tokens of n rows, some of them hidden, to one feature vector per row.

    A fusion is one class and one line in :data:`geomiam.networks.fusion.registry.FUSIONS`. It defines
    ``__init__(config, layout)`` and :meth:`forward`. The class attributes describe it to training,
    saving and inference. The other methods have defaults that are correct for every fusion; a fusion
    overrides them to save time or to offer an option.

    Shapes: n rows, t tokens in the order of the layout, d width, f features, c coalitions, G groups of
    predictors, M modalities.

    Three laws hold for every fusion:

    - A hidden token has no effect on the features or on a gradient; its vector is arbitrary.
    - No row depends on another row.
    - Features are finite, also where a row has no visible token.
    """

    mixes: ClassVar[bool] = True
    """Whether members of one model may be of this and of other fusions, as in ``"group+sum"``."""
    scalars: ClassVar[Scalars] = "periodic"
    """Tokenizer of scalar variables."""
    normalized: ClassVar[bool] = True
    """Whether the network puts a LayerNorm after the fusion."""
    linear: ClassVar[bool] = False
    """Whether features are linear in the tokens; otherwise a ReLU follows, before the head."""
    half_precision: ClassVar[bool] = True
    """Whether ``precision="bf16"`` computes it in bfloat16; a long sum needs the digits of float32."""
    extendable: ClassVar[bool] = False
    """Whether :meth:`extend` exists: new modalities with old predictions unchanged (finetune)."""
    branched: ClassVar[bool] = False
    """Whether each modality has a branch that can be trained alone (``warm_start=True``).

    The bias of the head is then the base value. It is set from the labels and not trained, so that
    branches can be joined. See :meth:`branch_weights` and :meth:`branch_features`.
    """
    learned_explainer: ClassVar[bool] = False
    """Whether its view has :meth:`CoalitionView.states`, which ``gm.explain.fit_explainer`` reads."""

    hidden_tokens_are_cheap: bool = False
    """Whether computing hidden tokens in training costs less than sorting them out."""

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__()
        self.feature_width = config.width
        """Numbers ``f`` per row."""

    @abstractmethod
    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, f)`` of tokens ``(n, t, d)`` and boolean visible ``(n, t)``."""

    @classmethod
    def check(cls, config: NetworkConfig) -> None:
        """Raise ValueError for settings that have no effect in this fusion."""
        if config.gate:
            refuse_gate(config)

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        """Return the number of transformer blocks; a saved model is checked against it."""
        return BlockCounts(0, 0)

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Return features ``(n, f)`` in training, where only visible tokens are computed."""
        return self(tokens.padded(), tokens.visible.to(tokens.vectors.device))

    def dense_training_features(
        self, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor
    ) -> Tensor:
        """Return features ``(k·n, f)`` in training, of n rows in k masks, ``visible (k·n, t)``.

        Hidden tokens are computed as well; it is called where ``hidden_tokens_are_cheap``.
        """
        return self(tokenizers.in_masks(values, visible), visible)

    def view(self, rows: Rows, coalitions: Tensor) -> CoalitionView:
        """Return the view of rows in ``coalitions (c, t)``, for inference."""
        return CoalitionView(self, rows, coalitions)

    def extend(self, old: Self) -> list[nn.Parameter]:
        """Copy the weights of a fusion of fewer modalities; return the weights that are new."""
        raise NotImplementedError(f"{type(self).__name__} is not extendable")

    def branch_weights(self, modality: int) -> Iterator[Tensor]:
        """Yield the weights of the branch of one modality, in the same order in every model."""
        raise NotImplementedError(f"{type(self).__name__} has no branches")

    def branch_features(self, modality: int) -> tuple[slice, int]:
        """Return the positions of a branch's features, and of its weight α, among the f features."""
        raise NotImplementedError(f"{type(self).__name__} has no branches")


class CoalitionView:
    """Features of n rows in coalitions of tokens, computed one coalition after another.

    The tokens of the requested rows are computed once. A fusion whose coalitions share more overrides
    this class. ``coalitions (c, t)`` are the tokens that each coalition shows, boolean.
    """

    def __init__(self, fusion: Fusion, rows: Rows, coalitions: Tensor):
        self.fusion, self.rows, self.coalitions = fusion, rows, coalitions
        self._last: tuple[Tensor, Tensor] | None = None

    def cost(self, count: int) -> int:
        """Return the vectors per row in memory for ``count`` coalitions; it sets the micro-batch."""
        return self.coalitions.shape[1] + count

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, f)`` of ``rows (r,)`` in the coalitions ``selection (c,)``."""
        tokens, observed = self.tokens(rows), self.rows.visible[rows]
        features = [self.fusion(tokens, observed & c) for c in self.coalitions[selection]]
        return torch.stack(features, 1)

    def states(
        self, rows: Tensor, coalition: int, owner: Tensor, groups: int
    ) -> tuple[Tensor, Tensor]:
        """Return features ``(r, f)`` of rows in one coalition, and last tokens by group ``(r, G, d)``.

        ``owner (t,)`` is the group of each token. Only fusions with ``learned_explainer`` have it.
        """
        raise NotImplementedError(f"{type(self.fusion).__name__} has no states by group")

    def tokens(self, rows: Tensor) -> Tensor:
        """Return the tokens of rows ``(r, t, d)``; they are kept until other rows are requested."""
        if self._last is None or self._last[0] is not rows:
            self._last = rows, self.rows.tokens(rows, range(self.coalitions.shape[1]))
        return self._last[1]


def refuse_gate(config: NetworkConfig) -> None:
    """Raise the error for a gate without blocks whose budget it could set."""
    raise ValueError(
        "gate=True learns budgets of the blocks of each modality: it needs fusion='cross', "
        f"attention='sparse' and inner=1 or more; found fusion='{config.fusion}', "
        f"attention='{config.attention}', inner={config.inner}"
    )
