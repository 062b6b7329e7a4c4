"""Thinning of occurrence records: distances, cells and bins against plain loops."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers_records import records_cube
from pyproj import Geod

import geomiam as gm
from geomiam.errors import LengthError, RecordsRemoved, SettingError

GEOD = Geod(ellps="WGS84")


def clustered(n=150, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.uniform([10.2, 50.2], [13.8, 52.8], (8, 2))
    xy = centers[rng.integers(0, 8, n)] + rng.normal(scale=0.08, size=(n, 2))
    return pd.DataFrame(
        {
            "species": rng.choice(["oak", "ash"], n),
            "lon": xy[:, 0],
            "lat": xy[:, 1],
            "presence": rng.choice([1.0, 0.0], n, p=[0.8, 0.2]),
            "number": np.arange(n),
        }
    )


def thin(records, **options):
    with pytest.warns(RecordsRemoved):
        return gm.thin_records(records, **options)


def distances(xy):
    i, j = np.indices((len(xy), len(xy)))
    return GEOD.inv(*xy[i.ravel()].T, *xy[j.ravel()].T)[2].reshape(i.shape) / 1000


@pytest.mark.parametrize("km", [2, 10, 60])
def test_no_two_records_are_closer_than_the_distance_and_none_can_be_added(km):
    records = clustered()
    remaining = thin(records, distance=f"{km} km", rng=0)
    for key, group in records.groupby(["species", "presence"]):
        of_species = remaining[(remaining["species"] == key[0]) & (remaining["presence"] == key[1])]
        is_kept = group["number"].isin(of_species["number"]).to_numpy()
        table = distances(group[["lon", "lat"]].to_numpy())
        among = table[np.ix_(is_kept, is_kept)]
        assert (among[~np.eye(len(among), dtype=bool)] > km * 0.9998).all()
        assert (table[np.ix_(~is_kept, is_kept)].min(axis=1) < km * 1.0002).all()
    assert remaining["number"].is_monotonic_increasing
    summary = remaining.attrs["thinning"]
    assert summary == {
        "method": "distance",
        "setting": f"{km} km",
        "rows": 150,
        "removed": 150 - len(remaining),
    }


def test_the_fewest_neighbours_first_keep_more_than_a_random_order():
    from geomiam.data.cleaning.thin import spread
    from geomiam.geo.places import Places

    rng = np.random.default_rng(3)
    places = Places(rng.uniform(0, 2, (300, 2)), True, "EPSG:4326")
    table = distances(places.xy)

    def random_order(seed):
        order = np.random.default_rng(seed).permutation(300)
        remaining = []
        for place in order:
            if not remaining or table[place, remaining].min() >= 15:
                remaining.append(place)
        return len(remaining)

    assert len(spread(places, 15, rng)) > np.mean([random_order(k) for k in range(20)])
    line = Places(np.stack([np.arange(7) * 0.1, np.zeros(7)], 1), True, "EPSG:4326")
    assert sorted(spread(line, 15, rng)) == [0, 2, 4, 6]


def test_seeds_repeat_and_vary():
    records = clustered()
    same = [thin(records, grid="20 km", rng=5)["number"].tolist() for _ in range(2)]
    assert same[0] == same[1] != thin(records, grid="20 km", rng=6)["number"].tolist()


def test_one_record_per_cell_of_a_grid():
    records, cube = clustered(), records_cube()
    remaining = thin(records, grid=cube, rng=0)
    sizes = cube["bio1"].sel(
        lon=records["lon"].to_xarray(), lat=records["lat"].to_xarray(), method="nearest"
    )
    cells = records.assign(cell=sizes.values)
    expected = cells.groupby(["species", "presence", "cell"]).ngroups
    assert len(remaining) == expected == len(thin(records, grid=cube["bio1"], rng=1))
    cells_of_remaining = remaining.merge(cells[["number", "cell"]])
    assert not cells_of_remaining.duplicated(["species", "presence", "cell"]).any()


def test_squares_of_a_length_have_that_side():
    records = clustered(400)
    remaining = thin(records, grid="30 km", rng=0)
    for _, group in remaining.groupby(["species", "presence"]):
        table = distances(group[["lon", "lat"]].to_numpy())
        close = (table < 30).sum(axis=1) - 1
        assert close.max() <= 8  # neighbours in the eight squares around


def test_one_record_per_bin_of_the_environment():
    records, cube = clustered(), records_cube()
    rng = np.random.default_rng(0)
    cube["bio1"] = cube["bio1"] * 0 + rng.normal(size=cube["bio1"].shape)
    cube["class"] = (
        (cube["lat"] > 51.5)
        .astype(float)
        .broadcast_like(cube["bio1"])
        .assign_attrs(flag_values=[0, 1])
    )
    remaining = thin(records, environment=cube, bins=4, rng=0)
    at = {"lon": records["lon"].to_xarray(), "lat": records["lat"].to_xarray()}
    values = cube.sel(at, method="nearest")
    edges = np.linspace(float(values["bio1"].min()), float(values["bio1"].max()), 5)
    bins = np.clip(np.digitize(values["bio1"], edges) - 1, 0, 3)
    keys = records.assign(bin=bins, cover=values["class"].values)
    columns = ["species", "presence", "bin", "cover"]
    assert len(remaining) == keys.groupby(columns).ngroups
    assert not remaining.merge(keys[["number", "bin", "cover"]]).duplicated(columns).any()


def test_records_that_have_no_place_are_kept():
    records = clustered()
    records.loc[:9, "lon"] = np.nan
    records.loc[10:14, "lon"] = 99
    for options in ({"grid": records_cube()}, {"environment": records_cube()}):
        remaining = thin(records, rng=0, **options)
        assert set(range(15)) <= set(remaining["number"])
    assert set(range(10)) <= set(thin(records, distance=500, rng=0)["number"])


def test_nothing_to_remove_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gm.thin_records(clustered()[:1], distance="1 m")) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, SettingError, r"one of distance=, grid= and environment=.*distance='10 km'"),
        ({"distance": 5, "grid": 5}, SettingError, r"found \['distance', 'grid'\]"),
        ({"distance": 0.1}, LengthError, "may mean degrees"),
        ({"distance": "far"}, LengthError, "distance must be a length"),
        ({"environment": records_cube(), "bins": 1}, SettingError, "bins must be at least 2"),
    ],
)
def test_wrong_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        gm.thin_records(clustered(), **options)
