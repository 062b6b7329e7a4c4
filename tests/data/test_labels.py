"""Labels of a dim are the same labels in every spelling, and attributes are hints of any type."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers_small import schema_of, variable

from geomiam.data.infer import infer_schema
from geomiam.data.kinds import guess_kind
from geomiam.data.names import labels_of, positions
from geomiam.data.predictors import predictors
from geomiam.data.values import flags_of, text_of
from geomiam.errors import MissingLabels, VariableMismatch
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import visible_tokens

DEPTHS = np.array([0.0, 0.1, 0.25, 0.3])
MONTHS = pd.date_range("2000-01-01", periods=4, freq="MS")


def series(labels, *, dim: str = "step") -> xr.DataArray:
    """Values 0, 1, … at two sites along labels."""
    values = np.broadcast_to(np.arange(len(labels), dtype="f4"), (2, len(labels)))
    return xr.DataArray(values, dims=("site", dim), coords={dim: labels}, name="v")


def values_for(targets, candidates) -> list[float]:
    """Values that predictors returns for the labels of a model, at the first site."""
    schema = schema_of(
        one=[variable("v", "series", labels={"step": labels_of(series(targets), "step")})]
    )
    return predictors(series(candidates).to_dataset(), schema)["v"].values[0].tolist()


@pytest.mark.filterwarnings("ignore:`pandas.Index` does not support:FutureWarning")
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", ">f8"])
def test_a_decimal_has_one_label_in_every_float_type(dtype):
    assert labels_of(series(DEPTHS.astype(dtype)), "step") == (0.0, 0.1, 0.25, 0.3)


CLASSES = {
    "datetime64": MONTHS,
    "seconds": MONTHS.values.astype("M8[s]"),
    "noleap": [cftime.DatetimeNoLeap(2000, m, 1) for m in range(1, 5)],
    "360_day": [cftime.Datetime360Day(2000, m, 1) for m in range(1, 5)],
    "with a zone": MONTHS.tz_localize("UTC"),
    "python": np.array([t.to_pydatetime() for t in MONTHS], dtype=object),
    "text": [f"2000-0{m}-01 00:00:00" for m in range(1, 5)],
    "zulu": [f"2000-0{m}-01T00:00:00Z" for m in range(1, 5)],
}


@pytest.mark.parametrize("class_b", CLASSES)
@pytest.mark.parametrize("class_a", ["datetime64", "noleap"])
def test_a_date_is_a_date_whatever_class_holds_it(class_a, class_b):
    assert values_for(CLASSES[class_a], CLASSES[class_b]) == [0, 1, 2, 3]


def test_a_time_zone_is_converted_not_cut_off():
    labels = labels_of(series(pd.DatetimeIndex(["2000-01-01"]).tz_localize("Etc/GMT-2")), "step")
    assert labels == ("1999-12-31T22:00:00",)


def test_periods_of_pandas_are_their_first_day():
    assert labels_of(series(pd.period_range("2000-01", periods=2, freq="M")), "step") == (
        "2000-01-01",
        "2000-02-01",
    )


@pytest.mark.parametrize(
    ("targets", "candidates"),
    [
        ((0.0, 0.1, 0.3), (0.0, 0.10000000149011612, 0.30000001192092896)),  # float32 as float64
        ((0.10000000149011612, 0.25), (0.1, 0.25)),  # a model saved before labels were shortened
        ((1, 2, 3), ("1", "2", "3")),
        (("4", "7"), (4.0, 7.0)),
        ((0.0, 0.1, 0.2, 0.30000000000000004), (0.0, 0.1, 0.2, 0.3)),
        ((0.0, 0.1), (1e-17, 0.1)),
        ((20000101, 20000201), (20000100.0, 20000200.0)),  # dates as numbers, through float32
        (("red", "nir"), ("red", "nir")),
    ],
)
def test_labels_match_in_another_spelling(targets, candidates):
    assert positions(targets, candidates).tolist() == list(range(len(targets)))


@pytest.mark.parametrize(
    ("targets", "candidates"),
    [
        ((2012, 2013), (2014, 2015)),
        ((8_000_000.0,), (8_000_001.0,)),  # exact in float32
        ((20000101,), (20000102,)),  # integers are never rounded
        ((0.1,), (0.11,)),
        (("red",), ("Red",)),
        ((20000101, 20000102), (20000101.0 + 0.5,)),  # two labels could be meant
    ],
)
def test_labels_that_differ_do_not_match(targets, candidates):
    assert (positions(targets, candidates) < 0).all()


def test_bytes_are_text():
    assert labels_of(series(np.array([b"red", b"nir"])), "step") == ("red", "nir")


def test_durations_are_nanoseconds_in_every_unit():
    hours = np.array([1, 2], "m8[h]")
    assert labels_of(series(hours), "step") == labels_of(series(hours.astype("m8[ns]")), "step")


def test_a_label_that_stands_twice_is_refused():
    with pytest.raises(VariableMismatch, match=r"'v': the label 1 occurs 2 times.*drop_duplicates"):
        values_for([1, 2], [1, 1, 2])


def test_labels_that_are_absent_are_named_in_a_warning():
    with pytest.warns(MissingLabels, match=r"no data for 1 of 3 labels of 'step': 3 \(found 1, 2"):
        np.testing.assert_array_equal(values_for([1, 2, 3], [1, 2]), [0, 1, np.nan])


def test_a_selector_finds_a_depth_that_float_arithmetic_moved():
    depths = variable(
        "v", "series", window=1, labels={"step": (0.10000000149011612, 0.3, 20000101)}
    )
    layout = Layout.of(schema_of(one=[depths]))
    assert visible_tokens(layout, "v[step=0.1]").tolist() == [True, False, False]
    assert visible_tokens(layout, {"v": {"step": 0.1 + 0.2}}).tolist() == [False, True, False]
    assert visible_tokens(layout, "v[step=20000101]").tolist() == [False, False, True]


def test_a_dim_of_cftime_dates_is_a_series_whatever_its_name():
    assert guess_kind(series(CLASSES["noleap"], dim="when")).kind == "series"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (np.int16(1), "1"),
        (np.array(["m"]), "m"),
        (["land", "cover"], "land cover"),
        (b"degC", "degC"),
        ("  ", None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_an_attribute_of_any_type_is_text_or_nothing(value, text):
    assert text_of({"units": value}, "units") == text


@pytest.mark.parametrize(
    ("values", "meanings"),
    [
        ([1, 2], "water wood"),
        (np.array([1, 2], "i1"), ["water", "wood"]),
        ("1, 2", "water wood"),
        ("1b 2b", "water, wood"),
        ((1.0, 2.0), np.array(["water", "wood"])),
    ],
)
def test_flags_are_read_from_every_spelling(values, meanings):
    attrs = {"flag_values": values, "flag_meanings": meanings}
    assert flags_of(attrs) == {1: "water", 2: "wood"}


def test_meanings_of_another_number_are_left_out_and_so_are_values_that_are_no_number():
    assert flags_of({"flag_values": [1, 2], "flag_meanings": "water"}) == {1: "1", 2: "2"}
    assert flags_of({"flag_values": [1, 2], "flag_meanings": ["open water", "wood"]}) == {
        1: "open water",
        2: "wood",
    }
    assert flags_of({"flag_values": "low, high", "flag_meanings": "a b"}) == {}
    assert flags_of({"flag_values": 3}) == {3: "3"}


def test_units_that_are_a_number_are_read_and_compared():
    layer = xr.DataArray(np.ones(2), dims="site", attrs={"units": 1, "modality": ["a", "b"]})
    schema = infer_schema(layer.to_dataset(name="ndvi"))
    assert schema.variables["ndvi"].units == "1"
    assert list(schema.modalities) == ["a b"]
    assert list(predictors(layer.to_dataset(name="ndvi"), schema)) == ["ndvi"]
