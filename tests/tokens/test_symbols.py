"""Series as symbols: SAX against its own laws, and the laws of prediction with symbols in the model."""

from __future__ import annotations

import json
import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, random_arrays, schema_of, untrained, variable
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, norm
from test_laws import (  # noqa: F401  the laws, each for the model below
    test_a_hidden_token_inside_the_network_is_the_same_as_nan_in_the_data,
    test_any_pattern_of_gaps_is_predicted,
    test_nan_using_and_hiding_are_the_same,
    test_part_of_a_modality_can_be_used,
    test_predicting_a_window_is_cropping_the_prediction,
    test_the_order_of_labels_and_dims_does_not_matter,
    test_what_is_hidden_changes_nothing_backward,
    test_what_is_hidden_changes_nothing_forward,
    whole_map,
)

import geomiam as gm
from geomiam.baselines.columns import Columns
from geomiam.errors import ArtifactError, SchemaError, SelectionError
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import fit_scaler, standardise
from geomiam.tokens.symbols import breakpoints, paa, symbolise
from geomiam.tokens.tokenizers import Symbolic

KINDS = ["gaussian", "quantile"]


def series(steps: int, window: int, symbols: int = 20, kind: str = "gaussian", **fields) -> Schema:
    """One series as symbols."""
    labels = fields.pop("labels", {}) | {"t": range(steps)}
    settings = {"window": window, "symbols": symbols, "breakpoints": kind}
    return schema_of(m=[variable("s", "series", labels=labels, **settings, **fields)])


def ids_of(schema: Schema, x: np.ndarray, train: np.ndarray | None = None) -> np.ndarray:
    """Symbols ``(n, tokens)`` as the network gets them, 0 = missing."""
    scaler = fit_scaler({"s": x if train is None else train}, schema)
    block = encode({"s": x}, layout=Layout.of(schema), scaler=scaler)
    np.testing.assert_array_equal(block.observed, np.isfinite(block.values[0][..., 0]))
    return np.where(block.observed, block.values[0][..., 0] + 1, 0).astype(int)


def mean_by_loop(values: np.ndarray) -> float:
    finite = [float(v) for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


@pytest.fixture(scope="module", params=["group, a vector per symbol", "token, its number"])
def model(request, sites) -> gm.Model:
    """A model that reads Landsat as symbols."""
    sizes = {"width": 16, "heads": 2, "depth": 2, "inner": 1, "frequencies": 8, "sigma": 0.3}
    fusion, reading = request.param.split(", ")
    kind = {"a vector per symbol": "embedding", "its number": "scalar"}[reading]
    return gm.fit(
        sites,
        gm.infer_schema(sites).symbolic(5, window=2, breakpoints=KINDS[kind == "scalar"]),
        network=gm.NetworkConfig(fusion=fusion, symbols=kind, **sizes),
        training=gm.TrainingConfig(
            epoch_steps=1, epochs=2, batch=32, warmup=2, holdout=0, keep="last"
        ),
        rng=0,
    )


# Breakpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alphabet", [2, 4, 20, 256])
def test_gaussian_breakpoints_are_those_of_scipy(alphabet):
    expected = norm.ppf(np.arange(1, alphabet) / alphabet)
    np.testing.assert_allclose(breakpoints(alphabet), expected, atol=1e-12)


def test_symbols_of_white_noise_are_equally_frequent():
    x = np.random.default_rng(0).normal(17, 4, (2000, 12)).astype(np.float32)
    counts = np.bincount(ids_of(series(12, 1), x).ravel(), minlength=21)[1:]
    assert chisquare(counts).pvalue > 0.01


def test_quantiles_make_skewed_symbols_equally_frequent_and_gaussian_ones_do_not():
    x = np.random.default_rng(0).exponential(50, (2000, 12)).astype(np.float32)
    gaussian, quantile = (
        np.bincount(ids_of(series(12, 2, kind=k), x).ravel(), minlength=21)[1:] for k in KINDS
    )
    assert gaussian.min() == 0
    assert quantile.max() - quantile.min() <= 1


@pytest.mark.parametrize("dry", [0.3, 0.95, 1.0])
def test_quantiles_of_few_distinct_values_keep_the_order(dry):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((300, 12)) < dry, 0, rng.integers(1, 4, (300, 12))).astype(np.float32)
    schema = series(12, 1, kind="quantile")
    assert (np.diff(fit_scaler({"s": x}, schema).edges["s"]) >= 0).all()
    ladder = np.linspace(-2, 5, 12, dtype=np.float32)[None]
    ids = ids_of(schema, ladder, train=x)
    assert (np.diff(ids) >= 0).all() and ids[0, 0] == 1 and ids[0, -1] == 20


