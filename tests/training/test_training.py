"""Training: losses against plain loops, honest splits, and runs that can be repeated and resumed."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.data.sites.table import SiteTable, check_classes, read_labels
from geomiam.errors import ArtifactError, GridError, LabelError, MissingVariable
from geomiam.labels import label_counts
from geomiam.masking import MIAM, Constant, Dirichlet, Uniform
from geomiam.splits import hold_out, site_blocks, site_coordinates, spatial_blocks
from geomiam.training import loop as loop_module
from geomiam.training import observations as observations_module
from geomiam.training import supervised as supervised_module
from geomiam.training.losses import (
    cross_entropy,
    make_loss,
    maxent,
    maxent_offset,
    presence_weight,
    weighted_bce,
)
from geomiam.training.supervised import Supervised, subset_logits
from geomiam.training.table import make_tables

NAN = float("nan")


def train(sites=None, **settings) -> gm.Model:
    """A run of a fraction of a second."""
    arguments = ("masking", "rng", "validation", "checkpoint")
    options = {k: settings.pop(k) for k in arguments if k in settings}
    network = settings.pop("network", TINY_NETWORK)
    sites = tiny_sites() if sites is None else sites
    return gm.fit(sites, network=network, training=quick(**settings), **({"rng": 0} | options))


def history_of(model: gm.Model) -> list[dict]:
    """The history without the times of the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in model.about["history"]]


