"""Training by masking: one plain loop.

Every batch hides tokens drawn by the masking strategy on top of those that are missing anyway, so
the network learns to answer from any subset; every epoch scores each modality alone and all together
on spatially separate sites, which steers MIAM and picks the epoch that is kept.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomiam.cube.infer import infer_schema
from geomiam.cube.predictors import bind
from geomiam.errors import GridError, LabelError
from geomiam.masking import MIAM, Constant, Strategy, hide, named, to_dict
from geomiam.metrics import mean_auc
from geomiam.networks.model import Model
from geomiam.networks.network import Network, NetworkConfig, join
from geomiam.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from geomiam.training.config import TrainingConfig
from geomiam.training.losses import LINK_OF, Loss, make_loss, maxent_offset
from geomiam.training.splits import hold_out, site_coordinates, spatial_blocks
from geomiam.training.table import Table, check_classes, make_tables, read_labels, read_predictors

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Run:
    """What stays the same during a run."""

    model: Model
    table: Table
    masking: Strategy
    config: TrainingConfig
    seed: int


def fit(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    masking: Strategy | str | None = None,
    network: NetworkConfig | None = None,
    training: TrainingConfig | None = None,
    validation: np.ndarray | None = None,
    rng: int | np.random.Generator | None = 0,
    checkpoint: str | Path | None = None,
) -> Model:
    """Train a model on sites.

    Parameters
    ----------
    sites : xarray.Dataset
        Predictors ``(site, *own dims)`` and labels ``presence(site, species)``; NaN = missing or not
        surveyed.
    schema : Schema or path, optional
        Which variables are predictors and how they belong together, or the catalog that says so;
        inferred if not given.
    masking : Strategy or str, optional
        Default: ``MIAM(kappa=10, lam=1)``; a name as on the command line, such as ``"uniform"``.
    network : NetworkConfig, optional
        Fusion and sizes.
    training : TrainingConfig, optional
        Loss, epochs, optimizer, validation blocks, device and precision.
    validation : numpy.ndarray, optional
        Boolean per site; default: spatial blocks.
    rng : int, numpy.random.Generator or None
        Equal seed, data and settings give an equal model on the same machine.
    checkpoint : path, optional
        Folder where every epoch is saved and from which an interrupted run goes on exactly.

    Returns
    -------
    Model
        With the weights of the best epoch: highest mean of the single-modality and all-input AUC on
        the validation sites, or highest all-input AUC for ``Constant(0.0)``, which hides nothing. With ``TrainingConfig(holdout=0, keep="last")`` every site trains; what
        masking learns from scores, it learns from training sites, and ``about["validation_auc"]`` is
        theirs.

    Raises
    ------
    LabelError, MissingVariable, VariableMismatch, GridError
        If labels or predictors cannot be used, with the call that mends it.
    """
    masking = named(masking) if isinstance(masking, str) else masking or MIAM()
    config = training or TrainingConfig()
    schema = Schema.from_yaml(schema) if isinstance(schema, (str, Path)) else schema
    schema = bind(schema, sites) if schema is not None else infer_schema(sites)
    labels, species = read_labels(sites)
    if config.loss != "cross-entropy":
        check_classes(labels, species)
    network = network or NetworkConfig()
    seeds = np.random.default_rng(rng)
    held, drawn = [], []
    for _ in range(network.members):
        held.append(_validation(sites, labels, validation, config, seeds))
        drawn.append(int(seeds.integers(2**31)))
    tables, scaler = make_tables(
        read_predictors(sites, schema), labels, layout=Layout.of(schema), held=held
    )
    facts: dict[str, Any] = {
        "scaler": scaler,
        "species": species,
        "link": LINK_OF[config.loss],
    }
    runs, ends = [], []
    for number, (table, seed) in enumerate(zip(tables, drawn)):
        with _torch_seed(seed):
            member = Model.untrained(schema, **facts, config=network.member(number))
        runs.append(Run(member, table, masking, config, seed))
        _loss(runs[-1])  # refuses labels before anything starts
        ends.append(_train(runs[-1], _folder(checkpoint, number, network.members)))
        _keep(runs[-1], ends[-1])
    model = _joined(runs, network)
    model.about.update(_about(runs, ends, sites))
    return model


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
    )
    join([run.model.network for run in runs], model.network)
    model.network.eval()
    return model


def _loss(run: Run) -> Loss:
    table = run.table
    return make_loss(run.config.loss, table.labels[table.train], evenness=run.config.evenness)


def _train(run: Run, checkpoint: Path | None) -> Progress:
    """Train on one device, or on several by processes that share each batch."""
    from lightning_fabric import Fabric

    c = run.config
    fabric = Fabric(
        accelerator=c.accelerator,
        devices=c.devices,
        strategy="ddp_spawn" if c.devices > 1 else "auto",
        precision=c.precision,  # type: ignore[arg-type]
    )
    progress = fabric.launch(partial(_work, run=run, checkpoint=checkpoint))
    progress.best = {k: torch.as_tensor(v) for k, v in progress.best.items()}
    return progress


def _work(fabric: Fabric, *, run: Run, checkpoint: Path | None) -> Progress:
    """What each process does; the first one scores and writes, and its progress counts."""
    from schedulefree import AdamWScheduleFree

    c = run.config
    if fabric.world_size > 1:  # processes share the memory of what they are sent: not the weights
        own = copy.deepcopy(run.model.network)
        run = replace(run, model=replace(run.model, network=own))
    optimizer = AdamWScheduleFree(
        run.model.network.parameters(), lr=c.lr, weight_decay=c.weight_decay, warmup_steps=c.warmup
    )
    wrapped, stepper = fabric.setup(run.model.network, optimizer)
    table, progress, loss = run.table.to(fabric.device), Progress(), _loss(run)
    state: dict[str, Any] = {"network": run.model.network, "optimizer": optimizer}
    if checkpoint:
        state["fingerprint"] = _fingerprint(run)
        if checkpoint.exists() and any(checkpoint.iterdir()):
            progress = load_checkpoint(checkpoint, **state)
    with _torch_seed(run.seed), _bar(fabric, c.epochs, progress.epoch) as bar:
        while progress.epoch < c.epochs and progress.epoch - progress.best_epoch <= c.patience:
            started, epoch = time.perf_counter(), progress.epoch
            optimizer.train()
            row = _epoch(
                run, table, progress, fabric=fabric, network=wrapped, stepper=stepper, loss=loss
            )
            optimizer.eval()
            row |= fabric.broadcast(_validate(run, table) if fabric.is_global_zero else {})
            _note(run, progress, {"epoch": epoch, **row, "seconds": time.perf_counter() - started})
            if checkpoint and fabric.is_global_zero:
                save_checkpoint(checkpoint, progress, **state)
            bar.set_postfix(auc=f"{row['auc_all']:.3f}", best=f"{progress.best_score:.3f}")
            bar.update()
    if fabric.world_size > 1:  # a tensor would be gone with the process that sends it
        progress.best = {k: v.cpu().numpy() for k, v in progress.best.items()}  # type: ignore[misc]
    return progress


def _epoch(
    run: Run, table: Table, progress: Progress, *, fabric: Fabric, network, stepper, loss: Loss
) -> dict:
    """One pass over the training sites; the masks and their log entries."""
    epoch = progress.epoch
    rng = np.random.default_rng([run.seed, epoch])
    torch.manual_seed(int(rng.integers(2**31)) + fabric.global_rank)  # dropout
    sizes = run.model.layout.sizes
    balance = run.masking.balance(_modality_scores(run, progress))
    network.train()
    losses = []
    order = rng.permutation(len(table.train))
    for start in range(0, len(order), run.config.batch):
        rows = table.train[
            torch.as_tensor(order[start : start + run.config.batch], device=table.train.device)
        ]
        draws = len(rows) if run.masking.per_sample else 1
        p = run.masking.sample(draws, sizes=sizes, balance=balance, rng=rng)
        hidden = torch.as_tensor(hide(p, n=len(rows), sizes=sizes, rng=rng), device=rows.device)
        stepper.zero_grad()
        losses.append(_backward(network, table, rows, hidden=hidden, loss=loss, fabric=fabric))
        stepper.step()
    mean_p = run.masking.expected(sizes=sizes, balance=balance)
    names = run.model.schema.modalities
    log = {"s": balance.s, "d": balance.d, "r": balance.r, "p": mean_p}
    return {"loss": float(torch.stack(losses).mean())} | {
        f"{k}_{m}": float(v[i]) for k, v in log.items() for i, m in enumerate(names)
    }


def _backward(
    network, table: Table, rows: Tensor, *, hidden: Tensor, loss: Loss, fabric: Fabric
) -> Tensor:
    """Loss of a batch; its gradients are added to the weights."""
    mine = _share(len(rows), fabric)
    values, observed, _ = table.batch(rows[mine])
    logits = network(values, observed & ~hidden[mine])
    value = loss(_together(logits, len(rows), fabric), table.labels[rows])
    fabric.backward(value * fabric.world_size)  # processes average their gradients
    return value.detach()


def _share(n: int, fabric: Fabric) -> Tensor:
    """Which rows of a batch this process computes; all compute equally many."""
    size = fabric.world_size
    every = torch.arange(-(-n // size) * size, device=fabric.device) % n
    return every[fabric.global_rank :: size]


def _together(logits: Tensor, n: int, fabric: Fabric) -> Tensor:
    """Logits of a whole batch from all processes, so that no loss need be a sum over rows.

    Gradients flow into one's own rows only; added up over processes they are those of one process.
    """
    if fabric.world_size == 1:
        return logits
    every = list(fabric.all_gather(logits.detach()))
    every[fabric.global_rank] = logits
    return torch.stack(every, 1).flatten(0, 1)[:n]


@torch.inference_mode()
def _validate(run: Run, table: Table) -> dict[str, float]:
    """Mean AUC with each modality alone and with all, where any of it is observed."""
    network, layout = run.model.network.eval(), run.model.layout
    owner = np.repeat(np.arange(len(layout.sizes)), layout.sizes)
    subsets = np.vstack([owner == m for m in range(len(layout.sizes))] + [owner >= 0])
    shown = torch.as_tensor(subsets, device=table.observed.device)
    scores = [_subset_scores(run, network, table, rows, shown) for rows in table.valid.split(512)]
    labels = table.labels[table.valid].cpu().numpy()
    values = torch.cat(scores, 1).cpu().numpy()  # (M + 1, n, S)
    names = [*run.model.schema.modalities, "all"]
    return {f"auc_{name}": mean_auc(labels, value) for name, value in zip(names, values)}


def _subset_scores(run: Run, network: Network, table: Table, rows: Tensor, shown: Tensor) -> Tensor:
    """Scores ``(subsets, n, S)``; NaN where a subset shows nothing of a site."""
    values, observed, _ = table.batch(rows)
    view = network.view(values, observed, shown)
    every = torch.arange(len(observed), device=observed.device)
    which = torch.arange(len(shown), device=observed.device)
    logits = network.head(view.features(every, which)).unbind(1)
    scores = torch.stack([x[view.twins(own)] for x, own in zip(logits, shown)]).float()
    if run.model.link == "softmax":  # a site's logits compare species; log-shares compare sites too
        scores = scores.log_softmax(-1)
    seen = (observed & shown[:, None, :]).any(-1, keepdim=True)
    return scores.masked_fill(~seen, torch.nan)


def _note(run: Run, progress: Progress, row: dict) -> None:
    """Add an epoch to the history and keep its weights if it is the best so far."""
    # A model that never learns to miss anything is not judged by what it says when it must.
    alone = [] if run.masking == Constant(0.0) else list(run.model.schema.modalities)
    scores = [row[f"auc_{m}"] for m in [*alone, "all"]]
    known = [s for s in scores if not math.isnan(s)]
    score = float(np.mean(known)) if known else float("-inf")
    if score > progress.best_score or not progress.best or run.config.keep == "last":
        progress.best = {k: v.detach().clone() for k, v in run.model.network.state_dict().items()}
        progress.best_epoch, progress.best_score = progress.epoch, score
    progress.history.append(
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
    )


def _modality_scores(run: Run, progress: Progress) -> np.ndarray:
    """Table of single-modality scores so far ``(E, M)``."""
    names = list(run.model.schema.modalities)
    rows = [[row[f"auc_{m}"] for m in names] for row in progress.history]
    return np.array(rows, dtype=float).reshape(-1, len(names))


def _keep(run: Run, progress: Progress) -> None:
    """Load the weights that the run ends with: the best epoch's, or the last."""
    if run.config.keep == "best" and progress.best_score == float("-inf"):
        warnings.warn(
            "no epoch could be scored: no species has both classes among the validation sites; the "
            "first epoch is kept. Pass validation=<boolean per site> or a smaller training block",
            stacklevel=3,
        )
    network = run.model.network.cpu()
    network.load_state_dict({k: v.cpu() for k, v in progress.best.items()})
    network.eval()
    if run.config.loss == "maxent":
        _set_level(run)


