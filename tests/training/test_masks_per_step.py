"""Several masks of every batch: their loss is the mean over single masks, at the price of shared tokens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_small import (
    TINY_NETWORK,
    every_kind,
    quick,
    random_arrays,
    schema_of,
    tiny_sites,
    untrained,
    variable,
)

import geomiam as gm
from geomiam.errors import ArtifactError
from geomiam.labels import label_counts
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.tokens.encode import encode
from geomiam.tokens.tokenizers import Tokenizers
from geomiam.training import loop as loop_module
from geomiam.training.losses import make_loss
from geomiam.training.reconstruction import Reconstruction, Targets
from geomiam.training.reconstruction import batch_loss as reconstruction_loss
from geomiam.training.supervised import batch_loss
from geomiam.training.table import Table

FABRIC = SimpleNamespace(world_size=1, global_rank=0, device="cpu")
ROWS, MASKS = 15, 3


NUMBERS = schema_of(climate=[variable("bio1"), variable("bio12")], soil=[variable("clay")])
"""Single numbers only: networks without blocks over tokens compute hidden ones, too."""
ANGLES = schema_of(
    climate=[variable("bio1"), variable("bio12")], relief=[variable("aspect", "circular")]
)
"""The same with tokens that are not linear in their number."""


def model_and_table(schema=None, **config) -> tuple[gm.Model, Table, torch.Tensor]:
    """An untrained model, a table of every kind of predictor, and three masks ``(3 · 15, t)``."""
    schema = schema or every_kind()
    model = untrained(schema, dropout=0.0, **config)
    block = encode(random_arrays(schema, ROWS), layout=model.layout, scaler=model.scaler)
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(ROWS, 2, generator=random) < 0.4).float()
    labels[torch.rand(ROWS, 2, generator=random) < 0.2] = torch.nan
    values, rows = [torch.as_tensor(v) for v in block.values], torch.arange(ROWS)
    table = Table(values, torch.as_tensor(block.observed), labels, rows, rows)
    return model, table, torch.rand(MASKS * ROWS, model.layout.size, generator=random) < 0.6


def loss_and_gradients(module, loss_of, hidden) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of masks, and the gradient of every weight."""
    module.zero_grad()
    loss = loss_of(hidden)
    loss.backward()
    weights = module.named_parameters()
    return float(loss), {k: p.grad.clone() for k, p in weights if p.requires_grad}


def compare_with_single_masks(module, loss_of, hidden) -> None:
    """Loss and gradients of all masks are the means of those of each mask alone."""
    loss, gradients = loss_and_gradients(module, loss_of, hidden)
    alone = [loss_and_gradients(module, loss_of, mask) for mask in hidden.split(ROWS)]
    assert len({round(value, 4) for value, _ in alone}) == MASKS  # the masks differ
    assert loss == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-5)
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-2
    for name, gradient in gradients.items():
        mean = torch.stack([g[name] for _, g in alone]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("fusion", "schema", "inner"),
    [
        *((name, None, 1) for name in FUSIONS),
        *(("group", schema, 0) for schema in (NUMBERS, ANGLES)),
        *(("sum", schema, 0) for schema in (NUMBERS, ANGLES)),
    ],
)
def test_the_loss_of_several_masks_is_the_mean_over_single_masks(fusion, schema, inner):
    model, table, hidden = model_and_table(schema, fusion=fusion, inner=inner)
    network, rows = model.network.train(), torch.arange(ROWS)
    options = {"loss": make_loss("weighted-bce", label_counts(table.labels)), "fabric": FABRIC}
    compare_with_single_masks(
        network, lambda h: batch_loss(network, table, rows, hidden=h, **options), hidden
    )


def test_maxent_compares_the_sites_of_one_mask():
    """By loops: the distribution over the rows of a batch is that of one mask, not of all masks."""
    model, table, hidden = model_and_table(fusion="sum")
    rows, y = torch.arange(ROWS), table.labels.numpy()
    loss = make_loss("maxent", label_counts(table.labels))
    actual = batch_loss(model.network.train(), table, rows, hidden=hidden, loss=loss, fabric=FABRIC)
    network, by_mask = model.network.eval(), []
    for mask in hidden.split(ROWS):
        with torch.inference_mode():
            z = network(table.values, table.observed & ~mask).double().numpy()
        total, records = 0.0, 0
        for s in range(y.shape[1]):
            has_label = np.isfinite(y[:, s])
            share = np.exp(z[has_label, s]) / np.exp(z[has_label, s]).sum()
            total -= np.log(share[y[has_label, s] == 1]).sum()
            records += int((y[has_label, s] == 1).sum())
        by_mask.append(total / records)
    assert float(actual) == pytest.approx(np.mean(by_mask), rel=1e-5)


def test_reconstruction_has_the_targets_of_each_mask():
    model, table, hidden = model_and_table(fusion="group", inner=1)
    classes = {k: len(v) for k, v in model.scaler.classes.items()}
    targets = Targets.of(model.layout, table, classes)
    module = Reconstruction(model.network, first=targets.constant).train()
    rows, options = torch.arange(ROWS), {"targets": targets, "fabric": FABRIC}
    compare_with_single_masks(
        module, lambda h: reconstruction_loss(module, table, rows, hidden=h, **options), hidden
    )


@pytest.mark.parametrize(
    ("fusion", "schema", "inner"),
    [("sum", ANGLES, 0), ("group", NUMBERS, 0), ("group", None, 1), ("token", None, 1)],
)
def test_a_token_is_computed_once_for_all_masks(monkeypatch, fusion, schema, inner):
    model, table, hidden = model_and_table(schema, fusion=fusion, inner=inner)
    real, counts = Tokenizers.one, []

    def one(self, part, x, visible):
        counts.append(x.shape[0] * x.shape[1])
        return real(self, part, x, visible)

    monkeypatch.setattr(Tokenizers, "one", one)
    network, totals = model.network.train(), []
    masks = hidden.unflatten(0, (MASKS, ROWS))
    for visible in (table.observed & ~masks, (table.observed & ~masks).any(0, keepdim=True)):
        counts.clear()
        network(table.values, visible.flatten(0, 1))
        totals.append(sum(counts))
    assert totals[0] == totals[1] > 0  # as many as for one mask that shows the tokens of all


def test_every_mask_is_drawn_anew(monkeypatch):
    real, draws = loop_module._mask, []

    def draw(*args, **options):
        draws.append(real(*args, **options))
        return draws[-1]

    monkeypatch.setattr(loop_module, "_mask", draw)
    gm.fit(tiny_sites(), network=TINY_NETWORK, training=quick(epochs=1, masks_per_step=2), rng=0)
    assert len(draws) % 2 == 0
    assert all((a != b).any() for a, b in zip(draws[::2], draws[1::2]))


def test_a_run_with_several_masks_resumes_bit_equal(tmp_path, monkeypatch):
    def train(masks: int, **options) -> gm.Model:
        training = quick(epochs=3, masks_per_step=masks)
        return gm.fit(tiny_sites(), network=TINY_NETWORK, training=training, rng=0, **options)

    full_run, real, saves = train(3), loop_module.save_checkpoint, []

    def save(*args, **options):
        real(*args, **options)
        saves.append(1)
        if len(saves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            train(3, checkpoint=tmp_path / "run")
    assert full_run.id != train(1).id
    with pytest.raises(ArtifactError, match="is of other data or settings"):
        train(2, checkpoint=tmp_path / "run")
    assert train(3, checkpoint=tmp_path / "run").id == full_run.id
