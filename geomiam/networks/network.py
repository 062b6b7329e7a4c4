"""The network of a model: one or several members and a head over all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.errors import SchemaError
from geomiam.networks.backbones import backbones_of, copies_of
from geomiam.networks.blocks import Modules
from geomiam.networks.config import NetworkConfig
from geomiam.networks.fusion.protocol import CoalitionView
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.networks.pooling import VisibleTokens
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks
from geomiam.tokens.tokenizers import Tokenizers

MOST_GROUPS = 64
"""``observed`` of a map holds one bit per group."""
LIGHT = ("scalar", "circular", "categorical")
"""Kinds of tokens that are computed from one number."""


class Member(nn.Module):
    """One network without a head: tokens → fusion → LayerNorm → ReLU → features of a site.

    A fusion may omit the LayerNorm or both; see :class:`geomiam.networks.fusion.protocol.Fusion`.
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
            window_squares=config.squares and not (fusion.linear and fusion.scalars == "linear"),
            private_windows=config.private_windows,
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
        """Return features ``(n, f)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self.activate(self.fusion(tokens, visible))

    def training_features(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return features ``(k·n, f)`` in training, from values of n rows and k masks, visible ``(k·n, t)``."""
        if self.dense:
            features = self.fusion.dense_training_features(self.tokenizers, values, visible)
            return self.activate(features)
        # A token is computed once for all masks that show it: no fusion reads the vector of a hidden token.
        masks = visible.unflatten(0, (-1, len(values[0])))
        visible_tokens = VisibleTokens.of(self.tokenizers, values, masks.any(0))
        return self.activate(self.fusion.training_features(visible_tokens.in_masks(visible)))

    def activate(self, x: Tensor) -> Tensor:
        """Return the features ``(n, f)`` of fused tokens ``(n, f)``: LayerNorm and ReLU, in float32."""
        if self.fusion.linear:
            return x.float()
        # float32, since the variance in LayerNorm loses digits in bfloat16.
        return torch.relu(self.norm(x.float()))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the fusion; tokenizers, LayerNorm and head stay float32."""
        return next((p.dtype for p in self.fusion.parameters()), torch.float32)


class Network(nn.Module):
    """m members side by side and one linear head, with one logit per species.

    Members are independent up to the head. Members that were trained separately and joined by
    :func:`join` predict the mean of their logits. As for one network, coalitions share computations and
    the logits are linear in the features.
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
        groups = group_masks(layout)
        if len(groups) > MOST_GROUPS:
            raise SchemaError(
                f"the schema has {len(groups)} groups, and a map has flags for {MOST_GROUPS}; join them: "
                "geomiam.infer_schema(sites, modalities={'climate': ['bio*'], ...}), or 'groups:' in the "
                "catalog"
            )
        width = sum(m.fusion.feature_width for m in members)
        with warnings.catch_warnings():  # a pre-trained model has no species
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.head = nn.Linear(width, species)
        if any(m.fusion.branched for m in members):  # the base value is not learned; see `set_base`
            nn.init.zeros_(self.head.bias).requires_grad_(False)
        self.offsets: Tensor | None
        self.register_buffer("offsets", None)
        """Bias of each member minus that of the head ``(m, S)``; None if unknown, see :mod:`geomiam.networks.member_heads`."""
        self.owner = np.stack(list(groups.values())).argmax(0)
        """The group of each token; a token without a group has that of the first, and is never visible."""
        self.explainer = (
            Explainer(len(groups), width=width, species=species, hidden=config.explainer)
            if config.explainer
            else None
        )

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return logits ``(n, species)`` of values per part and visible ``(n, t)``; in training of k masks."""
        if self.training:  # hidden tokens are not computed
            return self.head(self.training_features(values, visible))
        return self.head(self.features(self.tokens(values, visible), visible))

    def training_features(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return features ``(k·n, m·f)`` in training, of k masks; hidden tokens are not computed."""
        return torch.cat([m.training_features(values, visible) for m in self.members], -1)

    def tokens(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return tokens of all members ``(n, t, m·d)`` from values per part and visible ``(n, t)``."""
        return torch.cat([m.tokenizers(values, visible) for m in self.members], -1)

    def features(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, m·f)`` from tokens ``(n, t, m·d)`` and visible ``(n, t)``."""
        parts = tokens.chunk(len(self.members), -1)
        return torch.cat([m.features(x, visible) for m, x in zip(self.members, parts)], -1)

    def view(self, values: list[Tensor], observed: Tensor, coalitions: Tensor) -> View:
        """Return a view of n rows in ``coalitions (c, t)`` that computes shared parts once; no dropout."""
        rows = [Rows(m.tokenizers, values, observed, m.dtype) for m in self.members]
        views = [(m, m.fusion.view(r, coalitions)) for m, r in zip(self.members, rows)]
        return View(views, rows[0], coalitions)

    @property
    def backbones(self) -> dict[str, nn.Module]:
        """The first member's backbones, by variable."""
        return backbones_of(self.members[0].tokenizers)


class View:
    """Features of n rows in coalitions, from all members of a network."""

    def __init__(
        self, members: Sequence[tuple[Member, CoalitionView]], rows: Rows, coalitions: Tensor
    ):
        self.members, self.rows, self.coalitions = members, rows, coalitions

    def cost(self, count: int) -> int:
        """Return the vectors per row that are in memory for ``count`` coalitions."""
        return max(view.cost(count) for _, view in self.members)

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, m·f)`` of ``rows (r,)`` in the coalitions ``selection (c,)``."""
        parts = [member.activate(view.features(rows, selection)) for member, view in self.members]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def states(
        self, rows: Tensor, coalition: int, owner: Tensor, groups: int
    ) -> tuple[Tensor, Tensor]:
        """Return features ``(r, m·f)`` in one coalition, and last tokens by group ``(r, G, m·d)``."""
        parts = [(m, v.states(rows, coalition, owner, groups)) for m, v in self.members]
        features = torch.cat([m.activate(x) for m, (x, _) in parts], -1)
        return features, torch.cat([states for _, (_, states) in parts], -1).float()

    def visible(self, rows: Tensor, coalition: int) -> Tensor:
        """Return which tokens of rows are visible in a coalition, boolean ``(r, t)``."""
        return self.rows.visible[rows] & self.coalitions[coalition]

    def twins(self, tokens: Tensor) -> Tensor:
        """Return the first row ``(n,)`` that equals each row in the tokens of ``tokens (t,)``."""
        # Where outputs are ranked, equal inputs must give equal outputs to the last bit, and matrix
        # products do not guarantee that.
        first, same = self.rows.distinct(torch.nonzero(tokens).squeeze(1).tolist())
        return first[same]


@torch.no_grad()
def join(networks: Sequence[Network], into: Network) -> Network:
    """Copy networks of one member each into ``into``, which then predicts their mean logits."""
    for member, network in zip(into.members, networks, strict=True):
        member.load_state_dict(network.members[0].state_dict())
    share = 1 / len(networks)
    # 1/m Σ_i (W_i f_i + b_i) = [W_1/m … W_m/m] [f_1; …; f_m] + 1/m Σ_i b_i: the mean of the logits is
    # one linear head, so Shapley values on the logit scale stay one product.
    into.head.weight.copy_(torch.cat([n.head.weight for n in networks], 1) * share)
    biases = torch.stack([n.head.bias for n in networks])
    into.head.bias.copy_(biases.mean(0))
    into.offsets = biases - biases.mean(0)
    return into


class Explainer(nn.Module):
    """Predict the Shapley values of G groups for s species in one pass, from a frozen network's states.

    After FastSHAP (Jethani et al. 2022, ICLR). It learns from coalitions. The difference between the sum
    of its values and the gain of the frozen network is divided equally among the groups that are present.
    ``width`` is that of the features that the head reads, ``hidden`` that of the two hidden layers.
    """

    def __init__(self, groups: int, *, width: int, species: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        # These names are in saved models: ``own`` reads a group's state, ``whole`` the row's features.
        self.own, self.whole = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.identity = nn.Parameter(torch.randn(groups, hidden) * 0.02)
        self.inner, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, species)

    def forward(self, states: Tensor, features: Tensor, present: Tensor, gain: Tensor) -> Tensor:
        """Return values ``(n, G, s)``; exactly 0 for groups outside boolean ``present (n, G)``.

        ``states (n, G, d)`` are the frozen network's last tokens, averaged by group, ``features (n, d)``
        those that its head reads. ``gain (n, s)`` is v(all) − v(∅), the sum of the values.
        """
        x = self.own(self.norm(states)) + self.whole(features).unsqueeze(1) + self.identity
        values = self.out(torch.relu(self.inner(torch.relu(x))))
        mask = present.unsqueeze(-1).to(values.dtype)
        values = values * mask
        # Efficiency: Σ_g φ_g = v(all) − v(∅).
        # The share is equal, as in FastSHAP: of all corrections that add up it is the smallest.
        remainder = (gain - values.sum(1)) / mask.sum(1).clamp(min=1)
        return values + remainder.unsqueeze(1) * mask
