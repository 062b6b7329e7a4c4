"""What a session has set in torch changes neither a model nor a map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers_small import quick, tiny_sites

import geomiam as gm

SMALL = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0)


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "float64": float64,
    "another device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
}


def fitted() -> gm.Model:
    return gm.fit(tiny_sites(), network=SMALL, training=quick(epochs=1))


@pytest.fixture(scope="module")
def plain() -> gm.Model:
    return fitted()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_is_the_same_bit_for_bit(plain, setting):
    with SETTINGS[setting]():
        default = torch.get_default_dtype()
        model = fitted()
        assert torch.get_default_dtype() == default
    assert model.id == plain.id


@pytest.mark.parametrize("setting", SETTINGS)
def test_pretraining_learning_on_loading_and_maps_are_the_same(plain, setting, tmp_path):
    sites = tiny_sites()
    plain.save(tmp_path / "model")

    def results() -> tuple:
        first = gm.pretrain(sites, network=SMALL, training=quick(epochs=1))
        tuned_model = gm.finetune(plain, sites, train="all", training=quick(epochs=1))
        loaded_model = gm.load_model(tmp_path / "model")
        return (
            first.id,
            tuned_model.id,
            gm.predict(sites, loaded_model),
            gm.shapley(sites, loaded_model),
        )

    expected = results()
    with SETTINGS[setting]():
        actual = results()
    assert actual[:2] == expected[:2]
    for a, b in zip(actual[2:], expected[2:], strict=True):
        for name in a.data_vars:
            np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)
