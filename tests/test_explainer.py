"""Amortised explanations: they add up, absent groups get nothing, and the error told is the error made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import quick, tiny_sites

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.evaluation.explainer import _asked
from geomiam.inference.coalitions import members, shapley_weights
from geomiam.networks.explainer import Explainer

TOKEN = gm.NetworkConfig(fusion="token", width=16, heads=2, depth=2, frequencies=6, sigma=0.3)


@pytest.fixture(scope="module")
def sites():
    ds = tiny_sites(300, species=3, gaps=0.1)
    gone = xr.DataArray(np.arange(300) % 7 == 0, dims="site")
    ndvi = ds["ndvi"].where(~gone).assign_attrs(modality="greenness")
    return ds.assign(ndvi=ndvi)


@pytest.fixture(scope="module", params=["probability", "logit"])
def taught(request, sites):
    model = gm.fit(sites, network=TOKEN, training=quick(epochs=6), rng=0)
    return (
        model,
        gm.fit_explainer(model, sites, scale=request.param, epochs=60, rng=0),
        request.param,
    )


def test_values_add_up_and_predictions_stay(taught, sites):
    model, made, scale = taught
    told = gm.shapley(sites, made, method="amortised", scale=scale)
    total = told["base_value"] + told["shapley"].sum("group", skipna=False)
    seen = told["suitability"].notnull()
    assert float(np.abs(total - told["suitability"]).max()) < 1e-5
    before = gm.predict(sites, model, scale=scale)["suitability"]
    xr.testing.assert_allclose(told["suitability"], before, rtol=0, atol=1e-5)
    for group, names in {"climate": ["bio1"], "greenness": ["ndvi"]}.items():
        gone = told["shapley"].sel(group=group)
        absent = sites[names[0]].isnull()
        absent = (absent.all("month") if "month" in absent.dims else absent) & seen.all("species")
        assert absent.any() and (gone.where(absent, 0) == 0).all()


def test_it_learns_and_tells_how_far_it_is_off(taught, sites):
    model, made, scale = taught
    known = made.about["explainer"]
    exact = gm.shapley(sites, model, scale=scale)["shapley"]
    told = gm.shapley(sites, made, method="amortised", scale=scale)
    off = float(np.abs(told["shapley"] - exact).mean())
    untaught = float(np.abs(exact - exact.mean("site")).mean())
    assert off < 0.6 * untaught, (off, untaught)
    assert known["mean_absolute_error"] == pytest.approx(off, rel=0.6)
    assert known["explained_variance"] > 0.3 and known["sites"] >= 30
    assert json.loads(told.attrs["explainer"]) == known
    assert told.attrs["method"] == "amortised"


def test_it_is_saved_with_the_model(taught, sites, tmp_path):
    _, made, scale = taught
    again = gm.load_model(made.save(tmp_path / "model"))
    assert again.id == made.id
    asked = {"method": "amortised", "scale": scale}
    xr.testing.assert_identical(gm.shapley(sites, again, **asked), gm.shapley(sites, made, **asked))


def test_what_it_cannot_tell_is_refused(taught, sites):
    model, made, scale = taught
    other = {"probability": "logit", "logit": "probability"}[scale]
    cases = [
        ((sites, model), {}, "has no explainer; train one with"),
        ((sites, made), {"scale": other}, f"on the scale '{scale}', asked for '{other}'"),
        ((sites, made), {"groups": {"a": "climate"}, "scale": scale}, "knows the groups"),
        ((sites, made), {"using": ["climate"], "scale": scale}, "knows the groups"),
    ]
    for words, options, said in cases:
        with pytest.raises(SelectionError, match=said):
            gm.shapley(*words, method="amortised", **options)
    with pytest.raises(SelectionError, match="method='guess'; use exact, latin, amortised"):
        gm.shapley(sites, model, method="guess")
    group = gm.fit(
        sites, network=TOKEN.model_copy(update={"fusion": "group"}), training=quick(epochs=1)
    )
    with pytest.raises(SelectionError, match="is for token fusion"):
        gm.fit_explainer(group, sites)


@pytest.mark.parametrize("groups", [2, 4, 6])
def test_the_regression_of_all_coalitions_has_shapley_values_as_its_solution(groups):
    """Charnes et al. 1988: with the constraint that they add up."""
    rng = np.random.default_rng(0)
    every = members(groups)
    v = rng.normal(size=2**groups)
    member, weight = _asked(groups, rng)
    gains = v[(member << np.arange(groups)).sum(1)] - v[0]
    a, b = member.astype(float), weight[:, None]
    normal = np.block(
        [[a.T @ (b * a), np.ones((groups, 1))], [np.ones((1, groups)), np.zeros((1, 1))]]
    )
    solved = np.linalg.solve(normal, np.append(a.T @ (weight * gains), v[-1] - v[0]))[:groups]
    np.testing.assert_allclose(solved, shapley_weights(groups).T @ v, atol=1e-10)
    assert len(every) - 2 == len(member)


def test_drawn_coalitions_come_in_pairs():
    member, weight = _asked(9, np.random.default_rng(0))
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
