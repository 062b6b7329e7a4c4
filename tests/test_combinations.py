"""Every pair of tokenizer, encoder and fusion, and every masking strategy: the laws that all must keep.

One small network per tokenizer and fusion takes a step under each of three strategies; encoders and strategies
rotate, so that every pair of the four occurs. After that all subsets have predictions, no row depends on another, hidden values are inert, and a saved model is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers_small import YEARS, random_arrays, schema_of, untrained, variable
from torch import nn

import geomiam as gm
from geomiam.inference.engine import coalition_block, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.masking import hide, named
from geomiam.masking.registry import STRATEGIES as NAMED
from geomiam.masking.scores import Balance
from geomiam.model.model import Model
from geomiam.networks.backbones import with_backbones
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.select import group_masks

ROWS = 17
STRATEGIES = [*NAMED, "ramp-miam"]
BANDS = {"band": ("red", "nir")}
TOKENIZERS = {
    "periodic": ("scalar", {}),
    "circular": ("circular", {}),
    "categorical": ("categorical", {}),
    "windows": ("series", {"window": 2, "labels": {"time": YEARS}}),
    "symbols": ("series", {"window": 2, "symbols": 4, "labels": {"time": YEARS}}),
    "patches": ("image", {"patch": 2, "labels": {**BANDS, "v": range(3), "u": range(4)}}),
    "vector": ("vector", {"labels": {"feature": range(3)}}),
    "backbone": ("vector", {"labels": {"feature": range(3)}}),
}
ENCODERS = {
    "dense": {},
    "sparse": {"attention": "sparse", "budget": 0.5},
    "experts": {"experts": 3, "top_experts": 2, "balance": 0.01},
    "sparse, experts": {"attention": "sparse", "budget": 1.0, "experts": 2},
}
FUSIONS = {
    "group": {"fusion": "group", "inner": 1},
    "token": {"fusion": "token"},
    "cross": {"fusion": "cross", "inner": 1},
    "late": {"fusion": "late"},
    "late, learned sum": {"fusion": "late", "weights": "learned", "pool": "sum"},
    "cross, gate": {"fusion": "cross", "inner": 1, "attention": "sparse", "gate": True},
    "sum": {"fusion": "sum"},
    "linear": {"fusion": "linear"},
    "quadratic": {"fusion": "quadratic"},
}


def _encoders(fusion: str) -> list[str]:
    """Encoders that replace the attention blocks of a fusion, where it has some."""
    if fusion in ("sum", "linear", "quadratic"):
        return ["dense"]
    return [e for e in ENCODERS if "sparse" in e or fusion != "cross, gate"]


def _combinations() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Each tokenizer with each fusion; the encoder and three strategies go round."""
    for (i, tokenizer), (k, fusion) in itertools.product(enumerate(TOKENIZERS), enumerate(FUSIONS)):
        encoders, strategies = _encoders(fusion), STRATEGIES[(i // 2 + k) % 4 :: 4]
        yield tokenizer, encoders[(i + k) % len(encoders)], fusion, tuple(strategies)


ALL = [
    pytest.param(*c, id=" + ".join(c[:3]), marks=[] if c[0] == "windows" else [pytest.mark.slow])
    for c in _combinations()
]


def test_every_pair_occurs():
    rows = [{*c[:3], strategy} for c in _combinations() for strategy in c[3]]
    for kinds in itertools.combinations((TOKENIZERS, ENCODERS, FUSIONS, STRATEGIES), 2):
        for pair in itertools.product(*kinds):
            encoder, fusion = set(ENCODERS) & {*pair}, set(FUSIONS) & {*pair}
            exists = not (encoder and fusion) or encoder <= {*_encoders(*fusion)}
            assert any({*pair} <= row for row in rows) == exists, pair


class Backbone(nn.Module):
    """A user's module: numbers of a vector, bent."""

    width = 5

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, self.width)

    def forward(self, x, observed):
        return torch.tanh(self.linear(torch.cat([x, observed.to(x.dtype)], -1)))


def schema_with(tokenizer: str) -> Schema:
    """Three modalities: two variables, one, one."""
    kind, options = TOKENIZERS[tokenizer]
    names = {"first": ("a", "b"), "second": ("c",), "third": ("d",)}
    variables = {m: [variable(v, kind, **options) for v in vs] for m, vs in names.items()}
    return schema_of(**variables)


def built(tokenizer: str, encoder: str, fusion: str) -> tuple[Model, dict]:
    """An untrained model, and the user's modules in it."""
    config = {**ENCODERS[encoder], **FUSIONS[fusion], "dropout": 0.1}
    schema, modules = schema_with(tokenizer), {}
    if tokenizer != "backbone":
        return untrained(schema, species=3, **config), modules
    torch.manual_seed(0)
    modules = {v: Backbone() for v in schema.variables}
    schema, network, modules = with_backbones(
        schema, gm.NetworkConfig(width=8, heads=2, depth=1, **config), modules
    )
    plain = untrained(schema_with("vector"))
    species = [f"species {i}" for i in range(3)]
    model = Model.untrained(
        schema, scaler=plain.scaler, species=species, config=network, backbones=modules
    )
    model.network.eval()
    return model, modules


def a_step_under_each(strategies: tuple[str, ...], model: Model, block: TokenArrays) -> None:
    """Train on the same rows, hidden by each strategy; loss and gradients must be numbers."""
    sizes, network = model.layout.sizes, model.network.train()
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    labels = torch.as_tensor(np.random.default_rng(1).random((len(block), 3)) < 0.5).float()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(2)
    for number, name in enumerate(strategies):
        rng, balance = np.random.default_rng(number), Balance.neutral(len(sizes))
        p = named(name).sample(1, sizes=sizes, balance=balance, rng=rng)
        hidden = torch.as_tensor(hide(p, n=len(block), sizes=sizes, rng=rng))
        optimizer.zero_grad()
        logits = network(values, observed & ~hidden)
        nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert torch.isfinite(logits).all() and all(torch.isfinite(g).all() for g in gradients)
        optimizer.step()
    network.eval()


def taken(block: TokenArrays, rows: np.ndarray) -> TokenArrays:
    return TokenArrays(tuple(v[rows] for v in block.values), block.observed[rows])


@pytest.mark.parametrize(("tokenizer", "encoder", "fusion", "strategies"), ALL)
def test_all_laws_hold(tmp_path, tokenizer, encoder, fusion, strategies):
    model, modules = built(tokenizer, encoder, fusion)
    arrays = random_arrays(model.schema, ROWS, seed=3, gaps=0.15)
    block = encode(arrays, layout=model.layout, scaler=model.scaler)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    a_step_under_each(strategies, model, block)
    assert any(not torch.equal(v, before[k]) for k, v in model.network.state_dict().items())

    species = np.arange(3)
    masks = np.stack(list(group_masks(model.layout).values()))
    subsets = [m for m in itertools.product((False, True), repeat=3) if any(m)]
    coalitions = np.stack([(np.array(m)[:, None] & masks).any(0) for m in subsets])
    answers = coalition_block(model, block, visible=coalitions, species=species, scale="logit")
    assert np.isfinite(answers).all()  # all 2^M − 1 subsets
    full = predict_block(model, block, visible=coalitions[-1], species=species, scale="logit")
    any_observed = block.observed.any(1)
    assert (np.isfinite(full) == any_observed[:, None]).all()

    # batch mates, and their order, are not seen
    order = np.random.default_rng(4).permutation(ROWS)
    ask = {"visible": coalitions[-1], "species": species, "scale": "logit"}
    np.testing.assert_allclose(
        predict_block(model, taken(block, order), **ask), full[order], rtol=1e-4, atol=1e-5
    )
    alone = np.concatenate([predict_block(model, taken(block, order[:1]), **ask)])
    np.testing.assert_allclose(alone, full[order[:1]], rtol=1e-4, atol=1e-5)

    # three roads: the last modality as NaN, not shown, or not in the coalition, whatever it holds
    missing = {
        v: np.full_like(arrays[v], np.nan) for v in model.schema.modalities["third"].variables
    }
    without_third = encode(arrays | missing, layout=model.layout, scaler=model.scaler)
    without = np.array([s == (True, True, False) for s in subsets]).argmax()
    by_nan = predict_block(model, without_third, **ask)
    by_name = predict_block(model, block, **{**ask, "visible": coalitions[without]})
    np.testing.assert_allclose(by_nan, by_name, rtol=1e-4, atol=1e-5)
    finite = np.isfinite(by_name)
    np.testing.assert_allclose(answers[without][finite], by_name[finite], rtol=1e-4, atol=1e-5)

    # Shapley values add up, and what is absent gets nothing
    result = shapley_block(model, block, groups=masks, species=species, scale="logit")
    values, total_value = result.terms, result.full
    base = coalition_block(
        model,
        taken(block, np.zeros(1, int)),
        visible=coalitions[:1] & False,
        species=species,
        scale="logit",
    )[0]
    np.testing.assert_allclose(
        values[any_observed].sum(1), (total_value - base)[any_observed], rtol=1e-3, atol=1e-4
    )
    absent = np.stack([~(block.observed & p).any(1) for p in masks], 1)
    assert (values[absent & any_observed[:, None]] == 0).all()

    back = gm.load_model(
        model.save(tmp_path / "model"), **({"backbones": modules} if modules else {})
    )
    assert back.id == model.id
    np.testing.assert_array_equal(predict_block(back, block, **ask), full)
