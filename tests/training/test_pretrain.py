"""Pre-training: hidden tokens are predicted from visible ones, and the encoder is the start of other models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, r2_score

import geomiam as gm
from geomiam.data.sites.draw import random_cells
from geomiam.data.sites.table import SiteTable
from geomiam.errors import (
    ArtifactError,
    LabelError,
    SchemaError,
    SelectionError,
    SettingError,
)
from geomiam.evaluation.linear_probe import features
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.training import members as members_module
from geomiam.training.reconstruction import (
    Reconstruction,
    Targets,
    batch_loss,
    patterns,
    r2,
)
from geomiam.training.table import Table, make_tables

FABRIC = SimpleNamespace(world_size=1, global_rank=0, device="cpu")
N = 40


def unlabelled(schema, arrays) -> SiteTable:
    """Sites without labels and coordinates."""
    n = len(next(iter(arrays.values())))
    return SiteTable(xr.Dataset(), schema, arrays, np.zeros((n, 0), np.float32))


def table_of(
    schema, *, n: int = N, seed: int = 0, held_out: int = 0
) -> tuple[Table, dict[str, int]]:
    """A table of random arrays, and the number of classes by variable."""
    arrays = random_arrays(schema, n, seed=seed)
    out = np.arange(n) < held_out
    (table,), scaler = make_tables(unlabelled(schema, arrays), held_out=[out])
    return table, {k: len(v) for k, v in scaler.classes.items()}


@pytest.fixture(scope="module")
def every_kind_table():
    """Layout, table and targets of every kind of predictor."""
    layout = Layout.of(every_kind())
    table, classes = table_of(layout.schema)
    return layout, table, Targets.of(layout, table, classes)


def numbers_of(layout: Layout, table: Table) -> list[tuple[int, list[np.ndarray]]]:
    """By loops: of each token, its first number in what is predicted, and per row what is true.

    True is a vector of numbers, NaN where there is none; of classes, their indicators.
    """
    positions, at = [], 0
    for part, values in zip(layout.parts, table.values):
        values = values.numpy().astype(float)
        classes = int(np.nanmax(values)) + 1 if part.kind == "categorical" else 0
        for k in range(part.size):
            rows = []
            for x in values[:, k]:
                if part.kind == "circular":
                    rows.append(np.array([np.cos(x[0]), np.sin(x[0])]))
                elif part.kind == "categorical":
                    is_class = np.isfinite(x[0])
                    rows.append(
                        np.eye(classes)[int(x[0])] if is_class else np.full(classes, np.nan)
                    )
                else:
                    rows.append(x)
            positions.append((at, rows))
            at += len(rows[0])
    return positions


def error_by_hand(kind: str, prediction: np.ndarray, true: np.ndarray) -> float:
    """Error of one token."""
    if kind == "categorical":
        return float(np.log(np.exp(prediction).sum()) - prediction[true == 1][0])
    valid = np.isfinite(true)
    return float(np.mean((prediction[valid] - true[valid]) ** 2))


def constant_by_hand(kind: str, rows: list[np.ndarray]) -> np.ndarray:
    all_rows = np.stack(rows)
    valid = np.isfinite(all_rows)
    mean = np.where(valid, all_rows, 0).sum(0) / np.maximum(valid.sum(0), 1)
    return np.log(mean) if kind == "categorical" else mean


def loss_by_hand(
    layout: Layout, table: Table, predictions: np.ndarray, target_tokens: np.ndarray
) -> float:
    """The loss, token by token."""
    kinds = [p.kind for p in layout.parts for _ in range(p.size)]
    variables = [s.variable.name for s in layout.spans for _ in range(s.size)]
    owners = [s.modality for s in layout.spans for _ in range(s.size)]
    observed, truth = table.observed.numpy(), numbers_of(layout, table)
    blind: dict[str, list[float]] = {}
    for t, (_, rows) in enumerate(truth):
        observed_rows = [rows[i] for i in range(len(rows)) if observed[i, t]]
        prediction = constant_by_hand(kinds[t], observed_rows)
        blind.setdefault(variables[t], []).extend(
            error_by_hand(kinds[t], prediction, r) for r in observed_rows
        )
    shares: dict[str, list[float]] = {}
    for t, (at, rows) in enumerate(truth):
        for i in np.flatnonzero(target_tokens[:, t] & observed[:, t]):
            prediction = predictions[i, at : at + len(rows[i])]
            share = error_by_hand(kinds[t], prediction, rows[i]) / np.mean(blind[variables[t]])
            shares.setdefault(owners[t], []).append(share)
    return float(np.mean([np.mean(s) for s in shares.values()]))


def test_the_loss_is_a_loop_over_tokens_of_every_kind(every_kind_table):
    layout, table, targets = every_kind_table
    rng = np.random.default_rng(1)
    predictions = rng.normal(size=(N, len(targets.constant))).astype(np.float32)
    for share in (0.1, 0.5, 1.0):
        target_tokens = rng.random((N, layout.size)) < share
        actual = targets.loss(
            torch.as_tensor(predictions),
            table.values,
            table.observed & torch.as_tensor(target_tokens),
        )
        assert float(actual) == pytest.approx(
            loss_by_hand(layout, table, predictions, target_tokens), rel=1e-4
        )


def test_only_hidden_values_that_are_there_enter_the_loss(every_kind_table):
    layout, table, targets = every_kind_table
    rng = np.random.default_rng(2)
    hidden = torch.as_tensor(rng.random((N, layout.size)) < 0.5)
    predictions = torch.randn(N, len(targets.constant), requires_grad=True)
    in_loss = []

    def module(values, visible):
        in_loss.append(visible)
        return predictions

    rows = torch.arange(N)
    batch_loss(module, table, rows, hidden=hidden, targets=targets, fabric=FABRIC).backward()
    assert torch.equal(in_loss[0], table.observed & ~hidden)
    for t, (at, true) in enumerate(numbers_of(layout, table)):
        for i in range(N):
            expected = bool(hidden[i, t]) & np.isfinite(true[i])
            has_gradient = predictions.grad[i, at : at + len(true[i])].numpy() != 0
            np.testing.assert_array_equal(has_gradient, expected)


def test_a_batch_that_hides_nothing_has_no_loss(every_kind_table):
    layout, table, targets = every_kind_table
    no_tokens = torch.zeros(N, layout.size, dtype=torch.bool)
    predictions = torch.randn(N, len(targets.constant), requires_grad=True)
    loss = targets.loss(predictions, table.values, no_tokens)
    loss.backward()
    assert loss.item() == 0 and not predictions.grad.any()


def test_what_is_always_the_same_is_no_target():
    schema = schema_of(a=[variable("x"), variable("same")], b=[variable("y")])
    arrays = random_arrays(schema, N) | {"same": np.full(N, 7, np.float32)}
    layout = Layout.of(schema)
    (table,), _ = make_tables(unlabelled(schema, arrays), held_out=[np.zeros(N, bool)])
    targets = Targets.of(layout, table, {})
    assert targets.variance.isnan().tolist() == [False, True, False]
    wild = torch.full((N, 3), 1e3)
    assert targets.totals(wild, table.values, table.observed)[1].tolist() == [
        table.observed[:, 0].sum(),
        table.observed[:, 2].sum(),
    ]


class Oracle:
    """Predicts fixed values of each row, whatever is visible."""

    def __init__(self, predictions: torch.Tensor):
        self.predictions = predictions
        self.network = SimpleNamespace(view=self.view)

    def eval(self):
        return self

    def view(self, values, observed, visible):
        return SimpleNamespace(
            features=lambda rows, coalitions: rows[:, None].expand(-1, len(coalitions))
        )

    def decode(self, rows):
        return self.predictions[rows]


def test_r2_is_1_for_the_truth_and_0_for_the_mean(every_kind_table):
    layout, _, _ = every_kind_table
    table, classes = table_of(layout.schema, held_out=15)
    targets = Targets.of(layout, table, classes)
    table.valid[:] = torch.arange(15)
    truth = np.zeros((N, len(targets.constant)), np.float32)
    for at, rows in numbers_of(layout, table):
        truth[:, at : at + len(rows[0])] = np.nan_to_num(np.stack(rows))
    start = 0
    for kind, (k, o) in zip(targets.kinds, targets.shapes):
        if kind == "categorical":  # certainty
            truth[:, start : start + k * o] = truth[:, start : start + k * o] * 100 - 50
        start += k * o
    visible, target_tokens = patterns(layout.sizes)
    arguments = {
        "table": table,
        "targets": targets,
        "visible": visible,
        "target_tokens": target_tokens,
    }
    perfect = r2(Oracle(torch.as_tensor(truth)), **arguments)
    is_target = np.stack(
        [
            [w[layout_owner(layout) == m].any() for m in range(len(layout.sizes))]
            for w in target_tokens
        ]
    )
    assert (np.isfinite(perfect) == is_target).all()
    np.testing.assert_allclose(perfect[is_target], 1, atol=1e-6)
    blind = r2(Oracle(targets.constant.expand(N, -1)), **arguments)
    np.testing.assert_allclose(blind[is_target], 0, atol=1e-6)


def test_a_variable_of_one_class_with_gaps_is_no_target():
    schema = schema_of(a=[variable("x")], b=[variable("y", "categorical")])
    arrays = random_arrays(schema, N)
    arrays["y"] = np.where(np.isnan(arrays["y"]), arrays["y"], np.float32(1))
    assert np.isnan(arrays["y"]).any()
    (table,), _ = make_tables(unlabelled(schema, arrays), held_out=[np.zeros(N, bool)])
    targets = Targets.of(Layout.of(schema), table, {"y": 1})
    assert targets.variance.isfinite().tolist() == [True, False]


def layout_owner(layout: Layout) -> np.ndarray:
    return np.repeat(np.arange(len(layout.sizes)), layout.sizes)


def test_r2_is_scikit_learns_where_training_rows_are_scored():
    """And for classes the share of the entropy that is explained."""
    schema = schema_of(a=[variable("x")], b=[variable("y", "categorical")])
    layout = Layout.of(schema)
    table, classes = table_of(schema, n=60)
    targets = Targets.of(layout, table, classes)
    rng = np.random.default_rng(3)
    predictions = rng.normal(size=(60, len(targets.constant))).astype(np.float32)
    visible, target_tokens = patterns(layout.sizes)
    all_tokens = torch.ones_like(visible)
    actual = r2(
        Oracle(torch.as_tensor(predictions)),
        table,
        targets,
        visible=all_tokens,
        target_tokens=all_tokens,
    )[0]
    x, y = (v.numpy().ravel() for v in table.values)
    valid = np.isfinite(x)
    assert actual[0] == pytest.approx(r2_score(x[valid], predictions[valid, 0]), abs=1e-5)
    valid = np.isfinite(y)
    logits = predictions[valid, 1:].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    frequency = np.bincount(y[valid].astype(int)) / valid.sum()
    entropy = -(frequency * np.log(frequency)).sum()
    assert actual[1] == pytest.approx(1 - log_loss(y[valid], p) / entropy, abs=1e-5)
    assert not (visible & target_tokens).any()


def test_one_modality_shows_every_other_token():
    visible, target_tokens = patterns(np.array([5]))
    assert visible.tolist() == [[True, False, True, False, True]]
    assert torch.equal(target_tokens, ~visible)


def related(n: int = 300, *, noise: bool, seed: int = 0) -> xr.Dataset:
    """A modality of two numbers, and one that they make, or that is noise."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    second_values = (
        {"c": np.tanh(a + b), "d": a - b} if not noise else dict(zip("cd", rng.normal(size=(2, n))))
    )
    first, second = {"modality": "first"}, {"modality": "second"}
    return xr.Dataset(
        {"a": ("site", a, first), "b": ("site", b, first)}
        | {k: ("site", v, second) for k, v in second_values.items()}
    ).astype(np.float32)


