"""Fusion and sizes of a network, as a saved model records them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from geomiam.networks.fusion.protocol import Fusion
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.schema.fields import FrozenFields


class BackboneSettings(FrozenFields):
    """Settings of a backbone that a saved model records beside its weights."""

    width: int = Field(ge=1, le=65536, description="numbers per row of its output")
    frozen: bool = Field(False, description="its weights stay as they are in training")


class NetworkConfig(FrozenFields):
    """Sizes and options of the network; the bounds also protect the loading of saved models.

    Raises
    ------
    ValueError
        If a value is out of bounds, or an option has no effect in the fusion.

    See Also
    --------
    geomiam.fit : ``network={"width": 32}`` changes single settings of the rule.

    Examples
    --------
    >>> gm.NetworkConfig(fusion="group+sum", members=2, width=32, heads=4).kinds
    ('group', 'sum')
    """

    fusion: str = Field(
        "group",
        description="group, token, cross, late, sum, linear or quadratic; members of several kinds: "
        "group+sum+linear",
    )
    width: int = Field(192, ge=4, le=4096)
    heads: int = Field(8, ge=1, le=64)
    depth: int = Field(
        3, ge=1, le=64, description="blocks over tokens (token, cross, late) or summaries (group)"
    )
    inner: int = Field(
        1, ge=0, le=64, description="blocks inside each group (group) or modality (cross)"
    )
    weights: Literal["equal", "learned"] = Field(
        "equal", description="of the modalities (late fusion only); learned ones are positive"
    )
    pool: Literal["mean", "sum"] = Field(
        "mean", description="of the visible modalities' logits (late fusion only)"
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    frequencies: int = Field(48, ge=1, le=1024, description="of the periodic tokenizer")
    sigma: float = Field(0.01, gt=0, description="deviation of the initial frequencies")
    squares: bool = Field(
        False,
        description="squares of the values of series, images and vectors are inputs, too; not in linear "
        "members",
    )
    private_windows: bool = Field(
        False,
        description="each window of a series has separate weights; with shared weights, a network without "
        "attention between windows sees only their mean",
    )
    attention: Literal["dense", "sparse"] = Field("dense", description="of blocks over tokens")
    budget: float = Field(
        5.0,
        gt=0,
        le=1024,
        description="of sparse attention: budget * ceil(ln L) of L queries attend",
    )
    gate: bool = Field(
        False, description="budgets of modalities are learned (cross fusion, sparse attention)"
    )
    experts: int = Field(
        0, ge=0, le=256, description="feed-forward layers a block over tokens has to choose from"
    )
    top_experts: int = Field(1, ge=1, le=16, description="of which so many take each token")
    balance: float = Field(
        0.0, ge=0, le=1, description="step of the bias that spreads tokens over experts; 0: none"
    )
    symbols: Literal["embedding", "scalar"] = Field(
        "embedding", description="symbolic series: a vector per symbol, or its number"
    )
    members: int = Field(1, ge=1, le=64, description="networks whose logits are averaged")
    explainer: int = Field(
        0, ge=0, le=4096, description="width of a learned explainer (fit_explainer); 0: none"
    )

    backbones: Any = Field(
        None,
        exclude=True,
        repr=False,
        description="for fit: modules such as pre-trained networks, by variable (or modality of one "
        "variable); see geomiam.Backbone. Every member trains a copy; weights with "
        "requires_grad=False are not trained",
    )
    encoders: dict[str, BackboneSettings] = Field(
        {}, description="sizes of backbones by variable; set by fit"
    )

    grown: tuple[str, ...] = Field(
        (), description="modalities that a trained model was given later; set by finetune"
    )

    @field_validator("fusion")
    @classmethod
    def _fusion_exists(cls, fusion: str) -> str:
        mixing = [name for name, kind in FUSIONS.items() if kind.mixes]
        if fusion not in FUSIONS and not set(fusion.split("+")) <= set(mixing):
            raise ValueError(
                f"no fusion '{fusion}'; use one of {', '.join(FUSIONS)}, or several of "
                f"{', '.join(mixing)} joined by '+'"
            )
        return fusion

    @model_validator(mode="after")
    def _heads_divide_width(self) -> NetworkConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.members < len(self.kinds):
            raise ValueError(
                f"fusion '{self.fusion}' has {len(self.kinds)} kinds of members; pass "
                f"members={len(self.kinds)} or more, or a fusion of one kind, such as fusion='{self.kinds[0]}'"
            )
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> NetworkConfig:
        over_tokens = any(f.count_blocks(self, modalities=1).over_tokens for f in self.fusions)
        if not over_tokens and (self.experts or self.attention == "sparse"):
            raise ValueError(
                f"fusion '{self.fusion}' with inner={self.inner} has no blocks over tokens for sparse "
                "attention or experts; use fusion='token', or 'group' with inner=1 or more"
            )
        for fusion in self.fusions:
            fusion.check(self)
        if self.experts and self.top_experts > self.experts:
            raise ValueError(f"top_experts {self.top_experts} is more than experts {self.experts}")
        if self.balance and not self.experts:
            raise ValueError(f"balance {self.balance} is for experts; pass experts=4, or balance=0")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The fusions of the members, in turn."""
        return tuple(self.fusion.split("+"))

    @property
    def fusions(self) -> tuple[type[Fusion], ...]:
        """The classes of these fusions."""
        return tuple(FUSIONS[kind] for kind in self.kinds)

    def member(self, number: int) -> NetworkConfig:
        """Return the configuration of one member alone."""
        kinds = self.kinds
        return self.model_copy(update={"members": 1, "fusion": kinds[number % len(kinds)]})