def tables(n: int = 12, species: int = 4, seed: int = 0, gaps: float = 0.3):
    """Logits and labels with NaN."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, species)) < 0.4).astype(np.float32)
    labels[rng.random(labels.shape) < gaps] = np.nan
    return rng.normal(0, 2, (n, species)).astype(np.float32), labels


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


# Losses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_weighted_bce_is_its_formula_site_by_site(seed):
    z, y = tables(seed=seed)
    total, n_labels = 0.0, 0
    for s in range(y.shape[1]):
        column = [float(v) for v in y[:, s] if not math.isnan(v)]
        present = sum(column)
        w = max(len(column) / max(present, 1), (len(column) + 1) / len(column))
        for i in range(len(y)):
            if math.isnan(y[i, s]):
                continue
            n_labels += 1
            p = sigmoid(float(z[i, s]))
            total += -w * math.log(p) if y[i, s] else -w / (w - 1) * math.log(1 - p)
    loss = make_loss("weighted-bce", label_counts(y))
    assert float(loss(torch.as_tensor(z), torch.as_tensor(y))) == pytest.approx(
        total / n_labels, rel=1e-5
    )


def test_presences_and_absences_carry_equal_weight_in_all():
    _, y = tables(n=200, seed=1)
    y = torch.as_tensor(y)
    w = presence_weight(label_counts(y))
    ones, zeros = (y == 1).sum(0), (y == 0).sum(0)
    torch.testing.assert_close(ones * w, zeros * w / (w - 1))
    torch.testing.assert_close(ones * w, (~y.isnan()).sum(0).float())


def test_a_loss_at_zero_logits_is_twice_log_two():
    y = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    loss = make_loss("weighted-bce", label_counts(y))
    assert float(loss(torch.zeros(4, 1), y)) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("column", [[1.0] * 5, [0.0] * 5, [NAN] * 5, [1.0, NAN, NAN, NAN, NAN]])
@pytest.mark.parametrize("name", ["bce", "weighted-bce", "maxent"])
def test_a_species_of_one_class_or_none_leaves_loss_and_gradient_finite(name, column):
    y = torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0], column]).T
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = make_loss(name, label_counts(y))(z, y)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    if math.isnan(column[0]):
        assert (z.grad[:, 1] == 0).all()


@pytest.mark.parametrize("name", ["bce", "weighted-bce", "maxent"])
def test_a_label_that_is_not_there_teaches_nothing(name):
    z, y = (torch.as_tensor(v) for v in tables())
    z.requires_grad_()
    make_loss(name, label_counts(y))(z, y).backward()
    assert (z.grad[y.isnan()] == 0).all()
    assert (z.grad[~y.isnan()] != 0).any()


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_the_loss_does_not_saturate(logit):
    y = torch.tensor([[1.0], [0.0]])
    z = torch.full((2, 1), logit, requires_grad=True)
    loss = weighted_bce(z, y, torch.tensor([2.0]))
    loss.backward()
    assert loss.item() == pytest.approx(200, rel=1e-6)
    assert z.grad.abs().max() > 0.5


@pytest.mark.parametrize("evenness", [0.0, 0.5, 1.0])
def test_maxent_is_log_softmax_by_hand(evenness):
    z, y = tables(seed=2)
    total, weights = 0.0, 0.0
    for s in range(y.shape[1]):
        valid = [i for i in range(len(y)) if not math.isnan(y[i, s])]
        log_sum = math.log(sum(math.exp(float(z[i, s])) for i in valid))
        present = [i for i in valid if y[i, s] == 1]
        if present:
            weight = len(present) ** -evenness
            total += weight * sum(log_sum - float(z[i, s]) for i in present)
            weights += weight * len(present)
    got = make_loss("maxent", label_counts(y), evenness=evenness)(
        torch.as_tensor(z), torch.as_tensor(y)
    )
    assert float(got) == pytest.approx(total / weights, rel=1e-5)


def test_maxent_does_not_see_the_level_of_the_logits():
    z, y = (torch.as_tensor(v) for v in tables())
    weight = torch.ones(z.shape[1])
    torch.testing.assert_close(maxent(z, y, weight), maxent(z + 5, y, weight))


def test_maxent_offset_sets_the_level_to_entropy_less_log_z():
    z, y = tables(n=30, seed=3)
    background = y == 0
    parts = list(zip(torch.as_tensor(z).split(7), torch.as_tensor(background).split(7)))
    got = maxent_offset(parts)
    for s in range(z.shape[1]):
        logits = z[background[:, s], s].astype(float)
        share = np.exp(logits) / np.exp(logits).sum()
        expected = -(share * np.log(share)).sum() - np.log(np.exp(logits).sum())
        assert float(got[s]) == pytest.approx(expected, rel=1e-4)
    raw = np.exp(z + got.numpy())  # after the shift: raw output times exp(entropy)
    for s in range(z.shape[1]):
        share = raw[background[:, s], s] / raw[background[:, s], s].sum()
        assert np.log(raw[background[:, s], s].sum()) == pytest.approx(
            -(share * np.log(share)).sum()
        )


def test_maxent_offset_of_a_species_without_background_is_zero():
    offset = maxent_offset([(torch.randn(6, 2), torch.tensor([[True, False]] * 6))])
    assert offset[1] == 0 and offset[0] != 0


def test_cross_entropy_is_its_formula():
    z = tables(seed=4)[0]
    classes = np.random.default_rng(0).integers(0, 4, len(z))
    y = np.eye(4, dtype=np.float32)[classes]
    y[y == 0] = np.where(np.arange((y == 0).sum()) % 2, 0, np.nan)
    expected = np.mean(
        [math.log(np.exp(z[i].astype(float)).sum()) - z[i, k] for i, k in enumerate(classes)]
    )
    assert float(cross_entropy(torch.as_tensor(z), torch.as_tensor(y))) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("row", [[1.0, 1.0], [0.0, 0.0], [NAN, NAN]])
def test_cross_entropy_refuses_rows_with_none_or_several_species(row):
    y = torch.tensor([[1.0, 0.0], row, row])
    with pytest.raises(LabelError, match=r"2 of 3 sites have none or several: use loss='auto'"):
        make_loss("cross-entropy", label_counts(y))


PLANE = 'LOCAL_CS["plane",UNIT["metre",1]]'

# Splits -----------------------------------------------------------------------------------------


def test_blocks_are_squares_anchored_at_the_origin():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-5, 5, (300, 2))
    blocks = spatial_blocks(xy * 1000, size=2.0, crs=PLANE)
    cells = [(math.floor(x / 2), math.floor(y / 2)) for x, y in xy]
    for i in range(0, 300, 7):
        assert [b == blocks[i] for b in blocks] == [c == cells[i] for c in cells]
    assert blocks.max() + 1 == len(set(cells))


def test_blocks_do_not_move_when_sites_are_added():
    rng = np.random.default_rng(1)
    xy, added_xy = rng.uniform(0, 10, (2, 50, 2))
    alone, together = (
        spatial_blocks(xy, size=300, crs="EPSG:4326"),
        spatial_blocks(np.vstack([added_xy - 20, xy]), size=300, crs="EPSG:4326")[50:],
    )
    np.testing.assert_array_equal(alone[:, None] == alone, together[:, None] == together)


def held_out(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks, labels and what is held out."""
    sites = tiny_sites(200)
    labels = sites["presence"].values
    blocks = site_blocks(sites, "100 km").number
    return blocks, labels, hold_out(labels, blocks, share=0.3, rng=np.random.default_rng(seed))


