"""The laws of prediction: each holds for both fusions and every kind of predictor."""

from __future__ import annotations

import itertools

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geomiam as gm
from geomiam.data.coverage import observed_cells
from geomiam.errors import MemoryRefused, MissingModality, MissingVariable, SelectionError

SAME = {"rtol": 0, "atol": 2e-6}
"""Float tolerance between roads that batch the same sums differently."""

FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_same_map(a: xr.Dataset, b: xr.Dataset) -> None:
    for name in ("suitability", "shapley"):
        if name in a:
            np.testing.assert_allclose(a[name].values, b[name].values, **SAME)
    np.testing.assert_array_equal(a["observed"].values, b["observed"].values)


def without(cube: xr.Dataset, model: gm.Model, modality: str) -> xr.Dataset:
    """The cube with a modality set to NaN."""
    hidden_part = model.schema.modalities[modality].variables
    return cube.assign({v: xr.full_like(cube[v], np.nan) for v in hidden_part})


@pytest.fixture(scope="module")
def whole_map(model, crop) -> xr.Dataset:
    """The maps of the corner."""
    return gm.predict(crop, model)


# 1. NaN in, number out.


def test_every_cell_with_anything_gets_a_number_and_every_empty_cell_nan(model, crop, whole_map):
    any_observed = observed_cells(crop).values
    assert 0 < any_observed.sum() < any_observed.size
    suitability = whole_map["suitability"]
    np.testing.assert_array_equal(np.isfinite(suitability).all("species"), any_observed)
    np.testing.assert_array_equal(np.isfinite(suitability).any("species"), any_observed)
    assert ((suitability >= 0) & (suitability <= 1)).where(any_observed, True).all()


def test_the_output_has_the_shape_of_the_input(model, crop, whole_map):
    assert whole_map["suitability"].dims == ("species", "y", "x")
    assert whole_map["observed"].shape == (crop.sizes["y"], crop.sizes["x"])


def test_observed_bits_name_the_groups_that_have_a_finite_value(model, crop, whole_map):
    names = whole_map["observed"].attrs["flag_meanings"].split()
    for name, mask in zip(names, whole_map["observed"].attrs["flag_masks"], strict=True):
        variables = model.schema.modalities[name].variables
        finite = np.zeros(whole_map["observed"].shape, bool)
        for v in variables:
            for y, x in itertools.product(range(crop.sizes["y"]), range(crop.sizes["x"])):
                finite[y, x] |= bool(np.isfinite(crop[v].isel(y=y, x=x).values).any())
        np.testing.assert_array_equal(
            (whole_map["observed"].values & mask) > 0, finite, err_msg=name
        )


@FEW
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_any_pattern_of_gaps_is_predicted(model, crop, seed, share):
    rng = np.random.default_rng(seed)
    small = crop.isel(y=slice(0, 4), x=slice(0, 5))
    with_gaps = small.map(lambda v: v.where(rng.random(v.shape) >= share))
    maps = gm.predict(with_gaps, model)
    np.testing.assert_array_equal(
        np.isfinite(maps["suitability"]).all("species"), observed_cells(with_gaps).values
    )


# 2. Three roads, one result.


@pytest.mark.parametrize(
    "modality", ["climate", "terrain", "cover", "landsat", "sentinel2", "embedding"]
)
def test_nan_using_and_hiding_are_the_same(model, crop, modality):
    other_variables = [m for m in model.schema.modalities if m != modality]
    as_nan = gm.predict(without(crop, model, modality), model)
    as_using = gm.predict(crop, model, using=other_variables)
    with pytest.warns(MissingModality, match=modality):
        as_absent = gm.predict(
            crop.drop_vars(list(model.schema.modalities[modality].variables)), model
        )
    assert_same_map(as_nan, as_using)
    assert_same_map(as_nan, as_absent)


