"""Restrictions of background, against distances of pyproj, hulls of shapely and quantiles of numpy."""

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.data.sites import restrictions
from geomiam.data.sites.background import add_background
from geomiam.data.sites.sites import sample
from geomiam.errors import (
    GridError,
    InputNotFound,
    LabelError,
    LengthError,
    OccurrencesLeftOut,
    SelectionError,
    SettingError,
)

Area = gm.BackgroundArea
GEOD = pyproj.Geod(ellps="WGS84")
GRIDS = {
    "degrees": ((10, 50, 14, 53), "EPSG:4326", 0.1),
    "antimeridian": ((177, -20, 184, -15), "EPSG:4326", 0.2),
    "projected": ((4_000_000, 2_800_000, 4_400_000, 3_100_000), "EPSG:3035", 10_000),
    "web mercator": ((-9_000_000, 9_000_000, -8_000_000, 9_500_000), "EPSG:3857", 20_000),
}


def cube_on(name):
    bounds, crs, resolution = GRIDS[name]
    box = GeoBox.from_bbox(bounds, crs, resolution=resolution)
    rows, columns = np.indices(box.shape).astype("float32")
    cube = xr.Dataset(coords={**xr_coords(box, dims=("y", "x")), "month": [1, 2]})
    cube["cell"] = (("y", "x"), 1000 * rows + columns)
    cube["rows"] = (("y", "x"), rows)
    cube["series"] = (("month", "y", "x"), np.stack([columns, -rows]))
    return cube


def sites_on(cube, *, cells=((8, 6), (12, 20), (22, 9), (8, 25)), species=None):
    """Sites with one presence in each cell."""
    y, x = np.array(cells).T
    columns = {"x": cube["x"].values[x], "y": cube["y"].values[y]}
    return sample(cube, pd.DataFrame({"species": species or "oak", **columns}))


def degrees_of(cube, x, y):
    to_degrees = pyproj.Transformer.from_crs(
        cube.spatial_ref.attrs["crs_wkt"], "EPSG:4326", always_xy=True
    )
    return to_degrees.transform(np.asarray(x), np.asarray(y))


def distances(cube, sites):
    """Geodesic distance from every cell to its nearest site, in km."""
    x, y = np.meshgrid(cube.x, cube.y)
    lon, lat = degrees_of(cube, x, y)
    return np.min(
        [
            GEOD.inv(lon, lat, np.full(lon.shape, u), np.full(lat.shape, v))[2] / 1000
            for u, v in zip(*degrees_of(cube, sites.x, sites.y))
        ],
        axis=0,
    )


def drawn(sites, cube, area, **settings):
    """Every candidate cell of an area ``(y, x)``."""
    out = add_background(sites, cube, n=None, area=area, **settings)
    mask = np.isin(cube["cell"].values, out["cell"].values[out["background"].values])
    assert mask.sum() == out.attrs["background_candidates"]
    return mask


@pytest.mark.parametrize("name", GRIDS)
def test_distances_are_those_of_a_geodesic(name):
    cube = cube_on(name)
    sites = sites_on(cube)
    km = distances(cube, sites)
    near, far = np.quantile(km, [0.3, 0.6])
    certain = (np.abs(km / near - 1) > 1e-3) & (np.abs(km / far - 1) > 1e-3)
    mask = drawn(sites, cube, Area(beyond=near, within=f"{far} km"))
    np.testing.assert_array_equal(mask[certain], ((km > near) & (km < far))[certain])
    assert 0 < mask.sum() < (km < far).sum()


def test_only_presences_count_not_absences_or_earlier_background():
    cube = cube_on("degrees")
    sites = sites_on(cube)
    km = distances(cube, sites)
    absent = sites_on(cube, cells=[(25, 35)]).assign(
        presence=lambda s: s.presence.where(False, np.float32(0))
    )
    combined_sites = xr.concat([sites, absent], "site", data_vars="minimal", coords="minimal")
    combined_sites = add_background(combined_sites, cube, n=50, rng=0)
    out = add_background(combined_sites, cube, n=None, area=Area(within=40)).isel(
        site=slice(55, None)
    )
    np.testing.assert_array_equal(np.isin(cube["cell"], out["cell"]), km < 40)


