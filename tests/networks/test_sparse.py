"""Sparse attention: the queries that matter attend, the rest take the mean, and nobody sees the neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers_small import every_kind, network_and_rows, random_arrays, untrained
from torch.utils.flop_counter import FlopCounterMode

import geomiam as gm
from geomiam.inference.engine import base_value, coalition_block, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.blocks import HIDDEN, TransformerBlock, key_bias
from geomiam.networks.extras.block import BlockWithExtras
from geomiam.networks.extras.sparse import BudgetGate, sparse
from geomiam.tokens.encode import encode
from geomiam.tokens.select import group_masks


def dense(q, k, v, bias):
    """Attention written out, so that its products are counted as any others."""
    logits = q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(-1) @ v


def example(n: int, t: int, *, seed: int = 0, heads: int = 2, e: int = 4):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(3, n, heads, t, e, generator=generator)).unbind(0)


def budgeted(length: int, budget: float) -> int:
    return min(length, math.ceil(budget * max(1, math.ceil(math.log(length)))))


def by_loops(q, k, v, *, weight, budget):
    """The formula of one row ``(h, t, e)``, its keys counting ``weight (t,)`` times, with numpy."""
    is_key = np.flatnonzero(weight)
    length, h, e = len(is_key), len(q), q.shape[-1]
    count = budgeted(length, budget)
    order = np.random.default_rng(length).permutation(length)  # the module's fixed order of keys
    keys = is_key[order[: max(count, min(2, length))]]
    out = np.empty_like(v)
    for head in range(h):
        share = weight[is_key] / weight[is_key].sum()
        mean = share @ v[head, is_key]
        scores = {}
        for i in is_key:
            logits = np.array([q[head, i] @ k[head, j] / math.sqrt(e) for j in keys])
            scores[i] = logits.max() - np.average(logits, weights=weight[keys])
        for i in range(q.shape[1]):
            out[head, i] = mean
        for i in sorted(is_key, key=lambda i: -scores[i])[:count]:
            soft = np.array([weight[j] * math.exp(q[head, i] @ k[head, j] / 2) for j in is_key])
            out[head, i] = (soft / soft.sum()) @ v[head, is_key]
    return out


@pytest.mark.parametrize("budget", [0.3, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 21, 60])
def test_it_is_its_formula(length, budget):
    t = 60
    q, k, v = example(1, t, seed=length)
    weight = np.zeros(t)
    positions = np.random.default_rng(length).permutation(t)[:length]
    weight[positions] = 1
    weight[positions[0]] = 7  # one stands for seven
    bias = torch.as_tensor(np.log(np.maximum(weight, 1))).float()
    bias[torch.as_tensor(weight == 0)] = HIDDEN
    result = sparse(
        dense, q, k, v, bias=bias[None, None, None], budget=budget, random=False
    )  # (1, h, t, e)
    expected = by_loops(*(x[0].double().numpy() for x in (q, k, v)), weight=weight, budget=budget)
    np.testing.assert_allclose(result[0][:, positions], expected[:, positions], atol=1e-5)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("t", [1, 2, 5, 15, 40])
def test_a_budget_for_all_is_dense(t, random):
    q, k, v = example(3, t)
    visible = torch.rand(3, t, generator=torch.Generator().manual_seed(t)) < 0.7
    visible[:, 0] = True
    for bias in (None, key_bias(visible, torch.float32)):
        result = sparse(dense, q, k, v, bias=bias, budget=float(t), random=random)
        rows = torch.ones_like(visible) if bias is None else visible
        expected = dense(q, k, v, bias)
        torch.testing.assert_close(
            result.transpose(1, 2)[rows], expected.transpose(1, 2)[rows], rtol=0, atol=1e-6
        )


def test_gradients_of_a_budget_for_all_are_dense_ones():
    parts = [x.clone().requires_grad_() for x in example(2, 12)]
    visible = torch.ones(2, 12, dtype=torch.bool)
    visible[1, 8:] = False  # so that no shortcut is taken for row 0 alone
    bias = key_bias(visible, torch.float32)
    sparse_output = sparse(dense, *parts, bias=bias, budget=torch.full((2,), 11.5), random=True)
    actual = torch.autograd.grad(sparse_output.transpose(1, 2)[visible].square().sum(), parts)
    dense_loss = dense(*parts, bias).transpose(1, 2)[visible].square().sum()
    for a, b in zip(actual, torch.autograd.grad(dense_loss, parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("poison", [1e4, -1e4, 7.0])
def test_hidden_keys_take_part_in_nothing(random, poison):
    q, k, v = example(4, 50)
    visible = torch.rand(4, 50, generator=torch.Generator().manual_seed(1)) < 0.6
    bias = key_bias(visible, torch.float32)

    def answer(fill):
        parts = [torch.where(visible[:, None, :, None], x, fill) for x in (q, k, v)]
        torch.manual_seed(3)
        return sparse(dense, *parts, bias=bias, budget=1.0, random=random)

    a, b = (answer(torch.tensor(fill)).transpose(1, 2)[visible] for fill in (0.0, poison))
    assert torch.equal(a, b)


def test_a_row_is_what_it_is_alone_whoever_is_beside_it_and_however_it_is_padded():
    q, k, v = example(6, 40, seed=4)
    lengths = [40, 33, 7, 2, 1, 20]
    visible = torch.arange(40) < torch.tensor(lengths)[:, None]
    together = sparse(dense, q, k, v, bias=key_bias(visible, q.dtype), budget=1.5, random=False)
    for row, length in enumerate(lengths):
        parts = [x[row : row + 1, :, :length] for x in (q, k, v)]
        alone = sparse(dense, *parts, bias=None, budget=1.5, random=False)
        torch.testing.assert_close(together[row, :, :length], alone[0], rtol=0, atol=1e-5)


def test_training_draws_from_torch_and_evaluation_does_not():
    q, k, v = example(2, 60)

    def answer(seed, random):
        torch.manual_seed(seed)
        return sparse(dense, q, k, v, bias=None, budget=0.4, random=random)

    assert torch.equal(answer(0, True), answer(0, True))
    assert not torch.equal(answer(0, True), answer(1, True))
    assert torch.equal(answer(0, False), answer(1, False))
    state = torch.get_rng_state()
    sparse(dense, q, k, v, bias=None, budget=0.4, random=False)
    assert torch.equal(state, torch.get_rng_state())


def test_a_row_without_any_key_stays_finite():
    q, k, v = (x.clone().requires_grad_() for x in example(2, 9))
    visible = torch.zeros(2, 9, dtype=torch.bool)
    visible[1] = True
    result = sparse(dense, q, k, v, bias=key_bias(visible, q.dtype), budget=1.0, random=True)
    result.sum().backward()
    assert torch.isfinite(result).all() and all(torch.isfinite(x.grad).all() for x in (q, k, v))


def test_the_cost_grows_as_l_log_l():
    """Multiply-adds, counted by torch, of attention alone; head width e."""
    e, budget = 8, 2.0
    for t in (64, 256, 1024):
        parts = example(1, t, heads=1, e=e)
        with FlopCounterMode(display=False) as counter:
            sparse(dense, *parts, bias=None, budget=budget, random=False)
        u = budgeted(t, budget)
        flops = counter.get_total_flops() / 2
        assert flops == 3 * u * t * e + t * e  # scores, logits, values; the mean
        with FlopCounterMode(display=False) as counter:
            dense(*parts, None)
        assert counter.get_total_flops() / 2 == 2 * t * t * e
    assert flops < 0.025 * 2 * t * t * e


# The gate ---------------------------------------------------------------------------------------


def test_a_gate_gives_an_absent_modality_nothing_and_others_at_most_the_budget():
    torch.manual_seed(0)
    gate = BudgetGate(4, 5.0)
    available = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    budgets = gate(available)
    assert torch.equal(budgets > 0, available) and float(budgets.detach().max()) < 5
    first, _, last = gate.layers
    hidden = np.maximum(
        available.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0
    )
    logits = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    np.testing.assert_allclose(
        budgets.detach(), available.numpy() * 5 / (1 + np.exp(-logits)), rtol=1e-5
    )


def test_a_gated_row_uses_as_many_queries_as_its_rounded_budget():
    q, k, v = example(3, 50)
    u = torch.tensor([0.2, 2.4, 4.9])
    result = sparse(dense, q, k, v, bias=None, budget=u, random=False)
    for row, factor in enumerate([1.0, 3.0, 5.0]):
        alone = sparse(
            dense, *(x[row : row + 1] for x in (q, k, v)), bias=None, budget=factor, random=False
        )
        torch.testing.assert_close(result[row], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokens", [3, 40])
def test_the_gate_learns_from_the_loss(tokens):
    """Through the soft weight: the released code's gate has no gradient at all."""
    q, k, v = example(2, tokens)
    u = torch.tensor([1.4, 2.6], requires_grad=True)
    sparse(dense, q, k, v, bias=None, budget=u, random=False).square().sum().backward()
    assert torch.isfinite(u.grad).all() and (u.grad != 0).all()


