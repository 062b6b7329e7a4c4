"""Occurrence records as people have them: GBIF's files, absences, names, swapped columns, coasts."""

import csv
import gzip
import json
import os
import re
import warnings

import geopandas as gpd
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Geod

import geomiam as gm
from geomiam.data.records.files import read_table
from geomiam.data.sites.sites import sample
from geomiam.errors import (
    InputNotFound,
    LengthError,
    NamesJoined,
    OccurrenceError,
    OccurrencesLeftOut,
    RecordsMerged,
    SelectionError,
)

BOX = GeoBox.from_bbox((10, 50, 14, 53), "EPSG:4326", resolution=0.1)


def cube(box=BOX, *, sea=10):
    """Numbered cells; ``sea`` columns in the west have no data, soil lacks five more, land is 0 or 1."""
    rows, cols = np.indices(box.shape).astype("float32")
    cell = np.where(cols < sea, np.nan, 1000 * rows + cols)
    soil = np.where(cols < sea + 5, np.nan, cols)
    dims = ("lat", "lon") if box.crs.geographic else ("y", "x")
    return xr.Dataset(
        {
            "bio1": (dims, cell, {"modality": "climate"}),
            "clay": (dims, soil, {"modality": "soil"}),
            "land": (dims, (cols >= sea + 2).astype("float32")),
        },
        coords=xr_coords(box, dims=dims),
    ).drop_vars("land" if sea == 10 else [])


def table(n=8, **columns):
    rng = np.random.default_rng(0)
    lon, lat = 11.65 + 0.1 * np.arange(n), rng.uniform(50.1, 52.9, n)
    return pd.DataFrame({"species": "oak", "lon": lon, "lat": lat, **columns})


def sampled(sites):
    return json.loads(sites.attrs["sampled"])


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "csv.gz"])
@pytest.mark.parametrize(
    "options",
    [
        {"sep": "\t", "quoting": csv.QUOTE_NONE},
        {"sep": "\t", "quoting": csv.QUOTE_ALL},
        {"sep": ";", "decimal": ","},
        {"sep": ";"},
        {"sep": ",", "encoding": "utf-8-sig"},
    ],
    ids=["gbif", "quoted tabs", "decimal commas", "semicolons", "bom"],
)
def test_text_is_read_whatever_separates_it(tmp_path, suffix, options):
    text = ["mill", "a, b", '"upper" ford', "c; d", "6' x", "", "ö", "g"]
    if options.get("quoting") == csv.QUOTE_NONE:
        text[5] = '"old pipe'  # never closed
    records = table().rename(columns={"lon": "decimalLongitude", "lat": "decimalLatitude"})
    path = tmp_path / f"records.{suffix}"
    records.assign(locality=text).to_csv(path, index=False, **options)
    np.testing.assert_array_equal(sample(cube(), path).bio1, sample(cube(), table()).bio1)


def test_text_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('species,lon,lat\na,1,2\nb,1,2,3,4\n"c', encoding="utf-8")
    with pytest.raises(OccurrenceError, match=r"a.csv cannot be read as text separated by ','"):
        sample(cube(), path)
    path.write_bytes(b"")
    with pytest.raises(OccurrenceError, match="cannot be read"):
        sample(cube(), path)
    path.write_bytes("species,lon,lat\nChêne,12.0,51.0\n".encode("latin-1"))
    with pytest.raises(OccurrenceError, match=r"encoding="):
        sample(cube(), path)


def test_geoparquet_and_well_known_text_are_points(tmp_path):
    frame = gpd.GeoDataFrame(
        table()[["species"]], geometry=gpd.points_from_xy(table().lon, table().lat, crs=4326)
    )
    expected = sample(cube(), table()).bio1.values
    frame.to_crs(3035).to_parquet(tmp_path / "a.parquet")
    np.testing.assert_array_equal(sample(cube(), tmp_path / "a.parquet").bio1, expected)
    frame.to_csv(tmp_path / "a.csv", index=False)
    np.testing.assert_array_equal(sample(cube(), tmp_path / "a.csv").bio1, expected)
    metric = frame.to_crs(3035).to_wkt()
    with pytest.raises(OccurrenceError, match="no CRS and are not degrees"):
        sample(cube(), metric)
    np.testing.assert_array_equal(
        sample(cube(), gm.read_records(metric, crs="EPSG:3035")).bio1, expected
    )
    table_with_geometry = table(geometry="a fence")
    np.testing.assert_array_equal(sample(cube(), table_with_geometry).bio1, expected)
    lines = frame.to_wkt()
    lines.loc[3, "geometry"] = "LINESTRING (0 0, 1 1)"
    with pytest.raises(OccurrenceError, match=r"1 of 8 values of 'geometry' are not points"):
        sample(cube(), lines)


