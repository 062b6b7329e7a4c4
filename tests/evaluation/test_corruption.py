"""Errors of the predictors: where they are added, how large they are, and how they are scored."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from helpers_small import schema_of, variable

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.evaluation import at_random, corrupt, missingness_sweep
from geomiam.evaluation.evaluate import Masked

N = 4000


@pytest.fixture(scope="module")
def schema():
    return schema_of(
        climate=[
            variable("bio1"),
            variable("series", "series", window=4, labels={"month": range(12)}),
        ],
        soil=[variable("soil", "categorical")],
    )


@pytest.fixture(scope="module")
def data():
    """Sites with numbers of standard deviation 3, a series, three categories, and gaps."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "bio1": ("site", rng.normal(10, 3, N).astype("f4")),
            "series": (("site", "month"), rng.normal(size=(N, 12)).astype("f4")),
            "soil": ("site", rng.choice([2.0, 5.0, 9.0], N, p=[0.7, 0.2, 0.1]).astype("f4")),
        }
    )
    return ds.where(xr.DataArray(rng.random(N) > 0.1, dims="site"))


@pytest.mark.parametrize("error", ["noise", "shift"])
def test_only_marked_values_change_and_gaps_stay(data, schema, error):
    entries = at_random(data, schema, share=0.4, rng=1)
    wrong = corrupt(data, entries, schema, error=error, rng=2)
    again = corrupt(data, entries, schema, error=error, rng=2)
    assert wrong.identical(again)
    for name in data.data_vars:
        is_marked = entries.sel(variable=name).values
        before, after = data[name].values, wrong[name].values
        assert after.dtype == before.dtype and wrong[name].dims == data[name].dims
        np.testing.assert_array_equal(after[~is_marked], before[~is_marked])
        np.testing.assert_array_equal(np.isnan(after), np.isnan(before))
    assert set(np.unique(wrong["soil"].dropna("site"))) <= {2.0, 5.0, 9.0}


def test_noise_has_the_size_of_the_variable_and_a_shift_is_one_constant(data, schema):
    all_entries = at_random(data, schema, share=1.0, rng=0)
    for name, deviation in {"bio1": 3.0, "series": 1.0}.items():
        noise, shift = (
            (corrupt(data, all_entries, schema, error=e, size=2.0, rng=0)[name] - data[name])
            .values.astype(float)
            .ravel()
            for e in ("noise", "shift")
        )
        assert np.nanstd(noise) == pytest.approx(2 * deviation, rel=0.05)
        assert abs(np.nanmean(noise)) < 0.1 * deviation
        np.testing.assert_allclose(np.abs(shift[np.isfinite(shift)]), 2 * deviation, rtol=0.05)
        assert np.nanstd(shift) < 1e-3
    steps = corrupt(data, all_entries, schema, error="noise", rng=0)["series"] - data["series"]
    assert abs(np.corrcoef(steps.dropna("site").values.T)[0, 1]) < 0.1


def test_categories_are_drawn_as_frequently_as_they_occur_or_all_become_one(data, schema):
    all_entries = at_random(data, schema, share=1.0, rng=0)
    noise = corrupt(data, all_entries, schema, error="noise", rng=0)["soil"].dropna("site")
    assert float((noise == 2).mean()) == pytest.approx(0.7, abs=0.05)
    assert float((noise == data["soil"].dropna("site")).mean()) < 0.7
    shift = corrupt(data, all_entries, schema, error="shift", rng=0)["soil"].dropna("site")
    assert len(np.unique(shift)) == 1


def test_no_size_and_no_marks_change_nothing(data, schema):
    entries = at_random(data, schema, share=0.5, rng=0)
    for error in ("noise", "shift"):
        assert corrupt(data, entries, schema, error=error, size=0).identical(data)
        assert corrupt(data, entries & False, schema, error=error).identical(data)


def test_bad_requests_are_refused(data, schema):
    entries = at_random(data, schema, share=0.5, rng=0)
    with pytest.raises(
        SelectionError, match="error='rust' is not supported; choose from noise, shift"
    ):
        corrupt(data, entries, schema, error="rust")
    with pytest.raises(SelectionError, match=r"\['soil'\] cannot be changed"):
        corrupt(data.drop_vars("soil"), entries, schema)
    with pytest.raises(ValueError, match="size"):
        corrupt(data, entries, schema, size=-1)


def test_a_sweep_scores_wrong_and_missing_values_of_the_same_entries(sites, either_model):
    from geomiam.data.predictors import bind

    schema = bind(gm.infer_schema(sites), sites)
    scored_sites = []

    class Recording(Masked):
        def scores(self, ds):
            scored_sites.append(ds)
            return super().scores(ds)

    options = {"patterns": ["at-random"], "shares": [0.0, 0.6], "rng": 0}
    tables = {
        effect: missingness_sweep(
            sites,
            sites,
            schema,
            predictors={"m": Recording(either_model)},
            effect=effect,
            **options,
        )
        for effect in ("missing", "noise")
    }
    name, half = next(iter(schema.variables)), len(scored_sites) // 2
    missing, noisy = (
        next(ds for ds in part if not ds[name].identical(sites[name]))[name]
        for part in (scored_sites[:half], scored_sites[half:])
    )
    is_hidden = missing.isnull() & sites[name].notnull()
    assert bool((is_hidden == ((noisy != sites[name]) & sites[name].notnull())).all())
    xr.testing.assert_equal(tables["missing"]["hidden"], tables["noise"]["hidden"])
    first, second = (t["mean_auc"].squeeze().values for t in tables.values())
    assert first[0] == second[0] and first[1] != second[1]
    with pytest.raises(SelectionError, match="effect='rust' is not supported"):
        missingness_sweep(
            sites, sites, schema, predictors={"m": either_model}, effect="rust", **options
        )
