"""Two stages, and other models as a start: what is loaded is what was learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.errors import ArtifactError, LabelError, SelectionError
from geomiam.evaluation.evaluate import Masked
from geomiam.model.model import Model
from geomiam.training import loop as loop_module
from geomiam.training import members as fit_setup
from geomiam.training import members as members_module
from geomiam.training import warm_start as warm_start_module
from geomiam.training.warm_start import joint_settings, load_body

LATE = TINY_NETWORK.model_copy(update={"fusion": "late"})
HELD = np.arange(100) % 5 == 0


def fit(sites: xr.Dataset | None = None, *, network=LATE, warm_start=True, **settings) -> Model:
    options = {k: settings.pop(k) for k in ("masking", "rng", "checkpoint") if k in settings}
    return gm.fit(
        tiny_sites() if sites is None else sites,
        network=network,
        training=quick(**settings),
        validation=HELD,
        warm_start=warm_start,
        **options,
    )


def unpaired() -> xr.Dataset:
    """Sites of which the first half has the climate and the second the soil, never both."""
    sites, first = tiny_sites(gaps=0.0), xr.DataArray(np.arange(100) < 50, dims="site")
    soil = {v: sites[v].where(~first) for v in ("clay", "ndvi")}
    return sites.assign(bio1=sites["bio1"].where(first), **soil)


def watched(monkeypatch, module) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of the weights that each run begins with, by the name of the run."""
    first_weights, real = {}, module.train

    def train(run, checkpoint=None, *, name="training"):
        first_weights[name] = {k: v.clone() for k, v in run.module.state_dict().items()}
        return real(run, checkpoint, name=name)

    monkeypatch.setattr(module, "train", train)
    return first_weights


def branches_of(monkeypatch) -> list[Model]:
    """The branches of a run, filled when they are loaded."""
    loaded_branches, real = [], warm_start_module.load_branches

    def load(model, branches):
        loaded_branches.extend(branches)
        real(model, branches)

    monkeypatch.setattr(warm_start_module, "load_branches", load)
    return loaded_branches


def state(model: Model) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Two stages.


@pytest.mark.parametrize("loss", ["weighted-bce", "maxent"])
def test_without_joint_epochs_the_logits_are_the_mean_of_the_uni_modal_logits(loss, monkeypatch):
    branches = branches_of(monkeypatch)
    model, sites = fit(joint_epochs=0, loss=loss), tiny_sites()
    alone = np.stack([Masked(b).scores(sites[[*b.schema.variables]]) for b in branches])
    assert np.isnan(alone).any() and len(branches) == 2
    with np.errstate(invalid="ignore"):
        expected = np.nanmean(alone, 0)
    np.testing.assert_allclose(Masked(model).scores(sites), expected, rtol=0, atol=2e-6)
    for branch in branches:
        (modality,) = branch.schema.modalities
        scores = Masked(model).scores(sites, using=[modality])
        np.testing.assert_allclose(scores, Masked(branch).scores(sites), rtol=0, atol=2e-6)


def test_the_joint_stage_begins_at_the_ensemble(monkeypatch):
    ensemble = fit(joint_epochs=0)
    first_weights = watched(monkeypatch, warm_start_module)
    fit()
    assert list(first_weights) == ["climate", "soil", "joint"]
    assert same(first_weights["joint"], state(ensemble))


def test_a_branch_is_the_uni_modal_model_that_fit_would_train(monkeypatch):
    """From the same weights, on the sites that have the modality, with nothing hidden."""
    first_weights = watched(monkeypatch, warm_start_module)
    branches = branches_of(monkeypatch)
    fit(joint_epochs=0)
    sites = tiny_sites()
    has = np.isfinite(sites["bio1"].values)

    real_untrained = Model.untrained
    member_seed = int(np.random.default_rng(0).integers(2**31))
    seed = int(np.random.default_rng([member_seed, 0]).integers(2**31))

    def same_weights(*args, **kwargs):
        model = real_untrained(*args, **kwargs)
        model.network.load_state_dict(first_weights["climate"])
        return model

    def same_seed(model, module, table, masking, config, _, task):
        return loop_module.Run(model, module, table, masking, config, seed, task)

    monkeypatch.setattr(Model, "untrained", same_weights)
    monkeypatch.setattr(fit_setup, "Run", same_seed)
    alone = gm.fit(
        sites.isel(site=has)[["bio1", "presence"]],
        network=LATE,
        training=quick(),
        validation=HELD[has],
        masking=gm.masking.Constant(0.0),
        rng=0,
    )
    for name, weight in alone.network.state_dict().items():
        torch.testing.assert_close(branches[0].network.state_dict()[name], weight)