@torch.inference_mode()
def _set_level(run: Run) -> None:
    """Fold Maxent's normalisation into the head's bias, from the training background."""
    network, table = run.model.network, run.table
    rows = table.train.split(512)
    logits = torch.cat([network(*table.batch(r)[:2]) for r in rows])
    network.head.bias.add_(maxent_offset(logits, table.labels[table.train] == 0))


def _validation(
    sites: xr.Dataset,
    labels: np.ndarray,
    given: np.ndarray | None,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> np.ndarray:
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
    blocks = spatial_blocks(site_coordinates(sites), size=config.block)
    if blocks.max() == 0:
        raise LabelError(
            f"all sites lie in one block of {config.block} CRS units, so none can be held out: "
            "pass training=TrainingConfig(block=...) with a smaller side, or validation=<boolean per site>"
        )
    return hold_out(labels, blocks, share=config.holdout, rng=rng)


def _about(runs: Sequence[Run], ends: Sequence[Progress], sites: xr.Dataset) -> dict:
    """Provenance; what differs between members is a list over them, or their mean."""
    run = runs[0]
    labels = run.table.labels
    rows = [{"member": i, **row} for i, end in enumerate(ends) for row in end.history]
    about = {
        "masking": to_dict(run.masking),
        "training": run.config.model_dump(),
        "seeds": [r.seed for r in runs],
        "sites": {
            "train": len(run.table.train),
            "validation": len(np.setdiff1d(run.table.valid, run.table.train)),
        },
        "presences": dict(zip(run.model.species, (labels == 1).sum(0).tolist())),
        "best_epochs": [end.best_epoch for end in ends],
        "validation_auc": _mean_scores([end.history[end.best_epoch] for end in ends]),
        "history": rows,
    }
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


def _fingerprint(run: Run) -> str:
    """SHA-256 of data and settings: what must agree for a checkpoint to go on.

    The number of epochs may differ: each epoch's randomness follows from seed and number, so a run
    can be made longer.
    """
    config = run.config.model_dump(exclude={"epochs"})
    settings = [run.model.facts(), to_dict(run.masking), config, run.seed]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (*run.table.values, run.table.labels, run.table.train):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _torch_seed(seed: int) -> Iterator[None]:
    """Seed torch inside and leave its random state outside as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _bar(fabric: Fabric, epochs: int, done: int):
    from tqdm import tqdm

    shown = {"desc": "training", "unit": "epoch", "delay": 2, "disable": not fabric.is_global_zero}
    return tqdm(total=epochs, initial=done, **shown)