@pytest.mark.parametrize("name", GRIDS)
def test_the_hull_is_convex_on_an_equal_area_plane(name):
    cube = cube_on(name)
    sites = sites_on(cube)
    lon, lat = degrees_of(cube, sites.x, sites.y)
    vectors = np.array(
        [
            np.cos(np.radians(lat)) * np.cos(np.radians(lon)),
            np.cos(np.radians(lat)) * np.sin(np.radians(lon)),
            np.sin(np.radians(lat)),
        ]
    ).mean(1)
    centre = np.degrees(
        [np.arctan2(vectors[1], vectors[0]), np.arcsin(vectors[2] / np.linalg.norm(vectors))]
    )
    plane = pyproj.Proj(proj="laea", lon_0=centre[0], lat_0=centre[1], datum="WGS84")
    hull = shapely.MultiPoint(np.stack(plane(lon, lat), 1)).convex_hull
    x, y = np.meshgrid(cube.x, cube.y)
    cells = shapely.points(*plane(*degrees_of(cube, x, y)))
    metres = shapely.distance(cells, hull)
    plain = drawn(sites, cube, Area(hull="0 km"))
    np.testing.assert_array_equal(plain, metres < 0.01)
    assert np.isin(sites["cell"], cube["cell"].values[plain]).all() and plain.sum() > 50
    wide_hull = drawn(sites, cube, Area(hull="45 km"))
    certain = np.abs(metres / 45_000 - 1) > 1e-3
    np.testing.assert_array_equal(wide_hull[certain], (metres < 45_000)[certain])


def test_the_hull_of_one_presence_is_its_cell():
    cube = cube_on("degrees")
    sites = sites_on(cube, cells=[(8, 6)])
    assert np.argwhere(drawn(sites, cube, Area(hull=0))).tolist() == [[8, 6]]


def test_polygons_of_any_crs_and_form_restrict_equally(tmp_path):
    cube = cube_on("projected")
    sites = sites_on(cube)
    shape = shapely.Polygon([(4.051e6, 2.852e6), (4.303e6, 2.9e6), (4.2e6, 3.057e6)])
    table = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shape], crs=3035)
    x, y = np.meshgrid(cube.x, cube.y)
    expected = shapely.contains_xy(shape, x, y)
    np.testing.assert_array_equal(drawn(sites, cube, Area(polygon=shape)), expected)
    dense = table.set_geometry(table.segmentize(5000)).to_crs(4326)
    dense.to_file(tmp_path / "area.gpkg")
    for polygon in (
        table,
        table.geometry,
        dense,
        tmp_path / "area.gpkg",
        str(tmp_path / "area.gpkg"),
    ):
        np.testing.assert_array_equal(drawn(sites, cube, Area(polygon=polygon)), expected)


@pytest.mark.parametrize("shift", [0, 360])
def test_a_polygon_across_the_antimeridian_may_be_split_there_or_not(shift):
    cube = cube_on("antimeridian").assign_coords(x=lambda c: c.x - shift)
    sites = sites_on(cube)
    east, west = shapely.box(178.4, -18, 180, -16), shapely.box(-180, -18, -177.2, -16)
    x, y = np.meshgrid(cube.x, cube.y)
    expected = (x + shift > 178.4) & (x + shift < 182.8) & (y > -18) & (y < -16)
    assert expected.sum() > 200
    for shapes in (
        [east, west],
        [shapely.MultiPolygon([east, west])],
        [shapely.box(178.4, -18, 182.8, -16)],
    ):
        table = geopandas.GeoSeries(shapes, crs=4326)
        np.testing.assert_array_equal(drawn(sites, cube, Area(polygon=table)), expected)


@pytest.mark.parametrize("quantile", [0.0, 0.25])
def test_the_envelope_is_that_of_numpy_quantiles(quantile):
    cube = cube_on("degrees")
    cube["rows"] = cube["rows"].where(cube["rows"] != 3)  # a gap
    sites = sites_on(cube)
    box = [
        np.quantile(v, [quantile, 1 - quantile])
        for v in (sites["rows"].values, *sites["series"].transpose("month", "site").values)
    ]
    layers = [cube["rows"].values, *cube["series"].values]
    expected = np.any([(v < low) | (v > high) for v, (low, high) in zip(layers, box)], axis=0)
    area = Area(outside_envelope=["rows", "series"], quantile=quantile)
    np.testing.assert_array_equal(drawn(sites, cube, area), expected)
    for chunks in ({"y": 7, "x": 11}, {"month": 1, "y": 30}):
        np.testing.assert_array_equal(drawn(sites, cube.chunk(chunks), area), expected)
    only = drawn(sites, cube, Area(outside_envelope="rows", quantile=quantile))
    assert not only[3].any()  # a missing value is inside
    assert (only != expected).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_cell_that_is_infinite_is_no_place_outside_the_envelope(value):
    cube = cube_on("degrees")
    sites = sites_on(cube)
    area = Area(outside_envelope="rows")
    expected = drawn(sites, cube.assign(rows=cube["rows"].where(cube["cell"] % 2 == 0)), area)
    infinite = cube.assign(rows=cube["rows"].where(cube["cell"] % 2 == 0, value))
    np.testing.assert_array_equal(drawn(sites, infinite, area), expected)


