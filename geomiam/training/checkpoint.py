"""Checkpoints: the state that a run needs to resume with equal results, as safetensors and JSON.

They hold no random state, since the randomness of each epoch follows from the seed and the number of the
epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geomiam.errors import ArtifactError
from geomiam.outputs.atomic import atomic_path, copy_mode
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import CHECKPOINT

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """State of a run that changes from epoch to epoch, except the weights."""

    history: list[dict] = field(default_factory=list)
    best: Weights = field(default_factory=dict)
    best_epoch: int = -1
    best_score: float = float("-inf")
    alone: list[list[float]] = field(default_factory=list)
    """Scores of each modality alone, one row per epoch, which masking follows."""

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.history)


def save_checkpoint(
    folder: Path,
    progress: Progress,
    *,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> None:
    """Write the checkpoint; the old one is replaced in one step."""
    state = optimizer.state_dict()
    tensors = {f"now.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in progress.best.items()}
    tensors |= {f"step.{i}.{k}": v for i, s in state["state"].items() for k, v in s.items()}
    facts = {
        "fingerprint": fingerprint,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "best_score": progress.best_score,
        "param_groups": state["param_groups"],
    }
    with locked_output(folder, True, kind=CHECKPOINT) as target, atomic_path(target) as partial:
        partial.mkdir()
        save_file(
            {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()},
            partial / "state.safetensors",
        )
        (partial / "state.json").write_text(json.dumps(facts), encoding="utf-8")
        copy_mode(partial / "state.json", partial / "state.safetensors")


@contextmanager
def only_run(folder: Path | None) -> Iterator[None]:
    """Prevent other runs from saving to the same checkpoint folder.

    Raises
    ------
    OutputBusy
        If another run saves there.
    OutputRefused
        If the folder holds anything but a checkpoint.
    """
    if folder is None:
        yield
        return
    with locked_output(folder, True, kind=CHECKPOINT):
        yield


def load_checkpoint(
    folder: Path, *, network: torch.nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> Progress:
    """Load network and optimizer from the checkpoint and return its progress.

    Raises
    ------
    ArtifactError
        If the folder holds no checkpoint, a damaged one, or one of other data or settings.
    """
    facts, tensors = _read(folder)
    if facts["fingerprint"] != fingerprint:
        raise ArtifactError(
            f"the checkpoint in {folder} is of other data or settings; remove it "
            "or pass another checkpoint= folder"
        )
    network.load_state_dict(_under(tensors, "now."))
    steps: dict[int, Weights] = {}
    for key, value in _under(tensors, "step.").items():
        number, name = key.split(".", 1)
        steps.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": steps, "param_groups": facts["param_groups"]})
    return Progress(
        facts["history"], _under(tensors, "best."), facts["best_epoch"], facts["best_score"]
    )


def _read(folder: Path) -> tuple[dict, Weights]:
    facts, weights = folder / "state.json", folder / "state.safetensors"
    if not (facts.is_file() and weights.is_file()):
        raise ArtifactError(
            f"{folder} is no checkpoint: {facts.name} or {weights.name} is missing; "
            "pass checkpoint= a folder that is empty or not there yet"
        )
    try:
        return json.loads(facts.read_text(encoding="utf-8")), load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"the checkpoint in {folder} is damaged ({error}); remove it to start again"
        ) from error


def _under(tensors: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
