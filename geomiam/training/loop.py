"""The training loop: masked batches, and a score after every epoch.

Every batch hides tokens drawn by the masking strategy, in addition to missing ones, so
the network learns to predict from any subset. Every epoch scores each modality alone and all together;
these scores steer MIAM and choose the epoch that is kept. The run's task has the loss and the scores.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from geomiam.errors import SettingError, warn
from geomiam.labels import SparseLabels
from geomiam.masking import Balance, Constant, Strategy, to_dict
from geomiam.model.model import Model
from geomiam.networks.extras.experts import experts_of
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import CHECKPOINT
from geomiam.outputs.paths import real_path
from geomiam.progress import is_shown, log, progress_bar
from geomiam.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from geomiam.training.config import TrainingConfig
from geomiam.training.devices import Fabric, devices
from geomiam.training.observations import draw_hidden, mean_rate
from geomiam.training.optimizer import OneVector
from geomiam.training.table import Table

Objective = Callable[..., Tensor]
"""``(network, table, rows (n,), *, hidden (k·n, t), fabric)`` → loss of a batch in k masks, with its graph."""


class Task(Protocol):
    """Loss and scores of a run."""

    metric: ClassVar[str]
    """Scores are recorded as ``<metric>_<modality>`` and ``<metric>_all``; higher is better."""

    def objective(self, run: Run) -> Objective:
        """Return the loss; raise LabelError if the labels do not suit it."""
        ...

    def scores(self, run: Run, table: Table) -> dict[str, float]:
        """Score each modality alone and all together on the validation rows; NaN = unknown."""
        ...

    def finish(self, run: Run) -> None:
        """Complete the run after the kept weights are loaded."""
        ...


@dataclass(frozen=True)
class Run:
    """Data and settings that are constant during a run."""

    model: Model
    module: nn.Module
    """Module to train: the model's network, or a module that contains it."""
    table: Table
    masking: Strategy
    config: TrainingConfig
    seed: int
    task: Task


def train(run: Run, checkpoint: Path | None = None, *, name: str = "training") -> Progress:
    """Train on one device, or on several by processes that share each batch."""
    # The module ends with the weights of the best epoch, or of the last, in evaluation mode.
    run.task.objective(run)  # raises for unsuitable labels before the start
    if run.table.on_disk and run.config.devices != 1:
        raise SettingError(
            f"devices={run.config.devices} needs the predictors in memory, found dask arrays: pass sites.load(), or "
            "devices=1"
        )
    fabric = devices(run.config)
    checkpoint = real_path(checkpoint) if checkpoint else None
    progress = fabric.launch(
        partial(_work, run=run, checkpoint=checkpoint, name=name, show_bar=is_shown())
    )
    progress.best = {k: torch.as_tensor(v) for k, v in progress.best.items()}
    _keep(run, progress)
    return progress


def _work(
    fabric: Fabric, *, run: Run, checkpoint: Path | None, name: str, show_bar: bool
) -> Progress:
    """Train in one process; the first process scores and writes, and its progress is returned."""
    c = run.config
    if fabric.world_size > 1:
        # Processes share the memory of received objects, but must not share weights.
        run = replace(run, module=copy.deepcopy(run.module))
    optimizer = _optimizer(run, fabric)
    state: dict[str, Any] = {"network": run.module, "optimizer": optimizer}
    if checkpoint:
        state["fingerprint"] = _fingerprint(run)
    network, stepper = fabric.setup(run.module, optimizer)
    table, progress, objective = run.table.to(fabric.device), Progress(), run.task.objective(run)
    if checkpoint and checkpoint.is_dir() and any(checkpoint.iterdir()):
        progress = _resumed(run, checkpoint, state, name=name)
    epochs, is_first = c.most_epochs(len(run.table.train)), fabric.is_global_zero
    learn = partial(objective, network, fabric=fabric)
    bar = progress_bar(
        total=epochs,
        initial=progress.epoch,
        desc=name,
        unit="epoch",
        disable=not (show_bar and is_first),
    )
    target = checkpoint if is_first else None
    # No other run may save to the same folder meanwhile.
    lock = locked_output(target, True, kind=CHECKPOINT) if target else nullcontext()
    with torch_seed(run.seed), bar, lock:
        while progress.epoch < epochs and progress.epoch - progress.best_epoch <= c.patience:
            start_time = time.perf_counter()
            # Schedule-free AdamW (Defazio et al. 2024) trains at one point and predicts at an average of its
            # steps; train() and eval() exchange the two. Scores and saved weights are of the average.
            optimizer.train()
            row = _epoch(run, table, progress, fabric=fabric, stepper=stepper, learn=learn)
            optimizer.eval()
            row |= fabric.broadcast(run.task.scores(run, table) if is_first else {})
            _record(run, progress, {**row, "seconds": time.perf_counter() - start_time})
            if target:
                save_checkpoint(target, progress, **state)
            score = row[f"{run.task.metric}_all"]
            bar.set_postfix_str(f"{run.task.metric} {score:.3f}, best {progress.best_score:.3f}")
            bar.update()
    if isinstance(optimizer, OneVector):
        optimizer.release()
    if fabric.world_size > 1:  # a tensor is freed with the process that sends it
        progress.best = {k: v.cpu().numpy() for k, v in progress.best.items()}  # type: ignore[misc]  # arrays
    return progress


