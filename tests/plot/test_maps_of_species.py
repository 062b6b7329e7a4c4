"""Maps: outlines, scale bars, several species, suitability with uncertainty, and pages for a browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import xarray as xr

import geomiam as gm
from geomiam.errors import OutputExists, OutputRefused, SettingError


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def maps_in(crs: str, place: dict) -> xr.Dataset:
    values = np.random.default_rng(0).random((2, 30, 40)).astype("f4")
    values[:, :10, :10] = np.nan
    layers = {
        "suitability": (("species", "y", "x"), values),
        "spread": (("species", "y", "x"), values / 4),
    }
    names = ["Quercus robur", "</script><b>Æ $x$"]
    return xr.Dataset(layers, place).assign_coords(species=names).odc.assign_crs(crs)


@pytest.fixture
def maps() -> xr.Dataset:
    place = {"y": 5500000.0 - 1000 * np.arange(30), "x": 500000 + 1000.0 * np.arange(40)}
    return maps_in("EPSG:32631", place)


def test_a_scale_bar_has_a_round_length(maps):
    ax = gm.plot.suitability(maps, scale_bar=True)
    (bar,), (label,) = ax.lines, ax.texts
    assert label.get_text() == "10 km" and np.ptp(bar.get_xdata()) == pytest.approx(10_000)
    degrees = maps_in("EPSG:4326", {"y": 60 - 0.01 * np.arange(30), "x": 5 + 0.01 * np.arange(40)})
    ax = gm.plot.suitability(degrees, scale_bar=True)
    # at 60° north a degree of longitude has half of the length of a degree of latitude
    assert ax.texts[0].get_text() == "5 km"
    assert np.ptp(ax.lines[0].get_xdata()) == pytest.approx(
        5 / 111.195 / np.cos(np.radians(59.855)), rel=1e-3
    )


def test_an_outline_of_the_cells_and_a_colour_map(maps):
    ax = gm.plot.suitability(maps, coastline="cells", cmap="magma")
    mesh, outline = ax.collections
    assert mesh.get_cmap().name == "magma"
    corner = outline.get_paths()[0].vertices
    np.testing.assert_allclose(corner.max(axis=0), [509500, 5500000], atol=600)


def test_a_coastline_of_another_crs(maps, tmp_path):
    geopandas = pytest.importorskip("geopandas")
    from shapely.geometry import LineString, Point

    middle = geopandas.GeoSeries([Point(520000, 5485000).buffer(5000)], crs="EPSG:32631")
    outside = LineString([(0, 0), (1, 1)])
    shapes = [middle.to_crs("EPSG:4326").iloc[0], outside]
    table = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:4326")
    table.to_file(tmp_path / "coast.gpkg")
    for source in (table, tmp_path / "coast.gpkg", str(tmp_path / "coast.gpkg")):
        ax = gm.plot.suitability(maps, coastline=source)
        lines = ax.collections[1].get_segments()
        assert len(lines) == 1
        radius = np.hypot(*(np.asarray(lines[0]) - [520000, 5485000]).T)
        np.testing.assert_allclose(radius, 5000, rtol=0.01)
        assert ax.get_xlim() == gm.plot.suitability(maps).get_xlim()


def test_several_species_share_a_scale(maps):
    axes = gm.plot.species_maps(maps, coastline="cells")
    assert [a.get_title() for a in axes] == ["Quercus robur", r"</script><b>Æ \$x\$"]
    assert {a.collections[0].get_clim() for a in axes} == {(0, 1)}
    own_axes = plt.subplots(1, 2)[1]
    assert gm.plot.species_maps(maps, ax=own_axes) == list(own_axes)
    (only,) = gm.plot.species_maps(maps, species=["Quercus robur"])
    assert only.get_title() == "Quercus robur"
    with pytest.raises(SettingError, match="31 species are more than"):
        gm.plot.species_maps(maps.isel(species=[0] * 31))


def test_uncertainty_fades_the_colours(maps):
    import matplotlib

    doubts = maps["spread"] * 0
    doubts[:, 20:] = 0.4
    ax = gm.plot.bivariate(maps.assign(spread=doubts), cmap="viridis")
    colours = np.asarray(ax.collections[0].get_array())
    values = maps["suitability"][0].values
    expected = matplotlib.colormaps["viridis"](values[15])
    np.testing.assert_allclose(colours[15], expected, atol=1e-6)
    assert (colours[:10, :10, 3] == 0).all()
    np.testing.assert_allclose(
        colours[25, :, :3], 0.1 * matplotlib.colormaps["viridis"](values[25])[:, :3] + 0.9 * 0.86
    )
    legend = ax.child_axes[0]
    assert legend.get_ylabel() == "spread" and legend.get_ylim() == (0, pytest.approx(0.4))
    axes = plt.subplots()[1]
    assert gm.plot.bivariate(maps, ax=axes) is axes
    without_values = maps * np.nan
    without_values["suitability"].attrs["scale"] = "logit"
    assert gm.plot.bivariate(without_values).child_axes[0].get_xlim() == (0, 1)
    with pytest.raises(
        SettingError, match="no layer 'sd'; pass uncertainty= as one of suitability"
    ):
        gm.plot.bivariate(maps, uncertainty="sd")


def test_a_page_holds_its_data_and_is_escaped(maps, tmp_path):
    pytest.importorskip("bokeh")
    page = gm.plot.interactive(maps)
    assert "</script><b>" not in page.html
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="http', page.html)  # no downloads
    assert html.escape(page.html)[:100] in page._repr_html_()
    path = page.save(tmp_path / "map.html")
    assert path.read_text(encoding="utf-8") == page.html
    with pytest.raises(OutputExists):
        page.save(path)
    page.save(path, overwrite=True)
    (tmp_path / "other.html").write_text("<p>by hand</p>")
    with pytest.raises(OutputRefused):
        page.save(tmp_path / "other.html", overwrite=True)
    assert len(gm.plot.interactive(maps, layer="spread", species=["Quercus robur"]).html) > 1000
    with pytest.raises(SettingError, match="no layer 'sd'"):
        gm.plot.interactive(maps, layer="sd")
    with pytest.raises(SettingError, match=r"maps\.isel\(group=0\)"):
        gm.plot.interactive(maps.expand_dims(group=2))


def test_large_maps_are_thinned(maps, monkeypatch):
    pytest.importorskip("bokeh")
    from geomiam.plot import interactive_map

    size = len(gm.plot.interactive(maps).html)
    monkeypatch.setattr(interactive_map, "MOST_CELLS", 600)
    assert len(gm.plot.interactive(maps).html) < size - 2 * 4 * 800


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_a_browser_draws_the_page(maps, tmp_path):
    pytest.importorskip("bokeh")
    path = gm.plot.interactive(maps).save(tmp_path / "map.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
    folder = f"--user-data-dir={tmp_path / 'profile'}"
    result = subprocess.run(
        [
            "chromium",
            *flags,
            folder,
            "--window-size=900,800",
            f"--screenshot={tmp_path / 'map.png'}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (tmp_path / "map.png").exists(), result.stderr[-500:]
    picture = plt.imread(tmp_path / "map.png")[..., :3]
    colours = np.unique((picture * 255).astype(int).reshape(-1, 3), axis=0)
    assert len(colours) > 200  # a blank page has few
