"""Settings of torch that a session may have changed, and that must not change a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def standard_torch() -> Iterator[None]:
    """Train as in a fresh session: float32, on explicit devices only, with gradients.

    A session may have called ``torch.set_default_dtype``, ``torch.set_default_device`` or
    ``torch.set_grad_enabled``, or be inside ``torch.no_grad()``. Its settings are restored.
    """
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(on_cpu())
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def on_cpu() -> Any:
    """Return a context in which tensors without an explicit device are on the CPU.

    The setting belongs to the thread, so blocks of other threads are not affected.
    """
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