def test_each_branch_learns_from_all_sites_that_have_its_modality(monkeypatch):
    sites = unpaired()
    model = fit(sites)
    report = model.about["warm_start"]["branches"][0]
    assert [report[m]["sites"] for m in ("climate", "soil")] == [40, 40]
    assert all(0 <= t["best_epoch"] < t["epochs"] <= 3 for t in report.values())
    assert np.isfinite(Masked(model).scores(tiny_sites(gaps=0.0))).all()

    branches = branches_of(monkeypatch)
    fit(sites, joint_epochs=0)
    reversed_labels = sites["presence"].values.copy()
    reversed_labels[50:] = 1 - reversed_labels[50:]  # where there is soil only
    fit(sites.assign(presence=(("site", "species"), reversed_labels)), joint_epochs=0)
    climate, soil, climate_again, soil_again = (state(b) for b in branches)
    assert not same(soil, soil_again)
    body = {k for k in climate if k != "head.bias"}
    assert all(torch.equal(climate[k], climate_again[k]) for k in body)


def test_the_settings_of_the_joint_stage():
    settings = joint_settings(gm.TrainingConfig(lr=0.02, epochs=7))
    assert (settings.epochs, settings.lr) == (7, pytest.approx(0.002))
    settings = joint_settings(gm.TrainingConfig(joint_epochs=2, joint_lr=0.5))
    assert (settings.epochs, settings.lr) == (2, 0.5)
    assert len(fit(joint_epochs=2).history) == 3  # the first row is the ensemble


def test_where_training_together_only_harms_the_ensemble_is_kept():
    ensemble = fit(joint_epochs=0)
    harmed_model = fit(joint_epochs=3, joint_lr=30.0)  # no weight survives such steps
    assert harmed_model.about["best_epochs"] == [0]
    assert same(state(harmed_model), state(ensemble))
    last = fit(joint_epochs=3, joint_lr=30.0, keep="last")
    assert last.about["best_epochs"] == [3] and not same(state(last), state(ensemble))
    better_model = fit(joint_epochs=3, joint_lr=0.01)
    best_epoch = better_model.about["best_epochs"][0]
    scores = better_model.history[["auc_climate", "auc_soil", "auc_all"]].mean(axis=1)
    assert scores[best_epoch] == scores.max()


def test_masking_of_the_joint_stage_is_a_random_subset_unless_another_is_set():
    assert fit().about["masking"] == {"name": "subset", "per_sample": True}
    ramp = gm.masking.Ramp(gm.masking.RandomSubset(), warmup=1, over=2)
    model = fit(masking=ramp)
    assert gm.masking.named(**model.about["masking"]) == ramp
    rate = 1 / 3  # of two modalities, each is hidden in one of three subsets
    np.testing.assert_allclose(model.history["p_soil"], [0, 0, 0, rate / 2], atol=1e-12)


def test_members_have_separate_branches():
    model = fit(network=LATE.model_copy(update={"members": 2}), joint_epochs=1)
    assert len(model.about["warm_start"]["branches"]) == 2
    first, second = model.network.members
    weight = "fusion.branches.0.norm.weight"
    assert not torch.equal(first.state_dict()[weight], second.state_dict()[weight])


def test_the_ensemble_reports_its_scores_and_is_saved(tmp_path):
    model = fit(joint_epochs=0)
    assert set(model.about["validation_auc"]) == {"climate", "soil", "all"}
    report = model.about["warm_start"]["branches"][0]
    np.testing.assert_allclose(model.about["validation_auc"]["climate"], report["climate"]["auc"])
    assert gm.load_model(model.save(tmp_path / "model")).id == model.id
    gm.plot.training(model.history)


@pytest.mark.parametrize("saves", [1, 4, 8])
def test_an_interrupted_warm_start_goes_on_and_ends_bit_equal(tmp_path, monkeypatch, saves):
    """Three epochs of either branch, three of both: stopped in each of the stages."""
    full_run, real, saved_states = fit(), loop_module.save_checkpoint, []

    def save(*args, **kwargs):
        real(*args, **kwargs)
        saved_states.append(1)
        if len(saved_states) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            fit(checkpoint=tmp_path / "run")
    resumed_model = fit(checkpoint=tmp_path / "run")
    assert resumed_model.id == full_run.id
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"branch-0", "branch-1", "joint"}
    with pytest.raises(ArtifactError, match="of other data or settings"):
        fit(checkpoint=tmp_path / "run", rng=1)