def test_a_series_that_was_never_observed_has_the_breakpoints_of_a_normal_distribution():
    schema = series(4, 2, 4, "quantile")
    scaler = fit_scaler({"s": np.full((3, 4), np.nan, np.float32)}, schema)
    np.testing.assert_allclose(scaler.edges["s"], norm.ppf([[0.25, 0.5, 0.75]]))
    np.testing.assert_array_equal(scaler.ranges["s"], [[0, 0]])


# Symbols ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_are_what_plain_loops_say(kind):
    """Channels of unlike distributions, a last segment that is shorter, and gaps inside segments."""
    schema = series(7, 3, 6, kind, labels={"band": ("red", "nir")})
    x = random_arrays(schema, 40, seed=2, gaps=0.4)["s"]
    x[:, 1] = np.exp(x[:, 1])
    ids, scaler = ids_of(schema, x).reshape(40, 2, 3), fit_scaler({"s": x}, schema)
    parts = list(product(range(40), enumerate(([0, 1, 2], [3, 4, 5], [6]))))
    for band in (0, 1):
        finite = [float(v) for v in x[:, band].ravel() if math.isfinite(v)]
        mean = sum(finite) / len(finite)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in finite) / len(finite))
        means = [mean_by_loop(x[site, band, steps]) for site, (_, steps) in parts]
        reach = [(f(m for m in means if not math.isnan(m)) - mean) / deviation for f in (min, max)]
        np.testing.assert_allclose(scaler.ranges["s"][band], reach, rtol=1e-5)
        edges = mean + deviation * norm.ppf(np.arange(1, 6) / 6)
        if kind == "quantile":
            edges = np.quantile([m for m in means if not math.isnan(m)], np.arange(1, 6) / 6)
        for segment, (site, (w, _)) in zip(means, parts, strict=True):
            expected = 0 if math.isnan(segment) else 1 + sum(segment >= e for e in edges)
            assert ids[site, band, w] == expected


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 30),
    window=st.integers(1, 12),
    gaps=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_symbol_is_missing_if_and_only_if_its_segment_is(steps, window, gaps, seed):
    schema = series(steps, window, 4)
    x = random_arrays(schema, 5, seed=seed, gaps=gaps)["s"]
    x[0, 0] = np.inf  # no number either
    ids = ids_of(schema, x)
    for w, start in enumerate(range(0, steps, window)):
        is_observed = [any(math.isfinite(v) for v in row[start : start + window]) for row in x]
        np.testing.assert_array_equal(ids[:, w] > 0, is_observed)
    assert ids.max() <= 4


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), symbols=st.integers(2, 40), seed=st.integers(0, 99))
def test_larger_values_never_get_a_smaller_symbol(kind, symbols, seed):
    rng, schema = np.random.default_rng(seed), series(11, 3, symbols, kind)
    x = random_arrays(schema, 30, seed=seed)["s"]
    higher = x + rng.exponential(0.5, x.shape).astype(np.float32)
    low, high = (ids_of(schema, v, train=x) for v in (x, higher))
    assert (high >= low).all() and (high > low).any()


def test_the_level_of_a_series_stays():
    """A month that is ten degrees warmer is another symbol; scaling each series would hide it."""
    rng = np.random.default_rng(0)
    level, season = rng.normal(12, 6, (200, 1)), 8 * np.sin(np.arange(24) * np.pi / 6)
    x = (level + season + rng.normal(size=(200, 24))).astype(np.float32)
    schema = series(24, 2)
    ids, warmer = (ids_of(schema, v, train=x) for v in (x, x + 10))
    inner = ids < 20
    assert inner.mean() > 0.8 and (warmer[inner] > ids[inner]).all()
    pairs = list(combinations(range(60), 2))
    raw = [np.linalg.norm(x[a] - x[b]) for a, b in pairs]
    scaled_alone = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    segments = [range(i, i + 2) for i in range(0, 24, 2)]
    ids_alone = symbolise(paa(scaled_alone, segments)[:, None], breakpoints(20)[None])[:, 0].astype(
        int
    )
    distances = [
        [mindist(s[a], s[b], breakpoints(20), 2) for a, b in pairs] for s in (ids, ids_alone)
    ]
    correlation, correlation_alone = (np.corrcoef(raw, d)[0, 1] for d in distances)
    assert correlation > 0.95 and abs(correlation_alone) < 0.2


