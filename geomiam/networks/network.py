"""The network of a model: one or several members and a head over all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.errors import SchemaError
from geomiam.networks.blocks import TransformerBlock
from geomiam.networks.config import WITHOUT_ATTENTION, NetworkConfig
from geomiam.networks.cross import CrossFusion, CrossView
from geomiam.networks.encoders import own_copies, own_encoders
from geomiam.networks.explainer import Explainer
from geomiam.networks.group import GroupFusion, GroupView
from geomiam.networks.late import LateFusion, LateView
from geomiam.networks.packs import Seen
from geomiam.networks.sum import LinearFusion, SumFusion, SumView
from geomiam.networks.token import TokenFusion, TokenView
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import players
from geomiam.tokens.tokenizers import Tokenizers

MOST_GROUPS = 64
"""``observed`` of a map holds one bit per group."""
LIGHT = ("scalar", "circular", "categorical")
"""Kinds of tokens that are made of one number."""


class Member(nn.Module):
    """Tokens → fusion → LayerNorm, ReLU: the features of a site.

    A sum is not normalised, a linear member has no ReLU either, and late fusion has done both inside
    its branches.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        layout: Layout,
        classes: dict[str, int],
        encoders: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.config = config
        self.tokenizers = Tokenizers(
            layout,
            classes,
            width=config.width,
            frequencies=0 if config.fusion in WITHOUT_ATTENTION else config.frequencies,
            squares=config.fusion == "quadratic",
            sigma=config.sigma,
            symbols=config.symbols,
            encoders=own_copies(encoders or {}, config.encoders),
        )
        self.fusion = _fusion(config, layout)
        plain = config.fusion in (*WITHOUT_ATTENTION, "late")
        self.norm = nn.Identity() if plain else nn.LayerNorm(config.width)
        light = config.fusion in WITHOUT_ATTENTION or (
            config.fusion == "group" and not config.inner
        )
        self.dense = light and all(p.kind in LIGHT for p in layout.parts)
        """Whether computing hidden tokens in training costs less than sorting them out."""
        own = self.fusion.features if isinstance(self.fusion, LateFusion) else config.width
        self.feature_width = own
        """Numbers ``f`` that the head reads."""

    def features(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Features ``(n, f)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self.activate(self.fusion(tokens, visible))

    def packed(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Features ``(n, f)`` in training, from values per part and visible ``(n, t)``."""
        if self.dense:
            return self.features(self.tokenizers(values, visible), visible)
        return self.activate(self.fusion.packed(Seen.of(self.tokenizers, values, visible)))

    def activate(self, fused: Tensor) -> Tensor:
        """Fused tokens ``(n, f)`` as the last linear layer takes them."""
        if isinstance(self.fusion, LinearFusion):
            return fused.float()
        return torch.relu(self.norm(fused.float()))

    @property
    def dtype(self) -> torch.dtype:
        """What the fusion computes in; tokenizers, this norm and the head stay float32."""
        return next(self.fusion.parameters()).dtype


class Network(nn.Module):
    """m members side by side and a linear head: one logit per species.

    Members never meet before the head. Those that were trained apart and joined by :func:`join`
    answer with the mean of their logits, and everything that holds for one network holds for them:
    coalitions share what they shared before, and the answer stays linear in the features.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        layout: Layout,
        classes: dict[str, int],
        species: int,
        encoders: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        alone = [config.member(i) for i in range(config.members)]
        members = [Member(c, layout=layout, classes=classes, encoders=encoders) for c in alone]
        self.members = nn.ModuleList(members)
        width, groups = sum(int(m.feature_width) for m in members), _groups(layout)
        self.head = _head(width, species)
        if config.fusion == "late":  # what is said of nothing is not learned; see `set_base`
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
            made = [m.packed(values, visible) for m in self._members]
            return self.head(torch.cat(made, -1))
        return self.head(self.features(self.tokens(values, visible), visible))

    def tokens(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Tokens of all members ``(n, t, m·d)`` from values per part and visible ``(n, t)``."""
        made = [m.tokenizers(values, visible) for m in self._members]
        return torch.cat(made, -1)

    def features(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """What the head reads ``(n, m·f)``, from tokens ``(n, t, m·d)`` and visible ``(n, t)``."""
        made = [m.features(own, visible) for m, own in self._each(tokens)]
        return torch.cat(made, -1)

    def view(self, values: list[Tensor], observed: Tensor, shown: Tensor) -> View:
        """Return what coalitions ``shown (c, t)`` see of n rows; what they share is made once.

        In evaluation only: nothing is dropped and no token is replaced at random.
        """
        rows = [Rows(m.tokenizers, values, observed, m.dtype) for m in self._members]
        views = [(m, m.fusion.view(r, shown)) for m, r in zip(self._members, rows)]
        return View(views, rows[0], shown)

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The first member's own encoders, by variable."""
        return own_encoders(self._members[0].tokenizers)

    @property
    def _members(self) -> list[Member]:
        return list(self.members)  # type: ignore[arg-type]

    def _each(self, tokens: Tensor) -> list[tuple[Member, Tensor]]:
        return list(zip(self._members, tokens.chunk(len(self.members), -1)))


class View:
    """n rows as coalitions see them, through all members of a network."""

    def __init__(
        self,
        members: Sequence[tuple[Member, GroupView | TokenView | SumView | LateView | CrossView]],
        rows: Rows,
        shown: Tensor,
    ):
        self.members, self.rows, self.shown = members, rows, shown

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory for so many coalitions."""
        return max(view.cost(coalitions) for _, view in self.members)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """What the head reads ``(r, c, m·f)`` of rows ``(r,)`` in coalitions ``(c,)``."""
        made = [member.activate(view.features(rows, which)) for member, view in self.members]
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    def states(self, rows: Tensor, which: int, owner: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """What the head reads ``(r, m·f)``, and last tokens by group ``(r, G, m·d)``; token fusion only."""
        made = [(m, v.states(rows, which, owner, groups)) for m, v in self.members]  # type: ignore[union-attr]
        features = torch.cat([m.activate(fused) for m, (fused, _) in made], -1)
        return features, torch.cat([states for _, (_, states) in made], -1).float()

    def visible(self, rows: Tensor, which: int) -> Tensor:
        """Tokens of rows that a coalition sees ``(r, t)``."""
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
    groups = players(layout)
    if len(groups) > MOST_GROUPS:
        raise SchemaError(
            f"the schema has {len(groups)} groups, and a map has flags for {MOST_GROUPS}; join them: "
            "geomiam.infer_schema(sites, modalities={'climate': ['bio*'], ...}), or 'groups:' in the "
            "catalog"
        )
    return groups


def _head(width: int, species: int) -> nn.Linear:
    with warnings.catch_warnings():  # an encoder has no species, and nothing to draw for them
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(width, species)


def grown_tokens(layout: Layout, grown: Sequence[str]) -> list[int]:
    """Tokens of the modalities that a model was given later.

    Raises
    ------
    SchemaError
        If one is no modality of the layout.
    """
    if unknown := sorted(set(grown) - set(layout.schema.modalities)):
        raise SchemaError(
            f"grown names {unknown}, no modalities; there are {list(layout.schema.modalities)}"
        )
    mine = [s for s in layout.spans if s.modality in grown]
    return [t for s in mine for t in range(s.start, s.start + s.size)]


def _fusion(
    config: NetworkConfig, layout: Layout
) -> TokenFusion | GroupFusion | SumFusion | LateFusion | CrossFusion:
    width, heads, depth, dropout = config.width, config.heads, config.depth, config.dropout
    over_tokens = partial(TransformerBlock.over_tokens, config)
    if config.fusion in WITHOUT_ATTENTION:
        kind = SumFusion if config.fusion == "sum" else LinearFusion
        new = len(grown_tokens(layout, config.grown))
        return kind(layout.size, width=width, dropout=dropout, grown=new)
    if config.fusion == "cross":
        return CrossFusion(config, sizes=layout.sizes.tolist())
    sizes: Any = {"width": width, "heads": heads, "depth": depth, "dropout": dropout}
    if config.fusion == "token":
        grown = grown_tokens(layout, config.grown)
        return TokenFusion(**sizes, grown=grown, over_tokens=over_tokens)
    if config.fusion == "late":
        return LateFusion(config, sizes=layout.sizes.tolist())
    groups = [tokens.nonzero()[0].tolist() for tokens in players(layout).values()]
    return GroupFusion(groups, inner=config.inner, **sizes, over_tokens=over_tokens)