def test_a_hidden_token_inside_the_network_is_the_same_as_nan_in_the_data(model, sites):
    from geomiam.inference.engine import predict_block
    from geomiam.tokens.select import visible_tokens

    block = encode_sites(sites, model)
    visible = ~visible_tokens(model.layout, ["climate", "landsat[band=red]"])
    values = [v.copy() for v in block.values]
    for part, value in zip(model.layout.parts, values, strict=True):
        value[:, ~visible[part.start : part.start + part.size]] = np.nan
    from geomiam.tokens.encode import TokenArrays

    as_nan = TokenArrays(tuple(values), block.observed & visible)
    all_tokens, index = np.ones_like(visible), np.arange(3)
    np.testing.assert_allclose(
        predict_block(model, block, visible=visible, species=index),
        predict_block(model, as_nan, visible=all_tokens, species=index),
        **SAME,
    )


# 3. Hidden values are inert.


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38])
def test_what_is_hidden_changes_nothing_forward(model, crop, poison):
    clean = gm.predict(crop, model, using=["terrain", "cover"])
    dirty = crop.assign(
        {v: xr.full_like(crop[v], poison) for v in ("bio1", "landsat", "chip", "embedding")}
    )
    assert_same_map(clean, gm.predict(dirty, model, using=["terrain", "cover"]))


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
def test_what_is_hidden_changes_nothing_backward(model, sites, poison):
    block = encode_sites(sites.isel(site=slice(40)), model)
    hidden = torch.zeros(block.observed.shape, dtype=torch.bool)
    hidden[:, ::2] = True
    visible = torch.as_tensor(block.observed) & ~hidden

    def gradients(fill: float) -> list[torch.Tensor]:
        values = []
        for part, v in zip(model.layout.parts, block.values, strict=True):
            out = ~visible[:, part.start : part.start + part.size, None].numpy()
            values.append(torch.as_tensor(np.where(out, np.float32(fill), v)))
        model.network.train()
        model.network.zero_grad()
        torch.manual_seed(0)
        model.network(values, visible).sum().backward()
        model.network.eval()
        return [p.grad.clone() for p in model.network.parameters() if p.grad is not None]

    for clean, dirty in zip(gradients(0.0), gradients(poison), strict=True):
        assert torch.isfinite(dirty).all()
        torch.testing.assert_close(clean, dirty, rtol=0, atol=0)


# 4. Chunks do not matter.


@FEW
@given(y=st.integers(1, 4), x=st.integers(1, 5))
def test_any_chunking_gives_the_map_of_numpy(model, crop, whole_map, y, x):
    window = {"y": slice(4), "x": slice(5)}
    lazy = gm.predict(crop.isel(window).chunk(y=y, x=x), model)
    assert_same_map(whole_map.isel(window), lazy.compute(scheduler="synchronous"))


@pytest.mark.slow
def test_four_workers_give_the_same_explanation(model, crop):
    eager = gm.shapley(crop, model)
    with dask.config.set(scheduler="threads", num_workers=4):
        lazy = gm.shapley(crop.chunk(y=4, x=5), model).compute()
    assert_same_map(eager, lazy)


def test_variables_may_be_chunked_differently_and_some_not_at_all(model, crop, whole_map):
    mixed = crop.assign(bio1=crop["bio1"].chunk(y=3), landsat=crop["landsat"].chunk(time=2, x=5))
    assert_same_map(whole_map, gm.predict(mixed, model).compute())


# 5. Window = crop.


@FEW
@given(y=st.integers(0, 4), x=st.integers(0, 5), h=st.integers(1, 4), w=st.integers(1, 4))
def test_predicting_a_window_is_cropping_the_prediction(model, crop, whole_map, y, x, h, w):
    window = {"y": slice(y, y + h), "x": slice(x, x + w)}
    assert_same_map(gm.predict(crop.isel(window), model), whole_map.isel(window))