SMALL = gm.NetworkConfig(width=32, heads=2, depth=1, inner=1, frequencies=8, sigma=0.3, dropout=0.0)


@pytest.mark.parametrize("fusion", ["group", "token", "sum"])
def test_it_learns_what_follows_from_the_other_modality(fusion):
    held_out = np.arange(300) < 100
    settings = {
        "network": SMALL.model_copy(update={"fusion": fusion}),
        "training": quick(epochs=15),
        "validation": held_out,
        "masking": gm.masking.MIAM(per_sample=True),
    }
    r2_related = gm.pretrain(related(noise=False), **settings).about["validation_r2"]
    assert min(r2_related.values()) > 0.5
    if fusion == "group":
        r2_related = gm.pretrain(related(noise=True), **settings).about["validation_r2"]
        assert max(r2_related.values()) < 0.1


def test_one_modality_learns_from_its_own_tokens():
    rng = np.random.default_rng(0)
    level = rng.normal(size=(400, 1)) + 0.1 * rng.normal(size=(400, 6))
    sites = xr.Dataset({"ndvi": (("site", "month"), level.astype(np.float32))})
    model = gm.pretrain(
        sites, network=SMALL, training=quick(epochs=12), validation=np.arange(400) < 80
    )
    assert model.history["r2_ndvi"].max() > 0.7
    np.testing.assert_array_equal(model.history["r2_ndvi"], model.history["r2_all"])


