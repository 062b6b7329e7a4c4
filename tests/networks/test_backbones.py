"""Backbones: a user's module is the tokenizer of a variable, and every law holds with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import quick, schema_of, variable
from torch import nn

import geomiam as gm
from geomiam.errors import ArtifactError, BackboneError, SchemaError
from geomiam.tokens.layout import Layout
from geomiam.tokens.tokenizers import BackboneTokenizer

SMALL = {"width": 8, "heads": 2, "depth": 1, "inner": 0, "frequencies": 4}
CALLS: list[int] = []
"""Rows of each call of a backbone."""


class Tiny(nn.Module):
    """A convolution over chips, their mean and how much of them is there."""

    def __init__(self, channels: int = 2, width: int = 6, *, norm: bool = False):
        super().__init__()
        self.width = width
        self.convolution = nn.Conv2d(channels, width - 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(width - 1) if norm else nn.Identity()
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x, observed):
        CALLS.append(len(x))
        maps = torch.relu(self.norm(self.convolution(x * self.scale)))
        return torch.cat([maps.mean((2, 3)), observed.float().mean((1, 2, 3))[:, None]], 1)


def tiny(seed: int = 0, *, frozen: bool = False, **options) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Tiny(**options)
    return module.requires_grad_(not frozen)


def chip_sites(n: int = 160, *, seed: int = 0) -> xr.Dataset:
    """Sites with a scalar and chips of two bands, with gaps; presence follows the contrast of chips."""
    rng = np.random.default_rng(seed)
    contrast = rng.normal(size=n)
    chip = rng.normal(size=(n, 2, 6, 6)) * np.exp(contrast / 2)[:, None, None, None]
    chip[rng.random(chip.shape) < 0.1] = np.nan
    chip[rng.random(n) < 0.2] = np.nan
    bio1 = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    label = contrast[:, None] + 0.3 * rng.normal(size=(n, 2)) > 0
    return xr.Dataset(
        {
            "bio1": ("site", bio1.astype(np.float32), {"modality": "climate"}),
            "chip": (
                ("site", "band", "v", "u"),
                chip.astype(np.float32),
                {"modality": "sentinel2"},
            ),
            "presence": (("site", "species"), label.astype(float)),
        },
        coords={
            "x": ("site", rng.uniform(0, 10, n)),
            "y": ("site", rng.uniform(40, 50, n)),
            "band": ["red", "nir"],
            "species": ["a", "b"],
        },
    )


def fitted(
    backbone, sites=None, *, fusion: str = "group", members: int = 1, **training
) -> gm.Model:
    network = gm.NetworkConfig(fusion=fusion, members=members, **SMALL)
    return gm.fit(
        chip_sites() if sites is None else sites,
        network=network.model_copy(update={"backbones": {"chip": backbone}}),
        training=quick(**training),
    )


def parts(model: gm.Model) -> list[BackboneTokenizer]:
    return [p for p in model.network.modules() if isinstance(p, BackboneTokenizer)]


@pytest.fixture(scope="module")
def sites():
    return chip_sites()


@pytest.fixture(scope="module", params=["group", "token", "sum"])
def model(request, sites):
    return fitted(tiny(), sites, fusion=request.param)


# The variable is one token -----------------------------------------------------------------------


def test_a_whole_variable_is_one_token_of_all_its_values():
    chip = variable(
        "chip", "image", whole=True, labels={"band": "ab", "v": range(5), "u": range(4)}
    )
    series = variable("s", "series", whole=True, labels={"time": range(60)})
    vector = variable("e", "vector", whole=True, labels={"feature": range(7)})
    layout = Layout.of(schema_of(one=[chip], two=[series], three=[vector]))
    assert layout.size == 3
    assert [p.width for p in layout.parts] == [40, 60, 7]
    assert [s.channels for s in layout.spans] == [1, 1, 1]


@pytest.mark.parametrize("fields", [{"kind": "scalar"}, {"kind": "image", "patch": 2}])
def test_whole_is_for_kinds_with_dims_and_without_windows(fields):
    with pytest.raises(ValueError, match="'whole' makes one token of a series, image or vector"):
        gm.Variable(name="v", whole=True, **fields)


def test_the_catalog_may_say_whole():
    with pytest.raises(SchemaError, match="'whole' makes one token"):
        gm.Schema.from_dict({"modalities": {"m": {"variables": {"v": {"whole": True}}}}})


def test_the_encoder_gets_standardised_values_zero_where_missing(sites):
    calls = []

    class Spy(Tiny):
        def forward(self, x, observed):
            calls.append((x.clone(), observed.clone()))
            return super().forward(x, observed)

    model = fitted(Spy(), sites, epochs=1)
    calls.clear()
    gm.predict(sites, model, using="chip")
    chips = sites["chip"].values
    any_observed = np.isfinite(chips).any((1, 2, 3))
    mean, std = (s["chip"][:, None, None] for s in (model.scaler.mean, model.scaler.std))
    expected = np.where(np.isfinite(chips), (chips - mean) / std, 0)[any_observed]
    x, observed = (torch.cat(parts).numpy() for parts in zip(*calls, strict=True))
    order, rank = (
        np.argsort(a.sum((1, 2, 3))) for a in (x, expected)
    )  # rows may come in any order
    np.testing.assert_allclose(x[order], expected[rank], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(observed[order], np.isfinite(chips)[any_observed][rank])


# Training ----------------------------------------------------------------------------------------


def test_a_frozen_encoder_is_bit_equal_after_training_and_an_open_one_learns(sites):
    frozen, free = tiny(frozen=True, norm=True), tiny(norm=True)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    for backbone, same in ((frozen, True), (free, False)):
        (part,) = parts(fitted(backbone, sites, weight_decay=0.5))
        after = part.encoder.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) is same
        assert (
            not torch.equal(before["convolution.weight"], after["convolution.weight"]) is not same
        )
    assert all(torch.equal(v, before[k]) for k, v in free.state_dict().items())  # copies learn


def test_every_member_trains_a_copy(sites):
    first, second = parts(fitted(tiny(), sites, members=2))
    assert not torch.equal(first.encoder.convolution.weight, second.encoder.convolution.weight)


def test_the_encoder_carries_what_it_sees():
    train, test = chip_sites(400, seed=1), chip_sites(200, seed=2)
    model = fitted(tiny(width=8), train, epochs=30)
    test = test.isel(site=np.isfinite(test["chip"].values).any((1, 2, 3)))
    table = gm.evaluate(model, test, subsets="unimodal+all")
    auc = table["mean_auc"]
    assert float(auc.sel(subset="sentinel2")) > 0.75 > float(auc.sel(subset="climate")) + 0.1


def test_batches_without_any_chip_leave_a_gradient_of_zero(sites):
    model = fitted(tiny(), sites, epochs=1)
    block = [torch.full((4, p.size, p.width), torch.nan) for p in model.layout.parts]
    block[0][:] = 1.0
    model.network.zero_grad()
    model.network.train()
    model.network(block, torch.tensor([[True, False]] * 4)).sum().backward()
    model.network.eval()
    assert all(
        p.grad is not None and not p.grad.any() for p in parts(model)[0].encoder.parameters()
    )


# Laws --------------------------------------------------------------------------------------------


def test_three_roads_give_one_result(model, sites):
    by_nan = gm.predict(sites.assign(chip=sites["chip"] * np.nan), model)
    using = gm.predict(sites, model, using="climate")
    np.testing.assert_allclose(by_nan["suitability"], using["suitability"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("poison", [np.inf, 1e38, -np.inf])
def test_hidden_values_are_inert(model, sites, poison):
    dirty = sites.assign(chip=xr.full_like(sites["chip"], poison))
    np.testing.assert_array_equal(
        gm.predict(dirty, model, using="climate")["suitability"],
        gm.predict(sites, model, using="climate")["suitability"],
    )


def test_rows_do_not_see_their_batch_mates(model, sites):
    maps = gm.predict(sites, model)["suitability"]
    for part in (slice(0, 1), slice(3, 60), slice(60, None)):
        part_maps = gm.predict(sites.isel(site=part), model)["suitability"]
        np.testing.assert_allclose(part_maps, maps.isel(site=part), rtol=0, atol=2e-6)


def test_the_encoder_sees_few_rows_at_a_time_and_none_without_values(model):
    big = chip_sites(700, seed=3)
    CALLS.clear()
    gm.predict(big, model)
    assert max(CALLS) <= 256
    assert sum(CALLS) == int(np.isfinite(big["chip"]).any(("band", "v", "u")).sum())


@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_shapley_values_add_up(model, sites, scale):
    values = gm.shapley(sites, model, scale=scale)
    full = gm.predict(sites, model, scale=scale)["suitability"]
    base = values["base_value"]
    np.testing.assert_allclose(
        (values["shapley"].sum("group", skipna=False) + base).transpose(*full.dims), full, atol=1e-5
    )


def test_an_oracle_takes_the_encoder_where_there_is_something_to_encode(sites):
    network = gm.NetworkConfig(**SMALL, backbones={"chip": tiny()})
    settings = {"network": network, "training": quick(epochs=1)}
    oracle = gm.baselines.fit_oracle(sites, gm.infer_schema(sites), fit_options=settings)
    assert [len(parts(m)) for m in oracle.models.values()] == [0, 1, 1]


def test_half_precision_leaves_the_encoder_in_its_own(model, sites):
    full, half = (
        gm.predict(sites, model, options=gm.PredictOptions(precision=p))["suitability"]
        for p in ("fp32", "bf16")
    )
    np.testing.assert_allclose(half, full, atol=0.02)


# Saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_a_saved_model_takes_the_architecture_again_and_is_the_same(tmp_path, sites, frozen):
    model = fitted(tiny(frozen=frozen, norm=True), sites)
    path = model.save(tmp_path / "model")
    again = gm.load_model(path, backbones={"chip": tiny(seed=9, norm=True)})
    assert again.id == model.id
    np.testing.assert_array_equal(
        gm.predict(sites, again)["suitability"], gm.predict(sites, model)["suitability"]
    )
    assert parts(again)[0].learns is not frozen
    saved_config = json.loads((path / "config.json").read_text("utf-8"))
    assert saved_config["network"]["encoders"] == {"chip": {"width": 6, "frozen": frozen}}
    assert saved_config["schema"]["modalities"]["sentinel2"]["variables"]["chip"]["whole"] is True


def test_loading_without_the_architecture_names_the_call(tmp_path, sites):
    path = fitted(tiny(), sites, epochs=1).save(tmp_path / "model")
    with pytest.raises(
        ArtifactError, match=r'gm\.load_model\(.*backbones=\{"chip": <your module>\}'
    ):
        gm.load_model(path)
    with pytest.raises(ArtifactError, match=r"found backbones= of \['other'\]"):
        gm.load_model(path, backbones={"other": tiny()})
    with pytest.raises(ArtifactError, match="has width 4, the model's had 6"):
        gm.load_model(path, backbones={"chip": tiny(width=4)})
    with pytest.raises(ArtifactError, match=r"expected F32 \[5, 3, 3, 3\]|expected F32"):
        gm.load_model(path, backbones={"chip": tiny(channels=3)})


def test_the_id_covers_the_weights_of_the_encoder(sites):
    model = fitted(tiny(), sites, epochs=1)
    before = model.id
    with torch.no_grad():
        parts(model)[0].encoder.convolution.bias[0] += 1
    del model.__dict__["id"]
    assert model.id != before


# Errors ------------------------------------------------------------------------------------------


class Wrong(Tiny):
    """Returns what ``change`` makes of its answer."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x, observed):
        return self.change(super().forward(x, observed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, :3], r"returned \(\d+, 3\), expected a tensor \(\d+, 6\)"),
        (lambda y: y.mean(0), r"returned \(6,\)"),
        (lambda y: [y], "returned list"),
        (lambda y: y / 0, "returned NaN or infinity from finite input"),
    ],
)
def test_what_an_encoder_returns_is_checked(sites, change, message):
    with pytest.raises(BackboneError, match=f"the backbone of 'chip' {message}"):
        fitted(Wrong(change), sites, epochs=1)


