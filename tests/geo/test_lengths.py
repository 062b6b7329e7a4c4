"""Lengths, and distances between places in any CRS, against PROJ's geodesics."""

import numpy as np
import pytest
from pyproj import CRS, Geod, Transformer

from geomiam.errors import CRSAssumed, GridError, LengthError
from geomiam.geo.lengths import as_text, kilometres
from geomiam.geo.places import places

GEOD = Geod(ellps="WGS84")
ROTATED = CRS.from_cf(
    {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
)
DEGREES = np.random.default_rng(0).uniform((5, 44), (14, 52), (60, 2))


def projected(crs, degrees=DEGREES):
    return np.stack(Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*degrees.T), 1)


def geodesic(starts, ends):
    """Distances ``(n, m)`` in km by PROJ."""
    a, b = np.repeat(starts, len(ends), 0), np.tile(ends, (len(starts), 1))
    return GEOD.inv(*a.T, *b.T)[2].reshape(len(starts), -1) / 1000


@pytest.mark.parametrize(
    ("length", "km"),
    [
        (100, 100),
        ("100 km", 100),
        ("500 m", 0.5),
        ("2.5km", 2.5),
        (" 7 ", 7),
        (np.float32(3), 3),
        ("1 km", 1),
        ("1e2 m", 0.1),
    ],
)
def test_a_length_is_a_number_of_km_or_text_with_its_unit(length, km):
    assert kilometres(length) == pytest.approx(km)
    assert kilometres(as_text(km)) == pytest.approx(km)


@pytest.mark.parametrize(
    "length", [0, -1, np.nan, np.inf, "9 deg", "km", "", None, True, "1e400", [9]]
)
def test_other_lengths_are_refused_with_an_example(length):
    with pytest.raises(LengthError, match=r"size must be a length.*'100 km'"):
        kilometres(length, "size")
    assert issubclass(LengthError, ValueError)


def test_numbers_that_may_mean_degrees_or_metres_are_refused():
    with pytest.raises(LengthError, match=r"block=1.0 may mean degrees.* '1 km'.*'111 km'"):
        kilometres(1.0, "block")
    with pytest.raises(LengthError, match=r"numbers are km. Pass '50000 m' if metres"):
        kilometres(50_000, "block")
    assert kilometres(0, "buffer", zero=True) == 0


CRSS = ["EPSG:4326", "EPSG:3035", "EPSG:3857", "EPSG:4087", "EPSG:4807", ROTATED, "EPSG:6933"]


@pytest.mark.parametrize("crs", CRSS, ids=lambda crs: str(crs)[:9])
def test_distances_are_geodesic_in_every_crs(crs):
    """Mercator stretches them by half here; degrees, grads and rotated poles are no lengths at all."""
    surface_places = places(projected(crs), crs)
    rows = np.arange(5)
    want = geodesic(DEGREES, DEGREES[:5]).min(1)
    tolerance = 1e-4 if surface_places.geodesic else 0.05
    np.testing.assert_allclose(surface_places.distance_to(rows), want, rtol=tolerance, atol=1e-6)
    first_distances = geodesic(DEGREES, DEGREES[:1])[:, 0]
    np.testing.assert_allclose(
        surface_places.distance_to(rows[:1]), first_distances, rtol=tolerance, atol=1e-6
    )


def test_a_crs_in_feet_is_measured_in_its_unit():
    city = np.random.default_rng(0).uniform((-74.2, 40.5), (-73.7, 40.9), (40, 2))
    surface_places = places(projected("EPSG:2263", city), "EPSG:2263")
    assert not surface_places.geodesic
    want = geodesic(city, city[:1])[:, 0]
    np.testing.assert_allclose(
        surface_places.distance_to(np.array([0])), want, rtol=1e-3, atol=1e-6
    )


def test_far_distances_are_exact_to_a_part_in_a_thousand():
    rng = np.random.default_rng(1)
    world = np.stack(
        [rng.uniform(-180, 180, 400), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 400)))], 1
    )
    want = geodesic(world, world[:1])[:, 0]
    distances = places(world, "EPSG:4326").distance_to(np.array([0]))
    near = want < 5000
    np.testing.assert_allclose(distances[near], want[near], rtol=1e-3)
    np.testing.assert_allclose(distances, want, rtol=2e-2)


def test_the_antimeridian_is_no_edge():
    surface_places = places(np.array([[179.9, 0.0], [-179.9, 0.0], [180.1, 0.0]]), "EPSG:4326")
    np.testing.assert_allclose(
        surface_places.distance_to(np.array([0])), [0, 22.26, 22.26], atol=0.1
    )
    assert surface_places.span()[0] == pytest.approx(22.26, abs=0.1)
    np.testing.assert_array_equal(*surface_places.squares(500)[1:])
    assert len(surface_places.distinct()) == 2


@pytest.mark.parametrize("latitude", [0, 45, 70, 85])
def test_squares_have_their_size_at_every_latitude(latitude):
    rng = np.random.default_rng(latitude)
    degrees = rng.uniform((0, latitude - 3), (360, latitude + 3), (60_000, 2))
    squares = places(degrees, "EPSG:4326").squares(100)
    middle = int(np.median(np.unique(squares[:, 0])))  # rows at the ends are cut off
    row_squares = np.unique(squares[squares[:, 0] == middle], axis=0)
    for square in row_squares[:: max(1, len(row_squares) // 10)]:
        inside = degrees[(squares == square).all(1)]
        width = geodesic([[inside[:, 0].min(), inside[0, 1]]], [[inside[:, 0].max(), inside[0, 1]]])
        height = np.ptp(inside[:, 1]) * 111.2
        assert 70 < width[0, 0] < 125 and 70 < height < 101
    sizes = np.unique(squares, axis=0, return_counts=True)[1]
    assert np.percentile(sizes, 90) < 2.5 * np.median(sizes)


@pytest.mark.parametrize("km", [280, 290, 300, 310, 320])
def test_squares_of_a_checkerboard_alternate_all_around_the_globe(km):
    lon = np.arange(0, 360, 0.01)
    degrees = np.stack([lon, np.full_like(lon, 51.0)], 1)
    columns = np.unique(places(degrees, "EPSG:4326").squares(km, even=True)[:, 1])
    assert columns[0] == 0 and len(columns) == columns[-1] + 1
    assert len(columns) % 2 == 0  # the last column beside the first has the other colour


def test_coordinates_without_crs_are_degrees_only_where_they_can_be():
    small = np.array([[5.0, 50.0], [6.0, 51.0]])
    with pytest.warns(CRSAssumed, match=r"x from 5 to 6.* taken as degrees"):
        assert places(small).geodesic
    assert places(small, names=("lon", "lat")).crs.startswith("degrees (assumed")
    with pytest.raises(GridError, match=r"no CRS and are not degrees .*assign_attrs\(crs="):
        places(small * 1e5)
    with pytest.raises(GridError, match=r"latitudes from 5e\+06 .*EPSG:4326"):
        places(small * 1e5, "EPSG:4326")
    with pytest.raises(GridError, match=r"'nonsense' is unknown to PROJ"):
        places(small, "nonsense")
    with pytest.raises(GridError, match=r"no horizontal unit of length"):
        places(small, "EPSG:4978")
