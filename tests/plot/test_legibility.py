"""Figures are legible: colours differ for colour-blind readers, and coordinates have units."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

import geomiam as gm
from geomiam.plot.canvas import BLUE, PALETTE, RED
from geomiam.plot.classes import ABSENT
from geomiam.plot.explanations import SHADOW
from geomiam.plot.range_maps import COLOURS

# Machado, Oliveira and Fernandes (2009), IEEE TVCG 15, 1291-1298: linear RGB as seen without one kind of cone.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = XYZ.sum(1)


def lab(colour: str, sight: str) -> np.ndarray:
    """CIELAB of a colour as seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear, 0, 1) / WHITE
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("colours", "minimum"),
    [
        (PALETTE, 15),
        (tuple(COLOURS.values()), 25),
        (tuple(SHADOW.values()), 25),
        ((RED, BLUE, ABSENT), 30),
    ],
)
def test_colours_differ_for_every_sight(colours, minimum, sight):
    for first, second in itertools.combinations(colours, 2):
        difference = np.linalg.norm(lab(first, sight) - lab(second, sight))
        assert difference > minimum, (first, second)


def labels_of(axis) -> list[str]:
    """Tick labels within the limits."""
    axis.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    return [
        t.get_text()
        for t in axis.get_ticklabels()
        if low <= t.get_position()[axis.axis_name == "y"] <= high
    ]


def map_in(crs: str, y: np.ndarray, x: np.ndarray) -> xr.Dataset:
    layer = xr.DataArray(np.ones((1, len(y), len(x))), dims=("species", "y", "x"))
    place = {"species": ["oak"], "y": y, "x": x}
    return layer.to_dataset(name="suitability").assign_coords(place).odc.assign_crs(crs)


def test_ticks_of_maps_have_units():
    ax = gm.plot.suitability(map_in("EPSG:4326", np.arange(-20, 21, 1.0), np.arange(-20, 21, 1.0)))
    assert labels_of(ax.xaxis) == ["20°W", "10°W", "0°", "10°E", "20°E"]
    assert labels_of(ax.yaxis) == ["20°S", "10°S", "0°", "10°N", "20°N"]
    north = np.arange(3_000_000, 3_041_000, 1000.0)
    ax = gm.plot.suitability(map_in("EPSG:3035", north, north))
    assert labels_of(ax.xaxis) == ["3,000 km", "3,010 km", "3,020 km", "3,030 km", "3,040 km"]
    plt.close("all")


def test_records_and_folds_take_units_from_the_crs_of_the_sites(sites):
    assert not sites["x"].attrs.get("units")
    metres = map_in("EPSG:3035", np.arange(2.0), np.arange(2.0))["spatial_ref"]
    projected_sites = sites.assign_coords(
        x=sites["x"] * 1e5, y=sites["y"] * 1e5, spatial_ref=metres
    )
    for draw in (gm.plot.records, lambda s: gm.plot.folds(s, gm.splits.SpatialBlocks(2))):
        assert labels_of(draw(sites).xaxis)[0].endswith("°E")
        assert labels_of(draw(projected_sites).xaxis)[0].endswith(" km")
    plt.close("all")
