"""The loss that labels ask for, and what the predictions of each loss are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.data.sites.table import has_background
from geomiam.errors import SelectionError
from geomiam.labels import label_counts
from geomiam.model.quantity import QUANTITIES
from geomiam.training.config import TrainingConfig
from geomiam.training.losses import base_logits, bce, make_loss, resolve_loss

SUM = gm.NetworkConfig(fusion="sum", width=32, frequencies=8, sigma=0.1)
LEVELS = np.array([-3.0, -2.0, -1.0, 0.0, 1.5])


def survey(n: int, *, seed: int) -> xr.Dataset:
    """A complete survey of five species with prevalences of about .07 to .75, and the true odds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3)).astype("f4")
    slopes = np.random.default_rng(1).normal(0, 0.8, (3, len(LEVELS)))
    truth = 1 / (1 + np.exp(-(z @ slopes + LEVELS)))
    return xr.Dataset(
        {f"v{i}": ("site", z[:, i], {"modality": "ab"[i // 2]}) for i in range(3)}
        | {"presence": (("site", "species"), (rng.random(truth.shape) < truth).astype("f4"))},
        coords={
            "x": ("site", rng.uniform(0, 20, n)),
            "y": ("site", rng.uniform(0, 20, n)),
            "species": list("abcde"),
            "truth": (("site", "species"), truth),
        },
    )


@pytest.fixture(scope="module")
def fits_by_loss() -> dict[str, gm.Model]:
    """Two models of the same survey, one per loss of surveys."""
    training = quick(epochs=30, batch=64, warmup=20, holdout=0, keep="last")
    return {
        loss: gm.fit(
            survey(800, seed=0),
            network=SUM,
            training=training.model_copy(update={"loss": loss}),
            rng=0,
        )
        for loss in ("auto", "weighted-bce")
    }


# Which loss -----------------------------------------------------------------------------------------


def chosen(labels, **options) -> str:
    return resolve_loss(TrainingConfig(), np.asarray(labels, float), **options)[0].loss


def random_labels(n: int = 200, species: int = 4, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, species)) < 0.3).astype(float)


def test_a_complete_survey_gets_plain_cross_entropy():
    labels = random_labels()
    assert chosen(labels, background=False) == "bce"
    assert chosen(labels[:, :1], background=False) == "bce"
    labels[:15, 2] = np.nan  # 7.5 % of the visits lack one species
    assert chosen(labels, background=False) == "bce"
    labels[:, 3] = 0  # a species that the survey never found
    assert chosen(labels, background=False) == "bce"


def test_background_gaps_and_single_records_get_the_weighted_loss():
    labels = random_labels()
    assert chosen(labels, background=True) == "weighted-bce"
    gaps = np.where(np.arange(200)[:, None] % 5 == np.arange(4), np.nan, labels)
    assert chosen(gaps, background=False) == "weighted-bce"
    assert chosen(np.eye(4)[np.arange(200) % 4], background=False) == "weighted-bce"
    assert chosen(np.full((9, 2), np.nan), background=False) == "weighted-bce"


def test_a_loss_that_is_requested_stays():
    config = TrainingConfig(loss="maxent")
    assert resolve_loss(config, random_labels(), background=False)[0] is config


def test_background_is_found_by_the_flags_and_by_the_attribute():
    sites = tiny_sites(20)
    assert not has_background(sites)
    assert not has_background(sites.assign_coords(background=("site", np.zeros(20, bool))))
    assert has_background(sites.assign_coords(background=("site", np.arange(20) > 15)))
    assert has_background(sites.assign_attrs(background_kind="target-group"))
    assert not has_background(sites.assign(background=("site", np.ones(20))))  # a predictor


def test_added_background_changes_the_loss_of_a_fit(cube):
    present = tiny_sites(60, species=1)
    full = np.argwhere(np.isfinite(cube["bio1"].values))[:6]
    records = {"species": "a", "x": cube["x"].values[full[:, 1]], "y": cube["y"].values[full[:, 0]]}
    sites = gm.add_background(gm.sample(cube, pd.DataFrame(records)), cube, n=60, rng=0)
    held_out = np.arange(sites.sizes["site"]) % 3 == 0
    model = gm.fit(
        sites, network=TINY_NETWORK, training=quick(epochs=1), validation=held_out, rng=0
    )
    assert model.about["loss"] == {
        "name": "weighted-bce",
        "reason": "the sites contain background",
    }
    assert model.about["training"]["loss"] == "weighted-bce"
    survey_model = gm.fit(present, network=TINY_NETWORK, training=quick(epochs=1), rng=0)
    assert survey_model.about["training"]["loss"] == "bce"


def test_the_demo_records_are_background():
    cube, records = gm.demo.load_cube(), gm.demo.load_records().sample(300, random_state=0)
    sites = gm.demo.sample_records(cube, records)
    assert has_background(sites)
    assert (sites["background"] == (sites["presence"] == 0).all("species")).all()


@pytest.mark.parametrize("name", ["masksdm", "miam-token", "ume-mma"])
def test_published_systems_keep_the_weighted_loss_unless_another_is_requested(name):
    assert gm.baselines.recipe(name).options()["training"].loss == "weighted-bce"
    options = gm.baselines.recipe(name).options(training=TrainingConfig(loss="maxent"))
    assert options["training"].loss == "maxent"


# What it predicts -----------------------------------------------------------------------------------


def test_predictions_of_a_survey_are_calibrated_for_every_species(fits_by_loss):
    model, fresh = fits_by_loss["auto"], survey(4000, seed=9)
    assert model.about["loss"]["name"] == "bce"
    p = gm.predict(fresh, model)["suitability"].transpose("site", "species").values
    truth = fresh["truth"].values
    np.testing.assert_allclose(p.mean(0), truth.mean(0), atol=0.05)
    richness = p.sum(1)
    order = np.argsort(richness)  # in the large: also among the poorest and the richest sites
    for part in np.array_split(order, 4):
        assert richness[part].mean() == pytest.approx(truth[part].sum(1).mean(), abs=0.3)


def test_the_weighted_loss_gives_no_prevalence(fits_by_loss):
    fresh = survey(2000, seed=9)
    suitability = gm.predict(fresh, fits_by_loss["weighted-bce"])["suitability"].mean("site")
    assert float(suitability.sel(species="a")) > 0.2 > 2 * fresh["truth"].values[:, 0].mean()


def test_plain_cross_entropy_is_scikit_learns_log_loss():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 3)), (rng.random((50, 3)) < 0.4).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    valid = ~np.isnan(y)
    expected = log_loss(y[valid], 1 / (1 + np.exp(-z[valid])))
    actual = make_loss("bce", label_counts(y))(torch.as_tensor(z), torch.as_tensor(y))
    assert float(actual) == pytest.approx(expected, rel=1e-9)