def test_whole_blocks_are_held_out_and_about_the_requested_share():
    blocks, labels, out = held_out(0)
    for block in np.unique(blocks):
        assert len(set(out[blocks == block])) == 1
    assert 0.2 < out.mean() < 0.4
    for side in (out, ~out):
        assert ((labels[side] == 1).any(0) & (labels[side] == 0).any(0)).all()


def test_what_is_held_out_follows_from_the_seed():
    np.testing.assert_array_equal(held_out(3)[2], held_out(3)[2])
    assert (held_out(3)[2] != held_out(4)[2]).any()


def test_a_rare_species_is_on_both_sides():
    rng = np.random.default_rng(5)
    labels = np.zeros((300, 1), np.float32)
    labels[[3, 150]] = 1
    blocks = rng.integers(0, 30, 300)
    blocks[[3, 150]] = [0, 1]
    out = hold_out(labels, blocks, share=0.3, rng=rng)
    assert labels[out].sum() == labels[~out].sum() == 1


def test_coordinates_go_by_several_names_and_are_requested_if_missing():
    sites = tiny_sites(5)
    xy = site_coordinates(sites)
    np.testing.assert_array_equal(xy, np.stack([sites["x"], sites["y"]], 1))
    np.testing.assert_array_equal(site_coordinates(sites.rename(x="lon", y="lat")), xy)
    with pytest.raises(GridError, match=r"sites have no coordinates.*assign_coords.*validation="):
        site_coordinates(sites.drop_vars(["x", "y"]))


# Table ------------------------------------------------------------------------------------------


def test_labels_are_read_in_the_order_site_species():
    sites = tiny_sites(5, species=3)
    labels, names = read_labels(sites.transpose("species", ...))
    assert names == ("Quercus 0", "Quercus 1", "Quercus 2")
    np.testing.assert_array_equal(labels, sites["presence"])
    with pytest.raises(LabelError, match=r"expected \('site', 'species'\)"):
        read_labels(sites.isel(species=0))
    with pytest.raises(LabelError, match=r"species \['a'\] occur more than once"):
        read_labels(sites.assign_coords(species=["a", "b", "a"]))


def test_labels_of_one_class_are_refused_for_all_and_counted_for_some():
    ones, zeros = np.ones((3, 1)), np.zeros((3, 1))
    with pytest.raises(LabelError, match=r"only presences, for all 2 species.*add_background"):
        check_classes(np.hstack([ones, ones]), ("a", "b"))
    with pytest.raises(LabelError, match="only absences"):
        check_classes(zeros, ("a",))
    two_classes = np.array([[1.0], [0.0], [NAN]])
    with pytest.warns(UserWarning, match=r"2 of 3 species .* only \(a, c\).*cannot be scored"):
        check_classes(np.hstack([ones, two_classes, zeros]), ("a", "b", "c"))


def test_a_modality_that_is_nan_everywhere_is_refused():
    sites = tiny_sites(20)
    sites["bio1"] = sites["bio1"] * np.nan
    with pytest.raises(
        MissingVariable, match=r"'climate' is NaN at every site.*subset\(\['soil'\]\)"
    ):
        SiteTable.read(sites, gm.infer_schema(sites)).checked()


@pytest.mark.parametrize("chunks", [None, {"site": 7}], ids=["numpy", "dask"])
def test_sites_without_rows_or_values_are_refused(chunks):
    sites = tiny_sites(20).drop_vars("ndvi")
    sites = sites if chunks is None else sites.chunk(chunks)
    empty = sites.isel(site=[])
    for schema in (None, gm.infer_schema(sites)):
        with pytest.raises(LabelError, match=r"no sites \(found 0 along 'site'\).*gm\.sample"):
            gm.fit(empty, schema)
    hidden = sites.assign({n: sites[n] * np.nan for n in ("bio1", "clay")})
    with pytest.raises(
        MissingVariable, match=r"\(bio1, clay\) are NaN at all 20 sites.*gm\.sample"
    ):
        gm.fit(hidden)


