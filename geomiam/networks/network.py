"""The network of a model: one or several members and a head over all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.errors import SchemaError
from geomiam.networks.backbones import backbones_of, copies_of
from geomiam.networks.config import NetworkConfig
from geomiam.networks.explainer import Explainer
from geomiam.networks.fusion.protocol import CoalitionView
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.networks.length_buckets import VisibleTokens
from geomiam.networks.modules import Modules
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks
from geomiam.tokens.tokenizers import Tokenizers

MOST_GROUPS = 64
"""``observed`` of a map holds one bit per group."""
LIGHT = ("scalar", "circular", "categorical")
"""Kinds of tokens that are made of one number."""


class Member(nn.Module):
    """Tokens → fusion → LayerNorm, ReLU: the features of a site.

    A fusion may leave out the LayerNorm or both; see :class:`geomiam.networks.fusion.protocol.Fusion`.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        layout: Layout,
        classes: dict[str, int],
        backbones: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.config = config
        fusion = FUSIONS[config.fusion]
        self.tokenizers = Tokenizers(
            layout,
            classes,
            width=config.width,
            frequencies=config.frequencies if fusion.scalars == "periodic" else 0,
            squares=fusion.scalars == "quadratic",
            sigma=config.sigma,
            symbols=config.symbols,
            backbones=copies_of(backbones or {}, config.encoders),
        )
        self.fusion = fusion(config, layout)
        self.norm = nn.LayerNorm(config.width) if fusion.normalized else nn.Identity()
        light = all(p.kind in LIGHT for p in layout.parts)
        self.dense = light and self.fusion.hidden_tokens_are_cheap
        """Whether computing hidden tokens in training costs less than sorting them out."""

    def features(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, f)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self.activate(self.fusion(tokens, visible))

    def training_features(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Features ``(n, f)`` in training, from values per part and visible ``(n, t)``."""
        if self.dense:
            return self.features(self.tokenizers(values, visible), visible)
        tokens = VisibleTokens.of(self.tokenizers, values, visible)
        return self.activate(self.fusion.training_features(tokens))

    def activate(self, fused: Tensor) -> Tensor:
        """Fused tokens ``(n, f)`` as the last linear layer takes them."""
        if self.fusion.linear:
            return fused.float()
        return torch.relu(self.norm(fused.float()))

    @property
    def feature_width(self) -> int:
        """Numbers ``f`` that the head reads."""
        return self.fusion.feature_width

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the fusion; tokenizers, this norm and the head stay float32."""
        return next((p.dtype for p in self.fusion.parameters()), torch.float32)


class Network(nn.Module):
    """m members side by side and a linear head: one logit per species.

    Members are independent up to the head. Members that were trained apart and joined by :func:`join`
    predict the mean of their logits. What holds for one network holds for them: coalitions share the
    same computations, and the logits are linear in the features.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        layout: Layout,
        classes: dict[str, int],
        species: int,
        backbones: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        alone = [config.member(i) for i in range(config.members)]
        members = [Member(c, layout=layout, classes=classes, backbones=backbones) for c in alone]
        self.members = Modules(members)
        width, groups = sum(m.feature_width for m in members), _groups(layout)
        self.head = _head(width, species)
        if any(m.fusion.branched for m in members):  # the base value is not learned; see `set_base`
            nn.init.zeros_(self.head.bias).requires_grad_(False)
        self.owner = np.stack(list(groups.values())).argmax(0)
        """The group of each token; a token of none counts as of the first, and is never shown."""
        self.explainer = (
            Explainer(len(groups), width=width, species=species, hidden=config.explainer)
            if config.explainer
            else None
        )

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return logits ``(n, species)`` of values per part and visible ``(n, t)``."""
        if self.training:  # what is hidden is not computed
            return self.head(self.training_features(values, visible))
        return self.head(self.features(self.tokens(values, visible), visible))

    def training_features(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """What the head reads ``(n, m·f)`` in training; hidden tokens are not computed."""
        return torch.cat([m.training_features(values, visible) for m in self.members], -1)

    def tokens(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Tokens of all members ``(n, t, m·d)`` from values per part and visible ``(n, t)``."""
        return torch.cat([m.tokenizers(values, visible) for m in self.members], -1)

    def features(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """What the head reads ``(n, m·f)``, from tokens ``(n, t, m·d)`` and visible ``(n, t)``."""
        parts = tokens.chunk(len(self.members), -1)
        return torch.cat([m.features(x, visible) for m, x in zip(self.members, parts)], -1)

    def view(self, values: list[Tensor], observed: Tensor, shown: Tensor) -> View:
        """Return the features of n rows in coalitions ``shown (c, t)``; what they share is made once.

        In evaluation only: nothing is dropped and no token is replaced at random.
        """
        rows = [Rows(m.tokenizers, values, observed, m.dtype) for m in self.members]
        views = [(m, m.fusion.view(r, shown)) for m, r in zip(self.members, rows)]
        return View(views, rows[0], shown)

    @property
    def backbones(self) -> dict[str, nn.Module]:
        """The first member's backbones, by variable."""
        return backbones_of(self.members[0].tokenizers)


class View:
    """Features of n rows in coalitions, from all members of a network."""

    def __init__(self, members: Sequence[tuple[Member, CoalitionView]], rows: Rows, shown: Tensor):
        self.members, self.rows, self.shown = members, rows, shown

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory for so many coalitions."""
        return max(view.cost(coalitions) for _, view in self.members)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """What the head reads ``(r, c, m·f)`` of rows ``(r,)`` in coalitions ``(c,)``."""
        parts = [member.activate(view.features(rows, which)) for member, view in self.members]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def states(self, rows: Tensor, which: int, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """What the head reads ``(r, m·f)``, and last tokens by group ``(r, G, m·d)``.

        Only for fusions with ``learned_explainer``.
        """
        parts = [(m, v.states(rows, which, owner, groups)) for m, v in self.members]
        features = torch.cat([m.activate(fused) for m, (fused, _) in parts], -1)
        return features, torch.cat([states for _, (_, states) in parts], -1).float()

    def visible(self, rows: Tensor, which: int) -> Tensor:
        """Tokens of rows that are visible in a coalition ``(r, t)``."""
        return self.rows.visible[rows] & self.shown[which]

    def twins(self, tokens: Tensor) -> Tensor:
        """The first row ``(n,)`` that equals each row in the shown tokens ``(t,)``.

        Equal input must be equal output to the last bit where outputs are ranked, and matrix
        products do not promise that.
        """
        first, same = self.rows.distinct(torch.nonzero(tokens).squeeze(1).tolist())
        return first[same]


@torch.no_grad()
def join(networks: Sequence[Network], into: Network) -> Network:
    """Fill ``into`` with networks of one member each, so that it answers with their mean logits."""
    for member, network in zip(into.members, networks, strict=True):
        member.load_state_dict(network.members[0].state_dict())
    share = 1 / len(networks)
    into.head.weight.copy_(torch.cat([n.head.weight for n in networks], 1) * share)
    into.head.bias.copy_(torch.stack([n.head.bias for n in networks]).mean(0))
    return into


def _groups(layout: Layout) -> dict[str, np.ndarray]:
    """Groups of the layout, unless their flags do not fit into ``observed``."""
    groups = group_masks(layout)
    if len(groups) > MOST_GROUPS:
        raise SchemaError(
            f"the schema has {len(groups)} groups, and a map has flags for {MOST_GROUPS}; join them: "
            "geomiam.infer_schema(sites, modalities={'climate': ['bio*'], ...}), or 'groups:' in the "
            "catalog"
        )
    return groups


def _head(width: int, species: int) -> nn.Linear:
    with warnings.catch_warnings():  # a pre-trained model has no species
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(width, species)
