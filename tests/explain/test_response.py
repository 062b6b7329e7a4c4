"""Response curves: equal to scikit-learn's partial dependence and to predictions of changed sites."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import train_small

import geomiam as gm
from geomiam.sklearn import MiamClassifier


@pytest.fixture(scope="module")
def ensemble(sites) -> gm.Model:
    return train_small(sites, "group+sum")


def by_hand(model, sites, changes, **options) -> np.ndarray:
    """Mean prediction ``(species,)`` after predictors of all sites were set."""
    changed_sites = sites.assign(
        {k: xr.full_like(sites[k], v).assign_attrs(sites[k].attrs) for k, v in changes.items()}
    )
    maps = gm.predict(changed_sites, model, **options)["suitability"]
    return maps.transpose("site", "species").values.mean(0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("using", [None, ["climate", "terrain"]])
def test_a_curve_is_the_mean_prediction_of_changed_sites(model, sites, using):
    grid = [-1.0, 0.0, 2.0]
    options = gm.explain.ResponseOptions(grid={"bio1": grid}, sites=10**6)
    curve = gm.explain.response(model, sites, "bio1", using=using, options=options)
    names = [
        v for m in using or model.schema.modalities for v in model.schema.modalities[m].variables
    ]
    observed = np.any(
        [sites[n].notnull().any(set(sites[n].dims) - {"site"}) for n in names], axis=0
    )
    part = sites.isel(site=observed)
    assert curve.sizes["site"] == observed.sum()
    for x in grid:
        expected = by_hand(model, part, {"bio1": x}, using=using)
        np.testing.assert_allclose(curve["response"].sel(bio1=x), expected, atol=2e-6)


def test_a_surface_is_the_mean_prediction_of_changed_sites(ensemble, sites):
    grid = {"bio1": [-1.0, 1.0], "landcover": [1, 3]}
    options = gm.explain.ResponseOptions(grid=grid, sites=10**6)
    surface = gm.explain.response(ensemble, sites, ["bio1", "landcover"], options=options)
    assert surface["response"].dims == ("species", "bio1", "landcover")
    part = sites.isel(site=_any_observed(sites, ensemble))
    expected = by_hand(ensemble, part, {"bio1": 1.0, "landcover": 3})
    np.testing.assert_allclose(surface["response"].sel(bio1=1, landcover=3), expected, atol=2e-6)


def _any_observed(sites, model) -> np.ndarray:
    arrays = [sites[n] for n in model.schema.variables]
    return np.any([a.notnull().any(set(a.dims) - {"site"}) for a in arrays], axis=0)


def test_individual_curves_average_to_the_curve(ensemble, sites):
    options = gm.explain.ResponseOptions(points=5, individual=True)
    curve = gm.explain.response(ensemble, sites, "bio1", options=options)
    np.testing.assert_allclose(curve["individual"].mean("site"), curve["response"], atol=1e-6)
    assert curve["individual"].dims == ("site", "species", "bio1")


@pytest.mark.filterwarnings("ignore")
def test_alone_is_the_prediction_from_the_predictor_alone(model, sites):
    curve = gm.explain.response(model, None, "bio1", kind="alone")
    data = xr.Dataset({"bio1": ("site", curve["bio1"].values.astype("f4"), {"units": "degC"})})
    expected = gm.predict(data, model, using="bio1")["suitability"].transpose("species", "site")
    np.testing.assert_allclose(curve["response"], expected, atol=2e-6)
    low, high = curve["training_range"].sel(variable="bio1").values
    assert (curve["bio1"][0], curve["bio1"][-1]) == (low, high)
    assert low in sites["bio1"].values and high in sites["bio1"].values
    assert not curve["outside_bio1"].any()


def test_alone_equals_partial_of_the_predictor_alone(ensemble, sites):
    options = gm.explain.ResponseOptions(points=4)
    partial = gm.explain.response(ensemble, sites, "bio1", using="bio1", options=options)
    alone = gm.explain.response(ensemble, sites, "bio1", kind="alone", options=options)
    np.testing.assert_allclose(partial["response"], alone["response"], atol=1e-6)
    assert {"rug", "quantiles", "presence"} <= set(alone.data_vars) and "individual" not in alone


def test_curves_equal_the_partial_dependence_of_scikit_learn():
    from sklearn.inspection import partial_dependence

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = x[:, 0] - x[:, 1] ** 2 > 0
    x[rng.random(x.shape) < 0.2] = np.nan
    network = {"width": 8, "heads": 2, "fusion": "sum", "members": 1}
    estimator = MiamClassifier(network=network, training={"steps": 60}, random_state=0).fit(x, y)
    values = np.array([-1.0, -0.2, 0.5, 1.5])
    expected = partial_dependence(
        estimator,
        x,
        features=[0],
        custom_values={0: values},
        response_method="predict_proba",
        kind="both",
    )
    data = xr.Dataset({f"x{i}": ("site", column) for i, column in enumerate(x.T)})
    options = gm.explain.ResponseOptions(grid={"x0": values}, individual=True)
    curve = gm.explain.response(estimator.model_, data, "x0", options=options)
    part = _any_observed(data, estimator.model_)
    individual = expected["individual"][0]
    np.testing.assert_allclose(curve["individual"][:, 0], individual[part], atol=1e-5)
    if part.all():
        np.testing.assert_allclose(curve["response"][0], expected["average"][0], atol=1e-5)
    np.testing.assert_allclose(curve["response"][0], individual[part].mean(0), atol=1e-5)


def test_the_mean_over_members_is_the_model(ensemble, sites):
    from geomiam.data.sites.table import read_arrays
    from geomiam.inference.members import features_block, member_values

    visible = np.ones(ensemble.layout.size, bool)
    part = sites.isel(site=_any_observed(sites, ensemble))
    block = ensemble.encode(read_arrays(part, ensemble.schema))
    features = features_block(ensemble, block, visible=visible)
    rows = torch.as_tensor(features)
    logits = member_values(ensemble, rows, np.array([2, 0]), "logit").detach().numpy()
    assert len(logits) == 2
    expected = gm.predict(part, ensemble, scale="logit", species=["species 2", "species 0"])
    np.testing.assert_allclose(logits.mean(0), expected["suitability"].T, atol=1e-5)
    curve = gm.explain.response(ensemble, sites, "bio1", scale="logit")
    assert (curve["spread"] > 0).any()


def test_one_member_has_no_spread(sites):
    model = train_small(sites, "sum")
    assert not gm.explain.response(model, sites, "bio1")["spread"].any()


def test_classes_and_angles_have_their_values(ensemble, sites):
    curve = gm.explain.response(ensemble, sites, "landcover")
    assert curve["landcover"].values.tolist() == [1, 2, 3]
    assert json.loads(curve["landcover"].attrs["class_names"]) == ["water", "wood", "field"]
    angle = gm.explain.response(ensemble, sites, "aspect")
    assert (angle["aspect"][0], angle["aspect"][-1]) == (0, 360)
    np.testing.assert_allclose(angle["response"][:, 0], angle["response"][:, -1], atol=1e-5)
    assert angle["training_range"].isnull().all()


def test_values_outside_the_training_range_are_marked(ensemble, sites):
    options = gm.explain.ResponseOptions(grid={"bio1": [0.0, 99.0]})
    curve = gm.explain.response(ensemble, sites, "bio1", options=options)
    assert curve["outside_bio1"].values.tolist() == [False, True]
    wide = sites.assign(bio1=sites["bio1"] * 3)
    wide["bio1"].attrs = sites["bio1"].attrs
    beyond = gm.explain.response(ensemble, wide, "bio1")["outside_bio1"].values
    assert beyond[0] and beyond[-1] and not beyond.all()


def test_quantiles_and_rug_are_those_of_the_sites(ensemble, sites):
    curve = gm.explain.response(ensemble, sites, "bio1")
    values = curve["rug"].sel(variable="bio1").values
    expected = np.nanquantile(values, curve["quantile"].values)
    np.testing.assert_allclose(curve["quantiles"].sel(variable="bio1"), expected)
    assert curve["presence"].sizes == {"site": len(values), "species": 3}


def test_cells_of_a_cube_are_sampled(ensemble, cube):
    options = gm.explain.ResponseOptions(sites=20, points=3, rng=1)
    curve = gm.explain.response(ensemble, cube, "bio1", options=options)
    assert curve.attrs["sites"] == 20 and "presence" not in curve
    lazy = gm.explain.response(ensemble, cube.chunk(y=5), "bio1", options=options)
    xr.testing.assert_allclose(lazy["response"], curve["response"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"variables": "bio1", "kind": "both"}, "partial"),
        ({"variables": "landsat"}, "one value per place"),
        ({"variables": "climate"}, "one value per place"),
        ({"variables": ["bio1", "bio12", "slope"]}, "one or two"),
        ({"variables": "bio1", "using": "terrain"}, "not all in using"),
        ({"variables": "bio1", "kind": "alone", "using": "climate"}, "leave using= out"),
        ({"variables": "bio7"}, "did you mean"),
    ],
)
def test_wrong_settings_name_the_remedy(ensemble, sites, arguments, message):
    with pytest.raises(gm.errors.SelectionError, match=message):
        gm.explain.response(ensemble, sites, **arguments)


def test_partial_needs_sites(ensemble):
    with pytest.raises(gm.errors.SelectionError, match="data=sites"):
        gm.explain.response(ensemble, None, "bio1")


def test_figures(ensemble, sites):
    import matplotlib.pyplot as plt

    options = gm.explain.ResponseOptions(points=4, individual=True)
    wide = sites.assign(bio1=(sites["bio1"] * 2).assign_attrs(sites["bio1"].attrs))
    for variables in ("bio1", "landcover", ["bio1", "bio12"], ["bio1", "landcover"]):
        result = gm.explain.response(ensemble, wide, variables, options=options)
        ax = gm.plot.response(result, species="species 1")
        assert "species 1" in ax.get_title()
        ax.figure.canvas.draw()
        _, user_axes = plt.subplots()
        assert gm.plot.response(result, ax=user_axes) is user_axes
    plt.close("all")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", ["maxent", "cross-entropy"])
@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_curves_of_every_link_are_mean_predictions(sites, loss, scale):
    one_each = np.eye(3, dtype="f4")[np.arange(sites.sizes["site"]) % 3]
    labels = sites["presence"].copy(data=one_each) if loss == "cross-entropy" else sites["presence"]
    network = train_small(sites.assign(presence=labels), "sum", loss=loss)
    options = gm.explain.ResponseOptions(grid={"bio1": [0.5]}, sites=10**6)
    names = ["species 2", "species 0"]
    curve = gm.explain.response(network, sites, "bio1", species=names, scale=scale, options=options)
    part = sites.isel(site=_any_observed(sites, network))
    expected = by_hand(network, part, {"bio1": 0.5}, species=names, scale=scale)
    np.testing.assert_allclose(curve["response"].sel(bio1=0.5), expected, atol=2e-5)
    assert curve["species"].values.tolist() == names
