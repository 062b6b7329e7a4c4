"""A trained model: the network, and all that is needed to use it elsewhere."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from geomiam.errors import SelectionError, printable
from geomiam.model.decision import read_thresholds, thresholds_entry
from geomiam.model.overview import overview, summary, title
from geomiam.model.quantity import QUANTITIES, Quantity, loss_of
from geomiam.model.reference import Reference
from geomiam.networks.config import NetworkConfig
from geomiam.networks.network import Network
from geomiam.outputs.text import facts_html
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler
from geomiam.tokens.select import observation_tokens

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from geomiam.model.calibration import Calibration

Precision = Literal["fp32", "bf16"]

LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": torch.sigmoid,
    "cloglog": lambda z: -torch.expm1(-torch.exp(z.clamp(max=30.0))),
    "softmax": lambda z: torch.softmax(z, -1),
}
"""From logits ``(..., species)`` to the probability scale."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model: returned by :func:`geomiam.fit`, read by :func:`geomiam.load_model`.

    A model is immutable, except that :meth:`to` moves its weights to another device.

    Attributes
    ----------
    schema : Schema
        Predictors, modalities and groups, with the labels of all dims.
    scaler : Scaler
        Means and deviations of the training sites.
    species : tuple of str
        Names in the order of the predictions; empty for a model of :func:`geomiam.pretrain`.
    config : NetworkConfig
        Fusion and sizes of the network.
    network : torch.nn.Module
        Maps tokens to logits ``(n, species)``.
    link : {"logit", "cloglog", "softmax"}
        From logits to the probability scale.

    Examples
    --------
    >>> model.config.kinds
    ('group',)
    >>> list(model.schema.modalities) == list(model.schema.groups)
    True
    """

    schema: Schema
    scaler: Scaler
    species: tuple[str, ...]
    config: NetworkConfig
    network: Network
    link: str = "logit"
    about: dict[str, Any] = field(default_factory=dict)
    """Provenance: masking, training, extent, scores; plain JSON types."""
    reference: Reference | None = None
    """Sample of the training sites for :func:`geomiam.novelty`; None if none is stored."""
    calibration: Calibration | None = field(default=None, repr=False)
    """Calibration sites of :func:`geomiam.calibrate`, for prediction sets."""

    @classmethod
    def untrained(
        cls,
        schema: Schema,
        *,
        scaler: Scaler,
        species: Sequence[str],
        config: NetworkConfig,
        link: str = "logit",
        backbones: Mapping[str, nn.Module] | None = None,
    ) -> Model:
        """Return a model with new weights from torch's current random state."""
        # Backbones, by variable, are copied with their weights.
        network = Network(
            config,
            layout=Layout.of(schema),
            classes={k: len(v) for k, v in scaler.classes.items()},
            species=len(species),
            backbones=backbones,
        )
        return cls(schema, scaler, tuple(species), config, network, link)

    @cached_property
    def layout(self) -> Layout:
        """The order of the model's tokens."""
        return Layout.of(self.schema)

    @cached_property
    def observation_tokens(self) -> list[int]:
        """Positions of the tokens with observations of species."""
        return [t for tokens in observation_tokens(self.layout).values() for t in tokens]

    @cached_property
    def own_tokens(self) -> dict[int, list[int]]:
        """Positions of the tokens with observations of a predicted species, by the position of the species.

        A species is never predicted from them.
        """
        tokens = observation_tokens(self.layout)
        return {i: tokens[name] for i, name in enumerate(self.species) if name in tokens}

    def encode(
        self, arrays: Mapping[str, np.ndarray], *, limits: bool = False, clamp: bool = False
    ) -> TokenArrays:
        """Return predictors ``(n, *own dims)`` by variable as tokens; see :func:`geomiam.tokens.encode.encode`."""
        return encode(arrays, layout=self.layout, scaler=self.scaler, limits=limits, clamp=clamp)

    @property
    def device(self) -> torch.device:
        """Device of the weights; inputs are moved there."""
        return next(self.network.parameters()).device

    @property
    def is_encoder(self) -> bool:
        """Whether the model comes from :func:`geomiam.pretrain` and has no species."""
        return not self.species

    @property
    def quantity(self) -> Quantity | None:
        """Name and meaning of the predictions; None if the loss of the training is not recorded."""
        loss = loss_of(self.about)
        return QUANTITIES[loss] if loss and QUANTITIES[loss].link == self.link else None

    @property
    def thresholds(self) -> xr.DataArray:
        """Thresholds ``(kind, species)`` of the suitability, chosen on sites that did not train.

        Kinds as in :func:`geomiam.metrics.threshold`; none if no thresholds are stored. The attribute ``source`` states
        the predictions that they were chosen on.
        """
        return read_thresholds(self.about.get("thresholds"), self.species)

    def with_thresholds(self, thresholds: xr.Dataset) -> Model:
        """Return the model with other thresholds, which :meth:`save` writes.

        Parameters
        ----------
        thresholds : xarray.Dataset
            From :func:`geomiam.evaluation.thresholds`; species are matched by name, those without a
            threshold get NaN.

        Returns
        -------
        Model
            With the same weights and :attr:`id`.

        Raises
        ------
        SelectionError
            If a species is not in the model.
        """
        names = [str(s) for s in thresholds["species"].values]
        self.species_index(names)
        values = thresholds["threshold"].assign_coords(species=names).reindex(species=self.species)
        by_kind = {str(k): values.sel(kind=k).values for k in values["kind"].values}
        entry = thresholds_entry(by_kind, source=str(thresholds.attrs.get("source", "unknown")))
        return replace(self, about={**self.about, "thresholds": entry})

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: loss, validation scores, and MIAM's s, d, r and E[p] per modality."""
        import pandas as pd

        return pd.DataFrame(self.about.get("history", []))

    @cached_property
    def id(self) -> str:
        """SHA-256 of specification and weights; equal for equal models on every machine."""
        from geomiam.model.weight_file import identity

        return identity(self.specification(), self.network.state_dict())

    def specification(self) -> dict[str, Any]:
        """Return all settings that predictions depend on beside the weights, as plain JSON types."""
        return {
            "schema": self.schema.to_dict(),
            "scaler": self.scaler.to_dict(),
            "species": list(self.species),
            "network": self.config.model_dump(),
            "link": self.link,
        }

    def probability(self, logits: Tensor) -> Tensor:
        """Return logits ``(..., species)`` on the probability scale."""
        return LINKS[self.link](logits)

    def species_index(self, species: str | Sequence[str] | None) -> np.ndarray:
        """Return the positions of the named species; all for None."""
        if self.is_encoder:
            raise SelectionError(
                "this model is an encoder from gm.pretrain: it has predictors and no species; continue "
                "with gm.fit(sites, warm_start=model) or gm.evaluation.probe(model, sites)"
            )
        if species is None:
            return np.arange(len(self.species))
        names = [species] if isinstance(species, str) else list(species)
        unknown = [s for s in names if s not in self.species]
        if unknown:
            close = difflib.get_close_matches(unknown[0], self.species, n=3)
            first = f"the first of {len(self.species)}: {list(self.species[:5])}"
            hint = f"did you mean {close}?" if close else first
            raise SelectionError(f"species {unknown} are not in the model; {hint}")
        return np.array([self.species.index(s) for s in names])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model directory; see :func:`geomiam.model.saved_model.save_model`."""
        from geomiam.model.saved_model import save_model

        return save_model(self, path, overwrite=overwrite)

    def stac_item(self) -> dict[str, Any]:
        """Return the STAC item of the model, with the Machine Learning Model extension (MLM 1.5).

        :meth:`save` writes it as ``stac-item.json`` into the model directory.

        Returns
        -------
        dict
            Plain JSON types: inputs with their variables, dims and scaling, outputs with the species,
            settings, extent and dates of the training sites, and the files of the model directory.

        Raises
        ------
        SelectionError
            If the model is an encoder without species.

        Examples
        --------
        >>> item = model.stac_item()
        >>> item["properties"]["mlm:output"][0]["result"]["shape"]
        [-1, 3]
        """
        from geomiam.model.stac_item import stac_item

        return stac_item(self)

    def in_precision(self, precision: Precision) -> Model:
        """Return the model with a fusion that computes in another precision; fp32 returns it unchanged."""
        if precision not in get_args(Precision):
            raise SelectionError(f"precision={precision!r}; use {' or '.join(get_args(Precision))}")
        if precision == "fp32":
            return self
        if self not in _HALVES:
            network = copy.deepcopy(self.network)
            for member in network.members:
                if member.fusion.half_precision:
                    member.fusion.to(torch.bfloat16)
            _HALVES[self] = replace(self, network=network)
            _HALVES[self].__dict__["id"] = self.id  # the id does not depend on the precision
        return _HALVES[self]

    def to(self, device: str | torch.device) -> Model:
        """Move the weights and return the model."""
        self.network.to(device)
        _HALVES.pop(self, None)
        return self

    def summary(self) -> str:
        """Return a short description of a few lines."""
        return summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        lines = [f"  {name}: {text}" for name, text in overview(self).items()]
        return printable("\n".join([title(self), *lines]))

    def _repr_html_(self) -> str:
        return facts_html(title(self), overview(self))

    def __dask_tokenize__(self) -> str:
        return self.id


_HALVES: WeakKeyDictionary[Model, Model] = WeakKeyDictionary()
"""Copies in bfloat16, created at first use; only :meth:`Model.to` changes a model."""