def test_a_constant_series_has_symbols_and_finite_predictions():
    schema = series(6, 2, 4)
    x = np.full((5, 6), 7, np.float32)
    assert (ids_of(schema, x) == 3).all()  # 0 stands at the breakpoint in the middle
    assert (ids_of(schema, x - 1, train=x) == 1).all()
    model = untrained(schema)
    block = encode({"s": x}, layout=model.layout, scaler=fit_scaler({"s": x}, schema))
    out = model.network([torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed))
    assert torch.isfinite(out).all()


def test_periods_of_the_calendar_are_segments_too():
    """Each date is compared with its own mean, and months of unequal length are averaged."""
    dates = ("2020-01-03", "2020-01-20", "2020-02-05", "2020-03-01", "2020-03-09", "2020-03-30")
    ndvi = variable("s", "series", window="1MS", symbols=5, labels={"time": dates})
    schema = schema_of(m=[ndvi])
    x = random_arrays(schema, 30, gaps=0.4)["s"]
    ids = ids_of(schema, x)
    z = x - np.nanmean(x.astype(float), 0)
    z /= np.sqrt(np.nanmean(z**2))
    for w, months in enumerate(([0, 1], [2], [3, 4, 5])):
        means = np.array([mean_by_loop(row) for row in z[:, months]])
        expected = 1 + (means[:, None] >= norm.ppf(np.arange(1, 5) / 5)).sum(1)
        np.testing.assert_array_equal(ids[:, w], np.where(np.isnan(means), 0, expected))


# Distances --------------------------------------------------------------------------------------


