"""Sampling: every point reads the cell that contains it, and none is dropped in silence."""

import cProfile
import json
import warnings

import dask
import geopandas as gpd
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pandas as pd
import pytest
import xarray as xr
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.data.sites.sites import sample
from geomiam.data.sites.store import open_sites, write_sites
from geomiam.data.store.store import as_cube, write_cube
from geomiam.errors import OccurrenceError, OccurrencesLeftOut, OutputExists, RecordsMerged
from geomiam.geo.crs import crs_of

MAPS = SHARED / "maps"
BOX = GeoBox.from_bbox((10, 50, 14, 53), "EPSG:4326", resolution=0.1)
METRIC = GeoBox.from_bbox((500000, 4000000, 540000, 4030000), "EPSG:32630", resolution=1000)


def cube(box=BOX, *, dims=("lat", "lon"), sea=True):
    """Values identify the cell: 1000 row + column; the first five columns are sea."""
    rows, cols = np.indices(box.shape).astype("float32")
    cell = 1000 * rows + cols
    series = np.stack([cell + 1e6 * m for m in range(3)], axis=0)
    if sea:
        cell[:, :5] = np.nan
        series[..., :5] = np.nan
    return xr.Dataset(
        {"cell": (dims, cell, {"modality": "a"}), "series": (("month", *dims), series)},
        coords={**xr_coords(box, dims=dims), "month": [1, 2, 3]},
        attrs={"title": "numbered cells"},
    )


def points(n=40, *, box=BOX, seed=0):
    rng = np.random.default_rng(seed)
    left, bottom, right, top = box.extent.boundingbox.bbox
    return pd.DataFrame(
        {
            "species": rng.choice(["oak", "ash", "elm"], n),
            "lon": rng.uniform(left + (right - left) / 7, right, n),
            "lat": rng.uniform(bottom, top, n),
        }
    )


def by_edges(ds, x, y):
    """Cell numbers by searching the edges of a north-up grid, independent of the affine."""
    half = abs(float(ds.lon[1] - ds.lon[0])) / 2
    cols = np.searchsorted(ds.lon.values - half, x, side="right") - 1
    rows = np.searchsorted(-(ds.lat.values + half), -np.asarray(y), side="right") - 1
    return 1000 * rows + cols


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999), chunks=st.tuples(*[st.integers(1, 40)] * 2), month=st.integers(1, 3)
)
def test_every_point_reads_its_own_cell_whatever_the_chunks(seed, chunks, month):
    table = points(seed=seed)
    all_sites = sample(cube(), table, thin=False)
    np.testing.assert_array_equal(all_sites.cell, by_edges(cube(), table.lon, table.lat))
    np.testing.assert_array_equal(all_sites.series.sel(month=3), all_sites.cell + 2e6)
    lazy = cube().chunk(lat=chunks[0], lon=chunks[1], month=month)
    xr.testing.assert_identical(sample(lazy, table, thin=False), all_sites)


def test_the_shape_of_sites():
    sites = sample(cube(), points())
    assert sites.series.dims == ("site", "month")
    assert sites.presence.dims == ("site", "species")
    assert {v.dtype for v in sites.data_vars.values()} == {np.dtype("float32")}
    assert list(sites.species.values) == ["ash", "elm", "oak"]
    assert sites.lat.dims == sites.lon.dims == ("site",)
    assert crs_of(sites).epsg == 4326
    assert "GeoTransform" not in sites.spatial_ref.attrs
    assert sites.cell.attrs["modality"] == "a" and sites.attrs["title"] == "numbered cells"
    assert list(sites.month.values) == [1, 2, 3]


def test_coordinates_are_the_cells_centres():
    table = points()
    sites = sample(cube(), table)
    assert np.abs(sites.lon.values - table.lon).max() <= 0.05 + 1e-9
    grid = cube()
    np.testing.assert_array_equal(
        sites.cell, grid.cell.sel(lat=sites.lat, lon=sites.lon, method="nearest")
    )


