"""Windows of the calendar: the dates of a series become tokens by month, by year, by 16 days."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
import xarray as xr
from helpers_small import (
    TINY_NETWORK,
    layout_of,
    plain_scaler,
    quick,
    random_arrays,
    schema_of,
    tiny_sites,
    variable,
)

import geomiam as gm
from geomiam.baselines.oracle import part
from geomiam.data.predictors import bind
from geomiam.errors import SchemaError
from geomiam.schema.calendar_windows import is_period, period_label, periods
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import fit_scaler
from geomiam.tokens.select import visible_tokens

DATES = (
    "2015-07-11T10:00:08",
    "2015-07-31T23:59:59",
    "2015-08-01",
    "2015-11-02T10:00:00",
    "2016-07-02",
    "2016-07-05",
    "2016-07-30",
)
MONTHS = ["2015-07", "2015-08", "2015-11", "2016-07"]


def month(label: str) -> str:
    return label[:7]


def year(label: str) -> str:
    return label[:4]


def quarter(label: str) -> tuple:
    return label[:4], (int(label[5:7]) - 1) // 3


def sixteen_days(label: str) -> int:
    return (date.fromisoformat(label[:10]) - date(2015, 7, 11)).days // 16


def week(label: str) -> tuple:
    return date.fromisoformat(label[:10]).isocalendar()[:2]


def by_loop(x: np.ndarray, labels: tuple, key) -> np.ndarray:
    """``(n, channels, dates)`` → ``(n, channels · periods, slots)``, by walking over the dates."""
    result: dict = {}
    for place in sorted(range(len(labels)), key=lambda i: labels[i]):
        result.setdefault(key(labels[place]), []).append(place)
    slots = max(map(len, result.values()))
    tokens = np.full((len(x), x.shape[1], len(result), slots), np.nan, np.float32)
    for p, places in enumerate(result.values()):
        for slot, place in enumerate(places):
            tokens[:, :, p, slot] = x[:, :, place]
    return tokens.reshape(len(x), -1, slots)


@pytest.mark.parametrize("order", [None, 3], ids=["sorted", "shuffled"])
@pytest.mark.parametrize(
    ("period", "key"),
    [
        ("1MS", month),
        ("ME", month),
        ("YS", year),
        ("QS", quarter),
        ("16D", sixteen_days),
        ("W", week),
    ],
)
def test_each_token_holds_the_dates_of_its_period(period, key, order):
    labels = DATES if order is None else tuple(np.random.default_rng(order).permutation(DATES))
    source_names = {"band": ("red", "nir"), "time": labels}
    schema = schema_of(m=[variable("ndvi", "series", window=period, labels=source_names)])
    x = random_arrays(schema, 5)
    block = encode(x, layout=Layout.of(schema), scaler=plain_scaler(schema))
    expected = by_loop(x["ndvi"], labels, key)
    np.testing.assert_array_equal(block.values[0], expected)
    np.testing.assert_array_equal(block.observed, np.isfinite(expected).any(-1))


@pytest.mark.parametrize(
    ("period", "names"),
    [
        ("1MS", MONTHS),
        ("2MS", ["2015-07..2015-08", "2015-11", "2016-07"]),
        ("QS", ["2015-07..2015-08", "2015-11", "2016-07"]),
        ("YS", ["2015", "2016"]),
        ("YS-JUL", ["2015-07..2015-11", "2016-07"]),
        ("16D", ["2015-07-11", "2015-07-31..2015-08-01", "2015-11-02", "2016-07-02..2016-07-05"]),
    ],
)
def test_names_spell_the_period_and_select_the_token_alone(period, names):
    layout = layout_of(m=[variable("ndvi", "series", window=period, labels={"time": DATES})])
    assert layout.names[: len(names)] == [f"ndvi[time={n}]" for n in names]
    assert len(set(layout.names)) == layout.size
    for token, name in enumerate(layout.names):
        selector = name.replace("..", ":")
        assert np.flatnonzero(visible_tokens(layout, selector)).tolist() == [token]


def test_a_year_selects_its_months_and_half_a_month_selects_none():
    layout = layout_of(m=[variable("ndvi", "series", window="1MS", labels={"time": DATES})])
    assert layout.spans[0].widths == (3,)
    assert visible_tokens(layout, "ndvi[time=2015]").tolist() == [True, True, True, False]
    with pytest.raises(gm.errors.SelectionError, match=r"tokens there: ndvi\[time=2015-07\]"):
        visible_tokens(layout, "ndvi[time=2016-07-01:2016-07-10]")


@pytest.mark.parametrize("window", ["6h", "0D", "-1MS", "monthly", "3", "", 0, 2.5, float("inf")])
def test_what_is_neither_steps_nor_a_period_is_refused_with_both(window):
    with pytest.raises(SchemaError, match=r"such as 1MS or 16D, or a number of steps") as error:
        Schema.from_dict(
            {"modalities": {"m": {"variables": {"v": {"kind": "series", "window": window}}}}}
        )
    assert f"found {window!r}" in str(error.value)


@pytest.mark.parametrize("labels", [("red", "nir"), (1, 2), ("2015-07-01", "2015-13-01")])
def test_labels_that_are_no_dates_are_refused_with_the_remedy(labels):
    with pytest.raises(SchemaError, match=r"labels of 't' are not all dates .*assign_coords\(t="):
        layout_of(m=[variable("v", "series", window="1MS", labels={"t": labels})])


def test_a_period_of_as_many_dates_as_a_window_of_steps_makes_the_same_tokens():
    days = tuple(f"2015-{m:02}-{d:02}" for m in (1, 2, 3) for d in (1, 11))
    layouts = [
        layout_of(m=[variable("v", "series", window=w, labels={"t": days})]) for w in (2, "1MS")
    ]
    assert layouts[0].spans[0].windows == layouts[1].spans[0].windows
    assert layouts[0].spans[0].slots[0].tolist() == layouts[1].spans[0].slots[0].tolist()


def test_periods_have_separate_weights_and_dates_a_separate_mean():
    source_names = {"band": ("red", "nir"), "time": DATES}
    schema = schema_of(m=[variable("ndvi", "series", window="1MS", labels=source_names)])
    assert Layout.of(schema).spans[0].channels == 2 * len(MONTHS)
    arrays = random_arrays(schema, 50, gaps=0.5)
    scaler = fit_scaler(arrays, schema)
    assert scaler.mean["ndvi"].shape == (2, 7)
    x, mean = arrays["ndvi"], np.nanmean(arrays["ndvi"], 0)
    std = np.sqrt(np.nanmean((x - mean) ** 2, (0, 2)))  # of a band, about the means of its dates
    np.testing.assert_allclose(scaler.mean["ndvi"], mean, atol=1e-6)
    np.testing.assert_allclose(scaler.std["ndvi"], np.tile(std[:, None], 7), atol=1e-6)
    block = encode(arrays, layout=Layout.of(schema), scaler=scaler)
    scaled_values = (x - mean) / std[:, None]
    np.testing.assert_allclose(block.values[0], by_loop(scaled_values, DATES, month), atol=1e-5)
    scaler.check(schema)


def test_a_date_that_was_hardly_seen_in_training_does_not_explode():
    schema = schema_of(m=[variable("ndvi", "series", window="1MS", labels={"time": DATES})])
    x = random_arrays(schema, 50, gaps=0)["ndvi"]
    x[2:, 3], x[:2, 3] = np.nan, [0.5, 0.5001]
    scaler = fit_scaler({"ndvi": x}, schema)
    new = encode(
        {"ndvi": np.full((1, 7), 2.0, np.float32)}, layout=Layout.of(schema), scaler=scaler
    )
    assert np.nanmax(np.abs(new.values[0])) < 5


def test_the_oracle_hides_all_dates_of_a_period():
    schema = schema_of(m=[variable("ndvi", "series", window="1MS", labels={"time": DATES})])
    values = np.arange(7, dtype=np.float32)[None]
    sites = xr.Dataset({"ndvi": (("site", "time"), values)}, coords={"time": list(DATES)})
    values_result, _ = part(sites, schema, "ndvi[time=2016]")
    np.testing.assert_array_equal(values_result["ndvi"].values[0], [np.nan] * 4 + [4, 5, 6])


@pytest.fixture(scope="module")
def dated_table() -> xr.Dataset:
    """Sites with a series of seven dates."""
    sites = tiny_sites(80).drop_vars(["ndvi", "month"])
    values = np.random.default_rng(0).normal(size=(80, 7)).astype(np.float32)
    values[values > 1] = np.nan
    times = np.array(DATES, "M8[ns]")
    return sites.assign(ndvi=(("site", "time"), values)).assign_coords(time=times)


def catalog(window: str) -> str:
    return (
        "modalities:\n  climate: {variables: {bio1: }}\n"
        f"  sky: {{variables: {{ndvi: {{kind: series, window: {window}}}}}}}\n"
    )


def test_a_catalog_with_months_trains_saves_loads_and_predicts(dated_table, tmp_path):
    file = tmp_path / "catalog.yaml"
    file.write_text(catalog("1MS"), encoding="utf-8")
    schema = Schema.from_yaml(file)
    assert Schema.from_dict(schema.to_dict()) == schema
    model = gm.fit(dated_table, schema, network=TINY_NETWORK, training=quick())
    assert model.layout.names[1:] == [f"ndvi[time={m}]" for m in MONTHS]
    model.save(tmp_path / "model")
    again = gm.load_model(tmp_path / "model")
    assert again.schema == bind(schema, dated_table) and again.layout.names == model.layout.names
    maps = gm.predict(dated_table, model, scale="logit")
    xr.testing.assert_equal(gm.predict(dated_table, again, scale="logit"), maps)
    shuffled_table = dated_table.isel(time=[3, 0, 6, 1, 5, 2, 4])
    xr.testing.assert_allclose(gm.predict(shuffled_table, again, scale="logit"), maps, atol=1e-6)


def test_hiding_a_year_of_months_is_setting_its_dates_to_nan(dated_table):
    model = gm.fit(
        dated_table, Schema.from_dict(MONTHLY), network=TINY_NETWORK, training=quick(), rng=0
    )
    values_result = gm.predict(
        dated_table, model, using=["climate", "ndvi[time=2016]"], scale="logit"
    )
    missing = dated_table.assign(
        ndvi=dated_table["ndvi"].where(dated_table["time"].dt.year == 2016)
    )
    expected = gm.predict(missing, model, scale="logit")
    np.testing.assert_allclose(values_result["suitability"], expected["suitability"], atol=1e-6)


MONTHLY = {
    "modalities": {
        "climate": {"variables": {"bio1": {}}},
        "sky": {"variables": {"ndvi": {"kind": "series", "window": "1MS"}}},
    }
}


def test_gap_filling_and_trees_read_periods_too(dated_table):
    schema = Schema.from_dict(MONTHLY)
    filled_table = gm.baselines.fit_imputed(
        dated_table, schema, fit_options={"network": TINY_NETWORK, "training": quick()}
    )
    trees = gm.baselines.fit_baseline("xgboost", dated_table, schema, rng=0, options={"rounds": 3})
    for kind in ("mean", "conditional"):
        assert np.isfinite(filled_table.by(kind).scores(dated_table)).all()
    assert trees.scores(dated_table).shape == (80, 2)


@pytest.mark.parametrize(
    ("period", "dates", "name"),
    [
        ("YS", ["2015-01-03", "2015-12-30"], "2015"),
        ("YE", ["2015-01-03", "2015-12-30"], "2015"),
        ("YS-JUL", ["2015-07-03", "2016-06-30"], "2015-07..2016-06"),
        ("YE-JUN", ["2015-07-03", "2015-07-30"], "2015-07"),
        ("QS", ["2015-01-03", "2015-03-30"], "2015-01..2015-03"),
        ("QE-DEC", ["2015-01-03", "2015-01-30"], "2015-01"),
        ("MS", ["2015-07-03", "2015-07-30"], "2015-07"),
        ("ME", ["2015-07-03", "2015-07-30"], "2015-07"),
        ("16D", ["2015-07-03", "2015-07-12"], "2015-07-03..2015-07-12"),
    ],
)
def test_a_period_is_named_by_the_digits_that_its_dates_share(period, dates, name):
    assert period_label(dates, period) == name


@pytest.mark.parametrize(
    ("period", "long_enough"), [("1D", True), ("24h", True), ("23h", False), ("2D", True)]
)
def test_a_period_takes_a_day_or_longer(period, long_enough):
    assert is_period(period) is long_enough


def test_dates_of_different_time_zones_fall_into_the_months_of_utc():
    dates = ["2015-07-31T23:00:00-05:00", "2015-07-31T23:00:00Z", "2015-08-01T01:00:00+05:00"]
    assert periods(dates, "1MS") == [(2, 1), (0,)]
