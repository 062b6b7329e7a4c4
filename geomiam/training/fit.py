"""From sites to a model: what is read, who validates, and one run per member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from geomiam.data.infer.infer import infer_schema
from geomiam.data.predictors import bind
from geomiam.errors import GridError, LabelError
from geomiam.masking import MIAM, RandomSubset, Strategy, named, to_dict
from geomiam.networks.config import NetworkConfig
from geomiam.networks.encoders import plug
from geomiam.networks.model import Model
from geomiam.networks.network import join
from geomiam.networks.session import standard_torch
from geomiam.progress import log, with_progress
from geomiam.schema.schema import Schema
from geomiam.splits import hold_out, site_blocks, site_coordinates
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import group_coverage
from geomiam.training import advice
from geomiam.training.checkpoint import Progress
from geomiam.training.config import TrainingConfig
from geomiam.training.fingerprint import fingerprint
from geomiam.training.loop import Run, train
from geomiam.training.losses import base_logits, resolve_loss
from geomiam.training.rule import Plan, changed, make_plan
from geomiam.training.supervised import Supervised, validate
from geomiam.training.table import (
    MOST_SCORED,
    Table,
    check_classes,
    has_background,
    make_tables,
    read_labels,
    read_predictors,
)
from geomiam.training.validation import Data, member_model, validated
from geomiam.training.warm import check_start, load_start, set_base, start_config, two_stages


@standard_torch()
@with_progress
def fit(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    masking: Strategy | str | None = None,
    network: NetworkConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    validation: np.ndarray | None = None,
    rng: int | np.random.Generator | None = 0,
    checkpoint: str | Path | None = None,
    warm_start: bool | Model = False,
    encoders: Mapping[str, nn.Module] | None = None,
    progress: bool | None = None,
) -> Model:
    """Train a model on sites.

    Parameters
    ----------
    sites : xarray.Dataset
        Predictors ``(site, *own dims)`` and labels ``presence(site, species)``; NaN = missing or not
        surveyed.
    schema : Schema or path, optional
        The predictors and their modalities, or the path of a catalog; inferred if not given.
    masking : Strategy or str, optional
        Default: ``MIAM(kappa=10, lam=1)``, for ``warm_start=True`` ``RandomSubset()``; a name as on the
        command line, such as ``"uniform"``.
    network : NetworkConfig or mapping, optional
        Fusion and sizes. Default: small members of several kinds, by a rule from the data (below). A
        config is used as it is; a mapping changes single settings of the rule: ``{"width": 32}``.
    training : TrainingConfig or mapping, optional
        Loss, length, optimizer, validation, device and precision. Default: by the rule. A config is
        used as it is, with its own defaults; a mapping changes single settings of the rule:
        ``{"loss": "maxent", "steps": 500}``.
    validation : numpy.ndarray, optional
        Boolean per site: these sites do not train, and are scored. Default: spatial folds by the rule,
        or the spatial hold-out of a ``TrainingConfig``.
    rng : int, numpy.random.Generator or None
        Equal seed, data and settings give an equal model on the same machine.
    checkpoint : path, optional
        Folder where every epoch is saved; an interrupted run is continued exactly from there.
    warm_start : bool or Model
        True, for ``fusion="late"``: each branch is first trained alone on all sites that have its
        modality, sites with nothing else included; then all together from there, for
        ``TrainingConfig(joint_epochs, joint_lr)``. Or a model to start from, such as
        :func:`geomiam.pretrain` makes: schema, scaler and ``network=`` are that model's, and so are
        the first weights of every member; the head's too, where species and link are the same.
    encoders : mapping of str to torch.nn.Module, optional
        Own encoders, such as pre-trained backbones, by variable (or modality of one variable); see
        :class:`geomiam.Encoder`. Every member trains a copy; one whose weights have
        ``requires_grad`` False stays as it is.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        ``about["rule"]`` states how it was configured and why, ``about["validation_auc"]`` how well it
        predicts spatial blocks that did not train it, from each modality alone and from all.

    Notes
    -----
    *The rule.* All sites train, for a number of optimiser steps that follows from the number of sites
    and presences; the weights are the average of schedule-free AdamW (Defazio et al. 2024). Models of
    the same settings, trained without one of three folds of spatial blocks (one hold-out for more than
    3,000 sites), predict that fold: this gives the validation AUC, and decides which kinds of members
    (linear, quadratic, sum, group) the model has. See :mod:`geomiam.training.rule`.

    *By hand.* With a ``TrainingConfig`` the weights are those of the best epoch: highest mean of the
    single-modality and all-input AUC on the validation sites, or highest all-input AUC for
    ``Constant(0.0)``, which hides nothing. With ``TrainingConfig(holdout=0, keep="last")`` every site
    trains, and ``about["validation_auc"]`` is that of training sites. Masking
    that follows scores takes them from the validation sites, or from training sites where none are
    held out.

    Raises
    ------
    LabelError, MissingVariable, VariableMismatch, GridError
        If labels or predictors cannot be used, with the call that mends it.
    SelectionError
        If ``warm_start`` does not suit the fusion, or is a model of another schema or network.
    EncoderError
        If an encoder fits no variable, or does not answer as it should.
    """
    start = None if isinstance(warm_start, bool) else warm_start
    masking = named(masking) if isinstance(masking, str) else masking
    masking = masking or (RandomSubset() if warm_start is True else MIAM())
    schema = read_schema(sites, schema, start)
    labels, species = read_labels(sites)
    plan = _plan(
        labels,
        network,
        training,
        start=start,
        plain=not (warm_start or encoders),
        held=validation is not None,
    )
    config, reason = resolve_loss(plan.training, labels, background=has_background(sites))
    plan = replace(plan, training=config)
    if config.loss != "cross-entropy":
        check_classes(labels, species)
    schema, network, own = plug(schema, plan.network, encoders or {})
    check_start(warm_start, schema, network)
    advice.few_presences(labels, species)
    data = Data(sites, read_predictors(sites, schema), labels, species, schema, own)
    seeds = np.random.default_rng(rng)
    checked: dict[str, Any] = {}
    if plan.folds:
        seed = int(seeds.spawn(1)[0].integers(2**31))
        folder = Path(checkpoint) / "validation" if checkpoint else None
        network, checked = validated(data, plan, network, masking, seed=seed, folder=folder)
    held, drawn = [], []
    for _ in range(network.members):
        held.append(held_out(sites, labels, validation, config, seeds))
        drawn.append(int(seeds.integers(2**31)))
    tables, scaler = make_tables(
        data.arrays,
        labels,
        layout=Layout.of(schema),
        held=held,
        scaler=start.scaler if start else None,
    )
    runs, ends, branches = [], [], []
    for number, (table, seed) in enumerate(zip(tables, drawn)):
        member = member_model(data, network.member(number), scaler, loss=config.loss, seed=seed)
        _begin(member, table, loss=config.loss, start=start, number=number)
        settings = plan.training_of(member.config.fusion)
        runs.append(Run(member, member.network, table, masking, settings, seed, Supervised()))
        folder = _folder(checkpoint, number, network.members)
        end, scores = (
            two_stages(runs[-1], folder) if warm_start is True else (train(runs[-1], folder), {})
        )
        ends.append(end)
        branches.append(scores)
    model = _joined(runs, network)
    about = provenance(runs, ends, sites) | validation_blocks(sites, validation, config)
    about["loss"] = {"name": config.loss, "reason": reason}
    if checked:
        about["training_auc"] = about["validation_auc"]
    if plan.reasons:
        about["rule"] = {"settings": list(plan.reasons), "fusion": network.fusion}
    model.about.update(about | checked)
    log(f"trained {model.summary()}")
    if warm_start:
        model.about["warm_start"] = {"model_id": start.id} if start else {"branches": branches}
    _advise(model, runs, ends, plan)
    return model


def _plan(
    labels: np.ndarray,
    network: NetworkConfig | Mapping[str, Any] | None,
    training: TrainingConfig | Mapping[str, Any] | None,
    *,
    start: Model | None,
    plain: bool,
    held: bool,
) -> Plan:
    """The settings: by the rule, or those of a start, which is trained on as configured by hand."""
    if plain:
        return make_plan(labels, network=network, training=training, held=held)
    base = start_config(start) if start else NetworkConfig()
    return Plan(
        changed(base, network),
        changed(TrainingConfig(), training),
    )


def read_schema(
    data: xr.Dataset, schema: Schema | str | Path | None, start: Model | None = None
) -> Schema:
    """Return the bound schema of sites or a cube: told, of the model to start from, or inferred."""
    if schema is None:
        return bind(start.schema, data) if start else infer_schema(data)
    return bind(Schema.from_yaml(schema) if isinstance(schema, (str, Path)) else schema, data)


def _begin(member: Model, table: Table, *, loss: str, start: Model | None, number: int) -> None:
    """Set the weights of a fresh member that do not start at random."""
    if loss == "bce" or member.config.fusion == "late":  # rare species need not unlearn odds of 1
        set_base(member.network, base_logits(loss, table.labels[table.train]))
    if start:  # brings its own base for species that it has
        load_start(member, start, number)


def _folder(checkpoint: str | Path | None, member: int, members: int) -> Path | None:
    if checkpoint is None:
        return None
    return Path(checkpoint) / f"member-{member}" if members > 1 else Path(checkpoint)


def _joined(runs: Sequence[Run], config: NetworkConfig) -> Model:
    """One model of all members; their logits are averaged."""
    first = runs[0].model
    if len(runs) == 1:
        return first
    model = Model.untrained(
        first.schema,
        scaler=first.scaler,
        species=first.species,
        config=config,
        link=first.link,
        encoders=first.network.encoders,
    )
    join([run.model.network for run in runs], model.network)
    model.network.eval()
    return model


def held_out(
    sites: xr.Dataset,
    labels: np.ndarray,
    given: np.ndarray | None,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return which sites validate ``(n,)``: those given, or spatial blocks; none for holdout=0.

    Raises
    ------
    LabelError
        If ``given`` is not one boolean per site, some of each.
    GridError
        If the sites have no coordinates, or cannot be dealt into spatial blocks.
    """
    if given is not None:
        held = np.asarray(given, bool)
        if held.shape != (len(labels),) or held.all() or not held.any():
            raise LabelError(
                f"validation= must be one boolean per site ({len(labels)}), some of each; found shape "
                f"{held.shape} with {int(held.sum())} True"
            )
        return held
    if config.holdout == 0:
        return np.zeros(len(labels), bool)
    blocks = site_blocks(sites, config.block).number
    return hold_out(labels, blocks, share=config.holdout, rng=rng)


