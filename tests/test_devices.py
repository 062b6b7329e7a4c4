"""Several processes that share each batch learn what one process learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm

NETWORK = TINY_NETWORK.model_copy(update={"dropout": 0.0, "inner": 1})


def train(devices: int, *, checkpoint=None, **settings) -> gm.Model:
    """101 sites, of which batches of 27 leave a rest that two processes cannot halve."""
    network = NETWORK.model_copy(update={"fusion": settings.pop("fusion", "group")})
    sites = tiny_sites(101)
    held = np.arange(101) % 5 == 0
    how = quick(devices=devices, batch=27, **settings)
    return gm.fit(
        sites, network=network, training=how, validation=held, rng=0, checkpoint=checkpoint
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "loss"), [("group", "weighted-bce"), ("token", "maxent"), ("sum", "maxent")]
)
def test_two_processes_with_half_the_batch_end_where_one_ends(fusion, loss):
    one, two = (train(d, fusion=fusion, loss=loss, keep="last") for d in (1, 2))
    start = train(1, fusion=fusion, loss=loss, keep="last", epochs=1)
    moved = 0.0
    for name, weight in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], weight, rtol=1e-3, atol=1e-3)
        moved = max(moved, float((weight - start.network.state_dict()[name]).abs().max()))
    assert moved > 3e-2  # what they agree on is not the beginning
    np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-4)


@pytest.mark.slow
def test_one_process_writes_and_all_go_on_from_it(tmp_path):
    whole = train(2, epochs=3)
    train(2, epochs=2, checkpoint=tmp_path / "run")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    assert train(2, epochs=3, checkpoint=tmp_path / "run").id == whole.id
