"""Maps on disk: complete or absent, readable by others, and worth the same as in memory."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import geomiam as gm


@pytest.fixture(scope="module")
def model(either_model):
    return either_model


@pytest.fixture(scope="module")
def stored_map(model, cube, tmp_path_factory):
    """An explained map, written from a chunked cube."""
    path = tmp_path_factory.mktemp("maps") / "why.zarr"
    gm.write_map(cube.chunk(y=5, x=6), model, path, shapley=True, progress=False)
    return path


def test_a_stored_map_is_the_map_in_memory(model, cube, stored_map):
    plain = xr.open_zarr(stored_map, consolidated=False, decode_coords="all").load()
    explanation = gm.shapley(cube, model)
    for name in ("suitability", "shapley", "base_value"):
        np.testing.assert_allclose(plain[name], explanation[name], atol=2e-6)
    np.testing.assert_array_equal(plain["observed"], explanation["observed"])
    assert plain["species"].values.tolist() == list(model.species)
    assert plain["group"].values.tolist() == list(model.schema.groups)


def test_everyday_options_of_a_map_are_arguments(model, cube, tmp_path):
    group, chunks = next(iter(model.schema.modalities)), {"y": 4, "x": 5}
    path = tmp_path / "map.zarr"
    store = gm.write_map(cube, model, path, using=group, chunks=chunks, progress=False)
    assert store["suitability"].data.chunksize[-2:] == (4, 5)
    expected = gm.predict(cube, model, using=group)["suitability"]
    np.testing.assert_allclose(store["suitability"], expected, atol=2e-6)


def test_a_stored_map_follows_cf(model, stored_map):
    plain = xr.open_zarr(stored_map, consolidated=False)  # as a mismatch opens it
    assert plain.attrs["Conventions"] == "CF-1.11"
    assert plain.attrs["model_id"] == model.id
    for name in ("suitability", "shapley", "observed"):
        assert plain[name].attrs.get("grid_mapping") == "spatial_ref"
    flags = plain["observed"].attrs
    assert flags["flag_masks"] == [1 << i for i in range(len(flags["flag_meanings"].split()))]
    assert plain["observed"].dtype == np.uint8
    assert plain["suitability"].attrs["ancillary_variables"] == "observed"
    assert "_FillValue" not in plain["suitability"].attrs
    assert plain["shapley"].attrs["scale"] == "probability"


def test_crs_and_transform_survive_zarr_and_gdal(cube, stored_map, tmp_path):
    import rasterio
    import rioxarray  # noqa: F401

    plain = xr.open_zarr(stored_map, consolidated=False, decode_coords="all").load()
    plain["suitability"].isel(species=0).rio.to_raster(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.transform.almost_equals(cube.odc.geobox.affine)
        np.testing.assert_array_equal(raster.read(1), plain["suitability"].isel(species=0).values)
        assert np.isnan(raster.nodata)


def test_a_map_that_fails_half_way_leaves_nothing(model, cube, tmp_path):
    def fail_late(block, block_info=None):
        if block_info[0]["array-location"][0][0] > 0:
            raise OSError("the disk is gone")
        return block

    lazy = cube.chunk(y=4)
    broken_model = lazy.assign(
        bio1=lazy["bio1"].copy(
            data=da.map_blocks(
                fail_late, lazy["bio1"].data, dtype="f4", meta=np.empty((0, 0), "f4")
            )
        )
    )
    with pytest.raises(OSError, match="the disk is gone"):
        gm.write_map(broken_model, model, tmp_path / "map.zarr", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused_before_anything_is_computed(
    model, cube, tmp_path, monkeypatch
):
    from geomiam.maps import write as maps

    (tmp_path / "map.zarr").mkdir()
    monkeypatch.setattr(maps, "template", None)
    with pytest.raises(gm.errors.OutputExists):
        gm.write_map(cube, model, tmp_path / "map.zarr")


def test_the_graph_of_equal_maps_has_equal_names(model, cube, tmp_path):
    """Dask can only share or reuse work whose names are functions of data and model."""
    lazy = cube.chunk(y=6)
    model.save(tmp_path / "model")
    again = gm.load_model(tmp_path / "model")
    names = [gm.predict(lazy, m)["suitability"].data.name for m in (model, model, again)]
    assert len(set(names)) == 1
    assert gm.predict(lazy, model, using="climate")["suitability"].data.name not in names


def test_figures_are_drawn_from_outputs(model, cube):
    import matplotlib

    matplotlib.use("Agg")
    maps, explanation = gm.predict(cube, model), gm.shapley(cube, model)
    ax = gm.plot.suitability(maps, species="species 1", points=np.array([[5.5, 49.0]]))
    drawn_values = ax.collections[0].get_array()
    np.testing.assert_array_equal(
        np.ma.filled(drawn_values, np.nan).ravel(),
        maps["suitability"].sel(species="species 1").values.ravel(),
    )
    panels = gm.plot.shapley(explanation)
    assert [
        a.get_title().split("\n")[0] for a in panels[: explanation.sizes["group"]]
    ] == explanation["group"].values.tolist()
    lines = gm.plot.training(model.history)[0].lines
    assert [line.get_label() for line in lines] == [*model.schema.modalities, "all"]