def test_a_single_cell_is_predicted_as_in_the_map(model, crop, whole_map):
    cell = gm.predict(crop.isel(y=[3], x=[4]), model)
    np.testing.assert_allclose(
        cell["suitability"].squeeze(), whole_map["suitability"].isel(y=3, x=4), **SAME
    )


def test_a_cell_without_dims_is_predicted_too(model, crop, whole_map):
    cell = gm.predict(crop.isel(y=3, x=4), model)
    assert cell["suitability"].dims == ("species",)
    np.testing.assert_allclose(cell["suitability"], whole_map["suitability"].isel(y=3, x=4), **SAME)


# 6. Names, never positions.


@FEW
@given(order=st.permutations(range(8)))
def test_the_order_of_variables_does_not_matter(model, crop, whole_map, order):
    names = list(crop.data_vars)
    shuffled_crop = crop[[names[i] for i in order]]
    assert_same_map(whole_map, gm.predict(shuffled_crop, model))


def test_the_order_of_labels_and_dims_does_not_matter(model, crop, whole_map):
    turned_crop = crop.isel(time=[3, 0, 6, 1, 5, 2, 4], band=[1, 0]).transpose(
        "x", "time", "y", ...
    )
    maps = gm.predict(turned_crop, model).transpose("species", "y", "x")
    assert_same_map(whole_map, maps)


def test_species_are_chosen_by_name(model, crop, whole_map):
    two_species = gm.predict(crop, model, species=["species 2", "species 0"])
    assert two_species["species"].values.tolist() == ["species 2", "species 0"]
    expected = whole_map["suitability"].sel(species=two_species["species"])
    np.testing.assert_allclose(two_species["suitability"], expected, **SAME)


# 8. Lazy stays lazy.


def test_building_the_graph_reads_and_computes_nothing(model, crop):
    def explode(block):
        raise AssertionError("a chunk was read while the graph was built")

    lazy = crop.chunk(y=3, x=4).map(
        lambda v: v.copy(
            data=da.map_blocks(
                explode, v.data, dtype=v.dtype, meta=np.empty((0,) * v.ndim, v.dtype)
            )
        )
    )
    maps, explanation = gm.predict(lazy, model), gm.shapley(lazy, model)
    assert maps["suitability"].chunks is not None and explanation["shapley"].chunks is not None
    with pytest.raises(AssertionError, match="a chunk was read"):
        maps.compute(scheduler="synchronous")


def test_variables_outside_using_are_not_read(model, crop):
    def explode(block):
        raise AssertionError("read")

    lazy = crop.chunk(y=3, x=4)
    chip = lazy["chip"].copy(
        data=da.map_blocks(explode, lazy["chip"].data, meta=np.empty((0,) * 4, np.float32))
    )
    other_variables = [m for m in model.schema.modalities if m != "sentinel2"]
    assert (
        np.isfinite(gm.predict(lazy.assign(chip=chip), model, using=other_variables)["suitability"])
        .any()
        .compute()
    )


def test_numpy_stays_numpy(model, crop):
    assert isinstance(gm.predict(crop, model)["suitability"].data, np.ndarray)


# 9. Memory is a promise.


def test_a_block_over_the_limit_is_refused_with_the_numbers(model, crop):
    with pytest.raises(
        MemoryRefused, match=r"a chunk of 42 cells needs .* over the limit of .*ds\.chunk\(y="
    ):
        gm.predict(crop.chunk(y=-1, x=-1), model, options=gm.PredictOptions(memory_limit="10 kB"))
    gm.predict(crop.chunk(y=2, x=2), model, options=gm.PredictOptions(memory_limit="10 kB"))


# 11. CRS, coordinates, order, attrs survive.


