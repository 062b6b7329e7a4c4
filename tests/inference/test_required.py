"""Cells that lack required data or are masked stay NaN, and cells with few groups are reported."""

import warnings

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.errors import FewGroups, SelectionError

SPECIES = "Quercus 0"


@pytest.fixture(scope="module")
def trained_model():
    """A model of the groups climate and soil, which 9 of 10 training sites have."""
    return gm.fit(tiny_sites(120), network=TINY_NETWORK, training=quick(epochs=1), rng=0)


@pytest.fixture(scope="module")
def coast():
    """A cube of 6 × 10 cells: climate everywhere, soil from column 4, land (0 or 1) from column 5."""
    rng = np.random.default_rng(0)
    column = np.broadcast_to(np.arange(10), (6, 10))
    layer = rng.normal(size=(6, 6, 10)).astype("float32")
    return xr.Dataset(
        {
            "bio1": (("y", "x"), layer[0]),
            "clay": (("y", "x"), np.where(column < 4, np.nan, layer[1])),
            "ndvi": (("month", "y", "x"), np.where(column < 4, np.nan, layer[2:])),
            "land": (("y", "x"), (column >= 5).astype("float32")),
        },
        coords={"y": 50.0 - np.arange(6), "x": np.arange(10.0), "month": [1, 4, 7, 10]},
    ).odc.assign_crs("EPSG:4326")


def columns(layer):
    """Columns with a number in each row."""
    return np.flatnonzero(layer.notnull().all("y")).tolist()


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroups)
        return function(*args, **options)


@pytest.mark.parametrize("name", ["soil", "clay", "ndvi[month=4]", ["climate", "soil"]])
@pytest.mark.parametrize("lazy", [False, True])
def test_cells_without_the_required_group_are_nan(trained_model, coast, name, lazy):
    unmasked_map = quietly(gm.predict, coast, trained_model)["suitability"].sel(species=SPECIES)
    assert columns(unmasked_map) == list(range(10))
    ds = coast.chunk(y=2, x=3) if lazy else coast
    maps = gm.predict(ds, trained_model, options=gm.PredictOptions(require=name))
    assert (maps.suitability.chunks is not None) == lazy
    suitability = maps["suitability"].sel(species=SPECIES)
    assert columns(suitability) == list(range(4, 10)) and suitability[:, :4].isnull().all()
    np.testing.assert_allclose(suitability[:, 4:], unmasked_map[:, 4:], atol=1e-6)
    assert (maps["observed"] > 0).all()


def test_explanations_are_left_out_at_the_same_cells(trained_model, coast):
    explanation = gm.shapley(
        coast,
        trained_model,
        options=gm.explain.ShapleyOptions(require="soil", mask="land"),
        species=SPECIES,
    )
    for name in ("shapley", "suitability"):
        layer = explanation[name].sel(species=SPECIES)
        assert layer[..., :5].isnull().all() and layer[..., 5:].notnull().all()
    assert explanation["base_value"].notnull().all()
    assert explanation["suitability"].encoding.get("grid_mapping") == "spatial_ref"


def test_a_mask_is_a_layer_of_the_cube_or_of_sites(trained_model, coast):
    maps = gm.predict(coast, trained_model, options=gm.PredictOptions(mask="land"))
    assert columns(maps["suitability"].sel(species=SPECIES)) == list(range(5, 10))
    gaps = coast.assign(land=coast["bio1"].where(coast["x"] > 6))  # NaN masks too
    maps = gm.predict(gaps, trained_model, options=gm.PredictOptions(mask="land"))
    assert columns(maps["suitability"].sel(species=SPECIES)) == [7, 8, 9]
    sites = tiny_sites(20).assign(land=("site", np.arange(20) % 2))
    suitability = gm.predict(sites, trained_model, options=gm.PredictOptions(mask="land"))[
        "suitability"
    ].sel(species=SPECIES)
    np.testing.assert_array_equal(suitability.notnull(), np.arange(20) % 2)


