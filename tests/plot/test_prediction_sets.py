"""The map of prediction sets has one colour per code, and names all of them."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

import geomiam as gm
from geomiam.errors import SettingError
from geomiam.plot.classes import SETS

matplotlib.use("Agg")


def test_every_set_has_its_colour():
    codes = np.array([[0, 1, 2], [3, np.nan, 3]])
    maps = xr.Dataset(
        {"prediction_set": (("species", "y", "x"), codes[None], {"level": 0.8})},
        {"species": ["Quercus <b>"], "y": [1.0, 0.0], "x": [0.0, 1.0, 2.0]},
    )
    ax = gm.plot.prediction_sets(maps)
    ax.figure.canvas.draw()
    mesh = ax.collections[0]
    colours = mesh.to_rgba(mesh.get_array()).reshape(-1, 4)
    of_code = {0: "neither", 1: "absent", 2: "present", 3: "both"}
    for i, code in enumerate([0, 1, 2, 3]):
        np.testing.assert_allclose(colours[i, :3], to_rgb(SETS[of_code[code]]), atol=1e-6)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["present", "absent", "both", "neither", "no prediction"]
    assert ax.get_title() == "Quercus <b>: level 80%"
    with pytest.raises(SettingError, match=r"gm\.calibrate with interval=0\.9"):
        gm.plot.prediction_sets(maps.rename(prediction_set="sets"))
