"""The map of sites: presences, absences and background are layers with their numbers."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import geomiam as gm
from geomiam.errors import SettingError
from geomiam.outputs.write import save_picture


def labels(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


@pytest.fixture
def points(sites):
    presence = xr.DataArray(
        [[1, 0], [0, 0], [0, np.nan], [np.nan, np.nan]],
        dims=("site", "species"),
        coords={"species": ["oak", "ash"]},
    )
    first_sites = sites.isel(site=slice(4)).drop_vars(["presence", "species"])
    return first_sites.assign(presence=presence).assign_coords(
        background=("site", [True, True, False, False])
    )


def test_sites_are_drawn_with_their_background(points):
    ax = gm.plot.records(points)
    assert labels(ax) == ["background (1)", "absence (1)", "not surveyed (1)", "presence (1)"]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), points["x"].values[[1]])
    assert labels(gm.plot.records(points, species="ash"))[0] == "background (2)"
    assert labels(gm.plot.records(points.drop_vars("background")))[0] == "absence (2)"


def test_geographic_sites_are_not_stretched(points):
    degrees = points.drop_vars("spatial_ref", errors="ignore").assign_attrs(crs="EPSG:4326")
    middle = np.abs(degrees["y"].values).mean()
    ax = gm.plot.records(degrees)
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.radians(middle)))
    assert ax.xaxis.get_major_formatter()(-120.0) == "120°W"


def test_sites_without_labels_are_an_error(points):
    with pytest.raises(SettingError, match="needs coordinates and presence"):
        gm.plot.records(points.drop_vars("presence"))


def test_a_written_map_does_not_cut_off_its_labels(tmp_path):
    table = pd.DataFrame({"species": "oak", "lon": [-80.0, -40.0, 0.0], "lat": [14.0, -65.0, 0.0]})
    ax = gm.plot.records(gm.clean_records(table, remove=False))
    save_picture(ax.figure, tmp_path / "records.png")
    box = ax.get_tightbbox()
    assert box.x0 >= 0 and box.x1 <= ax.figure.bbox.width