def test_crs_and_coordinates_are_those_of_the_input(model, crop):
    for maps in (
        gm.predict(crop, model),
        gm.shapley(crop, model),
        gm.predict(crop.chunk(y=4), model),
    ):
        assert maps.odc.geobox == crop.odc.geobox
        assert maps["spatial_ref"].chunks is None
        xr.testing.assert_identical(
            maps["x"].drop_vars("spatial_ref"), crop["x"].drop_vars("spatial_ref")
        )
        assert maps["suitability"].encoding["grid_mapping"] == "spatial_ref"
        assert maps.attrs["model_id"] == model.id


def test_results_carry_their_own_attributes_and_no_predictors(model, crop):
    maps = gm.predict(crop, model, using="cover")
    expected = {"long_name", "comment", "units", "scale", "ancillary_variables"}
    assert set(maps["suitability"].attrs) == expected
    assert set(maps["observed"].attrs) == {"long_name", "flag_masks", "flag_meanings"}


@pytest.mark.parametrize("dims", [("lat", "lon"), ("latitude", "longitude")])
def test_other_names_of_spatial_dims_are_kept(model, crop, whole_map, dims):
    renamed_crop = crop.rename(y=dims[0], x=dims[1])
    maps = gm.predict(renamed_crop, model)
    assert maps["suitability"].dims == ("species", *dims)
    np.testing.assert_allclose(maps["suitability"], whole_map["suitability"], **SAME)


def test_sites_are_predicted_as_the_cells_they_lie_on(model, cube, sites):
    at_sites = gm.predict(sites, model)
    assert at_sites["suitability"].dims == ("species", "site")
    on_map = gm.predict(cube, model)["suitability"].stack(site=("y", "x"))
    np.testing.assert_allclose(at_sites["suitability"], on_map, **SAME)


def test_a_tree_of_modalities_is_predicted_as_the_dataset(model, crop, whole_map):
    tree = xr.DataTree.from_dict(
        {m.name: crop[list(m.variables)] for m in model.schema.modalities.values()}
    )
    assert_same_map(whole_map, tree.miam.predict(model))


# The face, and errors.


def test_the_accessor_is_the_function(model, crop):
    xr.testing.assert_identical(crop.miam.predict(model), gm.predict(crop, model))
    xr.testing.assert_identical(crop.miam.shapley(model), gm.shapley(crop, model))


def test_part_of_a_modality_can_be_used(model, crop):
    one_year = gm.predict(crop, model, using=["landsat[time=2018]"])
    only = crop.map(lambda v: xr.full_like(v, np.nan)).assign(
        landsat=crop["landsat"].where(crop["time"].dt.year == 2018)
    )
    assert_same_map(one_year, gm.predict(only, model))
    centre = gm.predict(crop, model, using="sentinel2[centre]")
    assert int(centre["observed"].max()) == 1 << list(model.schema.groups).index("sentinel2")


def test_errors_name_what_is_wrong_and_the_nearest_name(model, crop):
    with pytest.raises(SelectionError, match=r"'climat' is no group.*did you mean 'climate'"):
        gm.predict(crop, model, using=["climat"])
    with pytest.raises(SelectionError, match="scale 'log' is not one of probability, logit"):
        gm.predict(crop, model, scale="log")
    with pytest.raises(SelectionError, match=r"groups \['cover'\] lie outside using="):
        gm.shapley(crop, model, groups=["cover"], using="climate")
    with pytest.raises(SelectionError, match="an empty selection shows nothing"):
        gm.predict(crop, model, using=[])
    with pytest.raises(SelectionError, match=r"\['Species 1'\] are not in the model; did you mean"):
        gm.predict(crop, model, species="Species 1")
    with pytest.raises(MissingVariable, match=r"variables \['bio1'\].*rename"):
        gm.predict(crop.rename(bio1="bio_1"), model)


def encode_sites(sites: xr.Dataset, model: gm.Model):
    from geomiam.data.predictors import predictors
    from geomiam.tokens.encode import encode

    arrays = {
        k: v.transpose("site", ...).values for k, v in predictors(sites, model.schema).items()
    }
    return encode(arrays, layout=model.layout, scaler=model.scaler)