@pytest.fixture(scope="module")
def sites():
    return tiny_sites(80)


@pytest.fixture(scope="module")
def encoder(sites):
    return gm.pretrain(sites, network=TINY_NETWORK, training=quick(epochs=4))


def test_scores_steer_miam(encoder):
    history = encoder.history
    for m in encoder.schema.modalities:
        before = history[f"r2_{m}"].to_numpy(float)[:-1]
        np.testing.assert_allclose(history[f"s_{m}"][1:], np.maximum(before, 1e-3))
    r = gm.masking.MIAM().balance(history[[f"r2_{m}" for m in encoder.schema.modalities]][:3]).r
    np.testing.assert_allclose(
        [history[f"r_{m}"][3] for m in encoder.schema.modalities], r, rtol=1e-6
    )


def test_labels_are_not_looked_at(sites, encoder):
    relabelled_sites = sites.assign(presence=1 - sites["presence"])
    for data in (relabelled_sites, sites.drop_vars("presence")):
        again = gm.pretrain(data, network=TINY_NETWORK, training=quick(epochs=4))
        assert again.id == encoder.id


def test_a_run_that_was_stopped_goes_on_exactly(sites, encoder, tmp_path):
    for epochs in (2, 4):
        again = gm.pretrain(
            sites,
            network=TINY_NETWORK,
            training=quick(epochs=epochs),
            checkpoint=tmp_path / "here",
        )
    assert again.id == encoder.id
    with pytest.raises(ArtifactError, match="of other data or settings"):
        gm.pretrain(
            sites, network=TINY_NETWORK, training=quick(), checkpoint=tmp_path / "here", rng=1
        )


