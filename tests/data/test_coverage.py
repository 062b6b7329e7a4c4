"""Coverage: fractions equal to plain counting, for cubes and sites, lazily and in one go."""

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geomiam.data.coverage import coverage, observed_cells
from geomiam.schema.schema import Schema

SCHEMA = Schema.from_dict(
    {
        "modalities": {
            "climate": {"variables": {"t": {}, "rain": {"kind": "series"}}},
            "soil": {"variables": {"ph": {}}},
            "gone": {"variables": {"radar": {}}},
        }
    }
)


def cube(seed=0, *, holes=0.5):
    rng = np.random.default_rng(seed)
    shapes = {"t": ("y", "x"), "rain": ("month", "y", "x"), "ph": ("x", "y")}
    sizes = {"y": 7, "x": 9, "month": 3}
    data = {}
    for name, dims in shapes.items():
        values = rng.normal(size=[sizes[d] for d in dims]).astype("float32")
        values[rng.random(values.shape) < holes] = np.nan
        data[name] = (dims, values)
    return xr.Dataset(data, coords={"y": np.arange(7.0)[::-1], "x": np.arange(9.0)})


def counted(ds):
    """Count with plain loops over cells."""
    any_counts = {"climate": 0, "soil": 0, "gone": 0}
    full, cells, var = dict(any_counts), 0, {"t": 0, "rain": 0, "ph": 0, "radar": 0}
    for i in range(ds.sizes["y"]):
        for j in range(ds.sizes["x"]):
            observed = {
                k: np.isfinite(v.isel(y=i, x=j).values).ravel() for k, v in ds.data_vars.items()
            }
            if not any(v.any() for v in observed.values()):
                continue
            cells += 1
            for k, v in observed.items():
                var[k] += v.any()
            any_counts["climate"] += observed["t"].any() or observed["rain"].any()
            full["climate"] += observed["t"].all() and observed["rain"].all()
            any_counts["soil"] += observed["ph"].any()
            full["soil"] += observed["ph"].all()
    return cells, any_counts, full, var


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), holes=st.sampled_from([0.2, 0.7, 0.95]), chunk=st.integers(1, 9))
@pytest.mark.slow
def test_fractions_equal_plain_counting(seed, holes, chunk):
    ds = cube(seed, holes=holes)
    cells, any_counts, full, var = counted(ds)
    for version in (ds, ds.chunk(x=chunk, y=3), ds.chunk(month=1)):
        out = coverage(version, SCHEMA)
        assert out.cells == cells
        assert dict(zip(out.modality.values, out.observed.values, strict=True)) == {
            k: v / cells for k, v in any_counts.items()
        }
        assert dict(zip(out.modality.values, out.complete.values, strict=True)) == {
            k: v / cells for k, v in full.items()
        }
        assert dict(zip(out.variable.values, out.variable_observed.values, strict=True)) == {
            k: v / cells for k, v in var.items()
        }


def test_an_absent_modality_counts_nothing_and_completes_nothing():
    out = coverage(cube(), SCHEMA)
    assert out.observed.sel(modality="gone") == 0 and out.complete.sel(modality="gone") == 0
    assert out.cells_with_every_predictor == 0
    subset = SCHEMA.subset(["climate", "soil"])
    ds = cube(holes=0.2)
    complete_count = (ds.t.notnull() & ds.rain.notnull().all("month") & ds.ph.notnull()).sum()
    assert coverage(ds, subset).cells_with_every_predictor == complete_count


def test_coordinates_as_predictors_do_not_fill_the_sea():
    ds = cube()
    ds = ds.where(ds.x > 4)
    places = Schema.from_dict(
        {
            "modalities": {
                "place": {"variables": {"x": {}, "y": {}}},
                "soil": {"variables": {"ph": {}}},
            }
        }
    )
    out = coverage(ds, places)
    assert out.cells == int(ds.ph.notnull().sum())
    assert out.observed.sel(modality="place") == 1


def test_sites_are_counted_like_cells():
    ds = cube(holes=0.6)
    sites = ds.stack(site=("y", "x")).reset_index("site").transpose("site", ...)
    xr.testing.assert_identical(coverage(ds, SCHEMA), coverage(sites, SCHEMA))


def test_nothing_at_all_gives_nan():
    out = coverage(cube(holes=1.1), SCHEMA)
    assert out.cells == 0 and out.observed.isnull().all()


def test_a_model_may_stand_for_its_schema():
    class Model:
        schema = SCHEMA

    xr.testing.assert_identical(coverage(cube(), Model()), coverage(cube(), SCHEMA))


def test_infinity_is_not_observed():
    ds = cube().assign(ph=cube().ph * 0 + np.inf)
    assert coverage(ds, SCHEMA).observed.sel(modality="soil") == 0


def test_the_data_are_read_in_one_go():
    runs = []

    def counting(dsk, keys, **kwargs):
        runs.append(1)
        return dask.get(dsk, keys, **kwargs)

    with dask.config.set(scheduler=counting):
        coverage(cube().chunk(x=3), SCHEMA)
    assert len(runs) == 1


def test_observed_cells_stay_lazy():
    mask = observed_cells(cube(holes=0.95).chunk(x=3, y=3))
    assert mask.chunks is not None
    expected = counted(cube(holes=0.95))[0]
    assert int(mask.sum()) == expected


def test_a_cube_without_any_variable_is_empty():
    assert coverage(cube().drop_vars(["t", "rain", "ph"]), SCHEMA).cells == 0


@pytest.mark.parametrize("dims", [("lat", "lon"), ("latitude", "longitude")])
def test_other_names_of_dims_work(dims):
    ds = cube().rename(dict(zip(("y", "x"), dims, strict=True)))
    np.testing.assert_array_equal(coverage(ds, SCHEMA).observed, coverage(cube(), SCHEMA).observed)