def test_branches_are_for_late_fusion_only():
    with pytest.raises(SelectionError, match="found fusion='group': pass network=NetworkConfig"):
        fit(network=TINY_NETWORK)


def test_a_modality_that_no_training_site_has_is_refused():
    sites = tiny_sites()
    sites["bio1"] = sites["bio1"].where(xr.DataArray(HELD, dims="site"))
    with pytest.raises(LabelError, match="no training site has any of 'climate'"):
        fit(sites)


def test_a_branch_without_validation_sites_is_scored_where_it_trains():
    sites = tiny_sites()
    sites["bio1"] = sites["bio1"].where(xr.DataArray(~HELD, dims="site"))
    report = fit(sites, joint_epochs=0).about["warm_start"]["branches"][0]
    assert 0 <= report["climate"]["auc"] <= 1


# Another model as a start.


@pytest.mark.parametrize("fusion", ["group", "token", "sum", "late"])
def test_a_model_is_the_start_with_head_and_scaler(fusion, monkeypatch):
    network = TINY_NETWORK.model_copy(update={"fusion": fusion})
    start = fit(network=network, warm_start=False)
    first_weights = watched(monkeypatch, members_module)
    sites = tiny_sites(seed=5)
    model = fit(sites, network=None, warm_start=start)
    assert same(first_weights["training"], state(start))
    scaler, start_scaler = ({**m.scaler.to_dict(), "limits": None} for m in (model, start))
    assert scaler == start_scaler  # the limits are those of the new sites
    assert model.config == start.config and not same(state(model), state(start))
    assert model.about["warm_start"] == {"model_id": start.id}


def test_the_head_comes_along_by_the_names_of_species(monkeypatch):
    start = fit(network=TINY_NETWORK, warm_start=False)
    first_weights = watched(monkeypatch, members_module)
    swapped_sites = tiny_sites().isel(species=[1, 0])
    fit(swapped_sites, network=None, warm_start=start)
    assert torch.equal(first_weights["training"]["head.weight"], start.network.head.weight[[1, 0]])
    two_species = tiny_sites().assign_coords(species=["Fagus", "Quercus 1"])
    fit(two_species, network=None, warm_start=start)
    assert not torch.equal(first_weights["training"]["head.weight"], start.network.head.weight)
    body = {k: v for k, v in state(start).items() if k.startswith("members.")}
    assert all(torch.equal(first_weights["training"][k], v) for k, v in body.items())


def test_every_member_starts_from_its_own(monkeypatch):
    network = TINY_NETWORK.model_copy(update={"members": 2})
    start = fit(network=network, warm_start=False)
    scores, real = [], members_module.load_start

    def load(model, donor, member):
        real(model, donor, member)
        scores.append(Masked(model).scores(tiny_sites()))

    monkeypatch.setattr(members_module, "load_start", load)
    fit(network=None, warm_start=start)
    np.testing.assert_allclose(np.mean(scores, 0), Masked(start).scores(tiny_sites()), atol=1e-5)


def test_a_body_without_species_can_be_loaded():
    start = fit(network=TINY_NETWORK, warm_start=False)
    schema, parts = start.schema, {"scaler": start.scaler, "config": start.config}
    three_species = Model.untrained(schema, species=["one", "two", "three"], **parts)
    head = three_species.network.head.weight.clone()
    load_body(three_species.network, start.network)
    assert torch.equal(three_species.network.head.weight, head)
    assert same(
        three_species.network.members[0].state_dict(), start.network.members[0].state_dict()
    )


def test_a_start_of_another_schema_or_network_is_refused():
    start = fit(network=TINY_NETWORK, warm_start=False)
    sites = tiny_sites().drop_vars("clay")
    with pytest.raises(SelectionError, match=r"another schema \(climate: bio1; soil: clay ndvi\)"):
        gm.fit(sites, gm.infer_schema(sites), training=quick(), warm_start=start)
    with pytest.raises(SelectionError, match=r"another network: fusion='group' .*width=8"):
        fit(network=LATE.model_copy(update={"width": 16}), warm_start=start)