def _optimizer(run: Run, fabric: Fabric) -> AdamWScheduleFree:
    """Return the optimizer of the weights that are trained."""
    c = run.config
    # Processes share gradients weight by weight.
    optimizer_class = OneVector if fabric.world_size == 1 else AdamWScheduleFree
    return optimizer_class(
        [p for p in run.module.parameters() if p.requires_grad],
        lr=c.lr,
        weight_decay=c.weight_decay,
        warmup_steps=c.warmup_steps(len(run.table.train)),
    )


def _resumed(run: Run, checkpoint: Path, state: dict[str, Any], *, name: str) -> Progress:
    """Load weights, optimizer and progress of an interrupted run."""
    progress = load_checkpoint(checkpoint, **state)
    progress.alone = [_alone(run, row) for row in progress.history]  # masking follows them
    log(f"{name} resumes after epoch {progress.epoch} from {checkpoint}")
    return progress


def _epoch(
    run: Run, table: Table, progress: Progress, *, fabric: Fabric, stepper: Any, learn: Objective
) -> dict[str, Any]:
    """Train one epoch; return the mean loss and the log of the masking."""
    # The seed and the number of the epoch are all of its randomness: a run that resumes ends as one that
    # was never stopped.
    rng = np.random.default_rng([run.seed, progress.epoch])
    torch.manual_seed(int(rng.integers(2**31)) + fabric.global_rank)  # dropout
    sizes = run.model.layout.sizes
    # One balance per epoch: scores are known after each epoch only.
    balance = run.masking.balance(np.array(progress.alone).reshape(-1, len(sizes)))
    run.module.train()
    losses, mixtures = [], experts_of(run.module)
    steps = run.config.steps_per_epoch(len(table.train))
    for numbers in islice(_batches(run, len(table.train), rng), steps):
        rows = table.train[torch.as_tensor(numbers, device=table.train.device)]
        masks = [
            _mask(run, len(rows), balance=balance, rng=rng)
            for _ in range(run.config.masks_per_step)
        ]
        hidden = torch.as_tensor(np.concatenate(masks), device=rows.device)
        stepper.zero_grad()
        loss = learn(table, rows, hidden=hidden)
        # Every process has the loss of all rows, and a gradient of its rows only.
        fabric.backward(loss * fabric.world_size)  # processes average their gradients
        # Detached, the loss keeps no graph; float() here would wait for a GPU in every batch.
        losses.append(loss.detach())
        stepper.step()
        for experts in mixtures:
            experts.update_bias()
    mean_p = (1 - run.config.complete) * run.masking.expected(sizes=sizes, balance=balance)
    columns = {"s": balance.s, "d": balance.d, "r": balance.r, "p": mean_rate(run.model, mean_p)}
    return {"loss": float(torch.stack(losses).mean())} | {
        f"{k}_{m}": float(x)
        for k, v in columns.items()
        for m, x in zip(run.model.schema.modalities, v)
    }


