"""Fine-tuning: a model is trained further on more sites, species or predictors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from geomiam.data.sites.table import SiteTable, check_classes
from geomiam.errors import SelectionError
from geomiam.masking import MIAM, Strategy
from geomiam.masking.registry import as_strategy
from geomiam.model.model import Model
from geomiam.model.quantity import loss_of
from geomiam.model.saved_model import as_model
from geomiam.networks.member_heads import agreement
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.scaler import fit_scaler, widened, with_limits
from geomiam.training.additions import (
    Additions,
    Part,
    grown_schema,
    joined_scaler,
    of_species,
    with_modalities,
    with_species,
)
from geomiam.training.checkpoint import Progress
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, torch_seed
from geomiam.training.loop import train as run_training
from geomiam.training.losses import LINK_OF
from geomiam.training.provenance import provenance
from geomiam.training.reference import widened_reference
from geomiam.training.rule import changed, training_steps
from geomiam.training.supervised import Supervised
from geomiam.training.table import HoldOut, encode_sites, tables_of

LOW_RATE = 0.1
"""Factor of the learning rate where all weights are trained further."""
INHERITED = ("loss", "evenness", "batch", "lr", "weight_decay", "holdout", "keep")
"""Settings of the model's first training that also hold for its fine-tuning."""


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
    checkpoint: str | Path | None = None,
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> Model:
    """Train a copy of a model further.

    The scaler keeps the means and deviations of the model's first training. A learned explainer is
    dropped; :func:`geomiam.explain.fit_explainer` trains another.

    Parameters
    ----------
    model : Model or path
    sites : xarray.Dataset
        As for :func:`geomiam.fit`. Modalities of the model that are not in the sites count as
        missing.
    schema : Schema or path, optional
        With ``train="new"``: the new modalities, with or without the model's. Default: all variables
        that are not in the model, grouped by their attribute ``modality``.
    train : {"head", "all", "new"}
        Required. ``"head"``, for new species: one row of the head per new species is trained, and
        nothing else. Species of the model keep exactly their logits, and their labels are not read.
        ``"all"``, for a new region or more data: every weight is trained at a low rate, for old and
        new species. ``"new"``, for new modalities: their tokenizers and the weights of the fusion
        that only they use are trained. Predictions without the new modalities do not change by a bit.
    training : TrainingConfig or mapping, optional
        A config is used unchanged, except that ``loss="auto"`` is the loss of the model. Default: the
        settings of the model's first training, on one device, with a tenth of its learning rate for
        ``"all"``. If all sites trained the model, as by default, the number of steps follows from the
        new sites. A mapping changes single settings of the default.
    masking : Strategy or str, optional
        Default: ``MIAM()``.
    validation : numpy.ndarray, optional
        Boolean ``(n,)``: these sites are scored and do not train, in place of spatial blocks.
    checkpoint : str or pathlib.Path, optional
        As for :func:`geomiam.fit`.
    rng : int, numpy.random.Generator or None
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        ``about["finetuning"]`` has one entry per fine-tuning: the id of the parent, the part that was
        trained, the number of sites.

    Raises
    ------
    SelectionError
        If ``train`` is missing or does not suit the sites, the fusion cannot take new modalities, or
        another loss would give the species of one model predictions of different meaning.
    SchemaError
        If a new modality has variables of an old one, or the other way round.
    LabelError, MissingVariable, VariableMismatch
        If labels or predictors cannot be used.

    See Also
    --------
    geomiam.fit : train a new model.
    geomiam.pretrain : train without labels.

    Examples
    --------
    >>> import geomiam as gm
    >>> tuned = gm.finetune(model, sites_of_new_species, train="head")  # doctest: +SKIP
    >>> tuned = gm.finetune(model, sites, train="all", training={"epochs": 1})
    >>> tuned.species == model.species
    True
    """
    model = as_model(model)
    additions = Additions.of(model, sites, schema, train=train)
    part = additions.checked(train, model)
    config = _settings(model, additions, training, part)
    seeds = np.random.default_rng(rng)
    held_out = HoldOut.of(sites, validation, config)
    mask = held_out.draw(additions.labels, seeds)
    seed = int(seeds.integers(2**31))
    new_schema = grown_schema(model.schema, additions.schema) if additions.schema else model.schema
    predictors = SiteTable.read(sites, new_schema, include_labels=False)
    if additions.schema:
        replace(predictors, schema=additions.schema).checked()
    with torch_seed(seed):
        larger, weights = _larger(model, additions, part, predictors.arrays, rows=~mask)
    first = len(model.species) if part == "head" else 0  # new rows of the head train separately
    student = of_species(larger, first) if first else larger
    labels = additions.labels[:, first:]
    tokens = encode_sites(predictors.arrays, layout=student.layout, scaler=student.scaler)
    (table,) = tables_of(tokens, labels, held_out=[mask])
    if config.loss != "cross-entropy":
        check_classes(labels, student.species)
    strategy = as_strategy(masking, default=MIAM())
    run = Run(student, student.network, table, strategy, config, seed, Supervised())
    end = _train_weights(run, weights, Path(checkpoint) if checkpoint else None)
    if first:
        _set_rows(larger, student, first=first, offsets=model.network.offsets)
    frozen = {n for n, p in model.network.named_parameters() if not p.requires_grad}
    for name, weight in larger.network.eval().named_parameters():
        weight.requires_grad_(name not in frozen)
    scaler = widened(larger.scaler, predictors.arrays, larger.schema, rows=~mask)
    record = provenance([run], [end], sites) | held_out.about()
    reference = widened_reference(model.reference, run)
    about = _about(model, additions, part, record)
    return replace(larger, scaler=scaler, about=about, reference=reference)


