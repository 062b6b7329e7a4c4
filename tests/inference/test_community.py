"""Observations of species as predictors: no label reaches its own prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, schema_of, tiny_sites, untrained, variable

import geomiam as gm
from geomiam.errors import GeomiamError, LabelError, MissingModality, SchemaError, SelectionError
from geomiam.evaluation.observed_species import scores_with
from geomiam.inference.coalitions import members
from geomiam.inference.engine import base_value, coalition_block
from geomiam.model.model import Model
from geomiam.training.supervised import batch_loss

SPECIES = [f"species {i}" for i in range(4)]
OWN = [f"community_{s}" for s in SPECIES]


def model_of(fusion: str = "group+sum+linear", **config) -> Model:
    """A model of two environmental variables and of three of its four species, with random weights."""
    schema = schema_of(
        climate=[variable("bio1")],
        soil=[variable("clay")],
        community=[variable(n, species=s) for n, s in zip(OWN[:3], SPECIES)],
    )
    kinds = fusion.count("+") + 1
    return untrained(schema, species=4, fusion=fusion, members=kinds, **config)


def checklists(n: int = 16, *, seed: int = 0) -> xr.Dataset:
    """Sites with gaps; the first has no predictor but the observation of its first species."""
    rng = np.random.default_rng(seed)
    values = {k: rng.normal(3, 2, n) for k in ("bio1", "clay")}
    values |= {k: rng.integers(0, 2, n).astype(float) for k in OWN[:3]}
    ds = xr.Dataset({k: ("site", v.astype("f4")) for k, v in values.items()})
    ds = ds.where(xr.DataArray(rng.random((len(values), n)) > 0.3, dims=("v", "site"))[0])
    for name in values:
        ds[name] = ds[name].where(rng.random(n) > 0.3)
        ds[name][0] = np.nan
    ds[OWN[0]][0] = 1
    return ds


def flipped(ds: xr.Dataset, name: str) -> xr.Dataset:
    return ds.assign({name: 1 - ds[name]})


def everything(ds: xr.Dataset, model: Model) -> dict[str, np.ndarray]:
    """Every result that depends on the labels of species 0, ``(..., species)``."""
    maps = gm.predict(ds, model)
    options = gm.explain.ShapleyOptions(method="latin", samples=2)
    sampled_values = gm.shapley(ds, model, options=options)
    block = model.encode({k: ds[k].values for k in model.schema.variables})
    tokens = np.arange(model.layout.size)
    visible = np.stack([tokens % 2 == 0, tokens < 4, tokens >= 0])
    curve = gm.explain.response(
        model, ds, "bio1", options=gm.explain.ResponseOptions(points=3, individual=True)
    )
    change = gm.explain.change(ds.assign(bio1=ds["bio1"] + 1), ds, model=model)
    other_date = gm.explain.change(flipped(ds, OWN[1]), ds, model=model)
    return {
        "suitability": maps["suitability"].transpose("site", "species").values,
        "change": change["shapley"].transpose(..., "species").values,
        "change of a label": other_date["shapley"].transpose(..., "species").values,
        "shapley": gm.shapley(ds, model)["shapley"].transpose(..., "species").values,
        "sampled": sampled_values["shapley"].transpose(..., "species").values,
        "coalitions": coalition_block(model, block, visible=visible, species=np.arange(4)),
        "response": curve["individual"].transpose(..., "species").values,
    }


@pytest.mark.parametrize("fusion", ["group+sum+linear", "token", "late"])
def test_no_label_reaches_its_own_prediction(fusion):
    model, ds = model_of(fusion), checklists()
    before, after = everything(ds, model), everything(flipped(ds, OWN[1]), model)
    for name, values in before.items():
        own_equal, others_equal = (
            np.array_equal(values[..., c], after[name][..., c], equal_nan=True) for c in (1, 0)
        )
        assert own_equal and not others_equal, name


def test_a_prediction_is_that_without_the_own_observation():
    model, ds = model_of(), checklists()
    maps = gm.predict(ds, model)
    for name, species in zip([*OWN[:3], None], SPECIES):
        bare = ds if name is None else ds.assign({name: ds[name] * np.nan})
        expected = gm.predict(bare, model, species=species)["suitability"]
        suitability_of_one = gm.predict(ds, model, species=species)["suitability"]
        xr.testing.assert_allclose(suitability_of_one, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(maps["suitability"].sel(species=[species]), expected, 1e-5, 1e-6)
    first = maps["suitability"].isel(site=0)
    assert np.isnan(first[0]) and np.isfinite(first[1:]).all()  # nothing but its own observation
    base_filled = gm.predict(ds, model, options=gm.PredictOptions(empty="base"))["suitability"]
    np.testing.assert_array_equal(base_filled[0, 0], base_value(model, species=np.array([0]))[0])
    np.testing.assert_array_equal(base_filled.isel(site=0)[1:], first[1:])


def test_shapley_values_are_those_of_the_community_of_other_species():
    model, ds = model_of(), checklists(12)
    values_by_group = gm.shapley(ds, model)
    groups = list(model.schema.groups)
    base = base_value(model, species=np.arange(4))
    for i, species in enumerate(SPECIES):
        bare = ds.assign({OWN[i]: ds[OWN[i]] * np.nan}) if i < 3 else ds
        v = np.tile(base[i], (8, 12))
        for number, member in enumerate(members(3)[1:], start=1):
            using = [g for g, is_in in zip(groups, member) if is_in]
            p = gm.predict(bare, model, using=using, species=species)["suitability"].values[0]
            v[number] = np.where(np.isnan(p), base[i], p)
        for g in range(3):
            without = [s for s in range(8) if not s >> g & 1]
            weight = [(1 / 3, 1 / 6, 1 / 3)[bin(s).count("1")] for s in without]
            expected = sum(w * (v[s | 1 << g] - v[s]) for w, s in zip(weight, without))
            values = values_by_group["shapley"].sel(species=species, group=groups[g]).values
            is_empty = np.isnan(values)
            np.testing.assert_allclose(values[~is_empty], expected[~is_empty], 1e-4, 2e-6)
            assert (
                is_empty == values_by_group["suitability"].sel(species=species).isnull().values
            ).all()
    only_own = ds.assign({OWN[0]: ds[OWN[0]].fillna(1), **{n: ds[n] * np.nan for n in OWN[1:3]}})
    of_own = gm.shapley(only_own, model)["shapley"].sel(group="community", species=SPECIES[0])
    assert (of_own.dropna("site") == 0).all() and of_own.notnull().any()


def test_prediction_sets_are_those_of_the_observations_of_other_species():
    sites = checklists(80, seed=1)
    labels = np.random.default_rng(2).integers(0, 2, (80, 4)).astype(float)
    sites = sites.assign(presence=(("site", "species"), labels)).assign_coords(species=SPECIES)
    only_own = {n: sites[n] * np.nan for n in OWN[1:3]}
    sites = xr.concat([sites, sites.assign(only_own)], "site")
    model = model_of()
    sets, bare_sets = (
        gm.predict(ds, gm.calibrate(model, ds), interval=0.5)["prediction_set"].sel(
            species=SPECIES[0]
        )
        for ds in (sites, sites.assign({OWN[0]: sites[OWN[0]] * np.nan}))
    )
    np.testing.assert_array_equal(sets, bare_sets)
    assert np.isin([1, 2], sets).all()


def test_routes_chunks_and_cells_without_a_community(tmp_path):
    model, ds = model_of(), checklists(24)
    hidden = ds.assign({n: ds[n] * np.nan for n in OWN[:3]})
    without = gm.predict(hidden, model)["suitability"]
    left_out = gm.predict(ds, model, using=["climate", "soil"])["suitability"]
    np.testing.assert_array_equal(without, left_out)
    with pytest.warns(MissingModality):
        np.testing.assert_array_equal(
            gm.predict(ds[["bio1", "clay"]], model)["suitability"], without
        )
    suitability_of_one = gm.predict(ds, model, using=["climate", OWN[2]])["suitability"]
    fewer = ds[["bio1", OWN[2]]].assign(
        clay=ds["clay"] * np.nan
    )  # two species were not is_surveyed
    np.testing.assert_allclose(gm.predict(fewer, model)["suitability"], suitability_of_one, 1e-6)
    cube = xr.Dataset(
        {k: (("y", "x"), v.values.reshape(4, 6)) for k, v in ds.items()},
        {"y": 40.0 - np.arange(4), "x": 10.0 + np.arange(6)},
    )
    suitability = gm.predict(cube, model)["suitability"]
    by_chunk = gm.predict(cube.chunk(y=3, x=4), model)["suitability"]
    np.testing.assert_allclose(by_chunk, suitability, 1e-5, 1e-6)
    read_model = gm.load_model(model.save(tmp_path / "model"))
    assert read_model.own_tokens == model.own_tokens and read_model.id == model.id
    xr.testing.assert_identical(gm.predict(cube, read_model)["suitability"], suitability)


def test_a_label_is_learned_only_where_its_observation_is_hidden():
    model, rng = model_of(), np.random.default_rng(0)
    ds = checklists()
    block = model.encode({k: ds[k].values for k in model.schema.variables})
    table = _Table(block, rng.integers(0, 2, (16, 4)))
    hidden = torch.as_tensor(rng.random((16, 5)) < 0.5)
    rows = torch.arange(16)

    def loss(labels):
        values = []

        def labels_seen(logits, y):
            values.append(y)
            return logits.sum()

        table.labels = labels
        batch_loss(
            model.network,
            table,
            rows,
            hidden=hidden,
            loss=labels_seen,
            fabric=_Fabric(),
            own_tokens=model.own_tokens,
        )
        return values[0].numpy()

    visible = (block.observed & ~hidden.numpy())[:, 2:]  # tokens of the three observed species
    label_hidden = np.isnan(loss(table.labels))
    np.testing.assert_array_equal(label_hidden[:, :3], visible)
    assert not label_hidden[:, 3].any() and visible.any() and not visible.all()


class _Table:
    def __init__(self, block, labels):
        self.values = [torch.as_tensor(v) for v in block.values]
        self.observed, self.labels = (
            torch.as_tensor(block.observed),
            torch.as_tensor(labels).float(),
        )

    def labels_of(self, rows):
        return self.labels[rows]

    def batch(self, rows):
        return self.values, self.observed


class _Fabric:
    world_size, global_rank, device = 1, 0, "cpu"


@pytest.fixture(scope="module")
def trained_model() -> tuple[gm.Model, xr.Dataset]:
    """A model of species that occur at random, apart from two that always occur together."""
    sites = tiny_sites(240, species=4, gaps=0, seed=1)
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (240, 4)).astype(float)
    labels[:, 1] = labels[:, 0]
    sites["presence"] = (("site", "species"), labels)
    sites = gm.add_community(sites[["bio1", "presence"]])
    network, training = (
        {**TINY_NETWORK.model_dump(), "fusion": "linear"},
        {"steps": 150, "lr": 0.06},
    )
    return gm.fit(sites, network=network, training=training), sites


@pytest.mark.filterwarnings("ignore::geomiam.errors.TrainedOnTheseSites")
def test_a_fit_learns_other_species_and_never_the_own_label(trained_model):
    model, sites = trained_model
    labels = sites["presence"].values
    auc = model.about["validation_auc"]
    # Two of four species are certain from each other, two are random: with a leak all are certain.
    assert 0.7 < auc["community"] < 0.85 and 0.7 < auc["all"] < 0.85 and auc["climate"] < 0.62
    table = gm.evaluate(model, sites, subsets={"all": None}, metrics="auc")["auc"].values[0]
    assert table[:2].min() > 0.99 and table[2:].max() < 0.7
    arrays = {k: sites[k].values for k in model.schema.variables}
    block = model.encode(arrays)
    values = [torch.as_tensor(v) for v in block.values]
    with torch.inference_mode():  # the network itself, to which the own observation is shown
        logits = model.network(values, torch.as_tensor(block.observed)).numpy()
    own_auc = np.array([gm.metrics.auc(labels[:, [i]], logits[:, [i]])[0] for i in (2, 3)])
    assert (
        abs(own_auc - 0.5) < 0.25
    ).all()  # the weights of the own observation were never trained


@pytest.mark.filterwarnings("ignore::geomiam.errors.TrainedOnTheseSites")
def test_skill_by_the_number_of_observed_species(trained_model):
    model, sites = trained_model
    table = gm.evaluation.community(model, sites, observed=[0, 1, 3], draws=2)
    auc = table["auc"].sel(species=["Quercus 0"]).values[:, 0]
    assert auc[0] < 0.7 and 0.7 < auc[1] < 0.95 and auc[2] > 0.99
    assert list(table["observed"].values) == [0, 1, 3]


def test_every_species_is_predicted_from_the_same_number_of_others():
    sites = tiny_sites(30, species=6, gaps=0)
    sites["presence"] = sites["presence"].where(np.random.default_rng(0).random((30, 6)) > 0.1)
    sites = gm.add_community(sites)
    schema = gm.infer_schema(sites)
    names = list(schema.modalities["community"].variables)
    is_surveyed = sites["presence"].notnull().values

    class Count:
        """Scores are the number of observed other species."""

        species = tuple(map(str, sites["species"].values))

        def scores(self, ds, *, using=None):
            is_observed = np.stack([np.isfinite(ds[n].values) for n in names], 1)
            return is_observed.sum(1, keepdims=True) - is_observed.astype(float)

    other_count = is_surveyed.sum(1, keepdims=True) - is_surveyed
    for k in (0, 1, 3, 6):
        count = scores_with(Count(), sites, schema, observed=k, seed=0)
        np.testing.assert_array_equal(count, np.minimum(other_count, k))
    with pytest.raises(SelectionError, match="add_community"):
        scores_with(Count(), sites, schema.subset(["climate"]), observed=1, seed=0)


def test_variables_of_a_community():
    sites = tiny_sites(10, species=3)
    sites["species"] = ["Parus major", "a/b[c]", "a_b"]
    ds = gm.add_community(sites, species=["a/b[c]", "Parus major"])
    names = ["community_a%2Fb%5Bc%5D", "community_Parus major"]
    assert [n for n in ds.data_vars if n not in sites] == names
    schema = gm.infer_schema(ds)
    of = schema.modalities["community"].variables
    assert [v.species for v in of.values()] == ["a/b[c]", "Parus major"]
    assert all(v.kind == "scalar" for v in of.values())
    np.testing.assert_array_equal(ds[names[0]], sites["presence"][:, 1])
    assert gm.Schema.from_dict(schema.to_dict()).variables == schema.variables
    cube = gm.demo.load_cube()
    grid = xr.zeros_like(cube["altitude" if "altitude" in cube else next(iter(cube.data_vars))])
    grid = grid.drop_attrs().expand_dims(species=["oak"]).chunk(y=50)
    lazy = gm.add_community(cube, grid, modality="plants")
    assert lazy["plants_oak"].chunks is not None and lazy["plants_oak"].dims == ("y", "x")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            lambda ds: gm.add_community(ds.drop_vars("presence")),
            LabelError,
            "pass the observations",
        ),
        (lambda ds: gm.add_community(ds, ds["presence"] * 3), LabelError, "counts > 0"),
        (lambda ds: gm.add_community(ds, ds["bio1"]), LabelError, "needs 'species'"),
        (lambda ds: gm.add_community(ds, species=["x"]), SelectionError, "'x'"),
        (lambda ds: gm.Variable(name="a", species="b", kind="circular"), GeomiamError, "scalar"),
        (
            lambda ds: gm.baselines.fit_baseline(
                "rf", c := gm.add_community(ds), gm.infer_schema(c)
            ),
            SchemaError,
            r"subset\(\['climate', 'soil'\]\)",
        ),
        (
            lambda ds: gm.fit(gm.add_community(ds), training={"loss": "maxent"}, validation=False),
            GeomiamError,
            "single labels",
        ),
        (
            lambda ds: gm.explain.fit_explainer(model_of("token"), ds),
            SelectionError,
            "exact values",
        ),
        (lambda ds: gm.evaluation.probe(model_of("token"), ds), SchemaError, "a probe reads"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(change, error, match):
    with pytest.raises(error, match=match):
        change(tiny_sites(40))
