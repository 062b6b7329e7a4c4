"""New species and modalities of sites that a model is fine-tuned on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xarray as xr

from geomiam.data.infer.infer import infer_schema
from geomiam.data.predictors import bind
from geomiam.data.sites.labels import read_labels
from geomiam.errors import SchemaError, SelectionError
from geomiam.model.model import Model
from geomiam.schema.schema import Schema

Part = Literal["head", "all", "new"]


@dataclass(frozen=True)
class Additions:
    """Labels of sites, and the species and modalities of the sites that a model lacks."""

    labels: np.ndarray
    """``(n, S)`` of the model's species, then of the new ones; NaN = not surveyed."""
    species: tuple[str, ...]
    """New species."""
    labelled_count: int
    """Number of the model's species that the sites label."""
    schema: Schema | None
    """New modalities."""

    @classmethod
    def of(
        cls,
        model: Model,
        sites: xr.Dataset,
        schema: Schema | str | Path | None,
        *,
        train: Part | None,
    ) -> Additions:
        """Compare sites with a model.

        Raises
        ------
        SchemaError
            If a new modality has variables of an old one, or the other way round.
        LabelError
            If labels cannot be used.
        """
        presence, names = read_labels(sites)
        new = tuple(s for s in names if s not in model.species)
        labels = np.full((len(presence), len(model.species) + len(new)), np.nan, np.float32)
        column = {s: i for i, s in enumerate((*model.species, *new))}
        labels[:, [column[s] for s in names]] = presence
        reads_modalities = schema is not None or train not in ("head", "all")
        modalities = _new_modalities(model, sites, schema) if reads_modalities else None
        return cls(labels, new, len(names) - len(new), modalities)

    def __str__(self) -> str:
        new = list(self.schema.modalities) if self.schema else []
        return (
            f"the sites label {self.labelled_count} species of the model and {len(self.species)} new "
            f"ones, and have {len(new)} new modalities {new}"
        )

    def checked(self, train: Part | None, model: Model) -> Part:
        """Return the part to train if it suits the additions.

        Raises
        ------
        SelectionError
            If the part is missing or does not suit the sites or the model.
        """
        if train is None or train not in get_args(Part):
            suitable = " or ".join(f"train='{p}'" for p in self._suitable_parts()) or "other sites"
            raise SelectionError(
                f"train={train!r}: choose the part to train, train='head' (new species), 'all' (every "
                f"weight, at a low rate) or 'new' (new modalities); {self}: pass {suitable}"
            )
        if train != "new" and self.schema:
            raise SelectionError(
                f"train='{train}' takes no new modalities, found {list(self.schema.modalities)} in "
                "schema=; leave schema= out, or pass train='new'"
            )
        if train == "head" and not self.species:
            raise SelectionError(f"train='head' needs species that the model lacks; {self}")
        if train == "head" and model.link == "softmax":
            raise SelectionError(
                "train='head': this model predicts shares of all species, so new species change the "
                "predictions of the old ones; use train='all'"
            )
        if train == "new":
            self._check_new()
        return train

    def _suitable_parts(self) -> list[str]:
        return [
            *(["head"] if self.species else []),
            *(["new"] if self.schema and not self.species else []),
            *(["all"] if self.labelled_count else []),
        ]

    def _check_new(self) -> None:
        if not self.schema:
            raise SelectionError(f"train='new' needs modalities that the model lacks; {self}")
        if self.species or not self.labelled_count:
            raise SelectionError(
                f"train='new' learns from species of the model, found others, {list(self.species[:3])}: "
                "train their rows first with gm.finetune(model, sites, train='head'), or take the "
                "model's species alone with sites.sel(species=[...])"
            )


def _new_modalities(
    model: Model, sites: xr.Dataset, schema: Schema | str | Path | None
) -> Schema | None:
    """Return the modalities that the model lacks, bound to the sites."""
    modalities, variables = model.schema.modalities, model.schema.variables
    if isinstance(schema, (str, Path)):
        schema = Schema.from_yaml(schema)
    if schema is None:
        further = [str(n) for n in sites.data_vars if n not in variables]
        numeric = [n for n in further if n != "presence" and sites[n].dtype.kind in "fiub"]
        schema = infer_schema(sites[numeric]) if numeric else None
    if schema is None:
        return None
    for modality in schema.modalities.values():
        is_old = modality.name in modalities
        wrong = [v for v in modality.variables if is_old is not (v in variables)]
        if wrong:
            raise SchemaError(_mixed_modality(modality.name, wrong, modalities))
    new = [m for m in schema.modalities if m not in modalities]
    return bind(schema.subset(new), sites) if new else None


def _mixed_modality(modality: str, variables: list[str], modalities: Collection[str]) -> str:
    if modality in modalities:
        return (
            f"variables {variables} are new in modality '{modality}' of the model, whose tokens are "
            f"fixed; put them into a new modality: ds['{variables[0]}'].attrs['modality'] = 'more'"
        )
    return (
        f"variables {variables} belong to another modality of the model, not to '{modality}'; leave "
        "them out of the schema of the new modalities"
    )
