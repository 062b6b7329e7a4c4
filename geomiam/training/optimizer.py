"""The optimizer of trainings in one process: schedule-free AdamW over one vector of all weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor
from torch.optim import Optimizer

STATE = ("z", "exp_avg_sq")
"""State of a weight in schedule-free AdamW."""


def _eager(name: str) -> Callable[..., Any]:
    """Return a method of torch's optimizers without its import of the compiler, which costs seconds."""
    method = getattr(Optimizer, name)
    return getattr(method, "__wrapped__", method)


class OneVector(AdamWScheduleFree):
    """Schedule-free AdamW (Defazio et al. 2024), whose steps compute all weights as one vector.

    The networks are small, so a step over each weight alone costs as much as the network. Weights and their
    state become views of three vectors in the first step, and :meth:`release` gives every weight separate memory
    again. States are saved by weight, as in the base class.
    """

    vectors: dict[str, Tensor] | None = None
    """``weights`` and the states of all weights, ``(P,)`` each; None before the first step."""

    add_param_group = _eager("add_param_group")
    state_dict = _eager("state_dict")
    _load = _eager("load_state_dict")

    def load_state_dict(self, state_dict: Any) -> None:
        """Load the states of a run, after its weights.

        The weights become views at once, as they were when the run stopped: a product with a view rounds
        differently from one with separate memory, and a resumed run ends with the bits of one without a stop.
        """
        self._load(state_dict)
        self.vectors = None
        self._vectors(self.param_groups[0]["params"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        for p in self.param_groups[0]["params"]:
            p.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Make one step; weights without a gradient stay, as in the base class."""
        (group,) = self.param_groups
        weights = group["params"]
        vectors = self._vectors(weights)
        if any(p.grad is None for p in weights):
            super().step()
            return
        vector = vectors["weights"]
        vector.grad = torch.cat([p.grad.flatten() for p in weights])
        self.state[vector] = {k: vectors[k] for k in STATE}
        group["params"] = [vector]
        try:
            super().step()
        finally:
            group["params"], vector.grad = weights, None
            del self.state[vector]

    step.hooked = True  # type: ignore[attr-defined]  # else torch adds a profiler to every step

    def _vectors(self, weights: list[Tensor]) -> dict[str, Tensor]:
        """Return the vectors, of which weights and states are views."""
        if self.vectors is None:
            starts = [self._start(p) for p in weights]
            parts = {"weights": [p.data for p in weights]}
            parts |= {k: [s[k] for s in starts] for k in STATE}
            self.vectors = {k: torch.cat([x.flatten() for x in v]) for k, v in parts.items()}
            sizes = [p.numel() for p in weights]
            split = {k: v.split(sizes) for k, v in self.vectors.items()}
            for i, p in enumerate(weights):
                p.data = split["weights"][i].view_as(p)
                self.state[p] |= {k: split[k][i].view_as(p) for k in STATE}
        return self.vectors

    def _start(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the state of a weight, as the base class starts it."""
        state = self.state[weight]
        return {
            "z": state.get("z", weight.data),
            "exp_avg_sq": state.get("exp_avg_sq", torch.zeros_like(weight.data)),
        }

    def release(self) -> None:
        """Give every weight separate memory, after the last step."""
        if self.vectors is not None:
            for p in self.param_groups[0]["params"]:
                p.data = p.data.clone()
            self.vectors = None
