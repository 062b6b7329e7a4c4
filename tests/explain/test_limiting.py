"""Limiting groups and shadow distributions, by hand in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import geomiam as gm
from geomiam.errors import SelectionError, SettingError


@pytest.fixture(scope="module")
def contributions(small_model, cube):
    return gm.shapley(cube, small_model("group"))


def has_group(cube, model, name):
    layers = [cube[v].notnull() for v in model.schema.modalities[name].variables]
    return np.any([v.any([d for d in v.dims if d not in ("y", "x")]).values for v in layers], 0)


def test_the_limiting_group_has_the_smallest_contribution_of_those_observed(
    small_model, cube, contributions
):
    model = small_model("group")
    observed = np.stack([has_group(cube, model, g) for g in contributions["group"].values])
    values = np.where(observed[:, None], contributions["shapley"], np.inf)
    result = gm.explain.limiting(contributions)
    none = np.broadcast_to(~observed.any(0), values.shape[1:])
    assert none.any() and not none.all()
    np.testing.assert_array_equal(result["limiting"], np.where(none, np.nan, values.argmin(0) + 1))
    np.testing.assert_array_equal(result["contribution"], np.where(none, np.nan, values.min(0)))
    assert (result["contribution"] > 0).any()  # and no absent group is counted there
    attrs = result["limiting"].attrs
    assert attrs["flag_meanings"].split() == list(model.schema.groups)
    lazy = gm.explain.limiting(gm.shapley(cube.chunk(y=5), model))
    assert lazy["limiting"].chunks is not None
    np.testing.assert_array_equal(lazy["limiting"], result["limiting"])


def test_bits_are_matched_to_groups_by_name(contributions):
    mixed = contributions.isel(group=[5, 0, 2, 1])
    first = gm.explain.limiting(mixed)["limiting"]
    second = gm.explain.limiting(contributions.isel(group=[0, 1, 2, 5]))["limiting"]
    names = [np.array(["none", *a.attrs["flag_meanings"].split()]) for a in (first, second)]
    numbers = [a.fillna(0).values.astype(int) for a in (first, second)]
    np.testing.assert_array_equal(names[0][numbers[0]], names[1][numbers[1]])


def test_a_shadow_is_where_nature_raises_and_people_lower(small_model, cube, contributions):
    model, natural, human = small_model("group"), ["climate", "terrain"], "cover"
    result = gm.explain.shadow(contributions, natural=natural, human=human)
    by_group = {g: contributions["shapley"].sel(group=g).values for g in [*natural, human]}
    nature, people = by_group["climate"] + by_group["terrain"], by_group["cover"]
    codes = np.where(nature > 0, np.where(people < 0, 2.0, 1.0), 0.0)
    is_known = np.any([has_group(cube, model, g) for g in natural], 0) & has_group(cube, model, human)  # fmt: skip
    codes = np.where(is_known, codes, np.nan)
    np.testing.assert_array_equal(result["shadow"], codes)
    assert {0.0, 1.0, 2.0} <= set(np.unique(codes[np.isfinite(codes)]))
    expected = contributions["suitability"] - people
    np.testing.assert_allclose(result["expected"], expected, atol=1e-6)
    areas = gm.ranges.cell_areas(cube).values
    shadow_area, realised_area = ((areas * (codes == c)).sum((1, 2)) for c in (2.0, 1.0))
    np.testing.assert_allclose(result["area"].sel({"class": "shadow"}), shadow_area)
    np.testing.assert_allclose(result["share"], shadow_area / (shadow_area + realised_area))


@pytest.mark.parametrize(
    ("natural", "human", "message"),
    [
        ("climate", "roads", r"human=\['roads'\]: choose from the groups climate"),
        ([], "cover", r"natural=\[\]: choose from"),
        (["climate", "cover"], "cover", r"\['cover'\] are in natural= and in human="),
    ],
)
def test_lists_of_groups_that_do_not_fit_are_refused(contributions, natural, human, message):
    with pytest.raises(SelectionError, match=message):
        gm.explain.shadow(contributions, natural=natural, human=human)


def test_other_data_are_refused(contributions):
    with pytest.raises(SettingError, match="contributions= has no Shapley values"):
        gm.explain.limiting(contributions[["suitability"]])
    with pytest.raises(SettingError, match=r"lacks the layers \['observed'\]"):
        gm.explain.limiting(contributions.drop_vars("observed"))