def test_sites_in_other_coordinates_than_the_cube_are_refused():
    cube, metric_cube = cube_on("degrees"), cube_on("projected")
    match = r"'y', 'x'\] in EPSG:3035; take the sites from this cube"
    with pytest.raises(GridError, match=match):
        add_background(sites_on(cube), metric_cube, n=5, area=Area(within="100 km"))
    with pytest.raises(GridError, match=match):
        add_background(sites_on(metric_cube).rename(x="lon", y="lat"), metric_cube, n=5)


def test_all_restrictions_hold_together_and_chunks_do_not_matter(monkeypatch):
    cube = cube_on("degrees")
    sites = sites_on(cube)
    parts = {
        "beyond": "15 km",
        "within": "90 km",
        "hull": "20 km",
        "polygon": shapely.box(10.5, 50.4, 13.5, 52.5),
        "outside_envelope": "rows",
    }
    singly = [drawn(sites, cube, Area(**{k: v})) for k, v in parts.items()]
    together = drawn(sites, cube, Area(**parts))
    np.testing.assert_array_equal(together, np.all(singly, axis=0))
    assert 0 < together.sum() < min(s.sum() for s in singly)
    settings = {"n": 10, "area": Area(**parts), "rng": 3}
    expected = add_background(sites, cube, **settings)
    monkeypatch.setattr(restrictions, "CELLS", 100)
    lazy = add_background(sites, cube.chunk(y=9, x=13), **settings)
    xr.testing.assert_identical(lazy, expected)
    assert not expected.equals(add_background(sites, cube, **{**settings, "rng": 4}))


def test_the_sites_state_the_area_in_words_until_the_next_background():
    cube = cube_on("degrees")
    out = add_background(sites_on(cube), cube, n=9, area=Area(beyond=15, hull="500 m"), rng=0)
    assert out.attrs["background_area"] == (
        "in the convex hull of the presences enlarged by 500 m; at least 15 km from the presences"
    )
    again = add_background(out, cube, n=9, rng=0)
    assert "background_area" not in again.attrs and again.attrs["background_kind"] == "random"


def test_without_a_candidate_the_message_counts_what_each_restriction_removes():
    cube = cube_on("degrees")
    sites = sites_on(cube)
    km, cells = distances(cube, sites), cube["cell"].size
    far = int((km < 60).sum())
    area = Area(within="60 km", polygon=shapely.box(10, 52.5, 14, 53), beyond="59.99 km")
    in_polygon = int((cube.y > 52.5).sum()) * cube.sizes["x"]
    near = int((km[cube.y.values > 52.5] < 60).sum())
    with pytest.raises(LabelError) as error:
        add_background(sites, cube, area=area)
    assert str(error.value) == (
        f"no background can be drawn: of {cells:,} cells with an observed predictor, polygon= removes "
        f"{cells - in_polygon:,}, within='60 km' removes {in_polygon - near:,}, beyond='59.99 km' removes {near:,}; "
        "relax these restrictions"
    )
    assert far > near > 0


def test_target_groups_are_restricted_around_the_presences_of_each_species():
    cube = cube_on("degrees")
    cells = [(5, 5), (5, 9), (20, 30), (6, 7)]
    sites = sites_on(cube, cells=cells, species=["oak", "ash", "ash", "elm"])
    out = add_background(sites, cube, kind="target-group", n=None, area=Area(within="100 km"))
    km = {
        s: distances(cube, sites.isel(site=(sites.presence.sel(species=s) == 1).values))
        for s in ("oak", "ash", "elm")
    }
    for name, distance in km.items():
        at = distance[tuple(np.array(cells).T)]
        expected = np.where(at < 1e-6, 1, np.where(at < 100, 0, np.nan))
        np.testing.assert_array_equal(out.presence.sel(species=name), expected)
    assert out.attrs["background_area"] == "within 100 km of the presences"
    with pytest.raises(LabelError, match=r"of 8 sites where .*, beyond='500 km' removes 8"):
        add_background(sites, cube, kind="target-group", area=Area(beyond="500 km"))
    low = add_background(
        sites, cube, kind="target-group", n=None, area=Area(outside_envelope="rows")
    )
    np.testing.assert_array_equal(low.presence.sel(species="ash"), [np.nan, 1, 1, np.nan])
    np.testing.assert_array_equal(low.presence.sel(species="oak"), [1, np.nan, 0, 0])
    lazy = add_background(
        sites.chunk(site=2), cube, kind="target-group", n=None, area=Area(within="100 km")
    )
    xr.testing.assert_identical(lazy.compute(), out)
    for settings in ({"mask": "rows"}, {"require": "cell"}):
        with pytest.raises(SettingError, match="no effect with kind='target-group'"):
            add_background(sites, cube, kind="target-group", **settings)


