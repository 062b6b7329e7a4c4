"""Several processes that share each batch learn what one process learns."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_small import TINY_NETWORK, every_kind, quick, random_arrays, tiny_sites, untrained

import geomiam as gm
from geomiam.errors import DeviceError
from geomiam.labels import label_counts
from geomiam.masking import Uniform
from geomiam.tokens.encode import encode
from geomiam.training.devices import OneDevice
from geomiam.training.losses import make_loss
from geomiam.training.supervised import batch_loss, share, together
from geomiam.training.table import Table

NETWORK = TINY_NETWORK.model_copy(update={"dropout": 0.0, "inner": 1})
ROWS = 27
"""Two processes cannot halve it."""


def gradients(fabric, *, fusion: str, loss: str) -> dict[str, np.ndarray]:
    """Gradients of one batch of one half-hidden table, in a separate process or not."""
    model = untrained(every_kind(), fusion=fusion, inner=1, dropout=0.0)
    torch.manual_seed(0)
    block = encode(random_arrays(every_kind(), ROWS), layout=model.layout, scaler=model.scaler)
    labels = (torch.rand(ROWS, 2) < 0.4).float()
    labels[torch.rand(ROWS, 2) < 0.3] = torch.nan
    rows, hidden = torch.arange(ROWS), torch.rand(2 * ROWS, model.layout.size) < 0.5  # two masks
    values = [torch.as_tensor(v) for v in block.values]
    table = Table(values, torch.as_tensor(block.observed), labels, rows, rows)
    network = fabric.setup(model.network.train())
    options = {"hidden": hidden, "loss": make_loss(loss, label_counts(labels)), "fabric": fabric}
    fabric.backward(batch_loss(network, table, rows, **options) * fabric.world_size)
    return {k: w.grad.numpy() for k, w in model.network.named_parameters() if w.requires_grad}


FUSIONS, LOSSES = ("group", "token", "sum", "late"), ("weighted-bce", "maxent")


def write_gradients(fabric, path: Path) -> None:
    """Write the gradients of every fusion and loss: processes start once, and return little by a pipe."""
    pairs = itertools.product(FUSIONS, LOSSES)
    results = {pair: gradients(fabric, fusion=pair[0], loss=pair[1]) for pair in pairs}
    if fabric.is_global_zero:
        arrays = {
            "|".join((*pair, k)): g for pair, grads in results.items() for k, g in grads.items()
        }
        np.savez(path, **arrays)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    from lightning_fabric import Fabric

    path = tmp_path / "two.npz"
    Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(write_gradients, path)
    with np.load(path) as file:
        of_two = dict(file)
    for fusion, loss in itertools.product(FUSIONS, LOSSES):
        single_process = Fabric(accelerator="cpu", devices=1).launch(
            partial(gradients, fusion=fusion, loss=loss)
        )
        assert max(abs(g).max() for g in single_process.values()) > 1e-2
        for name, gradient in single_process.items():
            name = f"{fusion}|{loss}|{name}"
            np.testing.assert_allclose(of_two[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


class Process:
    """One of several processes, which gathers what the test gives to all of them."""

    device = "cpu"

    def __init__(self, rank: int, size: int, parts: torch.Tensor | None = None):
        self.global_rank, self.world_size, self.gathered = rank, size, parts

    def all_gather(self, _: torch.Tensor) -> torch.Tensor:
        return self.gathered


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 5, 6])
def test_shares_of_a_batch_are_put_together_in_its_order(n, size):
    logits = torch.arange(2.0 * n).reshape(n, 2)
    shares = [share(n, Process(rank, size)) for rank in range(size)]
    assert {len(rows) for rows in shares} == {-(-n // size)}  # all_gather needs equal shapes
    for rank, rows in enumerate(shares):
        part = logits[rows].requires_grad_()
        in_order = together(part, n, Process(rank, size, torch.stack([logits[r] for r in shares])))
        torch.testing.assert_close(in_order, logits, rtol=0, atol=0)
        in_order.sum().backward()  # rows that only fill a share up have no gradient
        first = torch.arange(len(rows)) * size + rank < n
        torch.testing.assert_close(part.grad, first[:, None].float().expand(-1, 2))


def test_one_device_without_fabric_has_its_gradients():
    from lightning_fabric import Fabric

    ask = partial(gradients, fusion="group", loss="weighted-bce")
    actual = OneDevice("cpu").launch(ask)
    expected = Fabric(accelerator="cpu", devices=1).launch(ask)
    for name, gradient in expected.items():
        np.testing.assert_allclose(actual[name], gradient, rtol=1e-5, atol=1e-7, err_msg=name)


def test_bf16_computes_in_bf16():
    ask = partial(gradients, fusion="group", loss="weighted-bce")
    exact, coarse = (OneDevice("cpu", p).launch(ask) for p in ("32-true", "bf16-mixed"))
    difference = max(abs(coarse[k] - g).max() for k, g in exact.items())
    assert 1e-4 < difference < 1e-1


def test_one_device_needs_no_fabric_and_several_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert train(1, epochs=1).species
    with pytest.raises(DeviceError, match=r"geomiam\[devices\]"):
        train(2, epochs=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_devices_that_are_not_there_are_refused():
    with pytest.raises(DeviceError, match="accelerator='cuda' is not on this machine"):
        train(1, epochs=1, accelerator="cuda")
    with pytest.raises(DeviceError, match="'16-mixed' needs a CUDA device, found 'cpu'"):
        train(1, epochs=1, accelerator="cpu", precision="16-mixed")


def train(devices: int, *, checkpoint=None, **settings) -> gm.Model:
    """A run over 80 sites in three batches of 27, 27 and 26."""
    training = quick(devices=devices, batch=ROWS, keep="last", **settings)
    run = {"validation": np.arange(100) % 5 == 0, "checkpoint": checkpoint, "rng": 0}
    return gm.fit(tiny_sites(), network=NETWORK, training=training, masking=Uniform(), **run)


@pytest.mark.slow
def test_two_processes_with_half_the_batch_end_where_one_ends(tmp_path):
    """To what Adam makes of rounding: where a gradient is near 0 it takes steps of full length.

    The two processes are stopped after two epochs. One of them writes, and both resume from its file.
    """
    single_process, first_epoch = train(1), train(1, epochs=1)
    train(2, epochs=2, checkpoint=tmp_path / "run")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    two_processes = train(2, checkpoint=tmp_path / "run")
    weights = [m.network.state_dict() for m in (single_process, two_processes, first_epoch)]
    largest_step = max(
        float((a - c).abs().max()) for a, _, c in zip(*(w.values() for w in weights))
    )
    assert largest_step > 3e-2
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=2e-3)
    np.testing.assert_allclose(
        single_process.history["loss"], two_processes.history["loss"], rtol=1e-4
    )