def test_dask_is_computed_once_and_reads_each_chunk_once():
    reads, runs = [], []

    def read(block, block_info=None):
        reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    def once(dsk, keys, **kwargs):
        runs.append(1)
        return dask.get(dsk, keys, **kwargs)

    lazy = cube().chunk(lat=10, lon=10)
    lazy["cell"] = lazy.cell.copy(
        data=lazy.cell.data.map_blocks(read, dtype="float32", meta=np.empty((0, 0), "f4"))
    )
    with dask.config.set(scheduler=once):
        sample(lazy, points(300))
    assert len(runs) == 1
    assert len(reads) == len(set(reads)) == 12


def test_a_store_without_dask_gives_the_same(tmp_path):
    path = write_cube(cube(), tmp_path / "c.zarr", chunks={"lat": 7, "lon": 9})
    expected = sample(cube(), points())
    for chunks in (None, {}, "auto"):
        xr.testing.assert_identical(sample(as_cube(path, chunks=chunks), points()), expected)


@pytest.mark.parametrize("dims", [("y", "x"), ("latitude", "longitude")])
def test_the_cubes_own_names_are_kept(dims):
    sites = sample(cube(dims=dims), points())
    assert set(dims) <= set(sites.coords)


def test_south_up_grids_are_read_right():
    np.testing.assert_array_equal(
        sample(cube().isel(lat=slice(None, None, -1)), points()).cell, sample(cube(), points()).cell
    )


@pytest.mark.parametrize(
    "names",
    [
        ("lon", "lat"),
        ("LONGITUDE", "Latitude"),
        ("decimalLongitude", "decimalLatitude"),
        ("x", "y"),
    ],
)
def test_usual_names_of_coordinates_are_found(names):
    table = points().rename(columns=dict(zip(("lon", "lat"), names, strict=True)))
    np.testing.assert_array_equal(sample(cube(), table).cell, sample(cube(), points()).cell)


def test_a_tree_means_the_same_as_a_dataset():
    tree = xr.DataTree.from_dict({"a": cube()[["cell"]], "b": cube()[["series"]]})
    xr.testing.assert_equal(sample(tree, points()), sample(cube(), points()))


def test_coordinates_can_be_named():
    table = points().rename(columns={"lon": "east", "lat": "north"})
    with pytest.raises(
        OccurrenceError, match=r"no coordinate columns.*\['species', 'east', 'north'\].*x='...'"
    ):
        sample(cube(), table)
    assert sample(cube(), gm.read_records(table, x="east", y="north")).sizes["site"] == 40
    with pytest.raises(OccurrenceError, match="pass both x= and y="):
        sample(cube(), gm.read_records(table, x="east"))
    with pytest.raises(OccurrenceError, match=r"names \['west'\]"):
        sample(cube(), gm.read_records(table, x="west", y="north"))


def metric_points():
    east, north = np.meshgrid(
        np.arange(506500, 539000, 7000.0), np.arange(4000500, 4030000, 7000.0)
    )
    return pd.DataFrame({"species": "oak", "x": east.ravel(), "y": north.ravel()})


def test_points_are_reprojected_from_their_crs():
    grid = cube(METRIC, dims=("y", "x"))
    expected = sample(grid, metric_points()).cell.values
    frame = gpd.GeoDataFrame(
        metric_points()[["species"]],
        geometry=gpd.points_from_xy(metric_points().x, metric_points().y, crs="EPSG:32630"),
    ).to_crs("EPSG:4326")
    np.testing.assert_array_equal(sample(grid, frame).cell, expected)
    degrees = pd.DataFrame({"species": "oak", "lon": frame.geometry.x, "lat": frame.geometry.y})
    np.testing.assert_array_equal(sample(grid, degrees).cell, expected)
    renamed_columns = degrees.rename(columns={"lon": "x", "lat": "y"})
    np.testing.assert_array_equal(
        sample(grid, gm.read_records(renamed_columns, crs="EPSG:4326")).cell, expected
    )