def test_the_scaler_sees_the_training_sites_only():
    sites = tiny_sites(40)
    read = SiteTable.read(sites, gm.infer_schema(sites))
    out = np.arange(40) % 4 == 0
    (table,), scaler = make_tables(read, held_out=[out])
    bio1 = read.arrays["bio1"]
    assert float(scaler.mean["bio1"]) == pytest.approx(float(np.nanmean(bio1[~out])))
    assert table.valid.tolist() == np.flatnonzero(out).tolist()
    assert sorted(table.train.tolist() + table.valid.tolist()) == list(range(40))


# Runs -------------------------------------------------------------------------------------------


def test_equal_seeds_give_an_equal_model_and_others_another():
    a, b, c = train(rng=1), train(rng=1), train(rng=2)
    assert a.id == b.id
    assert history_of(a) == history_of(b)
    assert a.id != c.id
    assert history_of(a) != history_of(c)


def test_a_generator_is_a_seed_too():
    assert train(rng=np.random.default_rng(7)).id == train(rng=7).id


def test_training_leaves_random_states_outside_alone():
    torch.manual_seed(123)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train().id
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(9)
    assert train().id == first


def test_training_leaves_the_data_alone():
    sites = tiny_sites()
    copy = sites.copy(deep=True)
    train(sites)
    assert sites.identical(copy)


@pytest.mark.parametrize("fusion", ["group", "token", "late"])
@pytest.mark.parametrize("loss", ["bce", "weighted-bce", "maxent", "cross-entropy"])
def test_every_loss_trains_with_every_fusion(loss, fusion):
    sites = tiny_sites(species=3)
    if loss == "cross-entropy":
        classes = np.digitize(sites["bio1"].fillna(0), [-0.4, 0.4])
        one_hot = (classes[:, None] == np.arange(3)).astype(float)
        sites["presence"] = (("site", "species"), one_hot)
    network = TINY_NETWORK.model_copy(update={"fusion": fusion})
    model = train(sites, loss=loss, epochs=8, network=network, masking=Constant(0.0))
    maps = gm.predict(sites, model)["suitability"]
    assert ((maps >= 0) & (maps <= 1)).all()
    assert model.history["loss"].iloc[-1] < model.history["loss"].iloc[0]
    assert model.about["validation_auc"]["all"] > 0.5
    if loss == "cross-entropy":
        np.testing.assert_allclose(maps.sum("species"), 1, rtol=1e-5)


def test_training_learns_what_there_is_to_learn():
    model = train(tiny_sites(200, species=1), epochs=25)
    scores = model.history.iloc[model.about["best_epochs"][0]]
    assert scores["auc_climate"] > 0.85 > 0.75 > scores["auc_soil"]  # 0.5 to 0.7 by the seed
    assert scores["auc_all"] > 0.85


def test_the_history_logs_scores_and_masks_of_every_modality():
    history = train(epochs=3).history
    per_modality = [f"{k}_{m}" for k in ("auc", "s", "d", "r", "p") for m in ("climate", "soil")]
    assert {"member", "epoch", "loss", "auc_all", "seconds", *per_modality} == set(history.columns)
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["loss"].notnull().all()
    assert history[["auc_climate", "auc_soil", "auc_all"]].stack().between(0, 1).all()
    assert history[["p_climate", "p_soil"]].stack().between(0, 1).all()
    for modality in ("climate", "soil"):  # what steers an epoch are the scores up to the one before
        assert history[f"s_{modality}"][2] == pytest.approx(
            history[f"auc_{modality}"][:2].max(), abs=0.5
        )


def test_the_best_epoch_is_kept_and_patience_ends_the_run(monkeypatch):
    aucs = iter([0.6, 0.9, 0.7, 0.8, 0.85, 0.99])
    weights = {}
    real = Supervised.scores

    def scores(task, run, table):
        score = next(aucs)
        weights[score] = {k: v.clone() for k, v in run.model.network.state_dict().items()}
        return dict.fromkeys(real(task, run, table), score)

    monkeypatch.setattr(Supervised, "scores", scores)
    model = train(epochs=50, patience=3)
    assert model.about["best_epochs"][0] == 1
    assert len(model.about["history"]) == 5  # three epochs after the best
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, weights[0.9][name])
    assert model.about["validation_auc"] == {"climate": 0.9, "soil": 0.9, "all": 0.9}


def test_every_epoch_draws_its_own_masks(monkeypatch):
    masks = []
    real = observations_module.hide

    def hide(p, **sizes):
        masks.append(real(p, **sizes))
        return masks[-1]

    monkeypatch.setattr(observations_module, "hide", hide)
    train(epochs=3, batch=500, masking=Constant(0.5))
    assert len(masks) == 3
    assert (masks[0] != masks[1]).any() and (masks[1] != masks[2]).any()