def mindist(a: np.ndarray, b: np.ndarray, edges: np.ndarray, window: int) -> float:
    """Distance of two words of symbols from 1 (Lin et al. 2007)."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    apart = high - low > 1
    cells = np.where(
        apart, edges[np.maximum(high - 2, 0)] - edges[np.minimum(low, len(edges)) - 1], 0
    )
    return math.sqrt(window * float((cells**2).sum()))


def walks(n: int, steps: int, seed: int) -> np.ndarray:
    """Series with a level, a season and noise that remembers."""
    rng = np.random.default_rng(seed)
    season = np.sin(np.arange(steps) * np.pi / 6) * rng.gamma(2, 1, (n, 1))
    noise = rng.normal(size=(n, steps)).cumsum(1) * 0.3
    return (rng.normal(0, 3, (n, 1)) + season + noise).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alphabet", [4, 8, 20, 64])
def test_the_distance_of_words_is_never_more_than_that_of_the_series(alphabet, kind):
    x = walks(40, 48, alphabet)
    for window in (1, 2, 6, 12, 48):
        schema = series(48, window, alphabet, kind)
        scaler, ids = fit_scaler({"s": x}, schema), ids_of(schema, x)
        z = standardise(x, schema.variables["s"], scaler).astype(float)
        ratios = []
        for a, b in combinations(range(40), 2):
            true = np.linalg.norm(z[a] - z[b])
            ratios.append(mindist(ids[a], ids[b], scaler.edges["s"][0], window) / true)
        assert max(ratios) <= 1 + 1e-9
        assert max(ratios) > 0.3  # a bound of zero would pass too


def test_contrasts_of_two_modalities_are_kept_up_to_their_errors():
    """Corollary 3.2 of MAESTRO (Mohapatra et al. 2025), a triangle inequality.

    |(D'_j − D'_m) − (D_j − D_m)| ≤ ε_j + ε_m where 0 ≤ D − D' ≤ ε in each.
    """
    true, symbolic = [], []
    for seed, alphabet, kind in ((1, 20, "gaussian"), (2, 8, "quantile")):
        x, schema = walks(40, 24, seed), series(24, 2, alphabet, kind)
        scaler, ids = fit_scaler({"s": x}, schema), ids_of(schema, x)
        z = standardise(x, schema.variables["s"], scaler).astype(float)
        pairs = list(combinations(range(40), 2))
        true.append(np.array([np.linalg.norm(z[a] - z[b]) for a, b in pairs]))
        edges = scaler.edges["s"][0]
        symbolic.append(np.array([mindist(ids[a], ids[b], edges, 2) for a, b in pairs]))
    errors = [d - s for d, s in zip(true, symbolic, strict=True)]
    assert all(e.min() >= -1e-9 for e in errors)
    bound = sum(e.max() for e in errors)
    change = np.abs((symbolic[0] - symbolic[1]) - (true[0] - true[1]))
    assert change.max() <= bound + 1e-9
    assert bound < true[0].max() + true[1].max()  # the bound is not trivial


# Tokens -----------------------------------------------------------------------------------------


def test_a_symbol_is_a_vector_of_its_channel_plus_a_position():
    torch.manual_seed(0)
    layer = Symbolic(2, 3, 5, 8, reading="embedding")
    rank = torch.randint(0, 5, (4, 6, 1)).float()
    tokens = layer(rank, torch.ones(4, 6, 1, dtype=torch.bool))
    table = layer.vector.weight.view(2, 5, 8)
    for n, c, p in product(range(4), range(2), range(3)):
        expected = table[c, int(rank[n, 3 * c + p, 0])] + layer.position[p]
        torch.testing.assert_close(tokens[n, 3 * c + p], expected)


def test_a_number_is_read_by_one_line_per_channel():
    torch.manual_seed(0)
    layer = Symbolic(2, 3, 5, 8, reading="scalar")
    tokens = layer(torch.arange(5.0)[:, None, None].expand(5, 6, 1), torch.ones(5, 6, 1))
    steps = tokens.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))  # from symbol to symbol the same
    assert not torch.allclose(steps[0, 0], steps[0, 3])  # of another channel another
    deviation = torch.arange(5.0).std(correction=0)
    torch.testing.assert_close(steps[0, 0] * deviation, layer.vector.weight[0, 0])
    torch.testing.assert_close(
        tokens[2].view(2, 3, 8) - layer.position, layer.vector.bias[:, None].expand(2, 3, 8)
    )


@pytest.mark.parametrize("reading", ["embedding", "scalar"])
@pytest.mark.parametrize("fusion", ["group", "token", "sum"])
def test_every_fusion_learns_from_every_reading(fusion, reading):
    """The gradient reaches the vectors of the symbols that are there, and no other."""
    schema = series(6, 2, 4)
    model = untrained(schema, fusion=fusion, symbols=reading, dropout=0.0)
    values = [torch.tensor([[0.0, 2.0, 2.0]]).unsqueeze(-1)]
    model.network.train()(values, torch.tensor([[True, True, False]])).square().sum().backward()
    vector = model.network.members[0].tokenizers.parts[0].vector.weight.grad
    assert vector.abs().sum() > 0
    if reading == "embedding":
        assert (vector.abs().sum(1) > 0).tolist() == [True, False, True, False]


# Models -----------------------------------------------------------------------------------------


def test_a_saved_model_predicts_bit_for_bit_the_same(model, cube, tmp_path):
    back = gm.load_model(model.save(tmp_path / "model"))
    assert back.id == model.id and back.config.symbols == model.config.symbols
    for name, array in model.scaler.edges.items():
        np.testing.assert_array_equal(back.scaler.edges[name], array)
        np.testing.assert_array_equal(back.scaler.ranges[name], model.scaler.ranges[name])
    xr.testing.assert_identical(gm.predict(cube, model), gm.predict(cube, back))


@pytest.mark.parametrize(
    "change",
    [
        {"edges": {}},
        {"ranges": {}},
        {"edges": {"s": [[0.0, 1.0, 2.0]]}},
        {"edges": {"s": [[0.0, 2.0, 1.0, 3.0]]}},
        {"edges": {"s": [[0.0, 1.0, 2.0, math.nan]]}},
        {"ranges": {"s": [[1.0, -1.0]]}},
        {"ranges": {"s": [1.0, 2.0]}},
    ],
    ids=str,
)
def test_breakpoints_that_are_none_are_refused(tmp_path, change):
    path = untrained(series(6, 2, 5)).save(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    config["scaler"] |= change
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="the scaler does not fit variable 's'"):
        gm.load_model(path)


def test_a_model_without_symbols_reports_nothing_of_them():
    plain = untrained(series(6, 2).symbolic(None))
    assert set(plain.scaler.to_dict()) == {"mean", "std", "classes"}


def test_tables_hold_the_numbers_that_the_symbols_stand_for(sites):
    schema = gm.infer_schema(sites)
    plain, symbolic = (
        Columns.fit(sites, s, onehot=True).table(sites)
        for s in (schema, schema.symbolic(5, window=1))
    )
    np.testing.assert_array_equal(symbolic, plain)


def test_filling_in_fills_in_symbols(sites):
    schema = gm.infer_schema(sites).symbolic(5)
    training = gm.TrainingConfig(
        epoch_steps=1, epochs=1, warmup=1, batch=64, holdout=0, keep="last"
    )
    options = {"network": TINY_NETWORK, "training": training, "rng": 0}
    imputed_model = gm.baselines.fit_imputed(sites, schema, fit_options=options)
    assert np.isfinite(imputed_model.scores(sites, using="landsat")).any()


# Saturation -------------------------------------------------------------------------------------


def saturation_by_loops(ds: xr.Dataset, train: xr.Dataset, site: int) -> float:
    """Share of one site's segments of Landsat outside the training ones; two steps per segment."""

    def means(x: np.ndarray) -> dict[tuple[int, int], float]:
        places = product(range(2), enumerate(([0, 1], [2, 3], [4, 5], [6])))
        return {(b, w): mean_by_loop(x[b, steps]) for b, (w, steps) in places}

    means_of_sites = [means(x) for x in train["landsat"].transpose("site", "band", "time").values]
    outside = []
    for (b, _), mean in means(ds["landsat"].transpose("site", "band", "time").values[site]).items():
        training_means = [m for row in means_of_sites for (band, _), m in row.items() if band == b]
        training_means = [m for m in training_means if not math.isnan(m)]
        if not math.isnan(mean):
            outside.append(not min(training_means) - 1e-6 <= mean <= max(training_means) + 1e-6)
    return sum(outside) / len(outside) if outside else math.nan