def test_points_of_the_user_are_the_cells_that_contain_them(tmp_path):
    cube = cube_on("projected")
    sites = sites_on(cube)
    x = cube.x.values[[3, 3, 10, 20]] + [1000, -2000, 0, 0]
    y = cube.y.values[[4, 4, 11, 2]]
    lon, lat = degrees_of(cube, x, y)
    table = pd.DataFrame({"lon": lon, "lat": lat})
    table.to_csv(tmp_path / "points.csv", index=False)
    expected = cube["cell"].values[[2, 4, 11], [20, 3, 10]]
    for points in (
        table,
        tmp_path / "points.csv",
        sites_on(cube, cells=[(4, 3), (11, 10), (2, 20)]),
    ):
        out = add_background(sites, cube, points=points)
        np.testing.assert_array_equal(out["cell"][4:], expected)
        assert (out.presence[4:] == 0).all() and out.background.sum() == 3
        assert out.attrs["background_kind"] == "points" and out.attrs["background_drawn"] == 3
    with pytest.warns(UserWarning, match="3 cells have points, and n=2 of them are drawn; n=None"):
        fewer = add_background(sites, cube, points=table, n=2, rng=0)
    assert set(fewer["cell"].values[4:]) < {*expected}
    area = Area(polygon=shapely.box(x[0] - 5e4, y[0] - 5e4, x[0] + 2e4, y[0] + 5e4))
    beside = pd.concat([table, pd.DataFrame({"lon": [0.0, np.nan], "lat": [0.0, 50]})])
    with pytest.warns(OccurrencesLeftOut, match=r"of 6 background .* 2 without .*grid, 2 on cells"):
        out = add_background(sites, cube, points=beside, area=area)
    assert out["cell"].values[4:].tolist() == [expected[1]]
    with pytest.raises(LabelError, match="no cells with a point and an observed predictor"):
        add_background(sites, cube, points=pd.DataFrame({"lon": [0.0], "lat": [0.0]}))


def test_wrong_areas_are_errors_that_name_the_remedy():
    cube = cube_on("degrees")
    sites = sites_on(cube)
    classes = cube.assign(cover=cube["rows"].assign_attrs(flag_values=[0, 1]))
    for fields, error, match in (
        ({"within": 0.5}, LengthError, "may mean degrees"),
        ({"hull": -1}, LengthError, "hull must be a length of at least 0"),
        ({"beyond": 10, "within": "10 km"}, SettingError, "beyond='10 km' must be less"),
        ({"quantile": 0.5, "outside_envelope": "rows"}, SettingError, "below 0.5"),
        ({"quantile": 0.1}, SettingError, "outside_envelope="),
        ({"outside_envelope": "bio1"}, SelectionError, r"'bio1' is not a variable of the sites"),
        ({"polygon": "area.txt"}, SettingError, "not a vector file; pass one of .gpkg"),
        ({"polygon": "absent.gpkg"}, InputNotFound, "absent.gpkg; check the path"),
        ({"polygon": 5}, SettingError, "found int; pass a path"),
        ({"polygon": shapely.Point(1, 2)}, SettingError, "found Point; pass"),
        ({"polygon": geopandas.GeoSeries([shapely.box(0, 0, 1, 1)])}, SettingError, "no CRS"),
    ):
        with pytest.raises(error, match=match):
            add_background(sites, cube, area=Area(**fields))
    with pytest.raises(SelectionError, match="classes, which have no order"):
        add_background(sites_on(classes), classes, area=Area(outside_envelope="cover"))
    with pytest.raises(SettingError, match=r"area= is a str; pass gm.BackgroundArea"):
        add_background(sites, cube, area="100 km")
    none = sites.assign(presence=sites.presence * np.nan)
    with pytest.raises(LabelError, match="depends on the presences, and the sites have none"):
        add_background(none, cube, area=Area(within=100))
    assert (
        add_background(
            none, cube, n=3, area=Area(polygon=shapely.box(10, 50, 14, 53)), rng=0
        ).background.sum()
        == 3
    )
