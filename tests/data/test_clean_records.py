"""Cleaning of occurrence records: each test against an independent computation, and the counts."""

from __future__ import annotations

import datetime
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs_shared
from helpers_records import BOX, records_cube
from pyproj import Geod

import geomiam as gm
from geomiam.data.cleaning.inputs import DESCRIPTIONS
from geomiam.errors import (
    CRSAssumed,
    LengthError,
    OccurrenceError,
    RecordsRemoved,
    SelectionError,
    SettingError,
)

GEOD = Geod(ellps="WGS84")


def table(lon, lat, **columns):
    return pd.DataFrame({"species": "oak", "lon": np.asarray(lon, float), "lat": lat} | columns)


def flags(records, test, **options):
    """Return the flags of one test."""
    out = gm.clean_records(records, tests=[test], remove=False, **options)
    assert out["flagged"].equals(out[f"flag_{test}"].rename("flagged"))
    return out[f"flag_{test}"].tolist()


def counts(records):
    return pd.DataFrame(records.attrs["cleaning"]["tests"]).set_index("test")


def around(lon, lat, km, n=12):
    """Return places at distances around a place, half of them slightly nearer and half slightly farther."""
    azimuth = np.linspace(0, 360, n, endpoint=False)
    factor = np.where(np.arange(n) % 2, 1.001, 0.999)
    x, y, _ = GEOD.fwd(np.full(n, lon), np.full(n, lat), azimuth, km * 1000 * factor)
    return x, y, (np.arange(n) % 2 == 0).tolist()


# Single records ---------------------------------------------------------------------------------


def test_missing_and_impossible_coordinates_and_species():
    records = table([1, np.nan, 1, 181, -181, 360, 361], [1, 2, 91, 2, 3, -90, 0])
    assert flags(records, "coordinates") == [False, True, True, False, True, False, True]
    assert flags(records.assign(species=["a", None, "", "b", "c", " ", "d"]), "species") == [
        *(False, True, True, False, False, True, False)
    ]


def test_zero_coordinates_are_exactly_zero_or_near_zero():
    x, y, near = around(0, 0, 55)
    assert flags(table(x, y), "zero") == [n or a == 0 or b == 0 for n, a, b in zip(near, x, y)]
    assert flags(table([0, 40, 360, 40], [50, 0, 3, 50]), "zero") == [True, True, True, False]


def test_equal_coordinates_ignore_the_sign():
    assert flags(table([10, -10, 10, 10], [10, 10, 10.0001, -10]), "equal") == [
        True,
        True,
        False,
        True,
    ]


def test_swapped_coordinates_lie_in_the_cube_the_other_way():
    records = table([12, 51, 51, 51, 120], [51, 12, 51, 13, 12])
    assert flags(records, "swapped", cube=records_cube()) == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("test", "key", "km"),
    [
        ("centroid", "centroids", 1),
        ("capital", "capitals", 10),
        ("institution", "institutions", 0.1),
    ],
)
def test_places_near_a_reference_are_flagged_by_geodesic_distance(test, key, km):
    x, y, near = around(25.0, 64.0, km)
    reference = pd.DataFrame({"Longitude": [100.0, 25.0, np.nan], "Latitude": [0.0, 64.0, 3.0]})
    assert flags(table(x, y), test, references={key: reference}) == near


def test_the_secretariat_of_gbif():
    x, y, near = around(12.58, 55.67, 1)
    assert flags(table(x, y), "headquarters") == near


def test_the_sea_by_a_mask_on_a_grid():
    cube = records_cube()
    west = BOX.extent.boundingbox.left
    cube["land"] = (cube["bio1"] * 0 + (cube["lon"] > west + 1)).astype("float32")
    cube["land"][0, -1] = np.nan
    north = float(cube["lat"][0])
    records = table([10.5, 11.5, 13.99, 20, 10.99], [51, 51, north, 51, 51])
    for land in ("land", cube["land"]):
        assert flags(records, "habitat", cube=cube, land=land) == [True, False, True, False, True]
    out = gm.clean_records(records, tests=["habitat"], cube=cube, land="land", remove=False)
    assert counts(out).loc["habitat", "tested"] == 4  # one lies outside the grid
    sea = gm.CleaningRules(habitat="sea")
    assert flags(records, "habitat", cube=cube, land="land", rules=sea) == [
        *(False, True, False, False, False)
    ]
    near = gm.CleaningRules(tolerance="2 km")
    assert flags(records, "habitat", cube=cube, land="land", rules=near) == [
        *(True, False, True, False, False)
    ]


def polygons(**columns):
    gpd = pytest.importorskip("geopandas")
    from shapely.geometry import box

    shapes = [box(10, 50, 12, 52), box(12, 50, 14, 52)]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=4326)


