"""Background: drawn where there are data, evenly by area, without replacement, and counted."""

import warnings

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geomiam.data.sites import draw
from geomiam.data.sites.background import add_background
from geomiam.data.sites.background_area import BackgroundArea
from geomiam.data.sites.draw import draw_cells
from geomiam.data.sites.sites import sample
from geomiam.data.sites.store import open_sites, write_sites
from geomiam.errors import LabelError, SelectionError, SettingError
from geomiam.geo.crs import crs_of

AREA = BackgroundArea(within="90 km", outside_envelope="cell")
BOX = GeoBox.from_bbox((10, 50, 14, 53), "EPSG:4326", resolution=0.1)


def cube():
    rows, cols = np.indices(BOX.shape).astype("float32")
    cell = 1000 * rows + cols
    cell[:, :5] = np.nan
    series = np.stack([cell, cell + 1e6], axis=0)
    series[:, :20] = np.nan
    dims = ("lat", "lon")
    coords = {**xr_coords(BOX, dims=dims), "month": [1, 2]}
    return xr.Dataset({"cell": (dims, cell), "series": (("month", *dims), series)}, coords=coords)


CANDIDATES = 30 * 35


def sites(*, keep=()):
    table = pd.DataFrame(
        {
            "species": ["oak", "oak", "ash", "elm", "elm"],
            "presence": [1, 1, 1, 0, np.nan],
            "lon": [12.0, 13.0, 12.0, 12.5, 13.5],
            "lat": 51.0,
            "age": 5.0,
        }
    )
    return sample(cube(), table, keep=keep)


def test_random_background_is_appended_as_absence_of_every_species():
    out = add_background(sites(keep="age"), cube(), n=100, rng=0)
    assert out.sizes["site"] == 104
    assert out.background.dtype == bool and out.background.sum() == 100
    assert not out.background[:4].any() and out.background[4:].all()
    assert (out.presence[4:] == 0).all()
    xr.testing.assert_equal(out.isel(site=slice(4)).drop_vars("background"), sites(keep="age"))
    assert out.age[4:].isnull().all() and out.age.dtype == np.float32
    assert out.attrs["background_kind"] == "random"
    assert out.attrs["background_candidates"] == CANDIDATES and out.attrs["background_drawn"] == 100


def test_background_carries_the_cells_predictors_and_centres():
    out = add_background(sites(), cube(), n=200, rng=1).isel(site=slice(4, None))
    at = cube().sel(lat=out.lat, lon=out.lon, method="nearest")
    np.testing.assert_array_equal(out.cell, at.cell)
    np.testing.assert_array_equal(out.series, at.series.transpose("site", "month"))
    assert out.cell.notnull().all() and out.series.isnull().any()
    assert crs_of(out).epsg == 4326


def test_no_cell_is_drawn_twice_and_n_is_capped_with_a_warning():
    with pytest.warns(UserWarning, match="only 1050 cells have data, fewer than the n=5000"):
        out = add_background(sites(), cube(), n=5000, rng=0)
    drawn_cells = out.cell.values[4:]
    assert len(drawn_cells) == len(set(drawn_cells)) == CANDIDATES
    assert set(drawn_cells) == set(cube().cell.values[cube().cell.notnull()])
    assert add_background(sites(), cube(), n=None).sizes["site"] == CANDIDATES + 4


@settings(max_examples=5, deadline=None)
@given(chunks=st.tuples(st.integers(3, 40), st.integers(3, 40)), seed=st.integers(0, 9))
def test_chunks_do_not_matter_and_the_seed_does(chunks, seed):
    lazy = cube().chunk(lat=chunks[0], lon=chunks[1])
    with_points = add_background(sites(), cube(), n=50, rng=seed)
    xr.testing.assert_identical(add_background(sites(), lazy, n=50, rng=seed), with_points)
    other_background = add_background(sites(), cube(), n=50, rng=np.random.default_rng(seed + 1))
    assert not np.array_equal(other_background.cell, with_points.cell)


