"""Tokens: which is which, how they are named, and that what is hidden or missing stays out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers_small import (
    YEARS,
    every_kind,
    layout_of,
    plain_scaler,
    random_arrays,
    schema_of,
    untrained,
    variable,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from geomiam.errors import SchemaError, SelectionError
from geomiam.schema.variable import Group, Variable
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler, fit_scaler, standardise
from geomiam.tokens.select import group_masks, visible_tokens
from geomiam.tokens.tokenizers import (
    Circular,
    Periodic,
    PrivateLinear,
    Symbolic,
    Tokenizers,
    Windows,
)

LAYOUT = Layout.of(every_kind())
WINDOWS = ["2016-01-01..2016-07-01", "2017-01-01..2017-07-01", "2018-01-01"]


def names(layout: Layout, *selectors) -> list[str]:
    """Names of the tokens that some selectors show."""
    visible = visible_tokens(layout, list(selectors))
    return [n for n, s in zip(layout.names, visible, strict=True) if s]


# Layout -----------------------------------------------------------------------------------------


def test_tokens_stand_by_modality_scalars_first_then_angles_then_the_others():
    assert LAYOUT.names[:4] == ["bio1", "bio12", "aspect", "landcover"]
    assert LAYOUT.names[4:10] == [
        f"landsat[band={b},time={w}]" for b in ("red", "nir") for w in WINDOWS
    ]
    assert LAYOUT.names[10:14] == [
        "chip[band=red,v=0..1,u=0..1]",
        "chip[band=red,v=0..1,u=2..3]",
        "chip[band=red,v=2..3,u=0..1]",
        "chip[band=red,v=2..3,u=2..3]",
    ]
    assert LAYOUT.names[-1] == "embedding[feature=0..2]"
    assert len(set(LAYOUT.names)) == LAYOUT.size == len(LAYOUT.names)


def test_sizes_count_the_tokens_of_each_modality():
    assert LAYOUT.sizes.tolist() == [3, 1, 6, 12, 6, 1]
    assert LAYOUT.sizes.sum() == LAYOUT.size
    starts = [p.start for p in LAYOUT.parts]
    assert starts == [0, *np.cumsum([p.size for p in LAYOUT.parts])[:-1]]


def test_scalars_and_angles_of_a_modality_share_a_part_and_other_variables_have_their_own():
    assert [(p.kind, len(p.spans), p.size, p.width) for p in LAYOUT.parts] == [
        ("scalar", 2, 2, 1),
        ("circular", 1, 1, 1),
        ("categorical", 1, 1, 1),
        ("series", 1, 6, 2),
        ("image", 1, 12, 4),
        ("series", 1, 6, 1),  # symbols
        ("vector", 1, 1, 3),
    ]


def test_channels_have_separate_weights_and_windows_share_them():
    channels = {s.variable.name: s.channels for s in LAYOUT.spans}
    assert channels["landsat"] == channels["chip"] == 2
    assert channels["embedding"] == 1
    two = layout_of(
        m=[variable("v", "series", labels={"a": range(2), "b": range(3), "t": range(4)})]
    )
    assert (two.spans[0].channels, two.size) == (6, 24)


@pytest.mark.parametrize(
    ("steps", "window", "tokens", "width"),
    [
        (5, 2, 3, 2),
        (6, 2, 3, 2),
        (5, 9, 1, 5),
        (24, None, 24, 1),
        (25, None, 13, 2),
        (1, None, 1, 1),
    ],
)
def test_a_series_is_cut_into_windows_and_the_last_may_be_short(steps, window, tokens, width):
    v = variable("v", "series", window=window, labels={"t": range(steps)})
    span = layout_of(m=[v]).spans[0]
    assert (span.size, span.widths) == (tokens, (width,))
    labels = list(itertools.chain(*span.windows[0]))
    assert labels == list(range(steps))
    assert all(len(w) == width for w in span.windows[0][:-1])


@pytest.mark.parametrize(
    ("v", "u", "patch", "steps"),
    [(6, 6, 3, (2, 2)), (5, 4, 2, (3, 2)), (10, 10, None, (5, 5)), (7, 3, 4, (2, 1))],
)
def test_an_image_is_cut_into_patches_and_the_edge_may_be_ragged(v, u, patch, steps):
    chip = variable("c", "image", patch=patch, labels={"v": range(v), "u": range(u)})
    assert layout_of(m=[chip]).spans[0].steps == steps


def test_an_unbound_schema_has_no_layout():
    schema = schema_of(m=[Variable(name="chip", kind="image")])
    with pytest.raises(
        SchemaError, match=r"\['chip'\] are unknown; call .*bind\(schema, dataset\)"
    ):
        Layout.of(schema)


# Selectors --------------------------------------------------------------------------------------


def test_no_selector_shows_all_tokens_and_an_empty_list_is_refused():
    assert visible_tokens(LAYOUT, None).all()
    with pytest.raises(SelectionError, match="an empty selection shows nothing"):
        visible_tokens(LAYOUT, [])


def test_groups_modalities_and_variables_are_selected_by_name():
    assert names(LAYOUT, "climate") == ["bio1", "bio12", "aspect"]
    assert names(LAYOUT, "bio12") == ["bio12"]
    assert names(LAYOUT, "cover", " bio1 ") == ["bio1", "landcover"]
    schema = schema_of(
        groups={"heat": ["bio1", "s[t=2017]"]},
        climate=[variable("bio1"), variable("bio12")],
        other=[variable("s", "series", labels={"t": YEARS})],
    )
    assert names(Layout.of(schema), "heat") == ["bio1", "s[t=2017-01-01]", "s[t=2017-07-01]"]


def test_a_selector_alone_equals_a_list_of_it():
    assert (visible_tokens(LAYOUT, "climate") == visible_tokens(LAYOUT, ["climate"])).all()


@pytest.mark.parametrize(
    ("selector", "windows"),
    [
        ("landsat[time=2016]", [0]),
        ("landsat[time=2018]", [2]),
        ("landsat[time=2018-01]", [2]),
        ("landsat[time=2018-01-01]", [2]),
        ("landsat[time=2016:2017]", [0, 1]),
        ("landsat[time=2016-07:2018]", [1, 2]),
        ("landsat[time=:2017-07-01]", [0, 1]),
        ("landsat[time=2017:]", [1, 2]),
        ("landsat[time=2016|2018]", [0, 2]),
        ("landsat[ time = 2016 | 2018 ]", [0, 2]),
    ],
)
def test_dates_are_compared_as_far_as_they_are_spelled(selector, windows):
    expected = [f"landsat[band={b},time={WINDOWS[w]}]" for b in ("red", "nir") for w in windows]
    assert names(LAYOUT, selector) == expected


def test_conditions_on_several_dims_must_all_hold():
    assert names(LAYOUT, "landsat[band=nir,time=2016|2018]") == [
        f"landsat[band=nir,time={WINDOWS[w]}]" for w in (0, 2)
    ]


def test_a_window_that_lies_only_partly_inside_is_not_selected():
    assert names(LAYOUT, "landsat[time=2016-07:2017,band=red]") == [
        f"landsat[band=red,time={WINDOWS[1]}]"
    ]
    with pytest.raises(
        SelectionError, match=r"no token lies wholly inside 'landsat\[time=2016-07\]'"
    ):
        names(LAYOUT, "landsat[time=2016-07]")


@pytest.mark.parametrize(
    ("selector", "steps"),
    [
        ("ndvi[month=4:7]", [4, 5, 6, 7]),
        ("ndvi[month=:2]", [1, 2]),
        ("ndvi[month=11:]", [11, 12]),
        ("ndvi[month=1|12]", [1, 12]),
        ("ndvi[month=1]", [1]),
        ("ndvi[month=9.5:10.5]", [10]),
    ],
)
def test_numbers_are_compared_as_numbers(selector, steps):
    layout = layout_of(m=[variable("ndvi", "series", labels={"month": range(1, 13)})])
    assert names(layout, selector) == [f"ndvi[month={s}]" for s in steps]


def test_a_name_is_not_matched_by_its_beginning():
    bands = {"band": ("B1", "B11", "B12", "B8", "B8A"), "t": (1, 2)}
    layout = layout_of(m=[variable("s2", "series", window=2, labels=bands)])
    assert names(layout, "s2[band=B1]") == ["s2[band=B1,t=1..2]"]
    assert names(layout, "s2[band=B8|B11]") == ["s2[band=B11,t=1..2]", "s2[band=B8,t=1..2]"]


def test_a_day_is_inside_a_range_that_spells_out_the_hours():
    layout = layout_of(m=[variable("s", "series", labels={"t": YEARS})])
    hours = slice(np.datetime64("2016-07-01T00:00:00"), np.datetime64("2017-01-01T00:00:00"))
    assert names(layout, {"s": {"t": hours}}) == ["s[t=2016-07-01]", "s[t=2017-01-01]"]


@pytest.mark.parametrize(
    ("size", "patch", "middle"),
    [
        (5, 1, ["v=2,u=2"]),
        (6, 2, ["v=2..3,u=2..3"]),
        (4, 2, ["v=2..3,u=2..3"]),
        (4, 4, ["v=0..3,u=0..3"]),
    ],
)
def test_centre_is_the_middle_patch(size, patch, middle):
    labels = {"band": ("red", "nir"), "v": range(size), "u": range(size)}
    layout = layout_of(m=[variable("chip", "image", patch=patch, labels=labels)])
    expected = [f"chip[band={b},{m}]" for b in ("red", "nir") for m in middle]
    assert names(layout, "chip[centre]") == expected
    assert names(layout, "chip[centre,band=nir]") == expected[1:]


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("landsat[time=2016:2017]", {"landsat": {"time": slice("2016", "2017")}}),
        ("landsat[time=2016:2017]", {"landsat": {"time": slice(2016, 2017)}}),
        ("landsat[time=2017:]", {"landsat": {"time": slice("2017", None)}}),
        ("landsat[time=2016|2018]", {"landsat": {"time": ["2016", 2018]}}),
        ("landsat[band=red,time=2018]", {"landsat": {"band": "red", "time": "2018"}}),
        ("chip[v=0:1]", {"chip": {"v": slice(0, 1)}}),
        ("sentinel2[centre]", {"sentinel2": {"centre": True}}),
        ("climate", {"climate": {}}),
    ],
)
def test_a_mapping_states_the_same_as_the_text(text, mapping):
    visible = visible_tokens(LAYOUT, text)
    assert visible.any() and not visible.all()
    np.testing.assert_array_equal(visible, visible_tokens(LAYOUT, mapping))


def test_an_unknown_name_is_reported_with_the_nearest():
    with pytest.raises(SelectionError, match=r"'climat' is no group.*did you mean 'climate'\?"):
        visible_tokens(LAYOUT, "climat")
    with pytest.raises(SelectionError, match=r"'zzz'.*modalities: climate, cover, landsat"):
        visible_tokens(LAYOUT, ["climate", "zzz"])


@pytest.mark.parametrize(
    "selector", ["landsat[time=1999]", "landsat[day=1]", "bio1[time=2018]", "chip[v=9]"]
)
def test_a_selector_with_nothing_inside_lists_the_tokens_there(selector):
    name = selector.split("[")[0]
    with pytest.raises(SelectionError, match=rf"no token lies wholly inside.*tokens there: {name}"):
        visible_tokens(LAYOUT, selector)


@pytest.mark.parametrize("selector", ["", "[time=1]", "a[b", "landsat[time]", "landsat[time=]"])
def test_text_that_is_no_selector_is_refused_with_the_grammar(selector):
    with pytest.raises(
        SelectionError, match=r"is not a selector; write name, or name\[dim=value\]"
    ):
        visible_tokens(LAYOUT, selector)


@pytest.mark.parametrize("conditions", ["centre", None, ["time"]])
def test_a_mapping_that_is_no_selector_is_refused_with_the_grammar(conditions):
    with pytest.raises(SelectionError, match=r"is not a selector; write \{name: \{dim: value\}\}"):
        visible_tokens(LAYOUT, {"landsat": conditions})


def test_text_cannot_be_compared_with_numbered_labels():
    with pytest.raises(SelectionError, match="'a' cannot be compared with labels such as 0"):
        visible_tokens(LAYOUT, "chip[v=a]")


def test_the_default_players_are_the_groups_of_the_schema():
    masks = group_masks(LAYOUT)
    assert list(masks) == list(LAYOUT.schema.modalities)
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), np.ones(LAYOUT.size))


def test_groups_are_disjoint_and_what_no_group_names_is_the_rest():
    groups = {"heat": "bio1", "sight": ["landsat[band=red]", "cover"]}
    masks = group_masks(LAYOUT, groups)
    assert list(masks) == ["heat", "sight", "rest"]
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), np.ones(LAYOUT.size))
    assert masks["heat"].sum() == 1 and masks["sight"].sum() == 4


def test_what_is_not_shown_plays_no_part():
    visible = visible_tokens(LAYOUT, ["climate", "landcover"])
    masks = group_masks(LAYOUT, ["bio1"], visible=visible)
    assert list(masks) == ["bio1", "rest"]
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), visible)
    assert "landsat" not in group_masks(LAYOUT, visible=visible)  # the schema's groups
    with pytest.raises(SelectionError, match=r"groups \['landsat'\] lie outside using="):
        group_masks(LAYOUT, ["bio1", "landsat"], visible=visible)


def test_groups_that_share_a_token_are_refused_naming_it():
    with pytest.raises(
        SelectionError, match=r"groups \['climate', 'bio1'\] share the token 'bio1'"
    ):
        group_masks(LAYOUT, ["climate", "bio1"])


def test_a_user_group_called_rest_is_never_lost():
    with pytest.raises(
        SelectionError, match="'rest' is the name of the group of all remaining tokens"
    ):
        group_masks(LAYOUT, {"rest": "climate"})
    all_modalities = list(LAYOUT.schema.modalities)
    assert list(group_masks(LAYOUT, {"rest": all_modalities})) == ["rest"]


def test_two_groups_of_one_name_are_refused():
    years = [{"landsat": {"time": y}} for y in ("2016", "2018")]
    with pytest.raises(SelectionError, match=r"two groups are called 'landsat'.*groups=\{"):
        group_masks(LAYOUT, years)


def test_a_group_may_have_the_name_of_a_variable_or_a_modality():
    groups = {"bio1": ["bio1", "bio12"], "soil": ["clay"]}
    schema = schema_of(
        groups, climate=[variable("bio1"), variable("bio12")], soil=[variable("clay")]
    )
    masks = group_masks(Layout.of(schema))
    assert {n: t.tolist() for n, t in masks.items()} == {
        "bio1": [True, True, False],
        "soil": [False, False, True],
    }


def test_a_group_whose_member_names_nothing_but_itself_is_refused():
    schema = schema_of({"heat": ["heat"]}, climate=[variable("bio1")])
    with pytest.raises(SelectionError, match=r"'heat' is no .*modality or variable"):
        group_masks(Layout.of(schema))
    assert Group(name="heat", members=("heat",)) == schema.groups["heat"]


# Encoding, against plain loops ------------------------------------------------------------------


def cut_by_loops(x: np.ndarray, *, channels: int, width: int) -> np.ndarray:
    """``(n, *kept dims, *cut dims)`` → ``(n, tokens, values)``, one token after another."""
    n, channel_dims, cut_dims = len(x), x.shape[1 : 1 + channels], x.shape[1 + channels :]
    widths = [min(width, size) for size in cut_dims]
    tokens = []
    for channel in itertools.product(*map(range, channel_dims)):
        starts = [range(0, size, w) for size, w in zip(cut_dims, widths, strict=True)]
        for start in itertools.product(*starts):
            values = np.full((n, *widths), np.nan, np.float32)
            for offset in itertools.product(*map(range, widths)):
                at = tuple(s + o for s, o in zip(start, offset, strict=True))
                if all(a < size for a, size in zip(at, cut_dims, strict=True)):
                    values[(slice(None), *offset)] = x[(slice(None), *channel, *at)]
            tokens.append(values.reshape(n, -1))
    return np.stack(tokens, 1)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.lists(st.integers(1, 3), max_size=2),
    steps=st.integers(1, 7),
    window=st.integers(1, 8),
    gaps=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_series_is_cut_as_a_plain_loop_cuts_it(channels, steps, window, gaps, seed):
    labels = {f"c{i}": range(c) for i, c in enumerate(channels)} | {"t": range(steps)}
    check_cut(variable("v", "series", window=window, labels=labels), window, gaps, seed)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.lists(st.integers(1, 3), max_size=1),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    patch=st.integers(1, 7),
    gaps=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_an_image_is_cut_as_a_plain_loop_cuts_it(channels, shape, patch, gaps, seed):
    labels = {f"c{i}": range(c) for i, c in enumerate(channels)}
    labels |= {"v": range(shape[0]), "u": range(shape[1])}
    check_cut(variable("v", "image", patch=patch, labels=labels), patch, gaps, seed)


def check_cut(v: Variable, width: int, gaps: float, seed: int) -> None:
    schema = schema_of(m=[v])
    x = random_arrays(schema, 3, seed=seed, gaps=gaps)
    block = encode(x, layout=Layout.of(schema), scaler=plain_scaler(schema))
    channels = len(v.dims) - {"series": 1, "image": 2}[v.kind]
    expected = cut_by_loops(x["v"], channels=channels, width=width)
    np.testing.assert_array_equal(block.values[0], expected)
    np.testing.assert_array_equal(block.observed, np.isfinite(expected).any(-1))


def test_a_token_is_observed_if_any_of_its_values_is_finite():
    schema = schema_of(m=[variable("s", "series", window=2, labels={"t": range(5)})])
    x = np.array([[1, np.nan, np.nan, np.nan, 5], [np.inf, 2, -np.inf, 3, np.nan]], np.float32)
    block = encode({"s": x}, layout=Layout.of(schema), scaler=plain_scaler(schema))
    assert block.observed.tolist() == [[True, False, True], [True, True, False]]
    nan = np.nan
    np.testing.assert_array_equal(
        block.values[0],
        np.array([[[1, nan], [nan, nan], [5, nan]], [[nan, 2], [nan, 3], [nan, nan]]], np.float32),
    )


def test_the_tokens_of_a_part_are_its_variables_side_by_side():
    schema = every_kind()
    arrays = random_arrays(schema, 4, gaps=0)
    block = encode(arrays, layout=LAYOUT, scaler=plain_scaler(schema))
    np.testing.assert_array_equal(block.values[0][:, 0, 0], arrays["bio1"])
    np.testing.assert_array_equal(block.values[0][:, 1, 0], arrays["bio12"])
    np.testing.assert_array_equal(block.values[6][:, 0], arrays["embedding"])
    assert block.observed.shape == (4, LAYOUT.size) and block.observed.all()
    assert len(block) == 4


def test_rows_of_a_block_are_rows_of_the_data():
    arrays = random_arrays(every_kind(), 6)
    block = encode(arrays, layout=LAYOUT, scaler=plain_scaler(every_kind()))
    rows = np.array([4, 1])
    part = encode(
        {k: v[rows] for k, v in arrays.items()}, layout=LAYOUT, scaler=plain_scaler(every_kind())
    )
    for a, b in zip((v[rows] for v in block.values), part.values, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(block.observed[rows], part.observed)


def test_standardising_ignores_missing_values_and_separates_channels():
    schema = every_kind()
    arrays = random_arrays(schema, 50, seed=3, gaps=0.3)
    arrays["bio1"][:3] = [np.inf, -np.inf, np.nan]
    scaler = fit_scaler(arrays, schema)

    def moments(values: np.ndarray) -> tuple[float, float]:
        finite = [float(v) for v in values.ravel() if math.isfinite(v)]
        mean = sum(finite) / len(finite)
        return mean, math.sqrt(sum((v - mean) ** 2 for v in finite) / len(finite))

    for got, values in [
        ((scaler.mean["bio1"], scaler.std["bio1"]), arrays["bio1"]),
        *(
            ((scaler.mean[n][b], scaler.std[n][b]), arrays[n][:, b])
            for n in ("landsat", "chip", "rain")
            for b in (0, 1)
        ),
        *(
            ((scaler.mean["embedding"][f], scaler.std["embedding"][f]), arrays["embedding"][:, f])
            for f in range(3)
        ),
    ]:
        np.testing.assert_allclose(got, moments(values), rtol=1e-6)
    assert set(scaler.mean) == {"bio1", "bio12", "landsat", "chip", "rain", "embedding"}
    z = standardise(arrays["landsat"], schema.variables["landsat"], scaler)
    expected = (arrays["landsat"] - scaler.mean["landsat"][:, None]) / scaler.std["landsat"][
        :, None
    ]
    np.testing.assert_allclose(z, expected, rtol=1e-5)
    assert z.dtype == np.float32


def test_a_constant_or_empty_variable_is_scaled_by_one():
    schema = schema_of(m=[variable("a"), variable("b")])
    scaler = fit_scaler({"a": np.full(5, 7.0), "b": np.full(5, np.nan)}, schema)
    assert (scaler.mean["a"], scaler.std["a"]) == (7, 1)
    assert (scaler.mean["b"], scaler.std["b"]) == (0, 1)


@pytest.mark.parametrize("value", [300.0, -4.0, 1e-8, 12345.0])
def test_a_variable_that_is_constant_but_for_rounding_is_scaled_by_one(value):
    schema = schema_of(m=[variable("a"), variable("t", "series", labels={"month": range(3)})])
    x = np.full(200, value, np.float32)
    for _ in range(3):  # resampling moves the last bits
        x[::7] = np.nextafter(x[::7], np.float32(np.inf))
    scaler = fit_scaler({"a": x, "t": np.repeat(x[:, None], 3, 1)}, schema)
    assert scaler.std["a"] == 1
    assert scaler.std["t"] == 1


def test_a_small_deviation_that_is_more_than_rounding_is_the_scale():
    schema = schema_of(m=[variable("a")])
    x = 300 + np.float32([-0.01, 0.01] * 50)
    assert fit_scaler({"a": x}, schema).std["a"] == pytest.approx(0.01, rel=0.01)
    flux = np.float32([1e-8, 3e-8] * 50)  # kg m-2 s-1
    assert fit_scaler({"a": flux}, schema).std["a"] == pytest.approx(1e-8)


def test_classes_become_ranks_and_an_unseen_class_is_not_observed():
    schema = schema_of(m=[variable("c", "categorical")])
    scaler = fit_scaler({"c": np.array([30, 7, np.nan, 7, -2], np.float32)}, schema)
    assert scaler.classes["c"].tolist() == [-2, 7, 30]
    x = np.array([-2, 7, 30, 8, -5, 99, 7.5, np.nan, np.inf], np.float32)
    block = encode({"c": x}, layout=Layout.of(schema), scaler=scaler)
    nan = np.nan
    np.testing.assert_array_equal(block.values[0][:, 0, 0], [0, 1, 2, *[nan] * 6])
    assert block.observed[:, 0].tolist() == [True] * 3 + [False] * 6


def test_a_class_never_seen_at_all_is_not_observed():
    schema = schema_of(m=[variable("c", "categorical")])
    scaler = fit_scaler({"c": np.full(3, np.nan, np.float32)}, schema)
    assert not encode({"c": np.ones(2)}, layout=Layout.of(schema), scaler=scaler).observed.any()


@pytest.mark.parametrize(
    ("period", "value", "radians"), [(360, 90, np.pi / 2), (24, 18, 1.5 * np.pi)]
)
def test_angles_become_radians(period, value, radians):
    v = variable("a", "circular", period=period)
    z = standardise(np.array([value, np.nan], np.float32), v, Scaler({}, {}, {}))
    np.testing.assert_allclose(z, [radians, np.nan], rtol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_not_observed(value):
    schema = every_kind()
    arrays = {k: np.full_like(v, value) for k, v in random_arrays(schema, 2).items()}
    block = encode(arrays, layout=LAYOUT, scaler=plain_scaler(schema))
    assert not block.observed.any()
    assert all(np.isnan(v).all() for v in block.values)


def test_a_number_too_large_once_standardised_is_not_observed():
    schema = schema_of(m=[variable("a")])
    scaler = Scaler({"a": np.array(0.0)}, {"a": np.array(1e-3)}, {})
    block = encode({"a": np.float32([1e38, 1])}, layout=Layout.of(schema), scaler=scaler)
    assert block.observed.ravel().tolist() == [False, True]
    assert np.isnan(block.values[0][0]).all()


def test_the_scaler_survives_plain_types():
    import json

    schema = every_kind()
    arrays = random_arrays(schema, 9)
    scaler = fit_scaler(arrays, schema)
    back = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    for a, b in zip(
        encode(arrays, layout=LAYOUT, scaler=scaler).values,
        encode(arrays, layout=LAYOUT, scaler=back).values,
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


# Tokenizers -------------------------------------------------------------------------------------


def test_periodic_is_its_formula():
    torch.manual_seed(0)
    module = Periodic(3, 5, frequencies=4, sigma=0.5)
    x = torch.randn(7, 3, 1)
    c, w, b = (p.detach().numpy() for p in (module.frequency, *module.linear.parameters()))
    expected = np.empty((7, 3, 5))
    for row, j in itertools.product(range(7), range(3)):
        angles = [2 * math.pi * c[j, k] * float(x[row, j, 0]) for k in range(4)]
        phi = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        for o in range(5):
            expected[row, j, o] = max(0, sum(phi[i] * w[j, i, o] for i in range(8)) + b[j, o])
    got = module(x, torch.ones_like(x, dtype=torch.bool)).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_frequencies_start_within_three_deviations():
    assert Periodic(9, 4, frequencies=99, sigma=0.02).frequency.abs().max() <= 0.06


def test_an_angle_and_a_full_turn_more_are_one_value():
    module = Circular(2, 6)
    x = torch.rand(5, 2, 1) * 2 * math.pi
    finite = torch.ones_like(x, dtype=torch.bool)
    torch.testing.assert_close(
        module(x, finite), module(x + 2 * math.pi, finite), atol=1e-4, rtol=0
    )
    zero, turn = torch.zeros(1, 2, 1), torch.full((1, 2, 1), 2 * math.pi)
    torch.testing.assert_close(
        module(zero, finite[:1]), module(turn, finite[:1]), atol=1e-4, rtol=0
    )
    half = module(turn / 2, finite[:1])
    assert not torch.allclose(module(zero, finite[:1]), half, atol=1e-3)


def test_a_gap_in_a_window_is_not_the_mean():
    module = Windows(1, 2, 3, width=8)
    x = torch.tensor([[[1.0, 0.0, 2.0], [1.0, 0.0, 2.0]]])
    all_finite = torch.ones_like(x, dtype=torch.bool)
    gap = all_finite.clone()
    gap[..., 1] = False
    assert not torch.allclose(module(x, all_finite), module(x, gap))
    assert not torch.allclose(module(x, gap)[0, 0], module(x, gap)[0, 1])  # positions differ


def test_each_channel_has_separate_weights_and_positions_share_them():
    module = Windows(2, 3, 2, width=4)
    with torch.no_grad():
        module.position.zero_()
    x = torch.ones(1, 6, 2)
    tokens = module(x, torch.ones_like(x, dtype=torch.bool))[0].unflatten(0, (2, 3))
    torch.testing.assert_close(tokens[:, 0], tokens[:, 2])
    assert not torch.allclose(tokens[0], tokens[1])


def test_squares_are_inputs_of_a_window_beside_its_values():
    module = Windows(1, 2, 3, width=8, squares=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    finite = torch.rand(5, 2, 3) > 0.3
    values = torch.where(finite, x, 0)
    inputs = torch.cat([values, values**2, finite.float()], -1)  # (5, 2, 9)
    expected = inputs @ module.linear.weight[0] + module.linear.bias[0] + module.position
    torch.testing.assert_close(module(values, finite), expected)
    (gradient,) = torch.autograd.grad(module(values, finite).sum(), x)
    assert (gradient[~finite] == 0).all() and (gradient[finite] != 0).all()


def test_private_windows_keep_the_steps_of_a_series_apart_without_attention():
    """Tokens of shared maps have the same sum for every order of the windows, those of private maps do not."""
    x = torch.randn(3, 4, 2)
    other_order = x[:, [1, 0, 2, 3]]
    finite = torch.ones_like(x, dtype=torch.bool)
    shared, private = (Windows(1, 4, 2, width=8, private=p) for p in (False, True))
    torch.testing.assert_close(shared(x, finite).sum(1), shared(other_order, finite).sum(1))
    assert not torch.allclose(
        private(x, finite).sum(1), private(other_order, finite).sum(1), atol=1e-2
    )
    inputs = torch.cat([x, finite.float()], -1)
    for k in range(4):
        expected = inputs[:, k] @ private.linear.weight[k] + private.linear.bias[k]
        torch.testing.assert_close(private(x, finite)[:, k], expected)


def tokens_of(layout: Layout, values: list[torch.Tensor], visible: torch.Tensor, seed: int = 0):
    torch.manual_seed(seed)
    module = Tokenizers(layout, {"landcover": 3}, width=8, frequencies=4, sigma=0.5)
    return module, module(values, visible)


def test_there_is_a_token_for_each_name():
    block = encode(random_arrays(every_kind(), 5), layout=LAYOUT, scaler=plain_scaler(every_kind()))
    values = [torch.as_tensor(v) for v in block.values]
    assert tokens_of(LAYOUT, values, torch.as_tensor(block.observed))[1].shape == (
        5,
        LAYOUT.size,
        8,
    )


@pytest.mark.parametrize("fusion", ["group", "token", "cross", "late"])
@pytest.mark.parametrize("options", [{}, {"attention": "sparse", "budget": 1.0, "experts": 3}])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e38, 7.0])
def test_hidden_values_are_inert_forward_and_backward(fusion, options, training, poison):
    model = untrained(every_kind(), fusion=fusion, inner=1, dropout=0.0, **options)
    network = model.network.train(training)
    arrays = random_arrays(every_kind(), 6, seed=5, gaps=0)
    block = encode(arrays, layout=LAYOUT, scaler=model.scaler)
    rng = np.random.default_rng(1)
    visible = rng.random(block.observed.shape) < 0.5
    visible[0] = False
    visible = torch.as_tensor(visible & block.observed)
    masks = visible.split([p.size for p in LAYOUT.parts], dim=1)
    clean = [torch.as_tensor(v) for v in block.values]
    dirty = [
        torch.where(mask[..., None], v, torch.tensor(poison))
        for v, mask in zip(clean, masks, strict=True)
    ]

    def run(values):
        network.zero_grad()
        torch.manual_seed(0)  # of the keys that sparse attention samples in training
        values = [v.clone().requires_grad_() for v in values]
        out = network(values, visible)
        out.square().sum().backward()
        weights = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        return out.detach(), weights, [v.grad for v in values if v.grad is not None]

    out, weights, _ = run(clean)
    out_dirty, weights_dirty, inputs_dirty = run(dirty)
    assert torch.isfinite(out).all()
    assert torch.equal(out, out_dirty)
    assert set(weights) == set(weights_dirty)
    for name, gradient in weights.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.equal(gradient, weights_dirty[name]), name
    assert all(torch.isfinite(g).all() for g in inputs_dirty)


def test_a_partly_observed_window_keeps_what_it_has():
    model = untrained(schema_of(m=[variable("s", "series", window=3, labels={"t": range(3)})]))
    x = np.array([[1.0, np.nan, 2.0], [5.0, np.nan, 2.0], [1.0, 3.0, 2.0]], np.float32)
    block = encode({"s": x}, layout=model.layout, scaler=model.scaler)
    assert block.observed.all()
    with torch.no_grad():
        out = model.network(
            [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
        )
    assert torch.isfinite(out).all()
    assert not torch.allclose(out[0], out[1]) and not torch.allclose(out[0], out[2])


def test_weights_start_as_the_papers_state():
    torch.manual_seed(0)
    periodic = Periodic(400, 8)
    assert periodic.frequency.shape == (400, 48)
    assert float(periodic.frequency.detach().std()) == pytest.approx(0.01, rel=0.05)
    weight = PrivateLinear(50, 16, 32).weight.detach()
    assert float(weight.min()) == pytest.approx(-0.25, rel=0.01)
    assert float(weight.max()) == pytest.approx(0.25, rel=0.01)
    for position in (Windows(2, 300, 4, width=64), Symbolic(2, 300, 5, 64, reading="scalar")):
        assert float(position.position.detach().std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("symbols", [2, 5, 8])
def test_numbers_of_symbols_are_standardised(symbols):
    """All symbols are equally frequent in training, so their numbers get mean 0 and deviation 1."""
    tokens = Symbolic(1, symbols, symbols, 4, reading="scalar")
    read = []
    tokens.vector.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    tokens(torch.arange(symbols).float()[None, :, None], torch.ones(1, symbols, 1, dtype=bool))
    assert float(read[0].detach().mean()) == pytest.approx(0, abs=1e-6)
    assert float(read[0].detach().std(unbiased=False)) == pytest.approx(1, abs=1e-6)