def test_scores_and_weights_are_those_of_the_averaged_optimizer(monkeypatch):
    import schedulefree

    calls = []
    optimizer, scores = schedulefree.AdamWScheduleFree, Supervised.scores
    modes = {mode: getattr(optimizer, mode) for mode in ("train", "eval")}
    for mode in modes:
        monkeypatch.setattr(
            optimizer, mode, lambda self, mode=mode: calls.append(mode) or modes[mode](self)
        )
    monkeypatch.setattr(Supervised, "scores", lambda *args: calls.append("scores") or scores(*args))
    train(epochs=2)
    assert calls[:6] == ["train", "eval", "scores"] * 2


def test_labels_not_surveyed_are_no_hindrance():
    sites = tiny_sites(120, species=3)
    holes = np.random.default_rng(3).random(sites["presence"].shape) < 0.5
    sites["presence"] = sites["presence"].where(~holes)
    model = train(sites, epochs=4)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())
    assert model.about["presences"]["Quercus 1"] == int((sites["presence"][:, 1] == 1).sum())


@pytest.mark.parametrize("loss", ["bce", "weighted-bce", "maxent"])
def test_a_species_not_surveyed_at_any_training_site_harms_no_other(loss):
    sites = tiny_sites(80, species=3)
    out = np.arange(80) % 4 == 0
    sites["presence"][~out, 1] = np.nan
    model = train(sites, validation=out, loss=loss, epochs=15)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())
    assert np.isfinite(gm.predict(sites, model)["suitability"]).all()
    assert model.about["validation_auc"]["all"] > 0.6


def test_maxent_is_levelled_on_the_training_background():
    sites = tiny_sites(100, species=2)
    out = np.arange(100) % 4 == 0
    model = train(sites, loss="maxent", validation=out)
    training_sites = sites.isel(site=~out)
    logits = gm.predict(training_sites, model, scale="logit")["suitability"].transpose(
        "site", "species"
    )
    for s in range(2):  # exp(z) adds up to exp(entropy) over the background
        z = logits.values[(training_sites["presence"].values[:, s] == 0), s].astype(float)
        share = np.exp(z) / np.exp(z).sum()
        assert np.log(np.exp(z).sum()) == pytest.approx(-(share * np.log(share)).sum(), abs=1e-4)


def test_maxent_without_background_of_one_species_still_ranks_its_sites():
    sites = tiny_sites(80, species=2)
    sites["presence"][:, 1] = sites["presence"][:, 1].where(sites["presence"][:, 1] == 1)
    with pytest.warns(UserWarning, match="1 of 2 species have presences or absences only"):
        model = train(sites, loss="maxent")
    logits = gm.predict(sites, model, scale="logit")["suitability"].sel(species="Quercus 1")
    assert len(np.unique(logits)) > 40


def test_nothing_to_score_is_reported_and_the_first_epoch_kept():
    sites = tiny_sites(40, species=1)
    out = (sites["presence"] == 1).values[:, 0] & (np.arange(40) % 2 == 0)
    with pytest.warns(UserWarning, match="no epoch could be scored.*first epoch is kept"):
        model = train(sites, validation=out)
    assert model.about["best_epochs"][0] == 0
    assert model.about["validation_auc"]["all"] is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.ones(100, bool), "100 True"), (np.zeros(100, bool), "0 True"), (np.arange(7), r"\(7,\)")],
)
def test_a_validation_mask_that_splits_nothing_is_refused(mask, message):
    with pytest.raises(LabelError, match=rf"one boolean per site \(100\).*{message}"):
        train(validation=mask)


def test_sites_without_coordinates_train_with_a_mask_only():
    sites = tiny_sites(60).drop_vars(["x", "y"])
    with pytest.raises(GridError, match="no coordinates"):
        train(sites)
    model = train(sites, validation=np.arange(60) % 3 == 0)
    assert model.about["sites"] == {"train": 40, "validation": 20}
    assert "extent" not in model.about


def test_facts_for_people_are_in_about():
    sites = tiny_sites(80)
    model = train(sites, masking=Uniform())
    about = model.about
    assert about["masking"]["name"] == "uniform"
    assert about["training"]["epochs"] == 3
    assert sum(about["sites"].values()) == 80
    assert about["presences"] == {
        str(s): int(n) for s, n in zip(sites["species"].values, sites["presence"].sum("site"))
    }
    xy = site_coordinates(sites)
    assert about["extent"] == [*xy.min(0), *xy.max(0)]


