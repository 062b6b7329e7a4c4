"""Amortised explanations: they add up, absent groups get nothing, and the error predicted is the error made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import quick, tiny_sites

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.explain.explainer import _coalitions
from geomiam.inference.terms import members, shapley_weights
from geomiam.networks.network import Explainer

TOKEN = gm.NetworkConfig(fusion="token", width=16, heads=2, depth=2, frequencies=6, sigma=0.3)


@pytest.fixture(scope="module")
def sites():
    ds = tiny_sites(300, species=3, gaps=0.1)
    hidden_groups = xr.DataArray(np.arange(300) % 7 == 0, dims="site")
    ndvi = ds["ndvi"].where(~hidden_groups).assign_attrs(modality="greenness")
    return ds.assign(ndvi=ndvi)


@pytest.fixture(scope="module", params=["probability", "logit"])
def taught(request, sites):
    model = gm.fit(sites, network=TOKEN, training=quick(epochs=6), rng=0)
    return (
        model,
        gm.explain.fit_explainer(model, sites, scale=request.param, epochs=60, rng=0),
        request.param,
    )


def test_values_add_up_and_predictions_stay(taught, sites):
    model, explained_model, scale = taught
    amortised_values = gm.shapley(
        sites, explained_model, options=gm.explain.ShapleyOptions(method="amortised"), scale=scale
    )
    total = amortised_values["base_value"] + amortised_values["shapley"].sum("group", skipna=False)
    has_token = amortised_values["suitability"].notnull()
    assert float(np.abs(total - amortised_values["suitability"]).max()) < 1e-5
    before = gm.predict(sites, model, scale=scale)["suitability"]
    xr.testing.assert_allclose(amortised_values["suitability"], before, rtol=0, atol=1e-5)
    for group, names in {"climate": ["bio1"], "greenness": ["ndvi"]}.items():
        hidden_groups = amortised_values["shapley"].sel(group=group)
        absent = sites[names[0]].isnull()
        absent = (absent.all("month") if "month" in absent.dims else absent) & has_token.all(
            "species"
        )
        assert absent.any() and (hidden_groups.where(absent, 0) == 0).all()


def test_it_learns_and_reports_its_error(taught, sites):
    model, explained_model, scale = taught
    report = explained_model.about["explainer"]
    exact = gm.shapley(sites, model, scale=scale)["shapley"]
    amortised_values = gm.shapley(
        sites, explained_model, options=gm.explain.ShapleyOptions(method="amortised"), scale=scale
    )
    off = float(np.abs(amortised_values["shapley"] - exact).mean())
    untaught = float(np.abs(exact - exact.mean("site")).mean())
    assert off < 0.6 * untaught, (off, untaught)
    assert report["mean_absolute_error"] == pytest.approx(off, rel=0.6)
    assert report["explained_variance"] > 0.3 and report["sites"] >= 30
    assert json.loads(amortised_values.attrs["explainer"]) == report
    assert amortised_values.attrs["method"] == "amortised"


def test_it_is_saved_with_the_model(taught, sites, tmp_path):
    _, explained_model, scale = taught
    again = gm.load_model(explained_model.save(tmp_path / "model"))
    assert again.id == explained_model.id
    options = gm.explain.ShapleyOptions(method="amortised")
    arguments = {"options": options, "scale": scale}
    xr.testing.assert_identical(
        gm.shapley(sites, again, **arguments), gm.shapley(sites, explained_model, **arguments)
    )


def test_what_it_cannot_explain_is_refused(taught, sites):
    model, explained_model, scale = taught
    other_scale = {"probability": "logit", "logit": "probability"}[scale]
    cases = [
        ((sites, model), {}, "has no explainer; train one with"),
        (
            (sites, explained_model),
            {"scale": other_scale},
            f"on the scale '{scale}', found scale='{other_scale}'",
        ),
        (
            (sites, explained_model),
            {"groups": {"a": "climate"}, "scale": scale},
            "supports the groups",
        ),
        ((sites, explained_model), {"using": ["climate"], "scale": scale}, "supports the groups"),
    ]
    for words, options, message in cases:
        with pytest.raises(SelectionError, match=message):
            gm.shapley(*words, options=gm.explain.ShapleyOptions(method="amortised"), **options)
    with pytest.raises(SelectionError, match="method='guess'; use exact, latin, amortised"):
        gm.shapley(sites, model, options=gm.explain.ShapleyOptions(method="guess"))
    group = gm.fit(
        sites, network=TOKEN.model_copy(update={"fusion": "group"}), training=quick(epochs=1)
    )
    with pytest.raises(SelectionError, match="is for token fusion"):
        gm.explain.fit_explainer(group, sites)


@pytest.mark.parametrize("groups", [2, 4, 6])
def test_the_regression_of_all_coalitions_has_shapley_values_as_its_solution(groups):
    """Charnes et al. 1988: with the constraint that they add up."""
    rng = np.random.default_rng(0)
    all_groups = members(groups)
    v = rng.normal(size=2**groups)
    member, weight = _coalitions(groups, rng)
    gains = v[(member << np.arange(groups)).sum(1)] - v[0]
    a, b = member.astype(float), weight[:, None]
    normal = np.block(
        [[a.T @ (b * a), np.ones((groups, 1))], [np.ones((1, groups)), np.zeros((1, 1))]]
    )
    solution = np.linalg.solve(normal, np.append(a.T @ (weight * gains), v[-1] - v[0]))[:groups]
    np.testing.assert_allclose(solution, shapley_weights(groups).T @ v, atol=1e-10)
    assert len(all_groups) - 2 == len(member)


def test_drawn_coalitions_come_in_pairs():
    member, weight = _coalitions(9, np.random.default_rng(0))
    assert member.shape == (64, 9) and (weight == 1).all()
    np.testing.assert_array_equal(member[32:], ~member[:32])
    size = member.sum(1)
    assert size.min() >= 1 and size.max() <= 8
    assert np.isin(size, [1, 8]).mean() > 0.35  # the kernel's mass is at the ends: 0.46


def test_gains_are_shared_out_among_those_present():
    torch.manual_seed(0)
    explainer = Explainer(3, width=5, species=2, hidden=8)
    present = torch.tensor([[True, True, False], [False, False, False]])
    gain = torch.randn(2, 2)
    values = explainer(torch.randn(2, 3, 5), torch.randn(2, 5), present, gain)
    torch.testing.assert_close(values[0].sum(0), gain[0])
    assert (values[0, 2] == 0).all() and (values[1] == 0).all()


def test_the_reported_error_is_that_of_the_sites_held_out(taught, sites):
    _, explained_model, scale = taught
    bare = sites.drop_vars("presence")
    is_test = gm.splits.hold_out_blocks(bare, share=0.2, rng=np.random.default_rng(0))
    kept_rows = sites.isel(site=is_test)
    exact = gm.shapley(
        kept_rows, explained_model, scale=scale, options=gm.explain.ShapleyOptions(method="exact")
    )["shapley"].dropna("site", how="all")
    amortised_values = gm.shapley(
        kept_rows,
        explained_model,
        scale=scale,
        options=gm.explain.ShapleyOptions(method="amortised"),
    )["shapley"]
    amortised_values = amortised_values.dropna("site", how="all")
    report = explained_model.about["explainer"]
    assert report["sites"] == exact.sizes["site"] < 256
    off, exact = (
        (amortised_values - exact).values,
        exact.transpose("site", "group", "species").values,
    )
    assert report["mean_absolute_error"] == pytest.approx(np.abs(off).mean(), rel=1e-3)
    assert report["mean_absolute_value"] == pytest.approx(np.abs(exact).mean(), rel=1e-3)


def test_lessons_come_from_the_other_sites_once_whole_and_once_with_groups_hidden(
    sites, monkeypatch
):
    from geomiam.explain import explainer as module

    model = gm.fit(sites, network=TOKEN, training=quick(epochs=1), rng=0)
    training_data = []
    monkeypatch.setattr(module, "_train", lambda explainer, task, **_: training_data.append(task))
    gm.explain.fit_explainer(model, sites, holdout=0.2, rng=0)
    is_test = gm.splits.hold_out_blocks(
        sites.drop_vars("presence"), share=0.2, rng=np.random.default_rng(0)
    )
    observed = gm.predict(sites, model)["observed"].values > 0
    n = int((~is_test & observed).sum())
    task = training_data[0]
    assert len(task.states) == 2 * n
    full_value, hidden = task.present[:n], task.present[n:]
    assert hidden.any(1).float().mean() > 0.9 and hidden.sum() < full_value.sum()
    # v(S) − v(∅) of the coalition of one group is the prediction from it alone.
    logits = {"scale": "probability"}
    groups = list(model.schema.groups)
    base = gm.shapley(sites, model, **logits)["base_value"].values
    for row, member in enumerate(task.member.numpy()):
        if member.sum() == 1:
            expected = gm.predict(
                sites,
                model,
                using=groups[int(member.argmax())],
                options=gm.PredictOptions(empty="base"),
            )
            answers = expected["suitability"].transpose("site", "species").values - base
            mean = answers[~is_test & observed].mean(0)
            np.testing.assert_allclose(task.gains[row, :n].mean(0), mean, atol=1e-4)
    monkeypatch.setattr(module, "VALUES", 2 * 10 * len(task.member) * 3)
    gm.explain.fit_explainer(model, sites, rng=0)
    assert len(training_data[1].states) == 2 * 10


def test_the_loss_weighs_coalitions_and_counts_in_deviations_of_the_gain():
    from geomiam.explain.explainer import TrainingData, _loss

    torch.manual_seed(0)
    n, groups, species = 6, 3, 2
    member = torch.tensor([[True, False, True], [False, True, False]])
    values, gain = torch.randn(n, groups, species), torch.randn(n, species) * 3
    gains, weight = torch.randn(2, n, species), torch.tensor([1.0, 5.0])
    task = TrainingData(*[torch.zeros(n, 1)] * 3, gains, gain, member, weight)
    rows = torch.tensor([0, 2, 5])
    total = 0.0
    for c in range(2):
        for r in rows.tolist():
            for s in range(species):
                amortised_values = sum(
                    float(values[r, g, s]) for g in range(groups) if member[c, g]
                )
                off = (amortised_values - float(gains[c, r, s])) / float(gain[:, s].std())
                total += float(weight[c]) * off**2
    loss = _loss(lambda states, *_: values[rows], task, rows)
    assert float(loss) == pytest.approx(total / (2 * 3 * species), rel=1e-5)


def test_a_row_never_has_all_groups_hidden():
    from geomiam.explain.explainer import _doubled
    from geomiam.tokens.encode import TokenArrays

    masks = np.repeat(np.eye(4, dtype=bool), 2, axis=1)
    block = TokenArrays((np.zeros((500, 8, 1), np.float32),), np.ones((500, 8), bool))
    left = _doubled(block, masks, np.random.default_rng(0)).observed[500:]
    groups = left.reshape(500, 4, 2)
    assert (groups.any(2) == groups.all(2)).all()  # groups go as a whole
    count = groups.any(2).sum(1)
    assert count.min() == 1 and count.max() == 4 and set(count) == {1, 2, 3, 4}
