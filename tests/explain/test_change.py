"""Change of predictions: an exact computer on mixed cubes, groups that do not change, gaps, and differences."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import make_cube
from test_laws import without

import geomiam as gm
from geomiam.errors import GridError, SelectionError, SettingError

GROUPS = ("climate", "cover", "landsat")


@pytest.fixture(scope="module")
def model(small_model):
    return small_model("group")


@pytest.fixture(scope="module")
def earlier(cube):
    return cube.isel(y=slice(0, 4), x=slice(0, 5))


@pytest.fixture(scope="module")
def later(model, earlier):
    """Other values and other gaps of three groups; terrain and the others are equal."""
    values = make_cube(seed=5).isel(y=slice(0, 4), x=slice(0, 5))
    names = [v for g in GROUPS for v in model.schema.modalities[g].variables]
    return earlier.assign({n: values[n] for n in names})


@pytest.fixture(scope="module")
def causes(model, earlier, later):
    return gm.explain.change(earlier, later, model=model)


def test_values_equal_an_exact_computer_on_mixed_cubes(model, earlier, later, causes):
    pytest.importorskip("shapiq")
    from shapiq.game_theory import ExactComputer

    def predictions(coalition):
        names = [v for g, c in zip(GROUPS, coalition) if c for v in model.schema.modalities[g].variables]  # fmt: skip
        mixed = gm.predict(earlier.assign({n: later[n] for n in names}), model)["suitability"]
        return mixed.sel(species="species 1").values.ravel()

    table = {c: predictions(c) for c in np.ndindex(2, 2, 2)}
    has_values = np.isfinite(table[0, 0, 0]) & np.isfinite(table[1, 1, 1])
    assert 10 < has_values.sum() < has_values.size
    actual = causes["shapley"].sel(species="species 1")
    for cell in np.flatnonzero(has_values)[::3]:

        def game(coalitions, cell=cell):
            return np.array([table[tuple(map(int, c))][cell] for c in coalitions])

        exact = ExactComputer(game, n_players=3)("SV", 1)
        expected = [exact[(i,)] for i in range(3)]
        values = [actual.sel(group=g).values.ravel()[cell] for g in GROUPS]
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_values_add_up_to_the_change_of_the_maps(model, earlier, later, causes):
    first, second = (gm.predict(c, model)["suitability"] for c in (earlier, later))
    is_both = first.notnull() & second.notnull()
    np.testing.assert_array_equal(causes["shapley"].notnull().all("group"), is_both)
    total = causes["shapley"].sum("group", skipna=False)
    np.testing.assert_allclose(total, (second - first).where(is_both), atol=1e-5)
    assert float(np.abs(total).max()) > 0.01
    equal_groups = [g for g in causes["group"].values if g not in GROUPS]
    assert (causes["shapley"].sel(group=equal_groups).where(is_both, 0) == 0).all()
    climate = (earlier["bio1"].notnull() | earlier["bio12"].notnull()) ^ (
        later["bio1"].notnull() | later["bio12"].notnull()
    )
    assert climate.any()
    np.testing.assert_array_equal(causes["one_sided"].values & 1, climate)


def test_the_way_back_has_the_opposite_sign_and_chunks_do_not_matter(model, earlier, later, causes):
    back = gm.explain.change(later.chunk(x=3), earlier.chunk(y=2), model=model)
    assert back["shapley"].chunks is not None
    np.testing.assert_allclose(back["shapley"], -causes["shapley"], atol=2e-6)


def test_common_uses_only_what_both_have(model, earlier, later):
    hidden = without(later, model, "landsat")
    common = gm.explain.change(earlier, hidden, model=model, common=True)
    without_landsat = gm.explain.change(
        without(earlier, model, "landsat"), hidden, model=model, common=True
    )
    np.testing.assert_allclose(common["shapley"], without_landsat["shapley"], atol=1e-6)
    landsat = common["shapley"].sel(group="landsat")
    assert (landsat.fillna(0) == 0).all() and landsat.notnull().any()


def test_clamped_values_have_the_change_of_clamped_maps(model, earlier):
    far = earlier.assign(bio1=earlier["bio1"] + 1000)
    options = gm.PredictOptions(clamp=True)
    clamped_maps = gm.explain.change(earlier, far, model=model, options=options)["later"]
    expected = gm.predict(far, model, options=options)["suitability"]
    np.testing.assert_allclose(
        clamped_maps, expected.where(clamped_maps.notnull()), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(clamped_maps, gm.predict(far, model)["suitability"], equal_nan=True)


def test_two_that_do_not_belong_together_are_refused(model, earlier, later, sites):
    with pytest.raises(GridError, match="different grids"):
        gm.explain.change(earlier, later.isel(x=slice(1, None)), model=model)
    with pytest.raises(GridError, match="different sites"):
        gm.explain.change(sites.isel(site=[0, 1]), sites.isel(site=[1, 2]), model=model)
    with pytest.raises(GridError, match="one of the two has sites"):
        gm.explain.change(earlier, sites, model=model)
    first = gm.shapley(earlier, model)
    with pytest.raises(SettingError, match="different scales"):
        gm.explain.difference(first, gm.shapley(earlier, model, scale="logit"))
    with pytest.raises(SettingError, match="different models"):
        gm.explain.difference(first, first.assign_attrs(model_id="another"))
    with pytest.raises(SelectionError, match="group labels"):
        gm.explain.difference(first, gm.shapley(earlier, model, groups=["climate"]))
    with pytest.raises(SettingError, match="earlier= has no Shapley values"):
        gm.explain.difference(gm.predict(earlier, model), first)


def test_a_difference_adds_up_with_its_parts_by_name(model, earlier, later):
    first, second = (gm.shapley(c, model, order=2) for c in (earlier, later))
    mixed = second.isel(group=slice(None, None, -1), species=[2, 0, 1])
    parts = gm.explain.difference(first, mixed)
    total = parts["base_value"] + parts["shapley"].sum("group", skipna=False)
    np.testing.assert_allclose(total, parts["later"] - parts["earlier"], atol=1e-5)
    np.testing.assert_array_equal(parts["later"], second["suitability"])
    np.testing.assert_array_equal(parts["interaction"], second["interaction"] - first["interaction"])  # fmt: skip
    one_sided = parts["one_sided"].sel(group="cover")
    np.testing.assert_array_equal(one_sided, earlier["landcover"].notnull() ^ later["landcover"].notnull())  # fmt: skip


def test_a_difference_of_two_species_adds_up(model, earlier):
    values = gm.shapley(earlier, model)
    parts = gm.explain.difference(values.sel(species=["species 0"]), values.sel(species=["species 2"]))  # fmt: skip
    assert parts["species"].values.tolist() == ["species 2 - species 0"]
    total = parts["base_value"] + parts["shapley"].sum("group", skipna=False)
    expected = values["suitability"].sel(species="species 2") - values["suitability"].sel(species="species 0")  # fmt: skip
    np.testing.assert_allclose(total.squeeze("species"), expected, atol=1e-5)
    assert float(abs(parts["base_value"]).max()) > 0


def test_additive_models_attribute_a_change_as_their_contributions_differ(sites, earlier, later):
    from conftest import train_small

    model = train_small(sites, "linear")
    causes = gm.explain.change(earlier, later, model=model, scale="logit")
    first, second = (gm.shapley(c, model, scale="logit") for c in (earlier, later))
    parts = gm.explain.difference(first, second)["shapley"]
    np.testing.assert_allclose(causes["shapley"], parts, atol=1e-5)
    xr.testing.assert_allclose(causes["later"], second["suitability"].where(first["suitability"].notnull()), atol=1e-5)  # fmt: skip