def test_the_sea_by_polygons_in_any_crs_and_a_tolerance_in_km():
    land = polygons().to_crs(3857)
    records = table([11, 13, 9.99, 9.9, 371, 9], [51, 51, 51, 51, 51, 51])
    assert flags(records, "habitat", land=land) == [False, False, True, True, False, True]
    beyond = GEOD.inv([9.99, 9.9], [51, 51], [10, 10], [51, 51])[2]
    for km in (0.5, 0.9, 5, 6.9, 7.3):
        tolerance = gm.CleaningRules(tolerance=f"{km} km")
        expected = [False, False, *(d > km * 1000 for d in beyond), False, True]
        assert flags(records, "habitat", land=land, rules=tolerance) == expected


def test_records_outside_the_stated_country():
    countries = polygons(ISO_A2_EH=["AA", "BB"], ISO_A2=["-99", "BB"])
    records = table(
        [11, 13, 11, 11, 13, 12.01], 51.0, countryCode=["AA", "aa ", "BB", None, "XX", "AA"]
    )
    assert flags(records, "country", countries=countries) == [
        *(False, True, True, False, False, True)
    ]
    out = gm.clean_records(records, tests=["country"], countries=countries, remove=False)
    assert counts(out).loc["country", "tested"] == 4
    near = gm.CleaningRules(tolerance="1 km")
    assert flags(records, "country", countries=countries, rules=near)[-1] is False
    with pytest.raises(OccurrenceError, match=r"has codes such as .* use the same kind of codes"):
        flags(records, "country", countries=polygons(iso_a3=["AAA", "BBB"]))
    with pytest.raises(OccurrenceError, match="no column of codes such as ISO_A2"):
        flags(records, "country", countries=polygons(name=["a", "b"]))


def test_uncertainty_above_the_limit():
    records = table([1] * 4, 2.0, coordinateUncertaintyInMeters=[10, 100_001, np.nan, "100000"])
    assert flags(records, "uncertainty") == [False, True, False, False]
    strict = gm.CleaningRules(uncertainty="5 m")
    assert flags(records, "uncertainty", rules=strict) == [True, True, False, True]
    out = gm.clean_records(records, rules=gm.CleaningRules(uncertainty=None), remove=False)
    assert "uncertainty" in out.attrs["cleaning"]["not_run"]


def test_dates_that_are_missing_early_or_in_the_future():
    today = datetime.date.today()
    tomorrow = today + datetime.timedelta(1)
    dates = [
        "1969-12-31",
        "1970",
        "2001-02-03/2001-05-01",
        str(today),
        str(tomorrow),
        None,
        "spring",
        "2999",
    ]
    records = table([1] * 8, 2.0, eventDate=dates)
    rules = gm.CleaningRules(first_year=1970, require_date=True)
    assert flags(records, "early", rules=rules) == [True, *[False] * 7]
    assert flags(records, "future", rules=rules) == [*[False] * 4, True, False, False, True]
    assert flags(records, "no_date", rules=rules) == [*[False] * 5, True, True, False]
    years = records.drop(columns="eventDate").assign(
        year=[1969, 1970, 2999, today.year] + [np.nan] * 4
    )
    assert flags(years, "early", rules=rules) == [True, *[False] * 7]
    assert flags(years, "future", rules=rules) == [False, False, True, *[False] * 5]
    stamps = table([1, 1], 2.0, eventDate=pd.to_datetime(["1960-01-01", "2020-01-01"]))
    assert flags(stamps, "early", rules=rules) == [True, False]


def test_fossils_and_cultivated_records():
    basis = ["FOSSIL_SPECIMEN", "FossilSpecimen", "living specimen", "HUMAN_OBSERVATION", None]
    records = table([1] * 5, 2.0, basisOfRecord=basis)
    assert flags(records, "basis") == [True, True, True, False, False]
    rules = gm.CleaningRules(basis=("HUMAN_OBSERVATION",))
    assert flags(records, "basis", rules=rules) == [False, False, False, True, False]
    records = table([1] * 4, 2.0, establishmentMeans=["MANAGED", "native", None, None]).assign(
        degreeOfEstablishment=[None, None, "cultivated", "native"]
    )
    assert flags(records, "cultivated") == [True, False, True, False]


# Comparisons ------------------------------------------------------------------------------------


def test_a_good_record_is_no_duplicate_of_a_bad_one():
    records = table([3, 3, 3, 3, 3], 4.0, year=[1, 2, 2, 3, 3]).assign(
        coordinateUncertaintyInMeters=[1e6, 1, 1, 1, 1], presence=[1, 1, 1, 0, 1]
    )
    out = gm.clean_records(records, remove=False)
    assert out["flag_duplicate"].tolist() == [False, False, True, False, True]
    assert counts(out).loc["duplicate", "tested"] == 4
    years = gm.CleaningRules(duplicates=("year",))
    assert gm.clean_records(records, remove=False, rules=years)["flag_duplicate"].tolist() == [
        *(False, False, True, False, False)
    ]
    with pytest.raises(SelectionError, match=r"duplicates= names \['month'\]"):
        gm.clean_records(records, rules=gm.CleaningRules(duplicates=("month",)))