@pytest.mark.parametrize("settings", [{}, {"bias": "weight"}, {"bias": "80 km"}, {"area": AREA}])
def test_a_lazy_cube_is_never_loaded_whole(settings):
    largest = []

    def watching(dsk, keys, **kwargs):
        results = dask.get(dsk, keys, **kwargs)
        flat = [results]
        while flat:
            item = flat.pop()
            flat += item if isinstance(item, (list, tuple)) else []
            largest.append(item.nbytes if isinstance(item, np.ndarray) else 0)
        return results

    with dask.config.set(scheduler=watching):
        lazy = cube().assign(weight=lambda c: c.cell + 1).chunk(lat=5, lon=10)
        add_background(sites(), lazy, n=20, rng=0, **settings)
    assert max(largest) <= BOX.shape[0] * BOX.shape[1]  # one byte a cell: the mask


def test_cells_are_drawn_by_area_on_geographic_grids():
    box = GeoBox.from_bbox((0, 0, 40, 80), "EPSG:4326", resolution=1)
    ones = xr.Dataset(
        {"v": (("lat", "lon"), np.ones(box.shape, "f4"))},
        coords=xr_coords(box, dims=("lat", "lon")),
    )
    table = pd.DataFrame({"species": ["a"], "lon": [1.5], "lat": [1.5]})
    start = sample(ones, table)
    drawn_cells = np.concatenate(
        [add_background(start, ones, n=200, rng=i).lat.values[1:] for i in range(20)]
    )
    expected = np.sin(np.deg2rad(60)) / np.sin(np.deg2rad(80))
    assert abs((drawn_cells < 60).mean() - expected) < 0.02
    metric = ones.rename(lat="y", lon="x").odc.assign_crs("EPSG:3035")
    metric = metric.assign_coords(y=metric.y.values * 1000, x=metric.x.values * 1000)
    first = sample(metric, pd.DataFrame({"species": ["a"], "x": [1500.0], "y": [1500.0]}))
    flat = np.concatenate(
        [add_background(first, metric, n=200, rng=i).y.values[1:] for i in range(20)]
    )
    assert abs((flat < 60_000).mean() - 0.75) < 0.03


def test_drawing_in_blocks_is_a_sample_of_the_whole(monkeypatch):
    monkeypatch.setattr(draw, "BLOCK", 50)
    mask = np.ones((20, 10), bool)
    mask[3] = False
    counts = np.zeros(mask.shape)
    for seed in range(400):
        rows, cols = draw_cells(mask, 19, weights=np.ones(20), rng=np.random.default_rng(seed)).T
        counts[rows, cols] += 1
    assert (counts[3] == 0).all()
    assert np.abs(counts[mask].reshape(19, 10).mean(axis=1) - 40).max() < 6


def test_weights_are_those_of_sequential_drawing():
    mask, weights = np.ones((2, 1), bool), np.array([3.0, 1.0])
    first = [
        draw_cells(mask, 1, weights=weights, rng=np.random.default_rng(i))[0, 0]
        for i in range(4000)
    ]
    assert abs(np.mean(first) - 0.25) < 0.02


def test_target_group_fills_what_was_not_recorded_where_others_were():
    out = add_background(sites(), cube(), kind="target-group", n=None)
    np.testing.assert_array_equal(
        out.presence.sel(species=["ash", "elm", "oak"]),
        [[1, 0, 1], [0, 0, 1], [0, 0, 0], [np.nan] * 3],
    )
    assert list(out.background.values) == [True, True, True, False]
    assert out.attrs["background_candidates"] == 3 and out.attrs["background_drawn"] == 3
    assert out.sizes == sites().sizes


def test_target_group_draws_n_sites():
    table = pd.DataFrame(
        {"species": ["oak", "ash"] * 20, "lon": np.linspace(11, 13.9, 40), "lat": 51.0}
    )
    start = sample(cube(), table)
    out = add_background(start, cube(), kind="target-group", n=7, rng=0)
    assert int(out.background.sum()) == 7 and int((out.presence == 0).sum()) == 7
    assert int((out.presence == 1).sum()) == 40
    again = add_background(start, cube(), kind="target-group", n=7, rng=0)
    xr.testing.assert_identical(out, again)


