"""Experts: a router picks feed-forward layers for each token; a bias may spread the tokens."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_small import every_kind, network_and_rows, quick, tiny_sites

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.networks.blocks import TransformerBlock, key_bias
from geomiam.networks.extras.block import BlockWithExtras
from geomiam.networks.extras.experts import Experts, experts_of
from geomiam.tokens.encode import encode

FUSIONS = ["token", "group", "cross"]


def new_experts(experts: int = 4, top: int = 1, *, balance: float = 0.0, width: int = 6):
    torch.manual_seed(0)
    module = Experts(width, 5, experts=experts, top=top, balance=balance)
    torch.nn.init.normal_(module.router.weight)
    return module


def same(x):
    return x


def by_loops(module: Experts, x: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, list]:
    """The formula, token after token."""
    weights = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}
    out, picks = np.zeros_like(x), []
    for i, token in enumerate(x):
        logits = weights["router.weight"] @ token
        share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        picks.append(sorted(range(len(share)), key=lambda e: -(share[e] + bias[e]))[: module.top])
        for e in picks[-1]:
            hidden = np.maximum(weights["inner"][e] @ token + weights["inner_bias"][e], 0)
            out[i] += share[e] * (weights["outer"][e] @ hidden + weights["outer_bias"][e])
    return out, picks


@pytest.mark.parametrize(("experts", "top"), [(1, 1), (4, 1), (4, 2), (5, 5)])
def test_it_is_its_formula(experts, top):
    module = new_experts(experts, top)
    x = torch.randn(40, 6)
    expected, _ = by_loops(module, x.double().numpy(), np.zeros(experts))
    np.testing.assert_allclose(module(x, drop=same).detach(), expected, atol=1e-5)


def test_the_bias_changes_who_is_picked_and_never_a_weight():
    module, x = new_experts(4, 2), torch.randn(40, 6)
    bias = torch.tensor([0.0, 0.4, -0.3, 0.1])
    _, before = by_loops(module, x.double().numpy(), np.zeros(4))
    expected, after = by_loops(module, x.double().numpy(), bias.numpy())
    module.bias.copy_(bias)
    assert before != after
    np.testing.assert_allclose(module(x, drop=same).detach(), expected, atol=1e-5)


def test_the_bias_has_no_gradient_and_the_router_has():
    module = new_experts(4, 1, balance=0.1)
    module(torch.randn(30, 6), drop=same).square().sum().backward()
    assert "bias" not in dict(module.named_parameters()) and not module.bias.requires_grad
    assert {k for k, p in module.named_parameters() if p.grad is None} == set()
    assert float(module.router.weight.grad.abs().sum()) > 0


def test_an_expert_without_tokens_has_a_gradient_of_zero():
    module = new_experts(3)
    with torch.no_grad():
        module.bias[2] = -9
    module(torch.randn(30, 6), drop=same).sum().backward()
    assert float(module.inner.grad[2].abs().sum()) == 0
    assert float(module.inner.grad[:2].abs().sum()) > 0


@pytest.mark.parametrize("training", [False, True])
def test_one_expert_is_a_plain_feed_forward_layer_to_the_bit(training):
    torch.manual_seed(0)
    plain = TransformerBlock(12, 2, 0.3).train(training)
    block = BlockWithExtras(12, 2, 0.3, experts={"experts": 1}).train(training)
    weights = plain.state_dict()
    expert_weights = {
        "inner": weights.pop("forward_in.weight")[None],
        "inner_bias": weights.pop("forward_in.bias")[None],
        "outer": weights.pop("forward_out.weight")[None],
        "outer_bias": weights.pop("forward_out.bias")[None],
    }
    router_weights = {"experts.router.weight": torch.randn(1, 12), "experts.bias": torch.zeros(1)}
    block.load_state_dict(
        weights | {f"experts.{k}": v for k, v in expert_weights.items()} | router_weights
    )
    x = torch.randn(7, 9, 12)
    answers = []
    for module in (plain, block):
        torch.manual_seed(5)
        answers.append((module(x), module(x, copies=4)))
    for a, b in zip(*answers, strict=True):
        assert torch.equal(a, b)


def test_the_mean_after_experts_is_the_mean_of_what_they_say():
    torch.manual_seed(0)
    block = BlockWithExtras(12, 2, 0.0, experts={"experts": 4, "top": 2}).eval()
    torch.nn.init.normal_(block.experts.router.weight)
    x, weight = torch.randn(5, 7, 12), torch.rand(7)
    weight /= weight.sum()
    with torch.inference_mode():
        expected = (block.feed_forward(x) * weight[:, None]).sum(1)
        torch.testing.assert_close(block.feed_forward_mean(x, weight), expected, rtol=0, atol=1e-6)


def test_padding_is_not_routed_and_changes_nothing():
    torch.manual_seed(0)
    block = BlockWithExtras(12, 2, 0.0, experts={"experts": 3, "balance": 0.1}).train()
    x, visible = torch.randn(5, 8, 12), torch.rand(5, 8) < 0.6
    dirty = torch.where(visible.unsqueeze(-1), x, 1e6)
    bias = key_bias(visible, x.dtype)
    torch.testing.assert_close(block(x, bias)[visible], block(dirty, bias)[visible], rtol=0, atol=0)
    assert int(block.experts.load.sum()) == 2 * int(visible.sum())
    outputs = block.experts(x, drop=same, route_mask=visible)
    assert float(outputs[~visible].detach().abs().max()) == 0


@pytest.mark.parametrize(("gamma", "low", "high"), [(0.02, 0.0, 0.2), (0.0, 1.0, 4.0)])
def test_the_bias_evens_out_a_skewed_router(gamma, low, high):
    """Largest load over the mean, less 1, over the last batches (Wang et al. 2024)."""
    generator = torch.Generator().manual_seed(0)
    module = Experts(4, 5, experts=4, balance=gamma).train()
    with torch.no_grad():
        module.router.weight.copy_(torch.eye(4))
    loads = []
    for _ in range(200):
        x = 0.5 * torch.randn(512, 4, generator=generator) + torch.tensor([1.5, 0.0, -0.5, 0.3])
        if not gamma:
            module.load = torch.zeros(4, dtype=torch.long)
        module(x, drop=same)
        loads.append(module.load.clone())
        module.update_bias()
    total = torch.stack(loads[-20:]).sum(0).double()
    assert int(total.sum()) == 20 * 512
    assert low <= float(total.max() / total.mean() - 1) < high
    assert (module.bias != 0).any() == bool(gamma)


def example(fusion: str, **config):
    network, values, observed = network_and_rows(every_kind(), 50, fusion=fusion, **config)
    return network, values, observed & (torch.rand(observed.shape) < 0.7)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("attention", ["dense", "sparse"])
@pytest.mark.parametrize("lengths", [16, 3])
def test_loads_are_top_times_visible_tokens_in_training_and_in_evaluation(
    fusion, attention, lengths, monkeypatch
):
    """Neither mask tokens nor padding count."""
    monkeypatch.setattr("geomiam.networks.pooling.BUCKET_LENGTHS", lengths)
    network, values, visible = example(
        fusion, experts=3, top_experts=2, balance=0.01, attention=attention, budget=1.0
    )
    expected = 2 * int(visible.sum())
    network.train()(values, visible)
    loads = [e.load for e in experts_of(network)]
    assert [int(x.sum()) for x in loads] == [expected] * (1 if fusion == "group" else 2)
    for experts in experts_of(network):
        experts.update_bias()
    assert all((e.bias != 0).any() and e.load is None for e in experts_of(network))
    network.eval()(values, visible)
    assert all(e.load is None for e in experts_of(network))  # nobody counts
    for e in experts_of(network):
        e.load = torch.zeros(3, dtype=torch.long)
    network(values, visible)
    assert [int(e.load.sum()) for e in experts_of(network)] == [expected] * len(loads)


def test_training_moves_the_bias_and_a_killed_run_ends_the_same(tmp_path):
    sites = tiny_sites(80, gaps=0.2)
    network = gm.NetworkConfig(
        width=8, heads=2, depth=1, inner=1, frequencies=4, experts=3, balance=0.01
    )
    valid = np.arange(80) % 4 == 0
    options = {"network": network, "rng": 0}
    full_run = gm.fit(sites, training=quick(keep="last"), validation=valid, **options)
    options |= {"validation": valid, "checkpoint": tmp_path / "run"}
    gm.fit(sites, training=quick(keep="last", epochs=2), **options)
    resumed_model = gm.fit(sites, training=quick(keep="last"), **options)
    assert resumed_model.id == full_run.id
    (experts,) = experts_of(full_run.network)
    steps = experts.bias / 0.01
    assert (steps != 0).any() and torch.allclose(steps, steps.round(), atol=1e-4)
    assert experts.load is None
    again = gm.load_model(full_run.save(tmp_path / "model"))
    assert again.id == full_run.id
    assert torch.equal(experts_of(again.network)[0].bias, experts.bias)


def test_networks_with_experts_can_be_copied():
    network, values, visible = example("token", experts=3, balance=0.1)
    network.train()(values, visible)
    network_copy = copy.deepcopy(network).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network_copy(values, visible), network.eval()(values, visible))


# expert_load ------------------------------------------------------------------------------------


def loaded(**config):
    sites = tiny_sites(60, gaps=0.3)
    sites["bio1"][:3] = np.nan
    sites["clay"][:3] = np.nan
    sites["ndvi"][:3] = np.nan
    settings = {"width": 8, "heads": 2, "depth": 2, "inner": 1, "frequencies": 4, "experts": 3}
    model = gm.fit(
        sites,
        network=gm.NetworkConfig(**settings | config),
        training=quick(epochs=1),
        validation=np.arange(60) % 4 == 0,
        rng=0,
    )
    return model, sites


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("top", [1, 2])
def test_the_table_holds_every_observed_token_of_every_pattern(fusion, top):
    model, sites = loaded(fusion=fusion, top_experts=top)
    table = gm.explain.expert_load(model, sites)
    observed = {
        "climate": sites["bio1"].notnull().values,
        "soil": sites["clay"].notnull().values | sites["ndvi"].notnull().any("month").values,
    }
    tokens = sum(sites[v].notnull().values.reshape(60, -1).sum(1) for v in ("bio1", "clay", "ndvi"))
    names = np.array(["+".join(m for m in observed if observed[m][i]) for i in range(60)])
    assert set(table["pattern"].values) == set(names) - {""}
    for pattern in table["pattern"].values:
        load = table.sel(pattern=pattern)
        assert int(load["sites"]) == (names == pattern).sum()
        assert int(load["tokens"]) == tokens[names == pattern].sum()
    np.testing.assert_allclose(table["share"].sum("expert"), top)
    total = float((table["share"] * table["tokens"]).sum(["pattern", "expert"])[0])
    assert total == pytest.approx(top * tokens.sum())
    assert table["sites"].values.tolist() == sorted(table["sites"].values, reverse=True)
    assert all(e.load is None for e in experts_of(model.network))


def test_shares_are_what_a_router_computes_for_single_tokens():
    """One site alone in a group of one token: its inner block routes a token known in advance."""
    model, sites = loaded(fusion="group")
    single_site = sites.isel(site=[int(np.flatnonzero(sites["bio1"].notnull())[0])])
    single_site = single_site.assign(
        clay=single_site["clay"] * np.nan, ndvi=single_site["ndvi"] * np.nan
    )
    table = gm.explain.expert_load(model, single_site)
    assert table["pattern"].values.tolist() == ["climate"]
    member = model.network.members[0]
    block = encode(
        {k: single_site[k].transpose("site", ...).values for k in ("bio1", "clay", "ndvi")},
        layout=model.layout,
        scaler=model.scaler,
    )
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    with torch.inference_mode():
        token = member.tokenizers(values, observed)[:, :1]
        inner = member.fusion.inner[0]
        x = token + inner.out(inner.project(token)[2])  # one token attends to itself
        y = inner.norm_forward(x)
        expected = F.one_hot((inner.experts.router(y).softmax(-1)).argmax(-1).squeeze(), 3)
    assert table["share"].values.squeeze().tolist() == expected.tolist()
    assert table["block"].values.tolist() == ["0.inner.0"]


def test_a_model_without_experts_and_sites_without_data_are_refused():
    plain, sites = loaded(experts=0)
    with pytest.raises(SelectionError, match=r"no experts; train one with .*experts=4"):
        gm.explain.expert_load(plain, sites)
    model, _ = loaded()
    with pytest.raises(SelectionError, match="no site has an observed predictor"):
        gm.explain.expert_load(model, sites.isel(site=slice(0, 3)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fusion": "sum", "experts": 2}, "no blocks over tokens"),
        ({"inner": 0, "experts": 2}, "no blocks over tokens"),
        ({"experts": 2, "top_experts": 3}, "top_experts 3 is more than experts 2"),
        ({"balance": 0.1}, "balance 0.1 is for experts"),
        ({"experts": 10_000}, "less than or equal"),
        ({"experts": 2, "balance": -1}, "greater than or equal"),
    ],
)
def test_impossible_experts_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        gm.NetworkConfig(**config)