def test_the_base_of_plain_cross_entropy_is_the_prevalence():
    labels = torch.tensor([[1.0, 0], [1, 0], [1, float("nan")], [0, 0]])
    base = base_logits("bce", label_counts(labels)).requires_grad_()
    np.testing.assert_allclose(base.detach(), np.log([3 / 1, 1 / 3]), rtol=1e-6)
    bce(base.expand(4, 2), labels).backward()
    assert float(base.grad[0]) == pytest.approx(0, abs=1e-7)


def test_training_of_a_survey_starts_at_the_prevalence(monkeypatch):
    from geomiam.training import members as module

    starts = []
    monkeypatch.setattr(
        module,
        "train",
        lambda run, *_: starts.append(run.module.head.bias.detach().clone()) or 1 / 0,
    )
    sites = survey(100, seed=0)
    with pytest.raises(ZeroDivisionError):
        gm.fit(sites, network=SUM, training=quick(holdout=0, keep="last"), rng=0)
    counts = sites["presence"].sum("site").values
    np.testing.assert_allclose(starts[0], np.log(counts / (100 - counts)), rtol=1e-5)


@pytest.mark.parametrize("loss", list(QUANTITIES))
def test_model_card_repr_and_predictions_name_the_quantity(loss, tmp_path):
    sites = tiny_sites(60, species=3)
    if loss == "cross-entropy":
        one_hot = np.eye(3)[np.arange(60) % 3]
        sites = sites.assign(presence=(("site", "species"), one_hot))
    model = gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1, loss=loss), rng=0)
    quantity = QUANTITIES[loss]
    assert f"predicts: {quantity.name} (loss {loss}, set in TrainingConfig)" in str(model)
    assert f"predicts: {quantity.name}\n" in repr(model)
    again = gm.load_model(model.save(tmp_path / "model"))
    assert quantity.meaning in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    maps = gm.predict(sites, again)["suitability"]
    assert maps.attrs["long_name"] == quantity.name and maps.attrs["comment"] == quantity.meaning
    logit = gm.predict(sites, again, scale="logit")["suitability"]
    assert logit.attrs["long_name"] == f"{quantity.name} (log-odds)"
    assert "comment" not in logit.attrs
    explanation = gm.shapley(sites, again)["suitability"]
    assert explanation.attrs["long_name"] == quantity.name