def test_the_gates_gradient_is_that_of_the_soft_weight():
    q, k, v = (x.double() for x in example(1, 30, heads=1))
    u = torch.tensor([1.7], dtype=torch.float64, requires_grad=True)
    out = sparse(dense, q, k, v, bias=None, budget=u, random=False)
    slope = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(0))
    (out * slope).sum().backward()
    mean, steps = v.mean(2, keepdim=True), math.ceil(math.log(30))
    gain, expected = (out - mean).detach(), 0.0
    keys = np.random.default_rng(30).permutation(30)[: 2 * steps]
    logits = (q @ k.transpose(-1, -2) / 2)[..., keys]
    order = (logits.amax(-1) - logits.mean(-1)).flatten().argsort(descending=True)
    for rank, query in enumerate(order[: 2 * steps].tolist()):
        s = 1 / (1 + math.exp(-(1.7 - (rank + 0.5) / steps)))
        expected += s * (1 - s) * float((gain * slope)[0, 0, query].sum())
    assert float(u.grad) == pytest.approx(expected, rel=1e-4)


# In networks ------------------------------------------------------------------------------------


def long_series(**config):
    """A network over 40 tokens, and rows with gaps."""
    from helpers_small import schema_of, variable

    schema = schema_of(
        climate=[variable("bio1"), variable("bio12")],
        ndvi=[variable("ndvi", "series", window=1, labels={"t": range(24)})],
        snow=[variable("snow", "series", window=1, labels={"t": range(14)})],
    )
    return network_and_rows(schema, 30, **config)


