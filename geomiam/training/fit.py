"""Training of a model on sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.data.infer import read_schema
from geomiam.data.sites.table import SiteTable
from geomiam.masking import MIAM, RandomSubset, Strategy
from geomiam.masking.registry import as_strategy
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.torch_defaults import standard_torch
from geomiam.progress import log, with_progress
from geomiam.schema.fields import split_fields
from geomiam.schema.schema import Schema
from geomiam.training.advice import advise
from geomiam.training.config import TrainingConfig
from geomiam.training.members import (
    Member,
    Setup,
    held_out_thresholds,
    joined,
    train_members,
    validated,
)
from geomiam.training.provenance import provenance
from geomiam.training.reference import reference_of
from geomiam.training.table import HoldOut


@standard_torch()
@with_progress
def fit(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    masking: Strategy | str | None = None,
    network: NetworkConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    validation: np.ndarray | Literal[False] | None = None,
    checkpoint: str | Path | None = None,
    warm_start: bool | Model = False,
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> Model:
    """Train a model on sites.

    Parameters
    ----------
    sites : xarray.Dataset
        Predictors ``(site, *own dims)`` and labels ``presence(site, species)``; NaN = missing or not
        surveyed. Dask arrays, which ``open_sites(path, chunks={})`` returns, may be larger than memory: predictors
        are copied to temporary files, labels become compact.
    schema : Schema or path, optional
        The predictors and their modalities, or the path of a catalog; inferred if not given.
    masking : Strategy or str, optional
        A strategy, or its name as on the command line, such as ``"uniform"``. Default:
        ``MIAM(kappa=10, lam=1)``, for ``warm_start=True`` ``RandomSubset()``.
    network : NetworkConfig or mapping, optional
        Fusion and sizes. Default: small members of several kinds, by a rule from the data (below). A
        config is used unchanged; a mapping changes single settings of the rule: ``{"width": 32}``.
        ``backbones`` are your modules by variable; see :class:`geomiam.Backbone`.
    training : TrainingConfig or mapping, optional
        Loss, length, optimizer, validation, device and precision. Default: by the rule. A config is
        used unchanged, with its defaults; a mapping changes single settings of the rule:
        ``{"loss": "maxent", "steps": 500}``. See :class:`geomiam.TrainingConfig`.
    validation : numpy.ndarray or False, optional
        Boolean ``(n,)``: these sites are scored and do not train, in place of spatial blocks. False: no
        site is held out, and none needs coordinates, for an outer loop that validates; the members are then
        the fixed mix of the rule.
    checkpoint : str or pathlib.Path, optional
        Folder where every epoch is saved; an interrupted run resumes from there with equal results.
    warm_start : bool or Model
        True, for ``fusion="late"``: each branch is first trained alone on all sites that have its
        modality, then all branches are trained together with ``joint_epochs`` and ``joint_lr`` of
        :class:`geomiam.TrainingConfig`. A model, such as one of :func:`geomiam.pretrain`: schema,
        scaler, ``network=`` and the first weights of every member are those of the model, including
        the head if species and link are equal.
    rng : int, numpy.random.Generator or None
        Equal seed, data and settings give an equal model on the same machine.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Model
        ``about["rule"]`` has the settings and their reasons, ``about["validation_auc"]`` the AUC on
        spatial blocks that did not train, from each modality alone and from all. ``thresholds`` are those
        on validation sites, if any are held out.

    Raises
    ------
    LabelError, MissingVariable, VariableMismatch, GridError
        If labels or predictors cannot be used, with the call that mends it.
    SelectionError
        If ``warm_start`` does not suit the fusion, or is a model of another schema or network.
    MemoryRefused
        If predictors are dask arrays and the disk of temporary files has too little space.
    BackboneError
        If a backbone fits no variable, or returns a wrong shape.

    See Also
    --------
    geomiam.cross_validate : the skill of such a model at new places.
    geomiam.sample : the sites.
    geomiam.finetune : train a model further.
    geomiam.predict : the map.
    geomiam.sklearn.MiamClassifier : the same model as an estimator of scikit-learn.

    Notes
    -----
    *The rule.* All sites train, for a number of optimiser steps that follows from the number of sites
    and presences (twice as many with :func:`geomiam.add_community`); the weights are the average of schedule-free AdamW (Defazio et al. 2024). Models of
    the same settings, trained without one of three folds of spatial blocks (one hold-out for more than
    3,000 sites), predict that fold. These predictions give the validation AUC and choose the kinds of members
    (linear, quadratic, sum, group). For a survey they also scale the logits, since a network of few sites is
    overconfident at new places: ``about["rule"]["shrinkage"]``. See :mod:`geomiam.training.rule` and
    :mod:`geomiam.training.shrinkage`.

    *By hand.* With a ``TrainingConfig`` the weights are those of the best epoch: highest mean of the
    single-modality and all-input AUC on the validation sites. For ``Constant(0.0)``, which hides nothing,
    it is the epoch of the highest all-input AUC. With ``TrainingConfig(holdout=0, keep="last")`` every site
    trains, and ``about["validation_auc"]`` is that of training sites. Masking that follows scores uses the
    validation sites, or training sites if none are held out.

    Examples
    --------
    >>> import geomiam as gm
    >>> model = gm.fit(sites, schema)  # doctest: +SKIP
    >>> short = {"steps": 20, "loss": "maxent"}
    >>> model = gm.fit(sites, schema, training=short, validation=False, rng=1)
    >>> list(model.species) == sites["species"].values.tolist()
    True
    """
    network, modules = split_fields(network, "backbones")
    if schema is None and isinstance(warm_start, Model):
        schema = warm_start.schema
    setup = Setup.of(
        SiteTable.read(sites, read_schema(sites, schema)).checked(),
        as_strategy(masking, default=RandomSubset() if warm_start is True else MIAM()),
        network=network,
        training=training,
        warm_start=warm_start,
        backbones=modules["backbones"] or {},
        validation_given=validation is not None,
    )
    held_out = HoldOut.of(sites, validation, setup.plan.training)
    seeds = np.random.default_rng(rng)
    folder = Path(checkpoint) if checkpoint else None
    config, scores, fold, shrinkage = validated(
        setup, seeds, folder=folder and folder / "validation"
    )
    members = train_members(setup, config, held_out=held_out, rng=seeds, checkpoint=folder)
    runs, ends = [m.run for m in members], [m.end for m in members]
    model = joined([r.model for r in runs], config)
    if shrinkage:
        shrinkage.apply(model.network)
    about = provenance(runs, ends, setup.table.sites) | held_out.about()
    if scores:  # of spatial folds; the members themselves trained on all sites
        about["training_auc"] = about["validation_auc"]
    about |= _of_setup(setup, members, fusion=config.fusion)
    model.about.update(about | (scores or held_out_thresholds(members)))
    model = replace(model, reference=reference_of(runs, fold))
    log(f"trained {model.summary()}")
    advise(model, runs[0], ends, plan=setup.plan)
    return model


def _of_setup(setup: Setup, members: Sequence[Member], *, fusion: str) -> dict[str, Any]:
    """Return the loss, the rule and the warm start for the provenance."""
    about: dict[str, Any] = {}
    about["loss"] = {"name": setup.plan.training.loss, "reason": setup.loss_reason}
    if setup.plan.reasons:
        about["rule"] = {"settings": list(setup.plan.reasons), "fusion": fusion}
    if setup.start:
        about["warm_start"] = {"model_id": setup.start.id}
    elif setup.warm_start:
        about["warm_start"] = {"branches": [m.branches for m in members]}
    return about
