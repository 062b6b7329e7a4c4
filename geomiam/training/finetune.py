"""Fine-tuning: a trained model learns on from more sites, species or predictors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from geomiam.data.infer.infer import infer_schema
from geomiam.data.predictors import bind
from geomiam.data.sites.labels import check_classes, read_labels
from geomiam.data.sites.table import SiteTable
from geomiam.errors import SchemaError, SelectionError
from geomiam.masking import MIAM, Strategy
from geomiam.masking.registry import as_strategy
from geomiam.model.model import Model
from geomiam.model.quantity import loss_of
from geomiam.model.saved_model import as_model
from geomiam.networks.network import Network
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.limits import widened, with_limits
from geomiam.tokens.scaler import fit_scaler
from geomiam.training.checkpoint import Progress
from geomiam.training.config import TrainingConfig
from geomiam.training.extend import (
    grown_schema,
    joined_scaler,
    of_species,
    put_head,
    with_modalities,
    with_species,
)
from geomiam.training.holdout import HoldOut
from geomiam.training.loop import Run, torch_seed
from geomiam.training.loop import train as run_training
from geomiam.training.losses import LINK_OF
from geomiam.training.provenance import provenance
from geomiam.training.rule import changed, training_steps
from geomiam.training.supervised import Supervised
from geomiam.training.table import share

Part = Literal["head", "all", "new"]

LOWER = 0.1
"""Of the learning rate, where all weights learn on."""
OF_THE_DATA = ("loss", "evenness", "batch", "lr", "weight_decay", "holdout", "keep")
"""Settings of the model's own training that hold for its fine-tuning too."""


@dataclass(frozen=True)
class Found:
    """What sites hold, beside what a model knows."""

    labels: np.ndarray
    """``(n, S)`` of the model's species and then of the new ones; NaN = not surveyed."""
    species: tuple[str, ...]
    """New ones."""
    known: int
    """Species of the model that are labelled."""
    schema: Schema | None
    """New modalities."""

    def said(self) -> str:
        """Say it in words."""
        new = list(self.schema.modalities) if self.schema else []
        return (
            f"the sites label {self.known} species of the model and {len(self.species)} new ones, and "
            f"have {len(new)} new modalities {new}"
        )