def test_a_stored_map_leaves_out_the_same_cells(trained_model, coast, tmp_path):
    needs = {"require": ["soil"], "mask": "land"}
    unmasked_map = gm.predict(coast, trained_model, options=gm.PredictOptions(**needs))
    blocks, options = coast.chunk(y=3, x=4), gm.MapOptions(**needs)
    stored_map = gm.write_map(blocks, trained_model, tmp_path / "m.zarr", options=options)
    np.testing.assert_allclose(stored_map["suitability"], unmasked_map["suitability"], atol=1e-6)
    assert columns(stored_map["suitability"].sel(species=SPECIES)) == list(range(5, 10))


def test_names_that_cannot_be_required_are_refused(trained_model, coast):
    with pytest.raises(SelectionError, match="sol"):
        gm.predict(coast, trained_model, options=gm.PredictOptions(require="sol"))
    with pytest.raises(SelectionError, match=r"require=\['soil'\] lies outside using="):
        gm.predict(coast, trained_model, using="climate", options=gm.PredictOptions(require="soil"))
    with pytest.raises(SelectionError, match=r"mask='sea' is not a layer .*'land'"):
        gm.predict(coast, trained_model, options=gm.PredictOptions(mask="sea"))
    with pytest.raises(SelectionError, match=r"mask='ndvi' is not a layer"):
        gm.predict(coast, trained_model, options=gm.PredictOptions(mask="ndvi"))


def test_the_model_stores_the_coverage_of_its_training_sites(trained_model):
    sites = tiny_sites(120)
    expected_coverage = gm.coverage(sites, trained_model.schema)
    cells = int(expected_coverage["cells"]) / 120
    for name, share in trained_model.about["coverage"].items():
        assert share == pytest.approx(
            float(expected_coverage["observed"].sel(modality=name)) * cells, abs=1e-6
        )


@pytest.fixture(scope="module")
def four_groups():
    """A model of four groups, complete at every site."""
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(4)]
    sites = xr.Dataset(
        {n: ("site", rng.normal(size=80).astype("f4"), {"modality": f"group {n}"}) for n in names},
        {"x": ("site", rng.uniform(0, 9, 80)), "y": ("site", rng.uniform(40, 49, 80))},
        {"crs": "EPSG:4326"},
    )
    sites["presence"] = (("site", "species"), (sites["v0"].values > 0)[:, None].astype("f4"))
    sites = sites.assign_coords(species=["a"])
    model = gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1), rng=0)
    return model, sites


def test_many_cells_with_few_groups_are_reported(four_groups, tmp_path):
    """A coarse layer that goes past the coast: 30 cells of 100 have one group of four."""
    model, _ = four_groups
    rng = np.random.default_rng(1)
    sea = xr.DataArray(np.arange(10) < 3, dims="x")
    cube = xr.Dataset(
        {f"v{i}": (("y", "x"), rng.normal(size=(10, 10)).astype("f4")) for i in range(4)},
        {"y": 49.0 - np.arange(10), "x": np.arange(10.0)},
    ).odc.assign_crs("EPSG:4326")
    cube = cube.assign({f"v{i}": cube[f"v{i}"].where(~sea) for i in (1, 2, 3)})
    message = r"30 of 100 predicted cells \(30%\) have less than half .* \(4\.0 of 4 on average\).*require="
    with pytest.warns(FewGroups, match=message):
        gm.predict(cube, model)
    with pytest.warns(FewGroups, match=message):
        gm.shapley(cube, model)
    with pytest.warns(FewGroups, match=message):
        gm.write_map(cube, model, tmp_path / "m.zarr", chunks={"y": 4, "x": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewGroups)
        gm.predict(cube, model, options=gm.PredictOptions(require="group v2"))
        gm.predict(cube, model, using="group v0")  # groups that are not requested are not missing
        gm.predict(cube.isel(x=slice(3, None)), model)
        two = cube.assign(v1=cube["v0"])  # two of four are half
        gm.predict(two, model)


def test_sites_are_scored_without_advice_that_evaluation_does_not_take(four_groups):
    model, sites = four_groups
    bare = sites.assign({f"v{i}": sites[f"v{i}"] * np.nan for i in (1, 2, 3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewGroups)
        gm.predict(bare, model)
