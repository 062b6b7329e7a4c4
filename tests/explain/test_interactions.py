"""Interactions: an independent exact computer, what they add up to, absent groups, chunks and stored maps."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from helpers_small import untrained
from test_laws import encode_sites, without
from test_shapley import value_of

import geomiam as gm
from geomiam.errors import MemoryRefused, SelectionError, SettingError
from geomiam.inference.terms import Terms, members
from geomiam.tokens.select import group_masks

INDICES = {"shapley-taylor": "STII", "shapley": "k-SII", "mobius": "Moebius"}
"""Names of shapiq; the main effects of k-SII keep the sum."""


def exact_terms(game, groups: int, *, index: str, order: int) -> dict:
    """Terms by shapiq, by the tuple of their groups."""
    from shapiq.game_theory import ExactComputer

    values = ExactComputer(game, n_players=groups)(INDICES[index], order)
    return {key: values[key] for key in values.interaction_lookup}


def of_sets(member: np.ndarray, values: dict) -> list[float]:
    return [values.get(tuple(np.flatnonzero(row)), 0.0) for row in member]


@pytest.mark.parametrize(
    ("index", "order"),
    [("shapley-taylor", 2), ("shapley-taylor", 3), ("shapley", 2), ("mobius", 2), ("mobius", 5)],
)
def test_weights_equal_an_independent_exact_computer(index, order):
    pytest.importorskip("shapiq")
    v = np.random.default_rng(0).normal(size=2**5)
    terms = Terms.of_order(5, order, index=index)
    expected = exact_terms(lambda c: v[c @ (1 << np.arange(5))], 5, index=index, order=order)
    np.testing.assert_allclose(v @ terms.weight, of_sets(terms.member, expected), atol=1e-10)
    np.testing.assert_allclose(terms.weight.sum(0), 0, atol=1e-12)


@pytest.fixture(scope="module", params=["probability", "logit"])
def game(request, small_model, sites):
    """A site, the scale, and v(S) of its 64 coalitions by plain predictions."""
    model, row = small_model("group"), sites.isel(site=[3])
    block, masks = encode_sites(row, model), np.stack(list(group_masks(model.layout).values()))
    settings = {"species": np.array([1]), "scale": request.param}
    coalitions = map(np.flatnonzero, members(len(masks)))
    v = np.array([value_of(model, block, masks, c, **settings).item() for c in coalitions])
    return row, request.param, v


@pytest.mark.parametrize("index", INDICES)
def test_values_of_sites_equal_an_independent_exact_computer(small_model, game, index):
    pytest.importorskip("shapiq")
    (row, scale, v), model = game, small_model("group")
    bits = 1 << np.arange(6)
    expected = exact_terms(lambda c: v[c @ bits], 6, index=index, order=2)
    options = gm.explain.ShapleyOptions(index=index)
    explanation = gm.shapley(row, model, species="species 1", scale=scale, order=2, options=options)
    actual = xr.concat([explanation["main_effect"].rename(group="combination"), explanation["interaction"]], "combination")  # fmt: skip
    member = np.concatenate([np.eye(6), explanation["includes"].values])
    np.testing.assert_allclose(actual.values.ravel(), of_sets(member, expected), atol=1e-5)
    assert float(abs(explanation["interaction"]).max()) > 1e-3  # there is something to compare


def test_a_location_is_a_group_with_exact_interactions(cube):
    """v(S) by ``using=``: the location interacts as in GeoShapley, without a background sample."""
    pytest.importorskip("shapiq")
    data = gm.add_location(cube[["bio1", "bio12", "slope"]].isel(y=[3, 4], x=[5, 6]).fillna(3))
    model = untrained(gm.infer_schema(data), species=1)
    names = list(model.schema.groups)
    assert "location" in names and len(names) == 3
    terms = gm.shapley(data, model, order=2)
    tables = {
        c: gm.predict(data, model, using=list(np.compress(c, names)))["suitability"].values.ravel()
        if any(c)
        else np.repeat(terms["base_value"].values, 4)
        for c in np.ndindex(2, 2, 2)
    }

    def game(coalitions):
        return np.array([tables[tuple(map(int, c))][1] for c in coalitions])

    expected = exact_terms(game, 3, index="shapley-taylor", order=2)
    actual = terms["interaction"].values.reshape(3, 4)[:, 1]
    np.testing.assert_allclose(actual, of_sets(terms["includes"].values, expected), atol=1e-5)
    assert np.abs(actual).max() > 1e-4


@pytest.fixture(scope="module")
def interactions(small_model, cube):
    return gm.shapley(without(cube, small_model("group"), "landsat"), small_model("group"), order=2)


def test_main_effects_and_interactions_add_up_and_an_absent_group_has_none(interactions):
    sums = {n: interactions[n].sum(d, skipna=False) for n, d in _DIMS.items()}
    total = interactions["base_value"] + sums["main_effect"] + sums["interaction"]
    has_token = interactions["suitability"].notnull()
    assert has_token.any() and not has_token.all()
    np.testing.assert_array_equal(total.notnull(), has_token)
    assert float(np.abs(total - interactions["suitability"]).max()) < 1e-5
    half = (interactions["interaction"] * interactions["includes"]).sum(
        "combination", skipna=False
    ) / 2
    parts = interactions["main_effect"] + half
    np.testing.assert_allclose(parts, interactions["shapley"].transpose(*parts.dims), atol=1e-5)
    of_landsat = interactions["interaction"].isel(
        combination=interactions["includes"].sel(group="landsat").values == 1
    )
    assert of_landsat.sizes["combination"] == 5
    assert (of_landsat.where(has_token, 0) == 0).all()
    lacks_climate = ~(interactions["observed"].values & 1).astype(bool) & has_token
    assert (interactions["interaction"].sel(combination="climate:cover").where(lacks_climate, 0) == 0).all()  # fmt: skip


_DIMS = {"main_effect": "group", "interaction": "combination"}


def test_first_order_is_unchanged_and_the_order_of_groups_does_not_matter(small_model, cube):
    model, part = small_model("group"), cube.isel(y=slice(0, 3))
    names = ["climate", "cover", "terrain"]
    first, second = (gm.shapley(part, model, groups=g, order=2) for g in (names, names[::-1]))
    np.testing.assert_allclose(
        first["interaction"].sel(combination="climate:terrain"),
        second["interaction"].sel(combination="terrain:climate"),
        atol=2e-6,
    )
    plain = gm.shapley(part, model, groups=names)
    np.testing.assert_allclose(first["shapley"], plain["shapley"], atol=2e-6)
    assert "interaction" not in plain


def test_chunks_do_not_matter_and_a_stored_map_is_the_map_in_memory(
    small_model, cube, interactions, tmp_path
):
    model = small_model("group")
    data = without(cube, model, "landsat").chunk(y=5, x=6)
    lazy = gm.shapley(data, model, order=2)
    assert all(lazy[n].chunks is not None for n in _DIMS)
    options = gm.MapOptions(order=2)
    map_on_disk = gm.write_map(data, model, tmp_path / "explanation.zarr", shapley=True, options=options, progress=False)  # fmt: skip
    for name in _DIMS:
        np.testing.assert_allclose(lazy[name], interactions[name], atol=2e-6)
        np.testing.assert_allclose(map_on_disk[name], interactions[name], atol=2e-6)
    assert map_on_disk["combination"].values.tolist() == interactions["combination"].values.tolist()
    np.testing.assert_array_equal(map_on_disk["includes"], interactions["includes"])


def test_memory_of_a_block_counts_the_interactions(small_model, cube):
    options, needs = gm.explain.ShapleyOptions(memory_limit=1), []
    for order in (1, 2):
        with pytest.raises(MemoryRefused, match="bytes per cell") as refusal:
            gm.shapley(cube.chunk(), small_model("group"), order=order, options=options)
        needs.append(
            int(re.search(r"\(([\d,]+) bytes per", str(refusal.value))[1].replace(",", ""))
        )
    # 15 pairs and 6 main effects of 3 species, as an array of the grid and as rows
    assert needs[1] - needs[0] == 2 * 4 * 3 * (15 + 6)


@pytest.mark.parametrize(
    ("order", "options", "error", "message"),
    [
        (0, {}, SettingError, "order=0; use 1 for Shapley values, or 2"),
        (2.5, {}, SettingError, r"order=2\.5; use 1"),
        (7, {}, SelectionError, "order=7 needs 7 groups or more, found climate, terrain"),
        (1, {"index": "mobius"}, SettingError, "index='mobius' has no effect with order=1"),
        (2, {"index": "banzhaf"}, SettingError, "index='banzhaf'; use shapley-taylor, shapley"),
        (3, {"index": "shapley"}, SettingError, "index='shapley' has order 2, found order=3"),
        (2, {"method": "latin"}, SelectionError, "order=2 needs all coalitions, but method='latin'"),
    ],
)  # fmt: skip
def test_an_order_that_does_not_fit_is_refused(small_model, cube, order, options, error, message):
    with pytest.raises(error, match=message):
        options = gm.explain.ShapleyOptions(**options)
        gm.shapley(cube, small_model("group"), order=order, options=options)


def test_options_of_interactions_need_a_map_of_contributions(small_model, cube, tmp_path):
    with pytest.raises(SettingError, match=r"order=, index= has no effect with shapley=False"):
        options = gm.MapOptions(order=2, index="mobius")
        gm.write_map(cube, small_model("group"), tmp_path / "map.zarr", options=options)
