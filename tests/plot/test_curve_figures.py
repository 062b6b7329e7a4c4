"""ROC and calibration curves hold the numbers of the metrics; maps of classes hold the classes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import SelectionError, SettingError


def table_of(species=3, n=200):
    rng = np.random.default_rng(0)
    presence = (rng.random((n, species)) < 0.4).astype(float)
    scores = presence * 0.3 + rng.random((n, species)) * 0.7
    presence[:20, 0] = np.nan
    scores[20:40] = np.nan
    return xr.Dataset(
        {
            "presence": (("site", "species"), presence),
            "suitability": (("subset", "site", "species"), np.stack([scores, 1 - scores])),
        },
        coords={"subset": ["all", "soil"], "species": [f"s{i}" for i in range(species)]},
    )


@pytest.mark.parametrize("subset", ["all", "soil"])
def test_the_area_under_the_drawn_roc_curve_is_the_auc(subset):
    table = table_of()
    axes = gm.plot.roc(table, subset=subset, ax=plt.subplots()[1])
    for k, line in enumerate(axes.lines[1:]):
        y, z = table["presence"].values[:, k], table["suitability"].sel(subset=subset).values[:, k]
        is_scored = np.isfinite(y) & np.isfinite(z)
        area = roc_auc_score(y[is_scored], z[is_scored])
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area)
        assert line.get_label() == f"s{k}: AUC {area:.2f}"


def test_the_curve_of_several_folds_has_the_area_within_folds():
    table = table_of()
    fold = np.arange(200) % 4 - 1
    level = xr.DataArray(np.linspace(0, 0.5, 4)[fold + 1], dims="site")
    table["suitability"] = table["suitability"] / 2 + level
    table = table.assign(fold=("site", fold))
    axes = gm.plot.roc(table, ax=plt.subplots()[1])
    y, z = table["presence"].values, table["suitability"].sel(subset="all").values
    for line, area in zip(axes.lines[1:], gm.metrics.auc_within_folds(y, z, fold)):
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area, abs=2e-3)
        assert f"AUC {area:.2f}" in line.get_label()


def test_a_species_without_a_pair_in_any_fold_has_a_calibration_curve_only():
    table = table_of(2)
    table = table.assign(fold=("site", (table["presence"][:, 0] == 1).values.astype(int)))
    assert len(gm.plot.roc(table, ax=plt.subplots()[1]).lines) == 2
    with pytest.raises(SettingError, match="in the same fold"):
        gm.plot.roc(table, species="s0")
    assert len(gm.plot.calibration(table, ax=plt.subplots()[1]).lines) == 3
    plt.close("all")


def test_many_species_are_grey_with_their_mean():
    axes = gm.plot.roc(table_of(12))
    assert len(axes.lines) == 14
    assert axes.lines[-1].get_label() == "mean sensitivity of 12 species"
    assert axes.lines[1].get_color() == "0.75"
    gm.plot.calibration(table_of(12))
    plt.close("all")


def test_the_drawn_calibration_curve_is_that_of_the_metric():
    table = table_of()
    axes = gm.plot.calibration(table, species="s1", bins=6, strategy="uniform")
    y, z = table["presence"].values[:, 1], table["suitability"].values[0, :, 1]
    curve = gm.metrics.calibration_curve(y, z, bins=6)
    is_filled = curve.sites > 0
    np.testing.assert_allclose(axes.lines[1].get_ydata(), curve.observed[is_filled])
    np.testing.assert_allclose(axes.lines[1].get_xdata(), curve.predicted[is_filled])


def test_tables_without_a_curve_are_refused():
    table = table_of()
    with pytest.raises(SettingError, match=r"pass the table of gm\.cross_validate"):
        gm.plot.roc(table.drop_vars("suitability"))
    with pytest.raises(SelectionError, match=r"no species \['oak'\] in the table"):
        gm.plot.roc(table, species="oak")
    with pytest.raises(SelectionError, match="no subset 'climate'"):
        gm.plot.calibration(table, subset="climate")
    table["presence"][:] = 1
    with pytest.raises(SettingError, match="no species has both presences and absences"):
        gm.plot.roc(table)


def test_the_map_of_classes_states_its_threshold(cube, model):
    maps = gm.predict(cube, model)
    limits = {str(s): 0.4 for s in maps["species"].values}
    classes = gm.classify(maps, limits)
    axes = gm.plot.presence(classes, species="species 1", points=np.array([[0.0, 0.0]]))
    assert axes.get_title() == "species 1: threshold 0.400 (as set)"
    drawn_values = np.ma.filled(axes.collections[0].get_array(), np.nan)
    expected = classes["presence"].sel(species="species 1").values
    np.testing.assert_array_equal(drawn_values.reshape(expected.shape), expected)
    with pytest.raises(SettingError, match=r"pass the maps of gm\.classify"):
        gm.plot.presence(maps)
    plt.close("all")
