"""Standard settings of torch, so that those of a user's session do not change a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda")
"""Devices whose autocast a session may have switched on."""


@contextmanager
def standard_torch() -> Iterator[None]:
    """Compute as in a new session: float32, on explicit devices only, with gradients."""
    # A session may have called ``torch.set_default_dtype``, ``torch.set_default_device`` or
    # ``torch.set_grad_enabled``, or be inside ``torch.no_grad()`` or ``torch.autocast``. Its settings
    # are restored.
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(thread_defaults())
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def thread_defaults() -> Iterator[None]:
    """Put tensors without an explicit device on the CPU, and compute without autocast."""
    # Both settings belong to the thread, so blocks of other threads are not affected.
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in DEVICES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