def validation_blocks(
    sites: xr.Dataset, validation: np.ndarray | None, config: TrainingConfig
) -> dict[str, dict]:
    """Size, number, reason and CRS of the blocks that validate, for ``about``; empty if none do."""
    if validation is not None or config.holdout == 0:
        return {}
    return {"blocks": site_blocks(sites, config.block).about()}


def _advise(model: Model, runs: Sequence[Run], ends: Sequence[Progress], plan: Plan) -> None:
    """Warn of a fit that may be poor, with the remedy."""
    config, run, about = plan.training, runs[0], model.about
    best, sites = config.keep == "best", len(run.table.train)
    most = config.most_epochs(sites)
    steps = most * config.steps_per_epoch(sites)
    if best:
        advice.ended_early(
            [e.best_epoch for e in ends],
            [e.epoch for e in ends],
            most=most,
            steps=steps,
        )
    if "validation" in about:
        counts = np.array(list(about["validation"]["presences"].values()))
        advice.few_validated(counts, model.species, chosen=False)
        gap = about["training_auc"]["all"], about["validation_auc"]["all"]
        advice.large_gap(*gap, steps=steps)
    elif about["sites"]["validation"]:
        valid = run.table.labels[run.table.valid]
        counts = (valid == 1).sum(0).numpy()
        advice.few_validated(counts, model.species, chosen=best)
        rows = run.table.train[:: -(-len(run.table.train) // MOST_SCORED)]
        training = validate(run, replace(run.table, valid=rows))["auc_all"]
        advice.large_gap(training, about["validation_auc"]["all"], steps=steps)


def provenance(runs: Sequence[Run], ends: Sequence[Progress], sites: xr.Dataset) -> dict:
    """Provenance; what differs between members is a list over them, or their mean."""
    run = runs[0]
    labels = run.table.labels
    rows = [{"member": i, **row} for i, end in enumerate(ends) for row in end.history]
    return {
        "masking": to_dict(run.masking),
        "training": min((r.config for r in runs), key=lambda c: c.lr).model_dump(),
        "seeds": [r.seed for r in runs],
        "sites": {
            "train": len(run.table.train),
            "validation": len(np.setdiff1d(run.table.valid, run.table.train)),
        },
        "presences": dict(zip(run.model.species, (labels == 1).sum(0).tolist())),
        "best_epochs": [end.best_epoch for end in ends],
        "validation_auc": _mean_scores([end.history[end.best_epoch] for end in ends]),
        "history": rows,
        "fingerprint": fingerprint(sites),
        "coverage": group_coverage(run.model.layout, run.table.observed.numpy()),
        **place_and_time(sites),
    }


def place_and_time(sites: xr.Dataset) -> dict[str, list]:
    """Extent and first and last date of sites, as far as they are known."""
    about: dict[str, list] = {}
    try:
        xy = site_coordinates(sites)
        about["extent"] = [*np.nanmin(xy, 0).tolist(), *np.nanmax(xy, 0).tolist()]
    except GridError:  # sites without coordinates have no extent to report
        pass
    if "time" in sites.coords and sites["time"].dims == ("site",):
        about["dates"] = [
            str(sites["time"].min().values)[:10],
            str(sites["time"].max().values)[:10],
        ]
    return about


def _mean_scores(rows: Sequence[dict]) -> dict[str, float | None]:
    """Mean over members of each validation AUC at the epoch that is kept."""
    frame = {k: [r[k] for r in rows if r[k] is not None] for k in rows[0] if k.startswith("auc_")}
    return {k.removeprefix("auc_"): float(np.mean(v)) if v else None for k, v in frame.items()}