def _set_rows(larger: Model, student: Model, *, first: int, offsets: torch.Tensor | None) -> None:
    """Set the rows of the head from ``first`` to those that trained separately; the offsets of others stay."""
    with torch.no_grad():
        larger.network.head.weight[first:] = student.network.head.weight
        larger.network.head.bias[first:] = student.network.head.bias
    if offsets is not None:
        new_offsets = agreement(larger.network.eval(), larger.layout)[:, first:]
        larger.network.offsets = torch.cat([offsets.cpu(), new_offsets], 1)


def _settings(
    model: Model,
    additions: Additions,
    training: TrainingConfig | Mapping[str, Any] | None,
    part: Part,
) -> TrainingConfig:
    """Return the caller's settings, or those of the model's first training with changes."""
    # The loss is that of the model; another loss must train every prediction.
    if isinstance(training, TrainingConfig):
        config = training
    else:
        old_settings = model.about.get("training", {})
        # Models of older versions store the block without a unit, so it cannot be used.
        has_unit = {"blocks", "validation"} & set(model.about)
        names = [*INHERITED, *["block"] * bool(has_unit)]
        config = TrainingConfig(**{k: old_settings[k] for k in names if k in old_settings})
        defaults: dict[str, Any] = {}
        if config.keep == "last":  # no validation score ends the run
            defaults["steps"] = training_steps(additions.labels)
        if part == "all":
            defaults["lr"] = config.lr * LOW_RATE
        changes = dict(training or {})
        if "epochs" in changes:
            changes.setdefault("steps", None)
        config = changed(config, {**defaults, **changes})
    before = loss_of(model.about) or next(k for k, v in LINK_OF.items() if v == model.link)
    if config.loss == "auto":
        return config.model_copy(update={"loss": before})
    trains_all = part == "all" and additions.labelled_count == len(model.species)
    if LINK_OF[config.loss] != model.link or (config.loss != before and not trains_all):
        raise SelectionError(
            f"loss='{config.loss}' does not suit the model, whose loss is '{before}' and whose link is "
            f"'{model.link}': predictions of one model must keep one meaning; use "
            f"TrainingConfig(loss='auto'), or, on the same link, train='all' with labels of all species"
        )
    return config


def _larger(
    model: Model,
    additions: Additions,
    part: Part,
    arrays: dict[str, np.ndarray],
    *,
    rows: np.ndarray,
) -> tuple[Model, list[str]]:
    """Return a model with the new species or modalities, and the names of the weights to train."""
    # ``arrays`` are the predictors of all sites by variable, ``rows`` the training sites.
    if part != "new" or additions.schema is None:
        larger = with_species(model, additions.species)
        head = ["head.weight", "head.bias"]
        return larger, head if part == "head" else [*larger.network.state_dict()]
    scaler = fit_scaler(arrays, additions.schema, rows=rows)
    if model.scaler.limits:
        scaler = with_limits(scaler, arrays, additions.schema, rows=rows)
    schema = grown_schema(model.schema, additions.schema)
    return with_modalities(model, schema, joined_scaler(model.scaler, scaler))


def _train_weights(run: Run, names: Collection[str], checkpoint: Path | None) -> Progress:
    """Train the named weights; restore all other weights and running statistics afterwards."""
    network, names = run.model.network, set(names)
    for name, weight in network.named_parameters():
        weight.requires_grad_(weight.requires_grad and name in names)
    # Modules with trained weights also update their buffers, such as running statistics.
    modules = {name.rpartition(".")[0] for name in names}
    before = {
        k: v.detach().clone()
        for k, v in network.state_dict().items()
        if k not in names and k.rpartition(".")[0] not in modules
    }
    end = run_training(run, checkpoint, name="fine-tuning")
    network.load_state_dict(before, strict=False)
    return end


def _about(
    model: Model, additions: Additions, part: Part, record: dict[str, Any]
) -> dict[str, Any]:
    """Return the parent's provenance with every fine-tuning; the history is that of the last one."""
    about = {
        k: v for k, v in model.about.items() if k not in ("explainer", "thresholds", "calibration")
    }
    if (loss := record["training"]["loss"]) != loss_of(model.about):
        about["loss"] = {"name": loss, "reason": "set in TrainingConfig for fine-tuning"}
    step = {
        "parent": model.id,
        "train": part,
        "new_species": list(additions.species),
        "new_modalities": list(additions.schema.modalities) if additions.schema else [],
        "explainer": "dropped" if "explainer" in model.about else None,
        **record,
    }
    steps = [*model.about.get("finetuning", []), step]
    return {**about, "history": step.pop("history"), "finetuning": steps}
