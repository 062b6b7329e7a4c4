"""Tiny data for tests that look at one part of the package at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import geomiam as gm
from geomiam.model.model import Model
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Modality, Variable
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler, fit_scaler

YEARS = ("2016-01-01", "2016-07-01", "2017-01-01", "2017-07-01", "2018-01-01")
TINY_NETWORK = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4, sigma=0.3)


def variable(name: str, kind: str = "scalar", **fields: Any) -> Variable:
    """A variable; ``labels`` give its dims."""
    labels = {d: tuple(v) for d, v in fields.pop("labels", {}).items()}
    return Variable(name=name, kind=kind, dims=tuple(labels), labels=labels, **fields)


def schema_of(groups: dict | None = None, **modalities: list[Variable]) -> Schema:
    """A schema of modalities, each a list of variables."""
    modality_models = {
        m: Modality(name=m, variables={v.name: v for v in vs}) for m, vs in modalities.items()
    }
    return Schema(modalities=modality_models, groups=groups or {})


def every_kind() -> Schema:
    """Two scalars around an angle, a class, a series, image chips, a series of symbols, a vector.

    The series and the chips have channels.
    """
    bands = {"band": ("red", "nir")}
    return schema_of(
        climate=[variable("bio1"), variable("aspect", "circular"), variable("bio12")],
        cover=[variable("landcover", "categorical")],
        landsat=[variable("landsat", "series", window=2, labels={**bands, "time": YEARS})],
        sentinel2=[
            variable("chip", "image", patch=2, labels={**bands, "v": range(5), "u": range(4)})
        ],
        rain=[
            variable("rain", "series", window=2, symbols=4, labels={"s": "ab", "month": range(5)})
        ],
        embedding=[variable("embedding", "vector", labels={"feature": range(3)})],
    )


def few_pairs(sites: xr.Dataset, pairs: float = 3) -> float:
    """Return by how much the mean AUC may differ between processors.

    Scores that differ by rounding put a few pairs of a presence and an absence in another order, and
    each pair counts 1 / (presences x absences).
    """
    labels = sites["presence"].transpose("site", "species").values
    of_species = (labels == 1).sum(0) * (labels == 0).sum(0)
    return pairs / of_species[of_species > 0].min()


def random_arrays(schema: Schema, n: int, *, seed: int = 0, gaps: float = 0.2) -> dict:
    """Arrays ``(n, *own dims)`` of every variable, with gaps."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for v in schema.variables.values():
        x = rng.normal(3, 2, (n, *v.sizes))
        if v.kind == "categorical":
            x = rng.integers(1, 4, (n, *v.sizes)).astype(float)
        x[rng.random(x.shape) < gaps] = np.nan
        arrays[v.name] = x.astype(np.float32)
    return arrays


def untrained(schema: Schema, *, species: int = 2, seed: int = 0, **config: Any) -> Model:
    """A model with random weights, its scaler fitted on random arrays."""
    import torch

    scaler = fit_scaler(random_arrays(schema, 64, seed=seed), schema)
    settings = TINY_NETWORK.model_dump() | config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model.untrained(
            schema,
            scaler=scaler,
            species=[f"species {i}" for i in range(species)],
            config=gm.NetworkConfig(**settings),
        )
    model.network.eval()
    return model


def draw_weights(model: Model, *, seed: int = 1) -> None:
    """Draw weights that are not small."""
    import torch

    torch.manual_seed(seed)
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.3)


def network_and_rows(schema: Schema, n: int, **config: Any) -> tuple[Any, list[Any], Any]:
    """A network whose weights are not small, and the values and observed tokens of n rows."""
    import torch

    model = untrained(schema, inner=1, depth=2, dropout=0.0, **config)
    draw_weights(model)
    block = encode(random_arrays(schema, n), layout=model.layout, scaler=model.scaler)
    return (
        model.network,
        [torch.as_tensor(v) for v in block.values],
        torch.as_tensor(block.observed),
    )


def plain_scaler(schema: Schema) -> Scaler:
    """A scaler that changes nothing, with the classes 1 to 3."""
    mean, std, classes, edges, ranges = {}, {}, {}, {}, {}
    for v in schema.variables.values():
        cut = {"series": 1, "image": 2}.get(v.kind, 0)
        shape = v.sizes[: len(v.sizes) - cut]
        mean[v.name], std[v.name] = np.zeros(shape), np.ones(shape)
        if v.kind == "categorical":
            classes[v.name] = np.array([1, 2, 3])
        if v.symbols:
            edges[v.name] = np.tile(np.arange(1.0, v.symbols), (*shape, 1))
            ranges[v.name] = np.tile([0.0, v.symbols], (*shape, 1))
    return Scaler(mean, std, classes, edges, ranges)


def layout_of(**modalities: list[Variable]) -> Layout:
    """Layout of a schema given as in :func:`schema_of`."""
    return Layout.of(schema_of(**modalities))


def tiny_sites(n: int = 100, *, species: int = 2, gaps: float = 0.1, seed: int = 0) -> xr.Dataset:
    """Sites over 10° × 10° with two modalities; presence follows ``bio1``."""
    rng = np.random.default_rng(seed)
    bio1, clay = rng.normal(size=(2, n))
    ndvi = rng.normal(size=(n, 4))
    score = 2 * bio1[:, None] + 0.5 * clay[:, None] + rng.normal(size=(n, species))
    ds = xr.Dataset(
        {
            "bio1": ("site", bio1, {"modality": "climate"}),
            "clay": ("site", clay, {"modality": "soil"}),
            "ndvi": (("site", "month"), ndvi, {"modality": "soil"}),
            "presence": (("site", "species"), (score > 0).astype(float)),
        },
        coords={
            "x": ("site", rng.uniform(0, 10, n)),
            "y": ("site", rng.uniform(40, 50, n)),
            "month": [1, 4, 7, 10],
            "species": [f"Quercus {i}" for i in range(species)],
        },
        attrs={"crs": "EPSG:4326"},
    )
    for name in ("bio1", "clay", "ndvi"):
        ds[name] = ds[name].where(rng.random(ds[name].shape) >= gaps).astype(np.float32)
    return ds


def three_modalities(n: int = 120) -> xr.Dataset:
    """Sites of three modalities; one is a series, one has a class."""
    sites = tiny_sites(n, species=3)
    sites["ndvi"].attrs["modality"] = "satellite"
    soil = np.random.default_rng(1).integers(1, 4, n).astype(np.float32)
    return sites.assign(rock=("site", soil, {"modality": "soil", "type": "categorical"}))


def weights_of(model: Model) -> dict[str, bytes]:
    """The weights of a model, to compare every bit."""
    return {k: v.numpy().tobytes() for k, v in model.network.state_dict().items()}


def quick(**settings: Any) -> gm.TrainingConfig:
    """Settings of a run that takes a fraction of a second."""
    defaults = {"epochs": 3, "batch": 32, "lr": 0.01, "warmup": 2, "epoch_steps": 1}
    defaults["accelerator"] = "cpu"
    return gm.TrainingConfig(**(defaults | settings))