def test_geometries_need_a_crs_and_points():
    frame = gpd.GeoDataFrame({"species": ["oak"]}, geometry=gpd.points_from_xy([12.0], [51.0]))
    with pytest.raises(OccurrenceError, match=r"no CRS.*set_crs"):
        sample(cube(), frame)
    assert sample(cube(), gm.read_records(frame, crs="EPSG:4326")).sizes["site"] == 1
    with pytest.raises(OccurrenceError, match="not points"):
        sample(cube(), frame.set_crs(4326).assign(geometry=frame.buffer(0.1)).set_crs(4326))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "gpkg"])
def test_tables_are_read_from_files(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    table = points()
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "gpkg":
        gpd.GeoDataFrame(
            table[["species"]], geometry=gpd.points_from_xy(table.lon, table.lat, crs=4326)
        ).to_file(path)
    else:
        table.to_csv(path, index=False)
    np.testing.assert_array_equal(sample(cube(), path).cell, sample(cube(), table).cell)


def test_other_files_are_refused():
    with pytest.raises(OccurrenceError, match=r"found t.xlsx"):
        sample(cube(), "t.xlsx")


def test_rows_at_one_place_are_one_site_and_the_maximum_wins():
    table = pd.DataFrame(
        {
            "species": ["oak", "oak", "ash", "oak", "elm"],
            "presence": [0, 7, 0, np.nan, np.nan],
            "lon": [12.0, 12.0, 12.0, 12.5, 12.0],
            "lat": 51.0,
        }
    )
    sites = sample(cube(), table)
    np.testing.assert_array_equal(sites.presence, [[0, np.nan, 1], [np.nan, np.nan, np.nan]])


@settings(max_examples=12, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.sampled_from([0, 1, 5, np.nan])),
        min_size=1,
    )
)
def test_presences_equal_a_plain_loop(rows):
    lons = [12.0, 12.01, 13.0, 13.3]  # the first two are in one cell
    table = pd.DataFrame([{"lon": lons[p], "lat": 51.0, "species": s, "n": v} for p, s, v in rows])
    for thin, place_of in ((True, [0, 0, 1, 2]), (False, [0, 1, 2, 3])):
        check_presences(
            sample(cube(), gm.read_records(table, presence="n"), thin=thin), rows, place_of
        )


def check_presences(sites, rows, place_of):
    order = list(dict.fromkeys(place_of[p] for p, *_ in rows))
    assert sites.sizes["site"] == len(order)
    for i, place in enumerate(order):
        for name in sites.species.values:
            site_values = [v for p, s, v in rows if (place_of[p], s) == (place, name) and v == v]
            expected = float(max(site_values) > 0) if site_values else np.nan
            np.testing.assert_equal(float(sites.presence[i].sel(species=name)), expected)


def test_wide_and_long_tables_agree():
    wide = pd.DataFrame(
        {"lon": [12.0, 12.5, 13.0], "lat": 51.0, "oak": [1, 0, np.nan], "ash": [0, 9, 0]}
    )
    long = wide.melt(id_vars=["lon", "lat"], var_name="species", value_name="presence")
    a = sample(cube(), wide, species=["oak", "ash"])
    b = sample(cube(), long).sel(species=["oak", "ash"])
    xr.testing.assert_equal(a, b)
    assert list(a.species.values) == ["oak", "ash"]


def test_wrong_columns_are_errors_that_list_what_is_there():
    with pytest.raises(
        OccurrenceError,
        match=r"no species column 'taxon'; found columns \['species', 'lon', 'lat'\]",
    ):
        sample(cube(), points(), species="taxon")
    with pytest.raises(OccurrenceError, match=r"species= names \['oak'\]"):
        sample(cube(), points(), species=["oak"])
    with pytest.raises(OccurrenceError, match=r"presence= names \['n'\]"):
        sample(cube(), gm.read_records(points(), presence="n"))
    with pytest.raises(OccurrenceError, match=r"keep= names \['age'\]"):
        sample(cube(), points(), keep=["age"])
    with pytest.raises(OccurrenceError, match=r"'presence' has text such as \['yes'\].*== 'yes'"):
        sample(cube(), points().assign(presence="yes"))
    with pytest.raises(OccurrenceError, match="negative"):
        sample(cube(), points().assign(presence=-9999))
    with pytest.raises(OccurrenceError, match="cube has too"):
        sample(cube(), points().assign(cell=1), keep="cell")