# Labels -----------------------------------------------------------------------------------------


def test_what_darwin_core_states_as_absent_is_absent():
    status = ["PRESENT", "present ", None, "ABSENT", "absent", "doubtful", "excluded", "PRESENT"]
    count = [1, np.nan, 3, 2, np.nan, 1, 1, 0]
    records = table(occurrenceStatus=status, individualCount=count)
    sites = sample(cube(), records)
    np.testing.assert_array_equal(sites.presence[:, 0], [1, 1, 1, 0, 0, np.nan, 0, 0])
    assert sampled(sites)["absences"] == 4
    only = sample(cube(), gm.read_records(records, presence="occurrenceStatus")).presence[:, 0]
    np.testing.assert_array_equal(only, [1, 1, np.nan, 0, 0, np.nan, 0, 1])
    presence = sample(cube(), records.assign(presence=1)).presence  # a column of labels wins
    assert (presence == 1).all()
    text = records.drop(columns="occurrenceStatus").assign(individualCount=["0", *["2"] * 7])
    np.testing.assert_array_equal(sample(cube(), text).presence[:, 0], [0, *[1] * 7])


def test_a_status_of_another_vocabulary_is_refused():
    with pytest.raises(OccurrenceError, match=r"'occurrenceStatus' has text such as \['gone'\]"):
        sample(cube(), table(occurrenceStatus="gone"))


@pytest.mark.parametrize("kind", [int, float, bool])
def test_a_column_of_labels_named_as_species_is_that_species(kind):
    labels = np.array([1, 0, 1, 0, 1, 0, 0, 1])
    wide = table().drop(columns="species").assign(**{"Quercus ilex": labels.astype(kind), "b": 1})
    sites = sample(cube(), wide, species="Quercus ilex")
    assert sites.species.values.tolist() == ["Quercus ilex"]
    np.testing.assert_array_equal(sites.presence[:, 0], labels)
    ones = sample(cube(), wide, species="b")
    assert ones.species.values.tolist() == ["b"] and (ones.presence == 1).all()


def test_text_that_is_labels_is_no_name_of_a_species():
    status = ["PRESENT", "ABSENT"] * 4
    sites = sample(cube(), table().drop(columns="species").assign(oak=status), species="oak")
    assert sites.species.values.tolist() == ["oak"]
    np.testing.assert_array_equal(sites.presence[:, 0], [1, 0] * 4)
    for words in (["yes", "no"], ["True", "False"]):
        with pytest.raises(OccurrenceError, match=r"labels and not names of species.*species="):
            sample(cube(), table().assign(oak=words * 4), species="oak")
    with pytest.raises(OccurrenceError, match="labels and not names"):
        sample(cube(), table(species=status))


def test_counts_and_codes_that_cannot_be_distinguished_are_refused_with_both_calls():
    counts = table(n=4).assign(oak=[0, 7, 2, 0])
    with pytest.raises(OccurrenceError, match=r'species=\["oak"\].*table.assign\(oak='):
        sample(cube(), counts, species="oak")
    assert sample(cube(), counts, species=["oak"]).presence.sum() == 2
    codes = table(n=4).assign(taxonKey=[2878688.0, 5, 5, np.nan])
    with pytest.warns(OccurrencesLeftOut, match="1 without a species"):
        sites = sample(cube(), codes, species="taxonKey")
    assert sites.species.values.tolist() == ["2878688", "5"]