def test_an_encoder_is_saved_and_loaded(encoder, sites, tmp_path):
    again = gm.load_model(encoder.save(tmp_path / "encoder"))
    assert again.id == encoder.id and again.species == () and again.is_encoder
    assert "an encoder" in again.summary()
    block = encoder.encode(SiteTable.read(sites, encoder.schema, include_labels=False).arrays)
    np.testing.assert_array_equal(features(again, block), features(encoder, block))


@pytest.mark.parametrize(
    "use",
    [
        lambda sites, model: gm.predict(sites, model),
        lambda sites, model: gm.shapley(sites, model),
        lambda sites, model: gm.evaluate(model, sites),
        lambda sites, model: gm.explain.importance(model, sites),
    ],
)
def test_an_encoder_states_what_to_do_with_it(encoder, sites, use):
    with pytest.raises(
        SelectionError, match=r"gm\.fit\(sites, warm_start=model\) or gm\.evaluation\.probe"
    ):
        use(sites, encoder)


def test_what_cannot_be_pretrained_is_refused(sites):
    with pytest.raises(SchemaError, match=r"one token only \(bio1\)"):
        gm.pretrain(sites[["bio1"]])
    with pytest.raises(SchemaError, match="members=1"):
        gm.pretrain(sites, network=gm.NetworkConfig(members=2))
    with pytest.raises(LabelError, match="one boolean per site"):
        gm.pretrain(sites, validation=np.zeros(80, bool))


