"""Value of information: an independent computation, the laws of layers, and worlds whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from helpers_novelty import model_of, sites_of

import geomiam as gm
from geomiam.errors import MemoryRefused, SelectionError, SettingError
from geomiam.maps.job import Job
from geomiam.model.reference import Reference
from geomiam.uncertainty.donors import Donors, kernel, tokens_of_features
from geomiam.uncertainty.value_block import weighted_mean

NAMES = ["value_of_information", "value_standard_error"]
DRAWABLE = ["climate", "terrain", "cover", "embedding"]
"""Groups without a series or an image: the model stores their values."""


@pytest.fixture(scope="module")
def model(small_model):
    return small_model("group")


@pytest.fixture(scope="module")
def value(crop, model) -> xr.Dataset:
    return gm.value_of_information(crop, model, groups=DRAWABLE)


def by_hand(cells: xr.Dataset, sites: xr.Dataset, model: gm.Model, group: str, *, k: int):
    """Value, its error and the margin to the next donor for each cell that lacks a group, by loops."""
    names = list(model.schema.variables)
    owner = {v: m.name for m in model.schema.modalities.values() for v in m.variables}
    x, y = (np.stack([d[n].values.astype(float) for n in names], 1) for d in (cells, sites))
    mean, std = np.nanmean(y, 0), np.nanstd(y, 0)
    x, y = (x - mean) / std, (y - mean) / std
    of_group = np.array([owner[n] == group for n in names])
    before, result, with_group = gm.predict(cells, model)["suitability"].values[0], {}, []
    for cell in range(len(x)):
        if np.isfinite(x[cell, of_group]).any() or not np.isfinite(x[cell]).any():
            continue
        distance = {}
        for site in np.flatnonzero(np.isfinite(y[:, of_group]).any(1)):
            terms = [
                (x[cell, j] - y[site, j]) ** 2 if np.isfinite(y[site, j]) else 2.0
                for j in np.flatnonzero(np.isfinite(x[cell]))
            ]
            distance[site] = sum(terms)
        *nearest, after = sorted(distance, key=distance.get)[: k + 1]
        farthest = distance[nearest[-1]]
        assert distance[after] - farthest > 1e-5, "the cells of this test have no ties"
        weight = np.array([1 - distance[s] / farthest * k / (k + 1) for s in nearest])
        result[cell] = weight / weight.sum()
        rows = cells.isel(site=[cell] * k).copy(deep=True)
        for j in np.flatnonzero(of_group):
            rows[names[j]][:] = sites[names[j]].values[nearest]
        with_group.append(rows)
    after_drawing = gm.predict(xr.concat(with_group, "site"), model)["suitability"].values[0]
    for (cell, weight), rows in zip(result.items(), after_drawing.reshape(-1, k)):
        change = np.abs(rows - before[cell])
        expected = (weight * change).sum()
        effective = 1 / (weight**2).sum()
        variance = (weight * (change - expected) ** 2).sum() * effective / (effective - 1)
        result[cell] = expected, (variance / effective) ** 0.5
    return result


def tables(seed: int, n: int, *, gaps: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = {k: rng.normal(size=n) for k in "abcd"}
    return {k: np.where(rng.random(n) < gaps, np.nan, v) for k, v in table.items()}


MODALITIES = {"a": "one", "b": "one", "c": "two", "d": "three"}


@pytest.mark.filterwarnings("ignore::geomiam.errors.OutsideTrainingRange")
def test_values_equal_an_independent_computation():
    sites = sites_of(tables(0, 50, gaps=0.15), **MODALITIES)
    cells = sites_of(tables(1, 12, gaps=0.5), **MODALITIES)
    model = model_of(sites)
    options = gm.ValueOptions(neighbours=7)
    result = gm.value_of_information(cells, model, reference=sites, options=options)
    count = 0
    for group in ("one", "two", "three"):
        expected = by_hand(cells, sites, model, group, k=7)
        of_group = result.sel(group=group, species="oak")
        for number, name in enumerate(NAMES):
            values = of_group[name].values
            assert set(np.flatnonzero(np.isfinite(values))) == set(expected)
            for cell, pair in expected.items():
                assert values[cell] == pytest.approx(pair[number], rel=1e-3, abs=1e-6)
        count += len(expected)
    assert count > 10
    # the sites that a model stores, and any order of sites, give the same values
    with_sites = replace(model, reference=stored_reference(model, sites))
    other_order = sites.isel(site=np.random.default_rng(2).permutation(50))  # no ties
    for again in (
        gm.value_of_information(cells, with_sites, options=options),
        gm.value_of_information(cells, model, reference=other_order, options=options),
    ):
        for name in NAMES:
            np.testing.assert_allclose(again[name], result[name], rtol=1e-4, atol=1e-6)


def stored_reference(model: gm.Model, sites: xr.Dataset) -> Reference:
    """The features of the sites, as a fit stores them."""
    from geomiam.uncertainty.block import site_tokens, values_of

    visible = np.ones(model.layout.size, bool)
    return Reference.of(values_of(site_tokens(model, sites, visible), model, visible))


def test_a_group_that_decides_everything_has_the_highest_value():
    rng = np.random.default_rng(0)
    n = 150
    decisive, noise, shared = rng.normal(size=(3, n))
    decisive = np.where(
        shared > 0, decisive, 0.01 * decisive - 3
    )  # known from shared, where it is low
    sites = sites_of(
        {"decisive": decisive, "noise": noise, "shared": shared},
        decisive="decisive",
        noise="noise",
        shared="shared",
    )
    sites["presence"] = (("site", "species"), (decisive[:, None] > 0).astype(np.float32))
    sites = sites.assign_coords(
        species=["oak"], x=("site", rng.random(n)), y=("site", rng.random(n))
    )
    network, training = {"fusion": "linear", "members": 1}, {"steps": 60, "lr": 0.1}
    model = gm.fit(sites, network=network, training=training, validation=False, rng=0)
    cells = sites.drop_vars("presence").isel(site=slice(0, 60))
    cells = cells.assign(decisive=cells["decisive"] * np.nan, noise=cells["noise"] * np.nan)
    value = gm.value_of_information(cells, model)["value_of_information"].isel(species=0)
    uncertain = cells["shared"].values > 0.3
    means = value.sel(group=["decisive", "noise"]).values
    assert value.sel(group="shared").isnull().all()
    assert (means[0] > 3 * means[1])[uncertain].mean() > 0.9
    # where the other predictors determine the group, observing it changes less
    clear = cells["shared"].values < -0.3
    assert means[0][uncertain].mean() > 2 * means[0][clear].mean()


def test_values_stand_where_a_group_is_missing_and_only_there(crop, model, value):
    maps = gm.predict(crop, model)
    shows = dict(zip(model.schema.groups, maps["observed"].attrs["flag_masks"]))
    for group in DRAWABLE:
        lacks = (maps["observed"] > 0) & ((maps["observed"] & shows[group]) == 0)
        assert 0 < float(lacks.mean()) < 1
        for name in NAMES:
            layer = value[name].sel(group=group)
            assert layer.dtype == np.float32
            np.testing.assert_array_equal(layer.notnull().all("species"), lacks)
            np.testing.assert_array_equal(layer.notnull().any("species"), lacks)
    assert float(value["value_of_information"].min()) >= 0
    assert float(value["value_standard_error"].min()) > 0
    complete = (
        crop.isel(y=[0], x=[0]).fillna(0.5).assign(landcover=crop["landcover"][:1, :1] * 0 + 1)
    )
    complete = complete.assign(
        landcover=complete["landcover"].fillna(1).assign_attrs(crop["landcover"].attrs)
    )
    assert gm.value_of_information(complete, model, groups=DRAWABLE)[NAMES[0]].isnull().all()


def test_a_group_that_no_site_has_is_nan(crop, model):
    values = model.reference.values.copy()
    numbers = np.arange(values.shape[1])
    from geomiam.tokens.features import features_of

    slope = [f.columns for f in features_of(model.layout) if f.variable in ("slope", "aspect")]
    values[:, np.concatenate([numbers[c] for c in slope])] = np.nan
    fewer = replace(model, reference=Reference(values, model.reference.fold))
    result = gm.value_of_information(crop, fewer, groups=["climate", "terrain"])[
        "value_of_information"
    ]
    assert (
        result.sel(group="terrain").isnull().all() and result.sel(group="climate").notnull().any()
    )


def test_chunks_do_not_matter_and_no_chunk_is_read_before_compute(crop, model, value):
    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        lazy = crop.chunk(y=3).miam.value_of_information(model, groups=DRAWABLE)
    assert all(lazy[name].chunks is not None for name in NAMES)
    window = {"y": slice(1, 5), "x": slice(2, 6)}
    part = gm.value_of_information(crop.isel(window), model, groups=DRAWABLE)
    for name in NAMES:
        np.testing.assert_allclose(lazy[name], value[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(part[name], value[name].isel(window), rtol=1e-4, atol=1e-6)


def test_hidden_is_left_out_is_missing(crop, model):
    left_out = gm.value_of_information(crop, model, using=DRAWABLE)
    missing = crop.assign(landsat=crop["landsat"] * np.nan, chip=crop["chip"] * np.inf)
    result = gm.value_of_information(missing, model, groups=DRAWABLE)
    for name in NAMES:
        np.testing.assert_allclose(result[name], left_out[name], rtol=1e-4, atol=1e-6)


def test_a_set_of_species_has_the_weighted_mean(crop, model, value):
    weights = {model.species[2]: 3.0, model.species[0]: 1.0, model.species[1]: 0.0}
    options = gm.ValueOptions(weights=weights)
    of_set = gm.value_of_information(crop, model, groups=DRAWABLE, options=options)
    expected = value["value_of_information"].isel(species=[0, 2])
    expected = expected.weighted(xr.DataArray([1.0, 3.0], dims="species")).mean("species")
    assert of_set["value_of_information"].dims == ("group", "y", "x")
    np.testing.assert_allclose(of_set["value_of_information"], expected, rtol=1e-4, atol=1e-6)
    # changes of species are correlated within a donor, so the errors do not add in squares
    independent = (
        value["value_standard_error"].isel(species=[0, 2]) * np.array([1, 3])[:, None, None] / 4
    )
    sum_of_errors = independent.sum("species", skipna=False)
    assert bool(
        (of_set["value_standard_error"] <= sum_of_errors * 1.001)
        .where(sum_of_errors.notnull(), True)
        .all()
    )


def test_series_and_images_are_drawn_from_sites(crop, sites, model, value):
    result = gm.value_of_information(crop, model, reference=sites)
    assert result["value_of_information"].sel(group="landsat").notnull().any()
    of_groups = result.sel(group=DRAWABLE)["value_of_information"]
    np.testing.assert_array_equal(of_groups.isnull(), value["value_of_information"].isnull())
    assert (
        float(
            np.corrcoef(
                of_groups.fillna(0).values.ravel(),
                value["value_of_information"].fillna(0).values.ravel(),
            )[0, 1]
        )
        > 0.9
    )


def test_a_written_map_has_the_layers(crop, model, value, tmp_path):
    options = gm.MapOptions(value_of_information=gm.ValueOptions(), groups=DRAWABLE)
    with dask.config.set(scheduler="synchronous"):
        path, chunks = tmp_path / "map.zarr", {"y": 6, "x": 4}
        maps = gm.write_map(crop, model, path, chunks=chunks, options=options)
    for name in NAMES:
        np.testing.assert_allclose(maps[name], value[name], rtol=1e-4, atol=1e-6)
    assert "suitability" in maps and list(maps["group"].values) == DRAWABLE
    # a map is not resumed with values of other options
    variants = (gm.ValueOptions(neighbours=5), gm.ValueOptions(weights={"species 0": 1}))
    jobs = [
        Job.of(crop, model, shapley=False, options=replace(options, value_of_information=o))
        for o in (options.value_of_information, *variants)
    ]
    assert len({job.fingerprints(crop)["settings"] for job in jobs}) == 3


def test_wrong_settings_are_refused(crop, sites, model):
    def refused(error, match, groups=("climate",), **arguments):
        options = gm.ValueOptions(**arguments.pop("options", {}))
        with pytest.raises(error, match=match):
            gm.value_of_information(crop, model, groups=list(groups), options=options, **arguments)

    refused(SelectionError, "reference=sites", groups=["landsat", "climate"])
    refused(SelectionError, "soil", groups=["soil"])
    refused(SettingError, "neighbours", options={"neighbours": 1})
    refused(
        SettingError,
        "leave one of them out",
        species="species 0",
        options={"weights": {"species 0": 1}},
    )
    refused(SettingError, "pass a number", options={"weights": {"species 0": -1}})
    refused(SettingError, "above 0", options={"weights": {"species 0": 0}})
    refused(SelectionError, "oak", options={"weights": {"oak": 1}})
    refused(SelectionError, "dim 'site'", reference=crop)
    with pytest.raises(SettingError, match="ValueOptions"):
        gm.value_of_information(crop, model, options=gm.NoveltyOptions())
    with pytest.raises(MemoryRefused):
        gm.value_of_information(
            crop.chunk(), model, groups=["climate"], options=gm.ValueOptions(memory_limit=100)
        )
    none = replace(model, reference=None)
    with pytest.raises(SelectionError, match=r"gm\.value_of_information"):
        gm.value_of_information(crop, none, groups=["climate"])


def test_the_stored_sites_give_their_tokens(sites, model):
    from geomiam.uncertainty.block import site_tokens, values_of

    visible = np.ones(model.layout.size, bool)
    tokens = site_tokens(model, sites, visible)
    again = tokens_of_features(values_of(tokens, model, visible), model.layout)
    for part, first, second in zip(model.layout.parts, tokens.values, again.values):
        if part.name in ("landsat", "chip"):
            assert np.isnan(second).all()
        else:
            np.testing.assert_array_equal(first, second)


def test_equally_distant_donors_are_chosen_at_random_and_weigh_the_same():
    np.testing.assert_allclose(kernel(np.zeros((1, 4))), 0.25)
    np.testing.assert_allclose(kernel(np.array([[3, 3, 3]])), 1 / 3)
    weight = kernel(np.array([[0, 1, 4]]))
    assert (np.diff(weight) < 0).all() and weight.min() > 0 and weight.sum() == pytest.approx(1)
    values = np.repeat(np.arange(100.0)[:, None], 2, 1)
    sites = sites_of({"a": values[:, 0], "b": values[:, 1]}, a="one", b="two")
    model = model_of(sites)
    reference = stored_reference(model, sites)
    from geomiam.tokens.features import features_of

    donors = Donors.of(
        reference.values,
        tokens_of_features(reference.values, model.layout),
        groups=np.eye(2, dtype=bool),
        features=features_of(model.layout),
        classes={},
        count=10,
    )
    (_, squares), *_ = donors.squares(np.full((1, 2), np.nan))  # nothing is compared
    values = donors.tokens.values[0][donors.nearest(squares, 0)[0][0]].ravel()
    assert np.ptp(values) > 1.5  # deviations: not those with the smallest values


def test_the_error_of_equal_weights_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=(3, 6, 2))
    mean, error = weighted_mean(values, np.full((3, 6), 1 / 6))
    np.testing.assert_allclose(mean, values.mean(1))
    np.testing.assert_allclose(error, values.std(1, ddof=1) / 6**0.5)
    assert np.isnan(weighted_mean(values[:, :1], np.ones((3, 1)))[1]).all()


def test_means_over_the_map_and_over_zones(crop, model, value):
    value = value.sel(group=["climate", "cover"])
    layer, areas = value["value_of_information"], gm.ranges.cell_areas(crop)
    is_predicted = gm.predict(crop, model)["observed"] > 0
    west = xr.zeros_like(is_predicted, int) + (np.arange(crop.sizes["x"]) < 3)
    zones = west.assign_attrs(flag_values=[0, 1], flag_meanings="east west")
    table = gm.explain.mean_value(value, zones=zones)
    for number, zone in enumerate(("east", "west")):
        is_in = is_predicted & (west == number)
        total = float(areas.where(is_in).sum())
        expected = (layer * areas).where(is_in).sum(("y", "x")) / total
        np.testing.assert_allclose(table["gain"].sel(zone=zone), expected, rtol=1e-5)
    everywhere = gm.explain.mean_value(value)
    lacking = areas.where(layer.notnull()).sum(("y", "x")) / float(areas.where(is_predicted).sum())
    np.testing.assert_allclose(
        everywhere["lacking"], lacking.transpose("group", "species"), rtol=1e-5
    )
    np.testing.assert_allclose(everywhere["value"] * everywhere["lacking"], everywhere["gain"])
    with pytest.raises(SettingError, match="value_of_information"):
        gm.explain.mean_value(crop)


def test_the_figure_names_the_group_worth_most(crop, value):
    import matplotlib.pyplot as plt

    ax = gm.plot.value_of_information(value, species="species 1")
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    layer = value["value_of_information"].sel(species="species 1")
    layer = layer.fillna(-1)
    is_best = (layer.argmax("group") == 0) & (layer.max("group") >= 0)
    share = float(is_best.sum() / (layer.max("group") >= 0).sum())
    assert texts[0].startswith(f"climate: {share:.0%}")
    with pytest.raises(SettingError, match=r"gm\.value_of_information"):
        gm.plot.value_of_information(crop)
    plt.close("all")