def test_labels_of_validation_sites_train_nothing():
    """Masking by scores (MIAM) would use them: ``Uniform`` does not."""
    sites, is_held_out = tiny_sites(60), np.arange(60) % 3 == 0
    settings = {"validation": is_held_out, "keep": "last", "holdout": 0, "masking": Uniform()}
    other_labels = sites.assign(
        presence=sites["presence"].where(~xr.DataArray(is_held_out, dims="site"), 0)
    )
    other_labels["presence"][np.flatnonzero(is_held_out)[0]] = 1
    model, model_of_other_labels = train(sites, **settings), train(other_labels, **settings)
    assert model.about["sites"]["validation"] == is_held_out.sum()
    assert model.about["validation_auc"] != model_of_other_labels.about["validation_auc"]
    for name, weight in model.network.state_dict().items():
        assert torch.equal(weight, model_of_other_labels.network.state_dict()[name]), name


@pytest.mark.parametrize(
    "masking",
    [MIAM(per_sample=True), Dirichlet(per_sample=True), Uniform(per_sample=True), Constant()],
)
def test_masks_may_be_drawn_for_each_sample(masking, monkeypatch):
    shapes = []
    real = observations_module.hide

    def hide(p, **sizes):
        shapes.append((len(p), sizes["n"]))
        return real(p, **sizes)

    monkeypatch.setattr(observations_module, "hide", hide)
    model = train(masking=masking, epochs=2)
    assert model.about["masking"]["per_sample"] == masking.per_sample
    assert all(draws == (n if masking.per_sample else 1) for draws, n in shapes)


def test_complete_rows_have_nothing_masked(monkeypatch):
    shares = []
    real = supervised_module.batch_loss

    def batch_loss(*args, hidden, **options):
        shares.append((~hidden).all(1).float().mean().item())
        return real(*args, hidden=hidden, **options)

    monkeypatch.setattr(supervised_module, "batch_loss", batch_loss)
    for complete in (0.0, 0.5, 1.0):
        train(masking=Constant(1.0), epochs=15, batch=500, complete=complete)
    assert np.mean(shares[:15]) == 0 and np.mean(shares[30:]) == 1
    assert 0.4 < np.mean(shares[15:30]) < 0.6


@pytest.mark.parametrize("fusion", ["group", "token", "late"])
def test_bf16_runs_on_a_cpu(fusion):
    network = TINY_NETWORK.model_copy(update={"fusion": fusion, "inner": 1})
    model = train(precision="bf16-mixed", network=network)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert np.isfinite(gm.predict(tiny_sites(), model)["suitability"]).all()
    assert np.isfinite(model.history["auc_all"]).all()


# Checkpoints ------------------------------------------------------------------------------------


def interrupt_after(monkeypatch, saves: int) -> None:
    """Stop the process, as Ctrl-C does, after some checkpoints."""
    real, saved_states = loop_module.save_checkpoint, []

    def save(*args, **kwargs):
        real(*args, **kwargs)
        saved_states.append(1)
        if len(saved_states) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop_module, "save_checkpoint", save)


@cache
def uninterrupted(fusion: str) -> gm.Model:
    """Train five epochs without a stop, once for every fusion."""
    return train(epochs=5, network=with_dropout(fusion))


def with_dropout(fusion: str) -> gm.NetworkConfig:
    return TINY_NETWORK.model_copy(update={"fusion": fusion, "dropout": 0.3})


@pytest.mark.parametrize("fusion", ["group", "token", "late"])
@pytest.mark.parametrize("saves", [1, 3, 5])
def test_an_interrupted_run_goes_on_and_ends_bit_equal(tmp_path, monkeypatch, saves, fusion):
    network, full_run = with_dropout(fusion), uninterrupted(fusion)
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        with pytest.raises(KeyboardInterrupt):
            train(epochs=5, network=network, checkpoint=tmp_path / "run")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    resumed_model = train(epochs=5, network=network, checkpoint=tmp_path / "run")
    assert resumed_model.id == full_run.id
    assert history_of(resumed_model) == history_of(full_run)
    assert resumed_model.about["best_epochs"][0] == full_run.about["best_epochs"][0]