def test_a_cube_is_as_its_cells(cube):
    schema = gm.infer_schema(cube)
    settings = {"network": TINY_NETWORK, "training": quick(epochs=2), "rng": 5}
    model = gm.pretrain(cube, schema, n=60, **settings)
    rng = np.random.default_rng(5).spawn(1)[0]
    cells, candidates = random_cells(cube[list(schema.variables)], n=60, rng=rng)
    assert cells.sizes["site"] == 60 < candidates
    assert gm.pretrain(cells, schema, **settings).id == model.id
    assert gm.pretrain(cube.chunk(y=5, x=4), schema, n=60, **settings).id == model.id
    assert gm.pretrain(cube, schema, n=61, **settings).id != model.id


def test_a_probe_is_scikit_learns_fit_on_the_features(encoder):
    sites = tiny_sites(200, seed=4, species=3)
    gaps = np.random.default_rng(0).random(sites["presence"].shape) < 0.3
    sites["presence"] = sites["presence"].where(~gaps)
    sites["presence"][:, 2] = sites["presence"][:, 2] * 0  # absences only
    with pytest.warns(UserWarning, match="1 of 3 species have presences or absences only"):
        model = gm.evaluation.probe(encoder, sites, l2=0.05)
    arrays = {k: sites[k].transpose("site", ...).values for k in encoder.schema.variables}
    block = encode(arrays, layout=encoder.layout, scaler=encoder.scaler)
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    with torch.inference_mode():
        view = encoder.network.view(values, observed, torch.ones(1, observed.shape[1]).bool())
        x = view.features(torch.arange(200), torch.zeros(1).long())[:, 0].numpy().astype(float)
    logits = gm.predict(sites, model, scale="logit")["suitability"].transpose("site", "species")
    observed_rows = block.observed.any(1)
    labels = sites["presence"].values
    for s in range(2):
        valid = ~np.isnan(labels[:, s])
        y = labels[valid, s]
        weight = np.where(y == 1, len(y) / (2 * y.sum()), len(y) / (2 * (1 - y).sum()))
        reference = LogisticRegression(C=1 / (0.05 * len(y)), solver="newton-cholesky", tol=1e-8)
        reference.fit(x[valid], y, sample_weight=weight)
        expected = reference.decision_function(x[observed_rows])
        np.testing.assert_allclose(logits[observed_rows, s], expected, atol=5e-3)
    n = int((~np.isnan(labels[:, 2])).sum())
    np.testing.assert_allclose(logits[observed_rows, 2], np.log(0.5 / (n + 0.5)), rtol=1e-5)
    assert model.link == "logit" and model.species == tuple(sites["species"].values)


def test_a_probe_leaves_the_rest_as_it_was(encoder, sites, tmp_path):
    before, state = encoder.id, torch.random.get_rng_state()
    model = gm.evaluation.probe(encoder, sites)
    del encoder.__dict__["id"]
    assert encoder.id == before and torch.equal(state, torch.random.get_rng_state())
    assert gm.evaluation.probe(encoder, sites).id == model.id
    assert gm.load_model(model.save(tmp_path / "probe")).id == model.id
    for name, weight in model.network.members.state_dict().items():
        assert torch.equal(weight, encoder.network.members.state_dict()[name])
    with pytest.raises(ValueError, match="l2 must be > 0"):
        gm.evaluation.probe(encoder, sites, l2=0)