def test_names_that_differ_by_case_and_blanks_are_one():
    names = [
        "Quercus ilex",
        "Quercus  ilex",
        "quercus ilex ",
        "Quercus ilex",
        "Ilex",
        "ilex",
        " ",
        None,
    ]
    with pytest.warns() as caught:
        sites = sample(cube(), table(species=names))
    messages = [str(w.message) for w in caught if w.category is NamesJoined]
    assert len(messages) == 1 and messages[0].startswith("2 species have several spellings")
    assert "'Quercus ilex' = ['Quercus ilex', 'Quercus  ilex', 'quercus ilex ']" in messages[0]
    assert sites.species.values.tolist() == ["Ilex", "Quercus ilex"]
    assert json.loads(sites.attrs["left_out"])["no_species"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", NamesJoined)
        assert sample(cube(), table(species=["Oak", "Ash"] * 4)).sizes["species"] == 2
    wide = (
        table().drop(columns="species").assign(**{"Oak": [0, 1] * 4, "oak ": [np.nan, 0, 1, 0] * 2})
    )
    with pytest.warns(NamesJoined, match="'Oak' ="):
        table_with_geometry = sample(cube(), wide, species=["Oak", "oak "])
    np.testing.assert_array_equal(table_with_geometry.presence[:, 0], [0, 1, 1, 1] * 2)


# Thinning ---------------------------------------------------------------------------------------


def crowded():
    """Two cells: three records of oak and an absence in one, oak and two of ash in the other."""
    return pd.DataFrame(
        {
            "species": ["oak", "oak", "oak", "oak", "oak", "ash", "ash"],
            "presence": [0, 1, 1, 1, 1, 1, 1],
            "lon": [12.01, 12.02, 12.03, 12.03, 12.51, 12.52, 12.53],
            "lat": 51.05,
            "year": [2001, 2002, 2002, 2002, 2001, 2001, 2002],
        }
    )


def test_one_record_per_cell_and_species_is_the_default():
    with pytest.warns(
        RecordsMerged, match=r"4 records have the same cell and species .* 2 sites.*thin=False"
    ):
        sites = sample(cube(), crowded())
    assert sampled(sites) == {
        "rows": 7,
        "sites": 2,
        "merged": 4,
        "absences": 0,
        "snapped": 0,
        "snapped_km": 0.0,
    }
    np.testing.assert_array_equal(sites.presence.sel(species=["oak", "ash"]), [[1, np.nan], [1, 1]])


def test_all_records_can_be_kept():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordsMerged)
        sites = sample(cube(), crowded(), thin=False)
    assert sites.sizes["site"] == 6  # two of oak are at the same coordinates
    assert sites.presence.sum() == 5 and sampled(sites)["merged"] == 1


def test_visits_in_different_years_are_not_thinned_away():
    with pytest.warns(RecordsMerged, match="2 records"):
        sites = sample(cube(), crowded(), keep="year")
    assert sites.year.values.tolist() == [2001, 2002, 2001, 2002]
    np.testing.assert_array_equal(sites.presence.sel(species="oak"), [0, 1, 1, np.nan])


# Places -----------------------------------------------------------------------------------------


def test_rows_with_swapped_coordinates_are_found_among_good_ones():
    square = GeoBox.from_bbox((10, 0, 20, 60), "EPSG:4326", resolution=1)
    records = table(n=40).assign(lon=lambda t: 10 + t.lon % 9)
    records.loc[[3, 17], ["lon", "lat"]] = records.loc[[3, 17], ["lat", "lon"]].values
    records.loc[5, "lon"] = 99
    with pytest.warns(
        OccurrencesLeftOut,
        match=r"2 outside the grid, but inside with x and y swapped \(rows 3, 17\)",
    ):
        sites = sample(cube(square, sea=0), records)
    left = json.loads(sites.attrs["left_out"])
    assert (left["swapped"], left["outside_grid"]) == (2, 1)


METRIC = GeoBox.from_bbox(
    (4_000_000, 3_000_000, 4_040_000, 3_030_000), "EPSG:3035", resolution=1000
)