def scattered(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(10, 0.5, n), rng.normal(50, 0.5, n)
    x[:3], y[:3] = [30, 11, -60], [50, 70, 10]
    return table(np.append(x, x[:2]), np.append(y, y[:2]))  # with two duplicates


@pytest.mark.parametrize("method", ["quantile", "mad", "distance"])
def test_spatial_outliers_by_all_geodesic_distances(method):
    records = scattered()
    xy = records[["lon", "lat"]].drop_duplicates().to_numpy()
    n = len(xy)
    i, j = np.indices((n, n))
    km = GEOD.inv(*xy[i.ravel()].T, *xy[j.ravel()].T)[2].reshape(n, n) / 1000
    mean = km.sum(1) / (n - 1)
    nearest = np.where(km > 0, km, np.inf).min(1)
    quartiles = np.quantile(mean, [0.25, 0.75])
    mad = 1.4826 * np.median(np.abs(mean - np.median(mean)))
    expected = {
        "quantile": mean > quartiles[1] + 5 * np.diff(quartiles),
        "mad": mean > np.median(mean) + 5 * mad,
        "distance": nearest > 1000,
    }[method]
    rules = gm.CleaningRules(outliers=method)
    out = gm.clean_records(records, rules=rules, remove=False)
    assert out["flag_outlier"].tolist()[:n] == expected.tolist()
    assert 0 < expected.sum() < 4
    rules = gm.CleaningRules(outliers=method, outlier_places=100)
    assert not gm.clean_records(records, rules=rules, remove=False)["flag_outlier"].any()


def test_mean_distances_to_a_part_of_the_places_are_near_those_to_all(monkeypatch):
    from geomiam.data.cleaning.outliers import mean_km
    from geomiam.geo.places import Places

    rng = np.random.default_rng(1)
    places = Places(np.unique(rng.uniform(0, 10, (900, 2)), axis=0), True, "EPSG:4326")
    exact = mean_km(places)
    monkeypatch.setattr("geomiam.data.cleaning.outliers.MOST_PLACES", 300)
    np.testing.assert_allclose(mean_km(places), exact, rtol=0.05)


def test_environmental_outliers_by_quartiles():
    cube = records_cube()
    rng = np.random.default_rng(2)
    cube["temperature"] = cube["bio1"] * 0 + rng.normal(size=cube["bio1"].shape).astype("float32")
    cube["class"] = (cube["bio1"] * 0 + 1).assign_attrs(flag_values=[1, 2])
    lon, lat = rng.uniform(10, 14, 40), rng.uniform(50, 53, 40)
    records = table(lon, lat)
    records.loc[40] = ["oak", 99.0, 51.0]  # outside the grid
    cell = cube.sel(lon=lon[5], lat=lat[5], method="nearest")
    cube["temperature"].loc[{"lat": cell["lat"], "lon": cell["lon"]}] = 40
    values = gm.sample(cube, records[:40], thin=False)["temperature"].values
    lower, upper = np.quantile(values, [0.25, 0.75])
    expected = (values > upper + 5 * (upper - lower)) | (values < lower - 5 * (upper - lower))
    rules = gm.CleaningRules(environment_factor=5)
    out = gm.clean_records(records, cube=cube, rules=rules, remove=False)
    assert out["flag_environment"].tolist() == [*expected.tolist(), False]
    assert expected.sum() == 1 and counts(out).loc["environment", "tested"] == 40


# Counts -----------------------------------------------------------------------------------------


def test_nothing_is_removed_without_a_count(tmp_path):
    records = table([0, 10, 10, 10, np.nan, 7], [0, 10, 20, 20, 1, 8], extra=range(6))
    all_records = gm.clean_records(records, remove=False)
    assert len(all_records) == 6 and all_records["flagged"].sum() == 4
    with pytest.warns(
        RecordsRemoved,
        match=r"4 of 6 records are removed: 1 coordinates missing.*2 longitude and latitude equal.*remove=False",
    ):
        clean = gm.clean_records(records)
    assert clean["extra"].tolist() == [2, 5] and clean.index.tolist() == [0, 1]
    assert not [c for c in clean if c.startswith("flag")]
    summary = clean.attrs["cleaning"]
    assert (summary["rows"], summary["flagged"], summary["removed"]) == (6, 4, 4)
    assert counts(clean).loc["equal", ["tested", "flagged", "only"]].tolist() == [5, 2, 1]
    assert counts(clean).loc["zero", ["flagged", "only"]].tolist() == [1, 0]
    assert "land=" in summary["not_run"]["habitat"]
    assert json.loads(json.dumps(clean.attrs)) == clean.attrs
    again = gm.clean_records(gm.read_records(records, doi="10.15468/dl.abcdef"), remove=False)
    assert again.attrs["origin"]["doi"] == "10.15468/dl.abcdef"
    with pytest.warns(RecordsRemoved):
        assert gm.thin_records(again, grid=500).attrs["origin"] == again.attrs["origin"]
    assert set(summary["not_run"]) | set(counts(clean).index) == set(DESCRIPTIONS)
    again = gm.clean_records(gm.clean_records(all_records, remove=False), remove=False)
    assert again.columns.tolist() == all_records.columns.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gm.clean_records(clean)) == 2
    sites = gm.sample(records_cube(), clean.assign(lon=12.0, lat=51.0), thin=False)
    assert json.loads(sites.attrs["records"])["cleaning"]["removed"] == 4
    clean.to_parquet(tmp_path / "a.parquet")
    assert gm.read_records(tmp_path / "a.parquet").attrs["cleaning"] == summary