@pytest.mark.parametrize("fusion", ["token", "group", "cross"])
def test_with_a_budget_for_all_a_network_is_the_dense_one(fusion):
    network, values, observed = long_series(fusion=fusion)
    sparse_one, *_ = long_series(fusion=fusion, attention="sparse", budget=50)
    few_queries, *_ = long_series(fusion=fusion, attention="sparse", budget=1)
    with torch.inference_mode():
        expected = network(values, observed)
        torch.testing.assert_close(sparse_one(values, observed), expected, rtol=0, atol=1e-6)
        assert not torch.allclose(few_queries(values, observed), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("fusion", ["token", "group", "cross"])
def test_a_sparse_network_predicts_a_row_as_if_it_were_alone(fusion):
    network, values, observed = long_series(fusion=fusion, attention="sparse", budget=1)
    with torch.inference_mode():
        together = network(values, observed)
        again = network(values, observed)
        alone = torch.cat(
            [network([v[i : i + 1] for v in values], observed[i : i + 1]) for i in range(30)]
        )
    assert torch.equal(together, again)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_blocks_over_summaries_stay_dense_and_plain():
    network, *_ = long_series(fusion="group", attention="sparse", experts=3)
    fusion = network.members[0].fusion
    assert [b.budget for b in fusion.inner] == [5.0] and all(b.mixture for b in fusion.inner)
    assert [type(b) for b in fusion.blocks] == [TransformerBlock] * 2


def test_few_queries_that_are_read_out_are_dense():
    torch.manual_seed(0)
    plain = TransformerBlock(8, 2, 0.0).eval()
    block = BlockWithExtras(8, 2, 0.0, budget=0.5).eval()
    block.load_state_dict(plain.state_dict())
    x = torch.randn(3, 30, 8)
    with torch.inference_mode():
        torch.testing.assert_close(block(x, read=1), plain(x, read=1), rtol=0, atol=0)
        assert not torch.allclose(block(x), plain(x), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fusion": "sum", "attention": "sparse"}, "no blocks over tokens"),
        ({"inner": 0, "attention": "sparse"}, "no blocks over tokens"),
        ({"gate": True}, "gate=True .* fusion='cross', attention='sparse'"),
        ({"gate": True, "fusion": "cross"}, "attention='dense'"),
        ({"gate": True, "fusion": "cross", "attention": "sparse", "inner": 0}, "inner=0"),
        ({"budget": 0}, "greater than 0"),
        ({"budget": 1e9}, "less than or equal"),
    ],
)
def test_options_without_effect_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        gm.NetworkConfig(**config)


def test_a_collapsed_token_is_drawn_once_whatever_it_stands_for():
    """One row of every kind, in evaluation, equals training's way by buckets (sampling fixed)."""
    model = untrained(every_kind(), fusion="token", attention="sparse", budget=1.0, depth=2)
    block = encode(random_arrays(every_kind(), 40), layout=model.layout, scaler=model.scaler)
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    member = model.network.members[0]
    with torch.inference_mode():
        training = model.network.head(member.training_features(values, observed))
        torch.testing.assert_close(model.network(values, observed), training, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fusion", ["token", "group"])
@pytest.mark.parametrize("options", [{"attention": "sparse", "budget": 1.0}, {"experts": 3}])
def test_the_engine_predicts_any_coalition_and_values_add_up(fusion, options):
    """As tests/test_engine.py holds it for dense and plain blocks, and test_cross.py for cross."""
    model = untrained(every_kind(), fusion=fusion, depth=2, inner=1, **options)
    block = encode(random_arrays(every_kind(), 20), layout=model.layout, scaler=model.scaler)
    index, masks = np.arange(2), np.stack(list(group_masks(model.layout).values()))
    visible = np.random.default_rng(0).random((6, model.layout.size)) < 0.6
    for coalition, answers in zip(
        visible, coalition_block(model, block, visible=visible, species=index), strict=True
    ):
        alone = predict_block(model, block, visible=coalition, species=index)
        finite = np.isfinite(alone)
        np.testing.assert_allclose(answers[finite], alone[finite], rtol=0, atol=2e-6)
    result = shapley_block(model, block, groups=masks, species=index)
    values, full = result.terms, result.full
    expected = predict_block(model, block, visible=masks.any(0), species=index)
    np.testing.assert_allclose(full, expected, rtol=0, atol=2e-6)
    total = values.sum(1) + base_value(model, species=index)
    np.testing.assert_allclose(total, expected, rtol=0, atol=2e-5)
    in_bf16 = predict_block(model.in_precision("bf16"), block, visible=masks.any(0), species=index)
    assert np.isfinite(in_bf16[np.isfinite(expected)]).all()