@pytest.mark.parametrize(
    ("backbones", "message"),
    [
        ({"chips": tiny()}, "names 'chips', which is no variable or modality"),
        ({"bio1": tiny()}, "'bio1' is of kind scalar"),
        ({"chip": "resnet"}, "is str, expected a torch.nn.Module"),
        ({"chip": nn.Flatten()}, "has width None; set module.width"),
    ],
)
def test_what_is_no_backbone_is_refused(sites, backbones, message):
    with pytest.raises(BackboneError, match=message):
        gm.fit(sites, training=quick(), network={"backbones": backbones})


def test_a_modality_of_one_variable_may_be_named_and_others_get_the_advice_to_stack(sites):
    network, training = gm.NetworkConfig(**SMALL), quick(epochs=1)
    model = gm.fit(
        sites,
        network=network.model_copy(update={"backbones": {"sentinel2": tiny()}}),
        training=training,
    )
    assert model.schema.variables["chip"].whole
    bands = sites.assign(
        red=sites["chip"].sel(band="red", drop=True).assign_attrs(modality="sentinel2"),
        nir=sites["chip"].sel(band="nir", drop=True).assign_attrs(modality="sentinel2"),
    ).drop_vars("chip")
    with pytest.raises(BackboneError, match=r"ds\.assign\(sentinel2=ds\[\['red', 'nir'\]\]"):
        gm.fit(
            bands,
            network=network.model_copy(update={"backbones": {"sentinel2": tiny()}}),
            training=training,
        )
    stacked_bands = bands.assign(sentinel2=bands[["red", "nir"]].to_dataarray("band"))
    stacked_bands = stacked_bands.drop_vars(["red", "nir"])
    stacked_bands["sentinel2"] = stacked_bands["sentinel2"].transpose("site", "band", "v", "u")
    again = gm.fit(
        stacked_bands,
        network=network.model_copy(update={"backbones": {"sentinel2": tiny()}}),
        training=training,
    )
    assert again.schema.variables["sentinel2"].dims == ("band", "v", "u")


def test_training_goes_on_from_a_checkpoint(tmp_path, sites):
    full_run = fitted(tiny(norm=True), sites, epochs=4)
    network = gm.NetworkConfig(**SMALL)
    for epochs in (2, 4):
        resumed_model = gm.fit(
            sites,
            network=network.model_copy(update={"backbones": {"chip": tiny(norm=True)}}),
            training=quick(epochs=epochs),
            checkpoint=tmp_path / "run",
        )
    assert resumed_model.id == full_run.id


# The page ----------------------------------------------------------------------------------------


def test_the_code_of_the_page_runs_from_top_to_bottom():
    page = (Path(gm.__file__).parents[1] / "docs" / "howto" / "backbones.md").read_text(
        encoding="utf-8"
    )
    names: dict = {"__name__": "page"}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(code, "backbones.md", "exec"), names)
    auc = gm.evaluate(names["model"], names["light"])["mean_auc"]
    assert float(auc.sel(subset="sentinel2")) > 0.8