def test_occurrence_cubes_are_not_tested_for_what_all_centres_of_cells_have():
    cells = pd.DataFrame(
        {"species": ["a", None], "eqdgccellcode": ["E010N10", "E011N11"], "occurrences": 1}
    )
    out = gm.clean_records(cells, remove=False)
    assert not out["flagged"].any() and "equal" in out.attrs["cleaning"]["not_run"]


def test_coordinates_without_a_crs_must_be_degrees():
    records = pd.DataFrame({"species": "a", "x": [1.0, 2], "y": [3.0, 4]})
    with pytest.warns(CRSAssumed):
        assert len(gm.clean_records(records)) == 2
    with pytest.raises(OccurrenceError, match=r"gm.read_records\(path, crs="):
        gm.clean_records(records.assign(x=5e5))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tests": ["seas"]}, SelectionError, r"tests= names \['seas'\].*use coordinates"),
        ({"tests": ["habitat"]}, SelectionError, "'habitat' is not possible: pass land="),
        ({"references": {"museums": 1}}, SelectionError, r"\['museums'\].*use centroids"),
        ({"land": "land"}, SelectionError, "land='land' is not a variable.*pass cube="),
        ({"land": 3}, OccurrenceError, "land= is a layer.*found int"),
    ],
)
def test_wrong_inputs_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        gm.clean_records(table([1], 2.0), **options)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({"habitat": "air"}, SettingError),
        ({"outliers": "all"}, SettingError),
        ({"outlier_factor": 0}, SettingError),
        ({"outlier_places": 2}, SettingError),
        ({"basis": "FOSSIL_SPECIMEN"}, SettingError),
        ({"uncertainty": "5 miles"}, LengthError),
        ({"capitals": 0.5}, LengthError),
    ],
)
def test_wrong_rules_are_refused(rules, error):
    with pytest.raises(error):
        gm.CleaningRules(**rules)


def test_a_map_shows_each_failed_test():
    import matplotlib.pyplot as plt

    out = gm.clean_records(scattered(), rules=gm.CleaningRules(outliers="quantile"), remove=False)
    _, ax = plt.subplots()
    assert gm.plot.records(out, ax=ax) is ax
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["presence (57)", "fails outlier (3)", "fails duplicate (2)"]
    two = out.assign(presence=[0, *[1] * 61], species=["ash", *["oak"] * 61])
    assert gm.plot.records(two, species="ash").get_title() == "ash"
    with pytest.raises(SettingError, match="no records with coordinates of species 'elm'"):
        gm.plot.records(out, species="elm")
    with pytest.raises(SettingError, match=r"read them with gm\.read_records"):
        gm.plot.records(pd.DataFrame({"a": [1]}))
    plt.close("all")


@needs_shared
def test_real_records_of_a_slug_are_on_land():
    path = SHARED / "maps" / "pypi_western_usa"
    records = pd.read_parquet(path / "occurrences.parquet")
    grid = gm.open_cube(path / "predictors.zarr", chunks=None)
    land = next(n for n in grid.data_vars if "land" in str(n))
    rules = gm.CleaningRules(outliers="quantile", tolerance="10 km")
    out = gm.clean_records(records, cube=grid, land=land, rules=rules, remove=False)
    table_of_counts = counts(out)
    assert table_of_counts.loc["habitat", "tested"] > 0.9 * len(out)
    assert table_of_counts.loc["habitat", "flagged"] < 0.05 * len(out)
    assert table_of_counts.loc["zero", "flagged"] == 0
