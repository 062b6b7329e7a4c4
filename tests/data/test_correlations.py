"""Correlations and variance inflation: equal to scipy and to regressions by hand, with gaps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import geomiam as gm


def table_of(n: int = 300, *, gaps: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Five predictors: b follows a, d is near a + c, e is independent."""
    rng = np.random.default_rng(seed)
    a, c, e = rng.normal(size=(3, n))
    columns = {"a": a, "b": a + 0.3 * rng.normal(size=n), "c": c}
    columns |= {"d": a + c + 0.1 * rng.normal(size=n), "e": e}
    table = pd.DataFrame(columns)
    return table.mask(rng.random(table.shape) < gaps)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlations_are_those_of_scipy_on_common_rows(method):
    table = table_of(gaps=0.3)
    result = gm.correlations(table, method=method)
    function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method]
    for i in table:
        for j in table:
            common = table[[i, j]].to_numpy()
            common = common[np.isfinite(common).all(1)]
            expected = function(*common.T).statistic
            assert float(result["correlation"].sel(variable=i, other=j)) == pytest.approx(expected)
            assert int(result["rows"].sel(variable=i, other=j)) == len(common)


def vif_by_hand(table: pd.DataFrame, name: str) -> float:
    """Variance inflation from an ordinary least squares regression with an intercept."""
    complete = table.dropna()
    y = complete[name].to_numpy()
    x = complete.drop(columns=name).assign(one=1.0).to_numpy()
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 / (residual.var() / y.var())


@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_variance_inflation_is_that_of_regressions(gaps):
    table = table_of(gaps=gaps)
    result = gm.correlations(table)
    assert result.attrs["vif_from"] == "complete rows"
    for name in table:
        expected = vif_by_hand(table, name)
        assert float(result["vif"].sel(variable=name)) == pytest.approx(expected, rel=1e-8)


def test_variance_inflation_without_complete_rows_is_near_that_of_all_rows():
    table = table_of(6000, seed=3)
    hidden = table.to_numpy(copy=True)
    hidden[np.arange(len(hidden)), np.arange(len(hidden)) % 5] = np.nan  # no row is complete
    columns = ["a", "b", "c", "e"]
    result = gm.correlations(pd.DataFrame(hidden, columns=list(table))[columns])
    pairwise = gm.correlations(pd.DataFrame(hidden, columns=list(table)))
    assert result.attrs["vif_from"] == "complete rows"  # rows that lack d only
    assert pairwise.attrs["vif_from"] == "pairwise correlations"
    for name in columns[:3]:
        assert float(result["vif"].sel(variable=name)) == pytest.approx(
            vif_by_hand(table[columns], name), rel=0.1
        )


def test_linear_combinations_have_infinite_inflation():
    table = table_of()
    table["d"] = table["a"] + table["c"]
    vif = gm.correlations(table[["a", "c", "d", "e"]])["vif"].to_series()
    assert np.isinf(vif[["a", "c", "d"]]).all() and vif["e"] < 1.1


def test_the_subset_has_no_strong_correlation_and_no_inflation():
    result = gm.correlations(table_of(gaps=0.1), threshold=0.7, vif=5)
    subset = json.loads(result.attrs["selected"])
    assert subset == result["variable"].values[result["selected"].values].tolist()
    part = result["correlation"].sel(variable=subset, other=subset).values
    assert (np.abs(part[~np.eye(len(subset), dtype=bool)]) <= 0.7).all()
    assert (result["selected_vif"].sel(variable=subset) <= 5).all()
    assert {"e", "c"} <= set(subset) and len(subset) < 5
    reasons = result["reason"].to_series()
    assert (reasons[subset] == "").all() and (reasons.drop(subset) != "").all()


def test_inflation_alone_removes_a_predictor():
    result = gm.correlations(table_of(), threshold=1.0, vif=3)
    assert "VIF" in " ".join(result["reason"].values) and "|r|" not in "".join(
        result["reason"].values
    )
    assert (result["selected_vif"].dropna("variable") <= 3).all()


@pytest.mark.parametrize("name, loser", [("a", "b"), ("b", "a")])
def test_preferred_predictors_stay(name, loser):
    result = gm.correlations(table_of()[["a", "b", "c", "e"]], prefer=[name])
    assert bool(result["selected"].sel(variable=name))
    assert not bool(result["selected"].sel(variable=loser))
    assert f"with {name}" in str(result["reason"].sel(variable=loser).item())


def test_of_a_pair_the_one_with_the_larger_mean_correlation_goes():
    # a is correlated with b and d, b with a only: of the pair (a, b), a goes
    result = gm.correlations(table_of()[["a", "b", "d"]], threshold=0.9, vif=np.inf)
    assert result["reason"].sel(variable="a").item().endswith("with b")


def test_constant_and_unobserved_predictors_are_left_out_with_a_reason():
    table = table_of().assign(same=1.0, never=np.nan)
    result = gm.correlations(table)
    for name in ("same", "never"):
        assert "constant" in result["reason"].sel(variable=name).item()
        assert not result["selected"].sel(variable=name)
        assert result["correlation"].sel(variable=name, other="a").isnull()


def test_classes_angles_and_series_are_left_out(cube, sites):
    result = gm.correlations(sites)
    assert result["variable"].values.tolist() == ["bio1", "bio12", "slope"]
    assert {"aspect", "landcover", "landsat"} <= set(json.loads(result.attrs["left_out"]))
    with pytest.raises(gm.errors.SelectionError, match="several values"):
        gm.correlations(sites, variables=["bio1", "landsat"])


def test_all_cells_of_a_cube_equal_its_sites(cube, sites):
    of_cube, of_sites = gm.correlations(cube), gm.correlations(sites)
    xr.testing.assert_allclose(of_cube["correlation"], of_sites["correlation"])
    lazy = gm.correlations(cube.chunk(y=5), sample=50, rng=1)
    assert lazy.attrs["data_rows"] == 50


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "kendall"}, "pearson"),
        ({"variables": ["a", "z"]}, "z"),
        ({"prefer": ["z"]}, "z"),
        ({"variables": ["a"]}, "two predictors"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(gm.errors.SelectionError, match=message):
        gm.correlations(table_of(30), **settings)


def test_thresholds_are_checked():
    for settings in ({"threshold": 0}, {"threshold": 2}, {"vif": 1}):
        with pytest.raises(gm.errors.SettingError):
            gm.correlations(table_of(30), **settings)


def test_the_figure_marks_the_subset():
    import matplotlib.pyplot as plt

    result = gm.correlations(table_of())
    ax = gm.plot.correlations(result)
    bold = [t.get_text() for t in ax.get_xticklabels() if t.get_fontweight() == "bold"]
    assert bold == json.loads(result.attrs["selected"])
    plt.close("all")
