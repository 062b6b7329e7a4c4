"""Settings of networks and trainings are flags of ``geomiam fit``, or are listed here with the reason why not."""

from __future__ import annotations

import inspect

import pytest
from helpers_small import tiny_sites
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli import train
from geomiam.cli.app import app
from geomiam.cli.evaluate import cross_validate
from geomiam.cli.options import DEVICE, LOOP, LOSS, NETWORK, STORED

WITHOUT_FLAG = {
    "settings of published networks, which --recipe sets": (
        *("weights", "pool", "attention", "budget", "gate", "experts", "top_experts", "balance"),
    ),
    "sizes that the rule sets and that were never worth a change": (
        *("inner", "frequencies", "sigma", "symbols"),
    ),
    "modules of Python": ("backbones",),
    "set by the library, not by users": ("encoders", "grown", "explainer"),
}


def flags_of(verb) -> set[str]:
    return set(inspect.signature(verb).parameters)


def test_every_setting_of_a_network_is_a_flag_or_is_listed():
    without_flag = {name for names in WITHOUT_FLAG.values() for name in names}
    assert set(gm.NetworkConfig.model_fields) - without_flag == set(NETWORK)
    assert without_flag <= set(gm.NetworkConfig.model_fields)


def test_every_setting_of_a_training_is_a_flag():
    assert set(gm.TrainingConfig.model_fields) == {*LOOP, *LOSS, *DEVICE, *STORED}


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        (train.fit, set()),
        # pre-training has one member and no labels
        (train.pretrain, {"members", *LOSS, *STORED}),
        # the network and the loss are those of the model
        (train.finetune, {*NETWORK, *LOSS}),
        # models of folds are not stored; --block is the side of the folds
        (cross_validate, {*STORED}),
    ],
)
def test_a_verb_has_the_flags_of_the_settings_that_it_uses(verb, missing):
    settings = {*NETWORK, *LOOP, *LOSS, *DEVICE, *STORED}
    assert settings - flags_of(verb) == missing


def test_flags_reach_the_network_of_a_fit_and_of_a_pre_training(tmp_path):
    gm.write_sites(tiny_sites(40), tmp_path / "sites.zarr")
    size = ["--width", "8", "--heads", "1", "--epochs", "1", "--no-squares", "--private-windows"]
    for verb, fusion in [("fit", "sum"), ("pretrain", "group")]:
        command = [verb, str(tmp_path / "sites.zarr"), "--out", str(tmp_path / verb), *size]
        result = CliRunner().invoke(app, [*command, "--fusion", fusion])
        assert result.exit_code == 0, result.output
        network = gm.load_model(tmp_path / verb).config
        assert (network.squares, network.private_windows) == (False, True)
        assert (network.fusion, network.width, network.heads) == (fusion, 8, 1)
