"""The map of folds: one layer per fold, with its number of sites."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import geomiam as gm
from geomiam.errors import SettingError


def test_each_fold_is_a_layer_with_its_sites(sites):
    splits = gm.splits.SpatialBlocks(3, size="50 km")
    axes = plt.subplots()[1]
    assert gm.plot.folds(sites, splits, ax=axes) is axes
    counts = [len(test) for _, test in splits.split(sites)]
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == [f"fold {k} ({n})" for k, n in enumerate(counts)]
    for line, (_, test) in zip(axes.lines, splits.split(sites), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), sites["x"].values[test])


def test_sites_that_no_fold_tests_are_grey(sites):
    fold = np.where(np.arange(sites.sizes["site"]) < 10, -1, 0)
    axes = gm.plot.folds(sites.assign(fold=("site", fold)))
    assert axes.get_legend().get_texts()[0].get_text() == "not tested (10)"
    assert axes.lines[0].get_color() == "0.75"
    with pytest.raises(SettingError, match="needs coordinates, and 'fold' or splits="):
        gm.plot.folds(sites)