def weights_at_start(monkeypatch, sites, **settings) -> list[dict]:
    """State of every member before its first step."""
    states: list[dict] = []

    def stop(run, *_):
        states.append({k: v.clone() for k, v in run.module.state_dict().items()})
        return train(run, *_)

    train = members_module.train
    monkeypatch.setattr(members_module, "train", stop)
    model = gm.fit(sites, training=quick(epochs=1), **settings)
    scaler, start_scaler = (
        {**m.scaler.to_dict(), "limits": None} for m in (model, settings["warm_start"])
    )
    assert scaler == start_scaler  # the limits are those of the new sites
    assert model.schema == settings["warm_start"].schema
    assert model.about["warm_start"] == {"model_id": settings["warm_start"].id}
    return states


def test_fit_starts_from_the_weights_of_the_encoder(monkeypatch, sites, encoder):
    new_sites = sites.isel(site=slice(10, 70))  # whose means are others
    two = encoder.config.model_copy(update={"members": 2})
    states = weights_at_start(monkeypatch, new_sites, warm_start=encoder, network=two)
    weights = encoder.network.state_dict()
    assert len(states) == 2
    for state in states:
        body = {k for k in weights if not k.startswith("head.")}
        assert all(torch.equal(state[k], weights[k]) for k in body) and len(body) > 10
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def test_the_head_is_taken_over_where_species_are_the_same(monkeypatch, sites):
    first = gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1))
    (state,) = weights_at_start(monkeypatch, sites, warm_start=first)
    for name, weight in first.network.state_dict().items():
        assert torch.equal(state[name], weight)
    fewer = sites.isel(species=[0])
    states = weights_at_start(monkeypatch, fewer, warm_start=first)
    assert len(states[0]["head.weight"]) == 1


def test_starts_that_would_mean_something_else_are_refused(sites, encoder):
    with pytest.raises(SelectionError, match=r"width=8 \(requested 16\).*leave network= out"):
        gm.fit(sites, warm_start=encoder, network=gm.NetworkConfig(width=16))
    schema = gm.infer_schema(sites).subset(["climate"])
    with pytest.raises(SelectionError, match="has another schema"):
        gm.fit(sites, schema, warm_start=encoder, training=quick())
    two, three = (encoder.config.model_copy(update={"members": m}) for m in (2, 3))
    several = gm.fit(sites, warm_start=encoder, network=two, training=quick(epochs=1))
    with pytest.raises(SelectionError, match="from a model with members=1"):
        gm.fit(sites, warm_start=several, network=three, training=quick())
    with pytest.raises(SelectionError, match="pre-train with members=1"):
        gm.evaluation.probe(several, sites)


def test_a_network_without_a_head_holds_every_weight_that_learns(sites, encoder):
    """Nothing of the encoder is left out of the loss, in any fusion."""
    table, classes = table_of(every_kind())
    for fusion in ("group", "token", "sum", "cross", "late"):
        model = untrained(every_kind(), species=0, fusion=fusion)
        targets = Targets.of(model.layout, table, classes)
        module = Reconstruction(model.network, first=targets.constant).train()
        hidden = torch.rand(N, model.layout.size) < 0.5
        arguments = {"hidden": hidden, "targets": targets, "fabric": FABRIC}
        batch_loss(module, table, torch.arange(N), **arguments).backward()
        missing = [k for k, p in module.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


def test_single_settings_are_a_mapping_as_in_fit(sites):
    from_mapping = gm.pretrain(
        sites, network=TINY_NETWORK.model_dump(), training=quick(epochs=1).model_dump()
    )
    assert from_mapping.id == gm.pretrain(sites, network=TINY_NETWORK, training=quick(epochs=1)).id
    with pytest.raises(SettingError, match="epoch"):
        gm.pretrain(sites, training={"epoch": 3})