@pytest.mark.parametrize("box", [BOX, METRIC], ids=["degrees", "metres"])
def test_records_are_moved_to_the_nearest_cell_with_data(box):
    """Beside the coast by half a cell, in the sea by three cells, and off the grid by a third of one."""
    grid = cube(box)
    step = box.resolution.x
    left, bottom, right, top = box.extent.boundingbox.bbox
    coast = left + 10 * step
    names = ("lon", "lat") if box.crs.geographic else ("x", "y")
    at = [(coast - step / 2, top - 4.5 * step), (coast - 3 * step, top - 4.5 * step)]
    at += [(right + step / 3, top - 7.5 * step), (coast + 2.5 * step, bottom + 1.5 * step)]
    records = pd.DataFrame(at, columns=list(names)).assign(species="oak")
    km = step * 111.3 * np.cos(np.deg2rad(52.55)) if box.crs.geographic else 1.0
    with pytest.warns(
        OccurrencesLeftOut,
        match=r"2 of them lie within one cell of a cell with data: snap='\d+ km'",
    ):
        assert sample(grid, records).sizes["site"] == 1
    with pytest.warns(OccurrencesLeftOut, match="1 on cells"):
        sites = sample(grid, records, snap=f"{0.6 * km} km")
    np.testing.assert_array_equal(sites.bio1 % 1000, [10, box.shape.x - 1, 12])
    np.testing.assert_array_equal(sites.bio1 // 1000, [4, 7, box.shape.y - 2])
    assert sampled(sites)["snapped"] == 2
    assert sampled(sites)["snapped_km"] == pytest.approx(km / 2, rel=0.03)
    all_of_them = sample(grid, records, snap=f"{3.1 * km} km", thin=False)
    assert all_of_them.sizes["site"] == 4 and sampled(all_of_them)["snapped"] == 3
    np.testing.assert_array_equal(all_of_them.bio1[1], sites.bio1[0])


def test_the_nearest_cell_is_the_nearest_of_all_by_geodesic_distance():
    """Against a search through every edge of every cell, with a third of the cells empty, near the pole."""
    box = GeoBox.from_bbox((10, 68, 14, 70), "EPSG:4326", resolution=0.1)
    grid = cube(box, sea=0)
    is_gap = np.random.default_rng(1).random(box.shape) < 0.7
    grid = grid.where(~xr.DataArray(is_gap, dims=("lat", "lon")))
    rng = np.random.default_rng(2)
    records = pd.DataFrame(
        {"lon": rng.uniform(9.9, 14.1, 60), "lat": rng.uniform(67.95, 70.05, 60)}
    )
    sites = sample(
        grid, records.assign(species="oak", key=np.arange(60.0)), keep="key", snap="60 km"
    )
    cells = np.argwhere(~is_gap)
    south, west = 70 - 0.1 * (cells[:, 0] + 1), 10 + 0.1 * cells[:, 1]
    geod = Geod(ellps="WGS84")
    for i, row in records.iterrows():
        x, y = np.clip(row.lon, west, west + 0.1), np.clip(row.lat, south, south + 0.1)
        km = geod.inv(np.full(len(x), row.lon), np.full(len(x), row.lat), x, y)[2] / 1000
        (number,) = sites.bio1.values[sites.key.values == i]
        got = (cells == divmod(int(number), 1000)).all(1)
        assert km[got] <= km.min() + 0.05


def test_snapping_goes_over_the_antimeridian():
    world = GeoBox.from_bbox((-180, -10, 180, 10), "EPSG:4326", resolution=1)
    grid = cube(world, sea=0)
    grid["bio1"] = grid.bio1.where(grid.lon < 170)
    grid = grid[["bio1"]]
    records = pd.DataFrame({"species": "oak", "lon": [179.9, 100.5], "lat": 0.5})
    sites = sample(grid, records, snap="50 km")
    assert sites.lon.values.tolist() == [-179.5, 100.5]
    assert sampled(sites)["snapped_km"] == pytest.approx(11.1, abs=0.1)


def test_a_distance_needs_a_unit_and_some_reason():
    with pytest.raises(LengthError, match=r"snap=0\.5 may mean degrees"):
        sample(cube(), table(), snap=0.5)
    fine = GeoBox.from_bbox((10, 50, 11, 51), "EPSG:4326", resolution=0.001)
    records = table(n=300).assign(lon=10.5, lat=lambda t: 50 + t.lat % 1)
    with pytest.raises(OccurrenceError, match=r"snap='500 km' covers up to .*pass a shorter"):
        sample(cube(fine, sea=1000), records, snap=500, require="climate")


def test_cells_must_have_what_is_required():
    grid = cube(sea=5)  # climate from column 5, soil from 10, land from 7
    columns = np.array([3, 6, 8, 12, 13])
    records = pd.DataFrame({"species": "oak", "lon": 10.05 + 0.1 * columns, "lat": 51.05})
    with pytest.warns(OccurrencesLeftOut, match="2 on cells that lack .* or are masked"):
        land = sample(grid, records, mask="land")
    assert (land.bio1 % 1000).values.tolist() == [8, 12, 13]
    with pytest.warns(OccurrencesLeftOut, match="3 on cells that lack a required predictor"):
        soil = sample(grid, records, require=["soil"])
    assert (soil.bio1 % 1000).values.tolist() == [12, 13]
    assert json.loads(soil.attrs["left_out"])["required"] == 3
    with pytest.warns(OccurrencesLeftOut, match="2 on cells that lack"):
        by_name = sample(grid, records, require="clay", snap="20 km")
    assert (by_name.bio1 % 1000).values.tolist() == [10, 12, 13]
    with pytest.raises(SelectionError, match=r"require=\['sol'\] is not a modality or variable"):
        sample(grid, records, require="sol")
    with pytest.raises(SelectionError, match="mask='sea' is not a variable"):
        sample(grid, records, mask="sea")


@pytest.mark.parametrize(
    ("change", "options", "remedy"),
    [
        (lambda t: pd.concat([t, t], axis=1), {}, r"table\.columns\.duplicated\(\)"),
        (lambda t: pd.concat([t, t[["lon"]]], axis=1), {}, r"x=, y= names \['lon'\]"),
        (lambda t: t, {"species": []}, "has no column"),
        (lambda t: t.iloc[:0], {}, "has no rows"),
        (
            lambda t: t.assign(lat=t["lat"].map("{:.4f}".format).str.replace(".", ",")),
            {},
            "decimal comma",
        ),
        (lambda t: t.assign(lat=t["lat"].map("{:.4f}°N".format)), {}, "errors='coerce'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_with_their_remedy(change, options, remedy):
    degrees = GeoBox.from_bbox((5, 45, 9, 49), "EPSG:4326", resolution=0.5)
    good = pd.DataFrame({"species": "a", "lon": [6.1, 7.2], "lat": [46.3, 47.4]})
    assert sample(cube(degrees, sea=0), good).sizes["site"] == 2
    with pytest.raises(OccurrenceError, match=remedy):
        sample(cube(degrees, sea=0), change(good), **options)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputNotFound, match=r"nowhere\.csv; check the path"):
        sample(cube(), tmp_path / "nowhere.csv")


def test_a_gzip_file_that_unpacks_out_of_proportion_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("geomiam.data.records.files.SMALL_TEXT", 2**20)
    file = tmp_path / "records.csv.gz"
    file.write_bytes(gzip.compress(b"species,lon,lat\n" + bytes(2**23)))
    with pytest.raises(OccurrenceError, match=r"records\.csv\.gz has .* unpacks to more than"):
        read_table(file)
    rows = "species,lon,lat\n" + "".join(f"s,{k / 1e4},50\n" for k in range(90_000))
    file.write_bytes(gzip.compress(rows.encode()))
    assert len(read_table(file)) == 90_000


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.gpkg"])
@pytest.mark.parametrize("content", ["pipe", "device", "damaged", "missing"])
def test_files_that_are_no_tables_are_refused_by_name(tmp_path, name, content):
    file = tmp_path / name
    if content == "pipe":
        os.mkfifo(file)
    elif content == "device":
        file.symlink_to("/dev/zero")
    elif content == "damaged":
        file.write_bytes(b"\x1f\x8b\x08\x00damaged" if name.endswith("gz") else b"\x00\xff")
    if name == "a.csv" and content == "damaged":
        return  # text of one column, which the reader of records refuses
    error = InputNotFound if content == "missing" else OccurrenceError
    with pytest.raises(error, match=re.escape(name)):
        read_table(file)