def test_nothing_is_saturated_where_the_model_was_trained(model, sites):
    share = gm.explain.saturation(sites, model)
    assert share.dims == ("site",)
    observed = sites["landsat"].notnull().any(["band", "time"]).values
    np.testing.assert_array_equal(share, np.where(observed, 0, np.nan))
    assert observed.any() and not observed.all()


def test_saturation_is_what_plain_loops_say(model, sites):
    warm_sites = sites.assign(landsat=sites["landsat"] * 1.6 + 0.7)
    share = gm.explain.saturation(warm_sites, model)
    expected = [saturation_by_loops(warm_sites, sites, i) for i in range(60)]
    np.testing.assert_allclose(share[:60], expected, atol=1e-6)
    assert 0 < np.nanmean(expected) < 1


def test_saturation_rises_as_the_climate_leaves_what_was_seen(model, cube):
    deviation = float(cube["landsat"].std())
    mean = [
        float(
            gm.explain.saturation(
                cube.assign(landsat=cube["landsat"] + k * deviation), model
            ).mean()
        )
        for k in (0, 1, 2, 5, 8)
    ]
    assert mean[0] == 0 and mean == sorted(mean) and mean[3] > 0.9 and mean[4] == 1


def test_saturation_is_a_layer_like_any_other(model, cube):
    warm = cube.assign(landsat=cube["landsat"] + 2)
    share = gm.explain.saturation(warm, model)
    lazy = gm.explain.saturation(warm.chunk(y=5, x=4, time=2), model)
    assert lazy.chunks is not None and isinstance(share.data, np.ndarray)
    np.testing.assert_array_equal(lazy.values, share.values)
    assert share.odc.geobox == cube.odc.geobox
    assert share.attrs["units"] == "1" and share.attrs["model_id"] == model.id
    np.testing.assert_array_equal(warm.miam.saturation(model), share)


def test_predictions_explanations_and_maps_carry_it(model, cube, tmp_path):
    warm = cube.assign(landsat=cube["landsat"] + 2).chunk(y=6)
    share = gm.explain.saturation(warm, model).values
    stored_map = gm.write_map(warm, model, tmp_path / "map.zarr", progress=False)
    for output in (gm.predict(warm, model), gm.shapley(warm, model), stored_map):
        np.testing.assert_array_equal(output["saturated"].values, share)
    in_memory = gm.predict(warm.compute(), model)["suitability"]
    np.testing.assert_allclose(stored_map["suitability"], in_memory, atol=2e-6)
    part = gm.predict(warm, model, using=["climate", "landsat[time=2018]"])["saturated"]
    late = warm.assign(landsat=warm["landsat"].where(warm["time"].dt.year == 2018))
    np.testing.assert_array_equal(part.values, gm.explain.saturation(late, model).values)
    assert np.isnan(gm.predict(warm, model, using="climate")["saturated"]).all()