def test_both_kinds_can_follow_each_other_and_survive_zarr(tmp_path):
    points = add_background(
        add_background(sites(), cube(), n=5, rng=0), cube(), kind="target-group", n=None
    )
    assert points.background.sum() == 8
    twice = add_background(points, cube(), n=3, rng=1)
    assert twice.background.sum() == 11 and twice.sizes["site"] == 12
    xr.testing.assert_identical(open_sites(write_sites(twice, tmp_path / "s.zarr")), twice)


def test_the_input_is_left_alone():
    before = sites()
    add_background(before, cube(), kind="target-group")
    xr.testing.assert_identical(before, sites())


def test_wrong_requests_are_errors():
    with pytest.raises(LabelError, match="no 'presence'"):
        add_background(sites().drop_vars("presence"), cube())
    with pytest.raises(LabelError, match="kind='even' is not supported"):
        add_background(sites(), cube(), kind="even")
    with pytest.raises(LabelError, match="no cells with an observed predictor"):
        add_background(sites(), cube() * np.nan)
    for n in (0, 2.5, "100"):
        with pytest.raises(SettingError, match=f"n must be at least 1, found {n!r}"):
            add_background(sites(), cube(), n=n)


def test_background_is_drawn_where_the_required_data_are():
    grid = cube()
    grid["land"] = (("lat", "lon"), (np.indices(BOX.shape)[1] >= 30).astype("float32"))
    series = add_background(sites(), grid, n=None, require="series", rng=0)
    assert series.attrs["background_candidates"] == 10 * 35
    assert series.isel(site=slice(4, None)).series.notnull().all()
    land = add_background(sites(), grid.chunk(lat=7), n=None, mask="land", rng=0)
    assert land.attrs["background_candidates"] == 30 * 10
    points = add_background(sites(), grid, n=None, mask="land", require=["cell", "series"], rng=0)
    assert points.attrs["background_candidates"] == 10 * 10
    with pytest.raises(SelectionError, match=r"require=\['soil'\].*has modalities"):
        add_background(sites(), grid, require="soil")


def test_one_point_and_exactly_all_points_can_be_requested():
    assert add_background(sites(), cube(), n=1, rng=0).background.sum() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        every_candidate = add_background(sites(), cube(), n=CANDIDATES, rng=0)
    assert every_candidate.background.sum() == CANDIDATES


def test_rows_weigh_as_much_as_their_area_up_to_the_pole():
    box = GeoBox.from_bbox((0, 80, 4, 90), "EPSG:4326", resolution=0.5)
    top = xr.Dataset(coords=xr_coords(box, dims=("lat", "lon")))
    top["v"] = (("lat", "lon"), np.ones(box.shape, "f4"))
    weights = draw._row_weights(top)
    np.testing.assert_allclose(weights, np.cos(np.deg2rad(top.lat.values)))
    assert weights.min() < 0.01


def test_drawing_in_blocks_equals_drawing_at_once_where_few_wait_long(monkeypatch):
    """The n shortest waits of all blocks, with the very draws of one generator."""
    mask = np.random.default_rng(0).random((12, 9)) < 0.7
    weights = np.linspace(0.1, 1, 12)
    monkeypatch.setattr(draw, "BLOCK", 18)
    rng, waits = np.random.default_rng(5), np.full(mask.shape, np.inf)
    for start in range(0, 12, 2):
        part = mask[start : start + 2]
        waits[start : start + 2][part] = rng.exponential(size=part.sum())
    waits /= weights[:, None]
    expected = np.argsort(waits, axis=None)[:11]
    cells = draw_cells(mask, 11, weights=weights, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(cells, np.stack(np.divmod(expected, 9), 1))


def test_a_mask_with_steps_is_refused():
    monthly = cube().assign(season=cube()["series"])
    with pytest.raises(SelectionError, match=r"'season' has the dims .* select one step"):
        add_background(sites(), monthly, n=5, mask="season")