def _mask(run: Run, n: int, *, balance: Balance, rng: np.random.Generator) -> np.ndarray:
    """Draw the tokens ``(n, t)`` that the masking hides in n rows."""
    # MIAM: draw p (of the batch, or of each sample), then hide each token with p of its modality.
    draws = n if run.masking.per_sample else 1
    p = run.masking.sample(draws, sizes=run.model.layout.sizes, balance=balance, rng=rng)
    return draw_hidden(p, run.model, n=n, config=run.config, rng=rng)


def _batches(run: Run, sites: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the positions ``(b,)`` of each batch of an epoch; every pass has a new random order."""
    for _ in range(run.config.passes(sites)):
        order = rng.permutation(sites)
        for start in range(0, sites, run.config.batch):
            yield order[start : start + run.config.batch]


def _record(run: Run, progress: Progress, row: dict[str, Any]) -> None:
    """Add an epoch to the history and keep its weights if it is the best so far."""
    score, last = overall(run, row), run.config.keep == "last"
    if score > progress.best_score or not progress.best or last:
        weights = run.module.state_dict()  # of the last epoch, no copy is needed
        # state_dict() shares memory with the weights that training changes.
        progress.best = {k: v.detach() if last else v.detach().clone() for k, v in weights.items()}
        progress.best_epoch, progress.best_score = progress.epoch, score
    progress.alone.append(_alone(run, row))
    row = {"epoch": progress.epoch, **row}
    # JSON has no NaN.
    progress.history.append(
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
    )


def overall(run: Run, row: dict[str, Any]) -> float:
    """Return the score that epochs are compared by: the mean of the finite scores in a row of the history."""
    # A model that is trained without masking is not scored on single modalities.
    # MIAM selects epochs by the mean of the unimodal scores and the score of all modalities.
    alone = [] if run.masking == Constant(0.0) else list(run.model.schema.modalities)
    scores = [row[f"{run.task.metric}_{m}"] for m in [*alone, "all"]]
    finite_scores = [s for s in scores if s is not None and not math.isnan(s)]
    return float(np.mean(finite_scores)) if finite_scores else float("-inf")


def _alone(run: Run, row: dict[str, Any]) -> list[float]:
    """Return the scores of each modality alone ``(M,)`` in a row of the history; NaN = unknown."""
    scores = (row[f"{run.task.metric}_{m}"] for m in run.model.schema.modalities)
    return [math.nan if s is None else s for s in scores]


def _keep(run: Run, progress: Progress) -> None:
    """Load the kept weights: those of the best epoch, or of the last."""
    if run.config.keep == "best" and progress.best_score == float("-inf"):
        warn(
            "no epoch could be scored: no species has both classes (in gm.pretrain: no site two "
            "modalities) among the validation sites; the first epoch is kept. Pass "
            "validation=<boolean per site> or a smaller training block"
        )
    run.module.cpu()
    run.module.load_state_dict({k: v.cpu() for k, v in progress.best.items()})
    run.module.eval()
    run.task.finish(run)


def _fingerprint(run: Run) -> str:
    """Return a hash of data, settings and first weights, which must agree for a checkpoint to resume."""
    # The number of epochs may differ: each epoch's randomness follows from seed and number, so a run
    # can be made longer, as long as its warm-up stays the same.
    config = run.config.model_dump(exclude={"epochs", "steps", "warmup"})
    config["warmup_steps"] = run.config.warmup_steps(len(run.table.train))
    task = type(run.task).__name__
    settings = [run.model.specification(), to_dict(run.masking), config, run.seed, task]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    first = run.module.state_dict().values()
    table = run.table
    labels = table.labels.arrays if isinstance(table.labels, SparseLabels) else [table.labels]
    for array in (*table.values, *labels, table.train, *first):
        content = np.ascontiguousarray(torch.as_tensor(array).detach().cpu().numpy())
        digest.update(content.reshape(-1).view(np.uint8).data)  # without a copy of the values
    return digest.hexdigest()


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seed torch inside the block and restore its random state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