def test_kept_columns_become_predictors_and_part_sites():
    table = pd.DataFrame(
        {"species": "oak", "lon": 12.0, "lat": 51.0, "age": [1.0, 2.0, 2.0, np.nan, np.nan]}
    )
    sites = sample(cube(), table, keep=["age"])
    np.testing.assert_array_equal(sites.age, [1, 2, np.nan])
    assert sites.age.dtype == np.float32 and sites.age.dims == ("site",)


def test_what_is_left_out_is_counted_and_reported_once():
    table = pd.DataFrame(
        {
            "species": ["oak"] * 8 + [None],
            "lon": [12.0, 12.0, 12.1, 13.0, 99.0, np.nan, 10.2, 10.2, 13.0],
            "lat": [51.0, 51.0, 51.0, 51.0, 51.0, 51.0, 51.0, 51.0, 52.0],
        }
    )
    with pytest.warns(OccurrencesLeftOut) as caught:
        sites = sample(cube(), table)
    messages = [str(w.message) for w in caught if w.category is OccurrencesLeftOut]
    assert len(messages) == 1
    assert messages[0] == (
        "of 9 occurrences left out: 1 without coordinates, 1 outside the grid, 1 without a species, "
        "2 on cells where no predictor is observed"
    )
    counts = json.loads(sites.attrs["left_out"])
    no_counts = {"swapped": 0, "required": 0}
    assert counts == {
        "no_coordinates": 1,
        "outside_grid": 1,
        "no_species": 1,
        "empty_cell": 2,
        **no_counts,
    }
    assert sites.sizes["site"] == 3


def test_nothing_left_out_is_reported_as_zeros_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", OccurrencesLeftOut)
        assert set(json.loads(sample(cube(), points()).attrs["left_out"]).values()) == {0}


def test_a_kept_value_saves_a_site_on_an_empty_cell():
    table = pd.DataFrame({"species": "oak", "lon": [10.2, 10.3], "lat": 51.0, "age": [3.0, np.nan]})
    with pytest.warns(OccurrencesLeftOut, match="1 on cells"):
        sites = sample(cube(), table, keep="age")
    assert sites.sizes["site"] == 1 and np.isnan(sites.cell[0])


def test_a_partly_observed_cell_is_a_site():
    half = cube()
    half["cell"] = half.cell.where(half.lon > 15)
    sites = sample(half, points())
    assert sites.sizes["site"] == 40 and sites.cell.isnull().all()


def test_points_on_the_far_edges_are_outside():
    table = pd.DataFrame(
        {"species": "oak", "lon": [12.0, 12.0, 12.0, 14.0, 12.0], "lat": [51.0, 51, 51, 51, 50.0]}
    )
    with pytest.warns(OccurrencesLeftOut, match="2 outside"):
        sample(cube(), table)


def test_only_empty_cells_or_no_coordinates_are_errors():
    with pytest.raises(OccurrenceError, match="no occurrence of 40 can be used: 40 on cells"):
        sample(cube() * np.nan, points())
    with pytest.raises(OccurrenceError, match="none of the 40 rows has coordinates"):
        sample(cube(), points().assign(lon=np.nan))
    with pytest.raises(OccurrenceError, match="has no rows"):
        sample(cube(), points().iloc[:0])


def test_swapped_coordinates_are_diagnosed():
    swapped_table = points().rename(columns={"lon": "lat", "lat": "lon"})
    with pytest.raises(
        OccurrenceError,
        match=r"40 of 40 points lie outside.*read as 'lat', and as y= the column that was read as 'lon'",
    ):
        sample(cube(), swapped_table)
    np.testing.assert_array_equal(
        sample(cube(), gm.read_records(swapped_table, x="lat", y="lon")).cell,
        sample(cube(), points()).cell,
    )


