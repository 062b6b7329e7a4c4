"""The registry of whole systems: names, settings, and what each of them shares with the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers_small import TINY_NETWORK, quick, three_modalities

import geomiam as gm
from geomiam.baselines.recipes import RECIPES
from geomiam.errors import SelectionError

NETWORK = TINY_NETWORK.model_copy(update={"inner": 1})


def test_the_documented_names_are_those_of_the_registry():
    doc = gm.baselines.recipe.__doc__
    assert all(name == s.name and f"``{name}``" in doc for name, s in RECIPES.items())
    assert gm.baselines.recipe("miam-token") is RECIPES["miam-token"]
    with pytest.raises(SelectionError, match=r"no recipe 'mima'; choose from masksdm, miam-token"):
        gm.baselines.recipe("mima")


def test_every_part_of_maestro_is_left_out_once_and_nothing_else_changes():
    full = RECIPES["maestro"]
    off = [s for s in RECIPES.values() if s.without]
    assert {s.without for s in off} == {"symbols", "sparse attention", "experts", "ramp"}
    for recipe in off:
        same = {
            "symbols": recipe.symbols == full.symbols,
            "sparse attention": recipe.network["attention"] == full.network["attention"],
            "experts": recipe.network["experts"] == full.network["experts"],
            "ramp": recipe.mask is full.mask,
        }
        assert [part for part, equal in same.items() if not equal] == [recipe.without]


@pytest.mark.parametrize("name", [n for n, s in RECIPES.items() if not s.baseline])
def test_a_token_passes_equally_many_blocks_in_every_system(name):
    base = gm.NetworkConfig(width=16, heads=2, depth=2, inner=1)
    options = RECIPES[name].options(
        network=base, training=gm.TrainingConfig(epoch_steps=1, epochs=7)
    )
    network, single = options["network"], ("token", "late")
    assert network.depth + (0 if network.fusion in single else network.inner) == 3
    assert (network.width, network.heads, options["training"].epochs) == (16, 2, 7)


def test_what_this_version_lacks_is_reported():
    recipe = replace(RECIPES["miam-group"], name="far", network={"fusion": "group", "warp": 9})
    with pytest.raises(
        SelectionError,
        match=r"recipe 'far' has a wrong setting: .*unknown field 'warp' \(value 9\)",
    ):
        recipe.options()
    with pytest.raises(SelectionError, match=r"gm\.baselines\.fit_baseline\('xgboost'"):
        RECIPES["xgboost"].options()


def test_the_options_are_the_keywords_of_fit():
    sites = three_modalities()
    schema = gm.infer_schema(sites)
    model = gm.fit(
        sites,
        **gm.baselines.recipe("masksdm").options(
            schema, network=NETWORK, training=quick(block=200)
        ),
    )
    assert model.config.fusion == "token" and model.about["masking"]["name"] == "uniform"


def test_without_a_series_there_are_no_symbols_to_leave_out():
    schema = gm.infer_schema(three_modalities())
    plain = schema.subset(["climate", "soil"])
    maestro = RECIPES["maestro"]
    assert maestro.note(plain) == "no symbols, since the schema has no series"
    assert maestro.note(schema) == "" and maestro.schema_for(plain) is plain
    off = RECIPES["maestro-no-symbols"]
    assert off.differs(schema) and not off.differs(plain)


def test_published_systems_keep_their_settings():
    training = gm.baselines.recipe("miam-token").options()["training"]
    assert (training.epochs, training.batch, training.lr, training.weight_decay) == (
        100,
        128,
        1e-3,
        0.01,
    )
    assert (training.epoch_steps, training.warmup, training.holdout, training.keep) == (
        1,
        100,
        0.15,
        "best",
    )
    assert training.warmup_steps(78) == 100 and training.steps_per_epoch(78) == 1