def test_a_model_without_symbols_has_no_saturation():
    plain = untrained(series(6, 2).symbolic(None))
    sites = xr.Dataset({"s": (("site", "t"), np.zeros((2, 6), np.float32))})
    assert "saturated" not in gm.predict(sites, plain)
    with pytest.raises(SelectionError, match=r"none of \['s'\] as symbols.*schema\.symbolic\(\)"):
        gm.explain.saturation(sites, plain)


# Schemas ----------------------------------------------------------------------------------------

CATALOG = """
modalities:
  climate:
    variables:
      rain: {kind: series, dims: [month], window: 3, symbols: 20, breakpoints: quantile}
      bio1: {}
"""


def test_a_catalog_states_which_series_are_symbols(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    schema = Schema.from_yaml(path)
    rain = schema.variables["rain"]
    assert (rain.window, rain.symbols, rain.breakpoints) == (3, 20, "quantile")
    assert Schema.from_dict(schema.to_dict()) == schema


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("bio1: {symbols: 20}", "line 6.*'symbols' belongs to kind: series, found kind: scalar"),
        ("bio1: {breakpoints: quantile}", "line 6.*separate symbols, but 'symbols' is not set"),
        ("bio1: {kind: series, symbols: 1}", "line 6.*symbols: Input.*equal to 2; found 1"),
        ("bio1: {kind: series, symbols: 257}", "line 6.*symbols: Input.*equal to 256; found 257"),
        ("bio1: {kind: series, symbol: 9}", "line 6.*unknown key 'symbol'; did you mean 'symbols'"),
        (
            "bio1: {kind: series, symbols: 9, breakpoints: even}",
            "line 6.*'gaussian' or 'quantile'; found 'even'",
        ),
    ],
)
def test_a_wrong_catalog_is_refused_with_the_line_and_the_fix(tmp_path, wrong, message):
    path = tmp_path / "a.yaml"
    path.write_text(CATALOG.replace("bio1: {}", wrong), encoding="utf-8")
    with pytest.raises(SchemaError, match=message):
        Schema.from_yaml(path)


def test_series_are_turned_into_symbols_and_back():
    schema = schema_of(
        a=[
            variable("rain", "series", labels={"month": range(12)}),
            variable("ndvi", "series", window="1MS", labels={"time": ("2020-01-01", "2020-02-01")}),
        ],
        b=[variable("bio1")],
    )
    symbolic = schema.symbolic(8, window=3, breakpoints="quantile")
    symbol_settings = {
        n: (v.window, v.symbols, v.breakpoints) for n, v in symbolic.variables.items()
    }
    assert symbol_settings["rain"] == (3, 8, "quantile")
    assert symbol_settings["ndvi"] == ("1MS", 8, "quantile")
    assert symbol_settings["bio1"] == (None, None, "gaussian")
    assert Layout.of(symbolic).sizes.tolist() == [4 + 2, 1]
    assert symbolic.groups == schema.groups
    rain_only = schema.symbolic(variables=["rain"])
    assert [bool(v.symbols) for v in rain_only.variables.values()] == [True, False, False]
    assert Layout.of(symbolic.symbolic(None)).names == Layout.of(symbolic).names
    assert not any(v.symbols for v in symbolic.symbolic(None).variables.values())


def test_what_cannot_be_symbols_is_refused():
    schema = schema_of(a=[variable("rain", "series", labels={"t": range(4)})], b=[variable("bio1")])
    with pytest.raises(SchemaError, match=r"\['bio1'\], found the series \['rain'\]"):
        schema.symbolic(variables=["bio1"])
    with pytest.raises(SchemaError, match=r"found the series \[\]"):
        schema.subset(["b"]).symbolic()
    with pytest.raises(SchemaError, match=r"variable 'rain': symbols: .*equal to 2; found 1"):
        schema.symbolic(1)
    with pytest.raises(SchemaError, match=r"variable 'rain': window: expected a period"):
        schema.symbolic(window=0)