@pytest.mark.parametrize("about", [{}, {"loss": 3, "training": []}, {"training": {"loss": "x"}}])
def test_a_model_without_a_recorded_loss_promises_nothing(about):
    model = gm.fit(tiny_sites(40), network=TINY_NETWORK, training=quick(epochs=1), rng=0)
    model.about.clear()
    model.about.update(about)
    from geomiam.model.saved_model import card

    assert model.quantity is None and "predicts" not in repr(model) + str(model)
    assert "loss of the training is not recorded" in card(model)
    assert gm.predict(tiny_sites(5), model)["suitability"].attrs["long_name"] == "suitability"


# Models that learn on -------------------------------------------------------------------------------


def test_fine_tuning_keeps_the_loss_of_the_model():
    sites = tiny_sites(80)
    weighted_model = gm.fit(
        sites, network=TINY_NETWORK, training=quick(epochs=1, loss="weighted-bce"), rng=0
    )
    tuned_model = gm.finetune(weighted_model, sites, train="all", training=quick(epochs=1))
    assert tuned_model.about["finetuning"][0]["training"]["loss"] == "weighted-bce"
    assert tuned_model.about["loss"]["name"] == "weighted-bce"


def test_another_loss_is_for_all_species_and_all_weights():
    sites = tiny_sites(80, species=2)
    weighted_model = gm.fit(
        sites, network=TINY_NETWORK, training=quick(epochs=1, loss="weighted-bce"), rng=0
    )
    plain = quick(epochs=1, loss="bce")
    tuned_model = gm.finetune(weighted_model, sites, train="all", training=plain)
    assert tuned_model.quantity is QUANTITIES["bce"]
    new = sites.assign_coords(species=["Quercus 0", "Quercus 9"])
    for part, data in (("head", new), ("all", sites.isel(species=[0]))):
        with pytest.raises(SelectionError, match="predictions of one model must keep one meaning"):
            gm.finetune(weighted_model, data, train=part, training=plain)


def test_a_probe_of_a_survey_is_calibrated():
    sites = survey(400, seed=2)
    encoder = gm.pretrain(sites, network=TINY_NETWORK, training=quick(epochs=1), rng=0)
    plain, weighted_model = (
        gm.evaluation.probe(encoder, sites),
        gm.evaluation.probe(encoder, sites, loss="weighted-bce"),
    )
    prevalence = sites["presence"].mean("site")
    assert plain.about["loss"]["name"] == "bce"
    np.testing.assert_allclose(
        gm.predict(sites, plain)["suitability"].mean("site"), prevalence, atol=0.01
    )
    assert (gm.predict(sites, weighted_model)["suitability"].mean("site")[:2] > 0.3).all()
    with_background = sites.assign_coords(background=("site", np.arange(400) > 300))
    assert gm.evaluation.probe(encoder, with_background).about["loss"]["name"] == "weighted-bce"
    with pytest.raises(SelectionError, match="a probe has 'auto'"):
        gm.evaluation.probe(encoder, sites, loss="maxent")
