"""Weighted background: frequencies of drawn cells against layers, and distances against a Gaussian kernel."""

import dask.array
import numpy as np
import pandas as pd
import pyproj
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy import stats

from geomiam.data.sites import bias as bias_module
from geomiam.data.sites import draw
from geomiam.data.sites.background import add_background
from geomiam.data.sites.bias import draw_near, rows_of
from geomiam.data.sites.sites import sample
from geomiam.errors import GridError, LabelError, SelectionError, SettingError


def cube_in(bounds, crs, resolution):
    box = GeoBox.from_bbox(bounds, crs, resolution=resolution)
    cube = xr.Dataset(coords=xr_coords(box, dims=("y", "x")))
    cube["cell"] = (
        ("y", "x"),
        np.arange(box.shape.y * box.shape.x, dtype="float32").reshape(box.shape),
    )
    return cube


@pytest.fixture(scope="module")
def cube():
    cube = cube_in((0, 0, 40, 80), "EPSG:4326", 0.5)
    rows, columns = np.indices(cube["cell"].shape)
    cube["roads"] = (("y", "x"), ((columns % 4) * 1.0 + (rows >= 80)).astype("float32"))
    return cube


@pytest.fixture(scope="module")
def sites(cube):
    return sites_at(cube, [20.25], [40.25])


def sites_at(cube, x, y, species="oak"):
    return sample(cube, pd.DataFrame({"species": species, "x": x, "y": y}))


def new_points(out):
    return out.isel(site=out["background"].values)


def test_cells_are_drawn_in_proportion_to_the_layer_and_their_area(cube, sites):
    """A chi-square test over the strata of the layer; few of the cells are drawn."""
    weight = cube["roads"].values * np.cos(np.radians(cube["y"].values))[:, None]
    strata = cube["roads"].values.astype(int)
    expected = np.bincount(strata.ravel(), weight.ravel())
    counts = np.zeros(len(expected))
    south = 0
    for seed in range(8):
        points = new_points(add_background(sites, cube, n=200, bias="roads", rng=seed))
        counts += np.bincount(points["roads"].values.astype(int), minlength=len(expected))
        south += int((points["y"] < 40).sum())
    assert counts[0] == 0  # a weight of 0
    assert stats.chisquare(counts[1:], expected[1:] / expected.sum() * counts.sum()).pvalue > 0.01
    share = weight[cube["y"].values < 40].sum() / weight.sum()
    assert stats.binomtest(south, 1600, share).pvalue > 0.01


def test_single_draws_have_exactly_the_weights():
    mask, weights = np.ones((2, 3), bool), np.array([[1.0, 2, 3], [0.5, 4, 1.5]])
    mask[0, 2] = False
    rng, counts = np.random.default_rng(0), np.zeros((2, 3))
    area = np.array([2.0, 1.0])
    for _ in range(4000):
        layer = lambda start, stop: weights[start:stop]  # noqa: E731
        row, column = draw.draw_cells(mask, 1, weights=area, rng=rng, layer=layer)[0]
        counts[row, column] += 1
    expected = (weights * area[:, None])[mask]
    assert stats.chisquare(counts[mask], expected / expected.sum() * 4000).pvalue > 0.01


def test_a_layer_is_a_variable_or_an_array_numpy_or_dask(cube, sites, monkeypatch):
    monkeypatch.setattr(draw, "BLOCK", 900)  # several blocks per chunk, and blocks across chunks
    settings = {"n": 60, "rng": 1}
    expected = add_background(sites, cube, bias="roads", **settings)
    layer = cube["roads"].rename("accessibility")
    for bias in (layer, layer.chunk(y=33, x=20), layer.T, layer.astype("float64")):
        out = add_background(sites, cube, bias=bias, **settings)
        assert out.attrs.pop("background_bias") == "weighted by the layer 'accessibility'"
        assert out.attrs["background_kind"] == "density"
        xr.testing.assert_equal(out, expected)
    lazy = add_background(sites, cube.chunk(y=33, x=20), bias="roads", **settings)
    xr.testing.assert_identical(lazy, expected)
    assert not add_background(sites, cube, bias="roads", n=60, rng=2).equals(expected)


def test_a_constant_layer_draws_as_evenly_as_random_background(cube, sites):
    even = xr.ones_like(cube["roads"])
    xr.testing.assert_equal(
        add_background(sites, cube, n=50, bias=even, rng=0),
        add_background(sites, cube, n=50, rng=0),
    )


def test_cells_without_a_weight_are_no_candidates(cube, sites):
    layer = cube["roads"].where(cube["y"] < 20)
    layer[10:20] = np.inf
    out = add_background(sites, cube, n=100, bias=layer, rng=0)
    positive = (cube["roads"] > 0) & (cube["y"] < 20)
    assert out.attrs["background_candidates"] == int(positive.sum())
    assert (new_points(out)["y"] < 20).all()


def test_a_lazy_layer_is_read_by_bands_each_once():
    reads = []

    def block(block_info=None):
        reads.append(block_info[None]["array-location"][0])
        return np.ones((10, 8), "float32")

    layer = dask.array.map_blocks(
        block, chunks=((10,) * 5, (8,)), dtype="float32", meta=np.empty((0, 0))
    )
    rows = rows_of(xr.DataArray(layer, dims=("y", "x")))
    parts = [rows(start, min(start + 4, 50)) for start in range(0, 50, 4)]
    assert np.concatenate(parts).shape == (50, 8)
    assert [int(start) for start, _ in reads] == [0, 10, 20, 30, 40]


PLANES = {
    "projected": ((4_000_000, 2_800_000, 4_400_000, 3_200_000), "EPSG:3035", 1000),
    "at 60 degrees north": ((-183, 58.5, -177, 61.5), "EPSG:4326", 0.01),
}


