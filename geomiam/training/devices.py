"""Devices of a run: one with plain torch, several with Lightning Fabric."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from geomiam.errors import DeviceError

if TYPE_CHECKING:
    from lightning_fabric import Fabric as LightningFabric

    from geomiam.training.config import TrainingConfig

Result = TypeVar("Result")


class OneDevice:
    """One device in this process, with those parts of Lightning Fabric's interface that a run uses.

    ``accelerator`` is ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda`` or ``mps``; ``precision`` is
    ``32-true``, ``bf16-mixed``, or ``16-mixed`` (CUDA only). DeviceError if this machine does not have it.
    """

    world_size = 1
    global_rank = 0
    is_global_zero = True

    def __init__(self, accelerator: str = "auto", precision: str = "32-true") -> None:
        available = ["cpu"]
        if torch.backends.mps.is_available():
            available.insert(0, "mps")
        if torch.cuda.is_available():
            available.insert(0, "cuda")
        name = {"auto": available[0], "gpu": available[0]}.get(accelerator, accelerator)
        if name not in available or (accelerator == "gpu" and name == "cpu"):
            raise DeviceError(
                f"accelerator='{accelerator}' is not on this machine, which has {', '.join(available)}: "
                "pass accelerator='auto'"
            )
        self.device, self.precision = torch.device(name), precision
        if precision == "16-mixed" and self.device.type != "cuda":
            raise DeviceError(
                f"precision='16-mixed' needs a CUDA device, found '{self.device}': "
                "pass precision='bf16-mixed' or precision='32-true'"
            )
        self._scaler = torch.amp.GradScaler(self.device.type) if precision == "16-mixed" else None

    def launch(self, work: Callable[[OneDevice], Result]) -> Result:
        """Return ``work(self)``."""
        return work(self)

    def setup(self, module: nn.Module, optimizer: Optimizer | None = None) -> Any:
        """Move a module to the device; return it and its optimizer as a run calls them."""
        module.to(self.device)
        dtype = torch.float16 if self.precision == "16-mixed" else torch.bfloat16

        def mixed(*args: Any, **kwargs: Any) -> Tensor:
            with torch.autocast(self.device.type, dtype=dtype):
                return module(*args, **kwargs).float()  # the result is float32 again

        forward = module if self.precision == "32-true" else mixed
        if optimizer is None:
            return forward
        return forward, optimizer if self._scaler is None else _Scaled(optimizer, self._scaler)

    def backward(self, loss: Tensor) -> None:
        """Compute gradients; fp16 scales the loss, so that small gradients do not become 0."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def broadcast(self, value: Result) -> Result:
        """Return the value: there is one process."""
        return value


Fabric = OneDevice | Any
"""One device, or Lightning Fabric's."""


def devices(config: TrainingConfig) -> OneDevice | LightningFabric:
    """Return the device or devices of a run with these settings."""
    if config.devices == 1:
        return OneDevice(config.accelerator, config.precision)
    try:
        from lightning_fabric import Fabric as LightningFabric
    except ImportError:
        raise DeviceError(
            f"devices={config.devices} needs Lightning Fabric: pip install 'geomiam[devices]', or "
            "pass devices=1"
        ) from None
    return LightningFabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="ddp_spawn",
        precision=config.precision,
    )


class _Scaled:
    """An optimizer whose steps undo the scale of the loss, and skip gradients that overflow."""

    def __init__(self, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        self.optimizer, self.scaler = optimizer, scaler

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
