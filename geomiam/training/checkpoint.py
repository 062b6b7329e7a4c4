"""Checkpoints: the state that a run needs to resume with equal results, as safetensors and JSON.

They hold no random state, since the randomness of each epoch follows from the seed and the number of the
epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geomiam.errors import ArtifactError
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import CHECKPOINT
from geomiam.outputs.write import atomic_path, copy_mode

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """State of a run that changes from epoch to epoch, except the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
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
    record = {
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
        (partial / "state.json").write_text(json.dumps(record), encoding="utf-8")
        copy_mode(partial / "state.json", partial / "state.safetensors")


def load_checkpoint(
    folder: Path, *, network: torch.nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> Progress:
    """Load network and optimizer from the checkpoint and return its progress."""
    file, weights = folder / "state.json", folder / "state.safetensors"
    if not (file.is_file() and weights.is_file()):
        raise ArtifactError(
            f"{folder} is no checkpoint: {file.name} or {weights.name} is missing; "
            "pass checkpoint= a folder that is empty or not there yet"
        )
    try:
        record, tensors = json.loads(file.read_text(encoding="utf-8")), load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"the checkpoint in {folder} is damaged ({error}); remove it to start again"
        ) from error
    if record["fingerprint"] != fingerprint:
        raise ArtifactError(
            f"the checkpoint in {folder} is of other data or settings; remove it "
            "or pass another checkpoint= folder"
        )
    network.load_state_dict(_under(tensors, "now."))
    steps: dict[int, Weights] = {}
    for key, value in _under(tensors, "step.").items():
        number, name = key.split(".", 1)
        steps.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": steps, "param_groups": record["param_groups"]})
    return Progress(
        record["history"], _under(tensors, "best."), record["best_epoch"], record["best_score"]
    )


def _under(tensors: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