def test_degrees_on_a_metric_grid_are_diagnosed():
    table = points().rename(columns={"lon": "x", "lat": "y"})
    with pytest.raises(OccurrenceError, match="look like degrees: pass crs='EPSG:4326'"):
        sample(cube(METRIC, dims=("y", "x")), table)


def test_metres_on_a_geographic_grid_are_diagnosed():
    with pytest.raises(OccurrenceError, match=r"look like metres.*pass crs="):
        sample(cube(), metric_points())


@pytest.mark.parametrize(
    ("west", "shift"), [(-20, 360), (340, -360), (178, -360), (178, 0), (-182, 360)]
)
def test_longitudes_go_around_the_globe(west, shift):
    """-20 is 340, and 181 is -179, whichever way the cube and the records count."""
    box = GeoBox.from_bbox((west, 50, west + 4, 53), "EPSG:4326", resolution=0.1)
    table = points(box=box)
    expected = sample(cube(box), table).cell.values
    turned_table = table.assign(lon=(table.lon + shift + 180) % 360 - 180)
    np.testing.assert_array_equal(sample(cube(box), turned_table).cell, expected)
    np.testing.assert_array_equal(
        sample(cube(box), turned_table.assign(lon=turned_table.lon % 360)).cell, expected
    )


def test_points_elsewhere_show_both_extents():
    table = points().assign(lon=lambda t: t.lon + 60)
    with pytest.raises(OccurrenceError, match=r"points: x 7\d.* grid: x 10 to 14, y 50 to 53"):
        sample(cube(), table)


def test_sites_survive_zarr(tmp_path):
    sites = sample(cube(), points().assign(age=1.0), keep="age")
    path = write_sites(sites, tmp_path / "s.zarr")
    xr.testing.assert_identical(open_sites(path), sites)
    with pytest.raises(OutputExists, match="overwrite=True"):
        write_sites(sites, path)
    write_sites(sites.isel(site=slice(3)), path, overwrite=True)
    assert open_sites(path).sizes["site"] == 3
    assert crs_of(open_sites(path)).epsg == 4326


@pytest.mark.skipif(not MAPS.is_dir(), reason="real maps are not beside the repository")
def test_real_occurrences_on_a_real_cube():
    table = pd.read_parquet(MAPS / "neotropics" / "occurrences.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OccurrencesLeftOut)
        sites = sample(as_cube(MAPS / "neotropics" / "predictors.zarr"), table)
    left = json.loads(sites.attrs["left_out"])
    assert sum(left.values()) < len(table) / 50
    assert sites.sizes["species"] == 41
    grid = xr.open_zarr(MAPS / "neotropics" / "predictors.zarr", consolidated=False).load()
    nearest = grid.bio1.sel(lat=sites.lat, lon=sites.lon, method="nearest")
    np.testing.assert_array_equal(sites.bio1, nearest)


def test_a_further_point_needs_few_further_calls():
    """Points are handled in arrays; pandas iterates over names once."""
    calls, counts = [], (3_000, 30_000)
    for count in counts:
        table, profile = points(count), cProfile.Profile()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OccurrencesLeftOut)
            warnings.simplefilter("ignore", RecordsMerged)
            sample(cube(), table)  # fills the caches of libraries
            profile.runcall(sample, cube(), table)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[1] - calls[0] < 3 * (counts[1] - counts[0])


def test_labels_may_have_a_column_of_another_name():
    cells = cube()
    table = pd.DataFrame({"species": "a", "lon": cells.lon[[7, 8]], "lat": cells.lat[[2, 3]]})
    sites = sample(cells, table.assign(count=[1, 0]), presence="count")
    assert sorted(sites["presence"].values.ravel().tolist()) == [0, 1]
    assert (sample(cells, table.assign(count=[1, 0]))["presence"] == 1).all()