@pytest.mark.parametrize("name", PLANES)
def test_distances_from_a_record_are_those_of_a_gaussian_kernel(name):
    """Distances in two dimensions have a Rayleigh distribution; azimuths are even."""
    cube = cube_in(*PLANES[name])
    x, y = (float(cube[d][cube.sizes[d] // 2]) for d in ("x", "y"))
    sites = sites_at(cube, [x], [y])
    points = new_points(add_background(sites, cube, n=800, bias="30 km", rng=0))
    to_degrees = pyproj.Transformer.from_crs(
        cube.spatial_ref.attrs["crs_wkt"], "EPSG:4326", always_xy=True
    )
    ends = to_degrees.transform(points["x"].values, points["y"].values)
    start = [np.full(800, v) for v in to_degrees.transform(x, y)]
    azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(*start, *ends)
    assert stats.kstest(metres / 30_000, stats.rayleigh.cdf).pvalue > 0.01
    assert stats.kstest(azimuth % 360 / 360, stats.uniform.cdf).pvalue > 0.01
    assert len(np.unique(points["cell"])) == 800


def test_records_of_every_species_count_once_each():
    cube = cube_in(*PLANES["projected"])
    west, east = 4_100_500.0, 4_300_500.0
    sites = sites_at(
        cube, [west, east, east, east], [3_000_500.0] * 4, ["oak", "oak", "ash", "elm"]
    )
    out = add_background(sites, cube, n=1000, bias=15, rng=0)
    assert out.attrs["background_bias"] == (
        "weighted by the kernel density of the presences (bandwidth 15 km)"
    )
    count = int((new_points(out)["x"] > 4_200_000).sum())
    assert stats.binomtest(count, 1000, 0.75).pvalue > 0.01
    absent = out.assign(presence=out["presence"].where(out["x"] != west, 0))
    points = new_points(add_background(absent.drop_vars("background"), cube, n=200, bias=15, rng=0))
    assert (points["x"] > 4_200_000).all()


def test_drawing_from_the_density_is_without_replacement():
    """Every cell of a small area is drawn once, and the first one in proportion to the density over the cell."""
    box = GeoBox.from_bbox(
        (4_000_000, 3_000_000, 4_003_000, 3_001_000), "EPSG:3035", resolution=1000
    )
    to_degrees = pyproj.Transformer.from_crs("EPSG:3035", "EPSG:4326", always_xy=True)
    record = np.array([to_degrees.transform(4_000_500, 3_000_500)])
    rng, first = np.random.default_rng(0), np.zeros(3)
    for _ in range(400):
        mask = np.ones((1, 3), bool)
        cells = draw_near(mask, 3, records=record, km=1.2, box=box, rng=rng)
        assert sorted(cells.tolist()) == [[0, 0], [0, 1], [0, 2]] and not mask.any()
        first[cells[0, 1]] += 1
    density = np.diff(stats.norm(scale=1.2).cdf([-0.5, 0.5, 1.5, 2.5]))
    assert stats.chisquare(first, density / density.sum() * 400).pvalue > 0.01


def test_seeds_repeat_and_chunks_do_not_matter():
    cube = cube_in((4_000_000, 3_000_000, 4_050_000, 3_050_000), "EPSG:3035", 1000)
    sites = sites_at(cube, [4_020_500.0], [3_020_500.0])
    settings = {"n": 40, "bias": "8 km"}
    expected = add_background(sites, cube, **settings, rng=5)
    xr.testing.assert_identical(add_background(sites, cube.chunk(x=7), **settings, rng=5), expected)
    assert not add_background(sites, cube, **settings, rng=6).equals(expected)


def test_a_narrow_kernel_warns_and_one_without_candidates_is_an_error(monkeypatch):
    monkeypatch.setattr(bias_module, "ROUNDS", 3)
    cube = cube_in(*PLANES["projected"])
    sites = sites_at(cube, [4_200_500.0], [3_000_500.0])
    with pytest.warns(UserWarning, match=r"only \d+ of 5,000 .* larger bandwidth or a smaller n"):
        out = add_background(sites, cube, n=5000, bias="2 km", rng=0)
    assert out.background.sum() == out.attrs["background_drawn"] < 500
    far = cube.where(cube["x"] < 4_100_000)
    with pytest.raises(LabelError, match="is 0 on all candidates; pass a larger bandwidth"):
        add_background(sites, far, n=100, bias="2 km")


def test_wrong_weights_are_errors_that_name_the_remedy(cube, sites):
    series = xr.concat([cube["roads"]] * 2, "month")
    for bias, error, match in (
        ("raods", SelectionError, r"has \['cell', 'roads'\], nor a bandwidth such as '50 km'"),
        (0.5, SelectionError, "may mean degrees"),
        (-cube["roads"], SettingError, r"negative values; .*clip\(0\)"),
        (cube["roads"].isel(x=slice(5)), GridError, "another grid"),
        (series, SelectionError, "select one step"),
    ):
        with pytest.raises(error, match=match):
            add_background(sites, cube, bias=bias)
    with pytest.raises(LabelError, match="bias= removes 12,800; relax"):
        add_background(sites, cube, bias=cube["roads"] * 0)
    for settings, match in (
        ({"bias": "roads", "n": None}, "n=None draws every candidate"),
        ({"bias": "roads", "kind": "target-group"}, "kind='target-group' and bias= exclude"),
        ({"bias": "roads", "points": sites}, "points= and bias= exclude each other"),
    ):
        with pytest.raises(SettingError, match=match):
            add_background(sites, cube, **settings)
    with pytest.raises(LabelError, match="no presences, so they have no density"):
        add_background(sites.assign(presence=sites.presence * 0), cube, bias="50 km")