@standard_torch()
@with_progress
def finetune(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    schema: Schema | str | Path | None = None,
    train: Part | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    masking: Strategy | str | None = None,
    validation: np.ndarray | None = None,
    rng: int | np.random.Generator | None = 0,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Model:
    """Train a model further; the model itself is not changed.

    Means and deviations of the variables of the model stay those of its training. A learned
    explainer is dropped: train another with :func:`geomiam.fit_explainer`.

    Parameters
    ----------
    model : Model or path
    sites : xarray.Dataset
        As for :func:`geomiam.fit`. Modalities of the model that are not in the sites count as
        missing.
    schema : Schema or path, optional
        With ``train="new"``: the new modalities, with or without the model's; default: all variables
        that are not in the model, in the modalities that their attributes name.
    train : {"head", "all", "new"}
        Required. ``"head"``: new species; a row of the head for each is trained, and nothing else:
        species of the model keep exactly their logits, and their labels are not read.
        ``"all"``: a new region or more data; every weight learns at a low rate, species old and new.
        ``"new"``: new modalities; their tokenizers and what a fusion keeps for them alone are
        trained. Without the new modalities the predictions stay as they are, to the bit.
    training : TrainingConfig or mapping, optional
        A config is used as it is, with the loss of the model for ``loss="auto"``. Default: the
        settings of the model's training, on one device, with a tenth of its learning rate for
        ``"all"``; if all sites trained it, as by default, the number of steps follows from the new
        sites. A mapping changes single settings of these.
    masking : Strategy or str, optional
        Default: ``MIAM()``.
    validation : numpy.ndarray, optional
        Boolean per site; default: spatial blocks.
    rng : int, numpy.random.Generator or None
    checkpoint : path, optional
        As for :func:`geomiam.fit`.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        ``about["finetuning"]`` has an entry for each step: the parent's id, what was trained, the
        number of sites.

    Raises
    ------
    SelectionError
        If ``train`` is missing or does not fit the sites, the model cannot grow, or
        another loss would give species of one model different meanings.
    SchemaError
        If a new modality has variables of an old one, or the other way round.
    LabelError, MissingVariable, VariableMismatch
        If labels or predictors cannot be used.
    """
    model = as_model(model)
    found = _found(model, sites, schema, train)
    part, config = _checked(train, model, found), _settings(model, found, training, train)
    config = _with_loss(config, model, found, part)
    seeds = np.random.default_rng(rng)
    held_out = HoldOut.of(sites, validation, config)
    held = held_out.draw(found.labels, seeds)
    seed = int(seeds.integers(2**31))
    grown = grown_schema(model.schema, found.schema) if found.schema else model.schema
    predictors = SiteTable.read(sites, grown, include_labels=False)
    if found.schema:
        replace(predictors, schema=found.schema).checked()
    trained = {k: a[~held] for k, a in predictors.arrays.items()}
    with torch_seed(seed):
        tuned, learned = _larger(model, found, part, trained)
    first = len(model.species) if part == "head" else 0  # the head of new species learns apart
    student = of_species(tuned, first) if first else tuned
    (table,) = share(student.encode(predictors.arrays), found.labels[:, first:], held=[held])
    if config.loss != "cross-entropy":
        check_classes(found.labels[:, first:], student.species)
    strategy = as_strategy(masking, default=MIAM())
    run = Run(student, student.network, table, strategy, config, seed, Supervised())
    end = _learn(run, learned, Path(checkpoint) if checkpoint else None)
    if first:
        put_head(tuned, student.network.head, first)
    _open(tuned.network.eval(), model.network)
    tuned = replace(tuned, scaler=widened(tuned.scaler, trained, tuned.schema))
    step = _step(model, found, part, provenance([run], [end], sites) | held_out.about())
    return replace(tuned, about=_about(model, step))


def _found(
    model: Model, sites: xr.Dataset, schema: Schema | str | Path | None, part: Part | None
) -> Found:
    read, names = read_labels(sites)
    new = tuple(s for s in names if s not in model.species)
    labels = np.full((len(read), len(model.species) + len(new)), np.nan, np.float32)
    place = {s: i for i, s in enumerate((*model.species, *new))}
    labels[:, [place[s] for s in names]] = read
    looked = schema is not None or part not in ("head", "all")
    more = _new_modalities(model, sites, schema) if looked else None
    return Found(labels, new, len(names) - len(new), more)


def _new_modalities(
    model: Model, sites: xr.Dataset, schema: Schema | str | Path | None
) -> Schema | None:
    """The modalities that the model does not know, bound to the sites."""
    known, variables = model.schema.modalities, model.schema.variables
    if isinstance(schema, (str, Path)):
        schema = Schema.from_yaml(schema)
    if schema is None:
        unknown = [str(n) for n in sites.data_vars if n not in variables]
        rest = [n for n in unknown if n != "presence" and sites[n].dtype.kind in "fiub"]
        schema = infer_schema(sites[rest]) if rest else None
    if schema is None:
        return None
    for modality in schema.modalities.values():
        wrong = [v for v in modality.variables if (modality.name in known) is not (v in variables)]
        if wrong:
            raise SchemaError(_odd(modality.name, wrong, known))
    fresh = [m for m in schema.modalities if m not in known]
    return bind(schema.subset(fresh), sites) if fresh else None


def _odd(modality: str, variables: list[str], known: Collection[str]) -> str:
    if modality in known:
        return (
            f"variables {variables} are new in modality '{modality}' of the model, whose tokens are "
            f"fixed; give them a modality of their own: ds['{variables[0]}'].attrs['modality'] = 'more'"
        )
    return (
        f"variables {variables} belong to another modality of the model, not to '{modality}'; leave "
        "them out of the schema of the new modalities"
    )


def _checked(part: Part | None, model: Model, found: Found) -> Part:
    """What learns, if it fits what was found."""
    fits = [
        *(["head"] if found.species else []),
        *(["new"] if found.schema and not found.species else []),
        *(["all"] if found.known else []),
    ]
    if part is None or part not in get_args(Part):
        choice = " or ".join(f"train='{p}'" for p in fits) or "other sites"
        raise SelectionError(
            f"train={part!r}: say what learns, train='head' (new species), 'all' (every weight, at a "
            f"low rate) or 'new' (new modalities); {found.said()}: pass {choice}"
        )
    if part != "new" and found.schema:
        raise SelectionError(
            f"train='{part}' takes no new modalities, found {list(found.schema.modalities)} in schema=; "
            "leave schema= out, or pass train='new'"
        )
    if part == "head" and not found.species:
        raise SelectionError(
            f"train='head' needs species that the model does not know; {found.said()}"
        )
    if part == "head" and model.link == "softmax":
        raise SelectionError(
            "train='head': the answers of this model are shares of all species, so new species change "
            "those of the old ones; use train='all'"
        )
    if part == "new":
        _check_new(found)
    return part


def _with_loss(config: TrainingConfig, model: Model, found: Found, part: Part) -> TrainingConfig:
    """Settings with the loss of the model, unless every prediction is trained with another one."""
    before = loss_of(model.about) or next(k for k, v in LINK_OF.items() if v == model.link)
    if config.loss == "auto":
        return config.model_copy(update={"loss": before})
    every = part == "all" and found.known == len(model.species)
    if LINK_OF[config.loss] != model.link or (config.loss != before and not every):
        raise SelectionError(
            f"loss='{config.loss}' does not suit the model, whose loss is '{before}' and whose link is "
            f"'{model.link}': predictions of one model must keep one meaning; use "
            f"TrainingConfig(loss='auto'), or, on the same link, train='all' with labels of all species"
        )
    return config


def _check_new(found: Found) -> None:
    if not found.schema:
        raise SelectionError(
            f"train='new' needs modalities that the model does not know; {found.said()}"
        )
    if found.species or not found.known:
        some = list(found.species[:3])
        raise SelectionError(
            f"train='new' learns from species of the model, found others, {some}: train their rows "
            "first with gm.finetune(model, sites, train='head'), or take the model's species alone "
            "with sites.sel(species=[...])"
        )


def _settings(
    model: Model,
    found: Found,
    training: TrainingConfig | Mapping[str, Any] | None,
    part: Part | None,
) -> TrainingConfig:
    """The caller's settings, or those of the model's training."""
    if isinstance(training, TrainingConfig):
        return training
    known = model.about.get("training", {})
    # In older models the block has no unit.
    has_unit = {"blocks", "validation"} & set(model.about)
    names = [*OF_THE_DATA, *["block"] * bool(has_unit)]
    settings = {k: known[k] for k in names if k in known}
    config = TrainingConfig(**settings)
    if config.keep == "last":  # no validation ends it
        config = config.model_copy(update={"steps": training_steps(found.labels)})
    if part == "all":
        config = config.model_copy(update={"lr": config.lr * LOWER})
    changes = dict(training or {})
    if "epochs" in changes:
        changes.setdefault("steps", None)
    return changed(config, changes)


def _larger(
    model: Model, found: Found, part: Part, trained: dict[str, np.ndarray]
) -> tuple[Model, list[str]]:
    """The model with room for what is new, and the names of the weights that learn.

    ``trained`` are the predictors of the sites that train, by variable.
    """
    if part != "new" or found.schema is None:
        larger = with_species(model, found.species)
        return larger, ["head.weight", "head.bias"] if part == "head" else [
            *larger.network.state_dict()
        ]
    arrays = {k: trained[k] for k in found.schema.variables}
    new = fit_scaler(arrays, found.schema)
    if model.scaler.limits:
        new = with_limits(new, arrays, found.schema)
    return with_modalities(
        model, grown_schema(model.schema, found.schema), joined_scaler(model.scaler, new)
    )


def _learn(run: Run, learned: Collection[str], checkpoint: Path | None) -> Progress:
    """Train some weights alone; all else ends as it began, statistics that modules keep too."""
    network, some = run.model.network, set(learned)
    for name, weight in network.named_parameters():
        weight.requires_grad_(weight.requires_grad and name in some)
    fresh = {name.rpartition(".")[0] for name in some}  # what modules that learn count is theirs
    before = {
        k: v.detach().clone()
        for k, v in network.state_dict().items()
        if k not in some and k.rpartition(".")[0] not in fresh
    }
    end = run_training(run, checkpoint, name="fine-tuning")
    network.load_state_dict(before, strict=False)
    return end


def _open(network: Network, old: Network) -> None:
    """Let weights learn again as they did in the old network; new ones do."""
    frozen = {n for n, p in old.named_parameters() if not p.requires_grad}
    for name, weight in network.named_parameters():
        weight.requires_grad_(name not in frozen)


def _step(model: Model, found: Found, part: Part, about: dict[str, Any]) -> dict[str, Any]:
    new = list(found.schema.modalities) if found.schema and part == "new" else []
    return {
        "parent": model.id,
        "train": part,
        "new_species": list(found.species),
        "new_modalities": new,
        "explainer": "dropped" if "explainer" in model.about else None,
        **about,
    }


def _about(model: Model, step: dict[str, Any]) -> dict[str, Any]:
    """The parent's provenance and every step since; the history is that of the last."""
    kept = {k: v for k, v in model.about.items() if k != "explainer"}
    if (loss := step["training"]["loss"]) != loss_of(model.about):
        kept["loss"] = {"name": loss, "reason": "set in TrainingConfig for fine-tuning"}
    steps = [*model.about.get("finetuning", [])]
    alone = {k: v for k, v in step.items() if k != "history"}
    return {**kept, "history": step["history"], "finetuning": [*steps, alone]}