def test_a_run_killed_twice_and_within_an_epoch_ends_equal(tmp_path, monkeypatch):
    full_run = train(epochs=4)
    for saves in (1, 2):
        with monkeypatch.context() as patch:
            interrupt_after(patch, saves)
            with pytest.raises(KeyboardInterrupt):
                train(epochs=4, checkpoint=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(epochs=4, checkpoint=tmp_path / "run")
    assert train(epochs=4, checkpoint=tmp_path / "run").id == full_run.id


def test_a_resumed_run_remembers_the_best_score(tmp_path, monkeypatch):
    real = Supervised.scores

    def scripted(*scores):
        left = iter(scores)  # after the last epoch, the training sites are scored too
        return lambda *args: dict.fromkeys(real(*args), next(left, 0.5))

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "scores", scripted(0.9, 0.6))
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(epochs=4, checkpoint=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "scores", scripted(0.7, 0.8))
        model = train(epochs=4, checkpoint=tmp_path / "run")
    assert model.history["auc_all"].tolist() == [0.9, 0.6, 0.7, 0.8]
    assert model.about["best_epochs"][0] == 0
    assert model.id == train(epochs=1).id  # the weights of the first epoch


def test_a_run_that_is_complete_is_not_run_again(tmp_path, monkeypatch):
    first = train(checkpoint=tmp_path / "run")
    monkeypatch.setattr(loop_module, "_epoch", None)
    assert train(checkpoint=tmp_path / "run").id == first.id


@pytest.mark.parametrize(
    "changes",
    [
        {"rng": 5},
        {"loss": "maxent"},
        {"masking": Uniform()},
        {"lr": 0.5},
        {"sites": 60},
    ],
)
def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path, changes):
    train(checkpoint=tmp_path / "run")
    changes = {k: tiny_sites(v) if k == "sites" else v for k, v in changes.items()}
    with pytest.raises(
        ArtifactError, match=r"is of other data or settings; remove it or pass another"
    ):
        train(checkpoint=tmp_path / "run", **changes)


def test_a_run_can_be_made_longer(tmp_path):
    train(epochs=2, checkpoint=tmp_path / "run")
    longer = train(epochs=5, checkpoint=tmp_path / "run")
    assert longer.id == train(epochs=5).id
    assert len(longer.history) == 5


def test_an_empty_folder_is_a_fresh_start_and_another_folder_is_not_touched(tmp_path):
    (tmp_path / "run").mkdir()
    assert train(checkpoint=tmp_path / "run").id == train().id
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="is no checkpoint"):
        train(checkpoint=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path, name):
    train(checkpoint=tmp_path / "run")
    file = tmp_path / "run" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"the checkpoint in .* is damaged.*remove it"):
        train(checkpoint=tmp_path / "run")


def test_scores_are_of_sites_that_show_something():
    sites = tiny_sites(60, species=1)
    sites["bio1"] = sites["bio1"].where(np.arange(60) >= 15)
    out = np.arange(60) < 30
    model = train(sites, validation=out)
    labels = xr.where(sites["bio1"].notnull(), sites["presence"][:, 0], np.nan)[out]
    table = gm.evaluate(model, sites.isel(site=out), subsets="unimodal+all")
    assert int(table["sites"].sel(subset="climate")) == int(labels.notnull().sum())
    for subset in ("climate", "soil", "all"):
        assert float(table["mean_auc"].sel(subset=subset)) == pytest.approx(
            model.about["validation_auc"][subset]
        )


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_validation_ranks_sites_by_logits_or_by_shares_of_all_species(loss, monkeypatch):
    sites, calls = tiny_sites(60, species=3), []
    one_hot = np.arange(60)[:, None] % 3 == np.arange(3)
    sites["presence"] = (("site", "species"), one_hot.astype(float))
    real = Supervised.scores
    monkeypatch.setattr(Supervised, "scores", lambda *args: calls.append(args[1:]) or real(*args))
    model = train(sites, loss=loss, epochs=1, keep="last", holdout=0.5, block=300)
    run, table = calls[-1]
    logits = gm.predict(sites, model, scale="logit")["suitability"].transpose("site", "species")
    expected = logits.values[table.valid.numpy()].astype(float)
    if loss == "cross-entropy":
        expected -= np.log(np.exp(expected).sum(1, keepdims=True))
    scores = subset_logits(run, table, table.valid)
    np.testing.assert_allclose(scores[-1], expected, rtol=1e-4, atol=1e-5)
