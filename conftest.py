"""Small synthetic data with every kind of predictor, and a model trained on them for a moment."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of tests share two cores

import numpy as np
import pytest
import torch
import xarray as xr

import geomiam as gm

SHARED = Path(__file__).resolve().parents[1] / "shared" / "data"

needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the real data sets are not beside the repository (../shared/data)"
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small matrices gain nothing from threads and lose much when cores are shared."""
    torch.set_num_threads(1)


def make_cube(ny: int = 12, nx: int = 14, *, gaps: float = 0.3, seed: int = 0) -> xr.Dataset:
    """A cube with scalars, an angle, a class, a series with channels, image chips and a vector."""
    rng = np.random.default_rng(seed)
    place = {"y": 50 - 0.25 * np.arange(ny), "x": 5 + 0.25 * np.arange(nx)}

    def layer(modality: str, *own: tuple[str, int], **attrs) -> tuple:
        values = rng.normal(size=(*(n for _, n in own), ny, nx)).astype(np.float32)
        return ((*(d for d, _ in own), "y", "x"), values, {"modality": modality, **attrs})

    cube = xr.Dataset(
        {
            "bio1": layer("climate", units="degC"),
            "bio12": layer("climate", units="mm"),
            "slope": layer("terrain", units="degrees"),
            "aspect": layer("terrain", units="degrees"),
            "landcover": layer("cover", flag_values=[1, 2, 3], flag_meanings="water wood field"),
            "landsat": layer("landsat", ("band", 2), ("time", 7)),
            "chip": layer("sentinel2", ("v", 6), ("u", 6)),
            "embedding": layer("embedding", ("feature", 5)),
        },
        coords={
            **place,
            "band": ["red", "nir"],
            "time": np.arange("2012", "2019", dtype="M8[Y]").astype("M8[ns]"),
        },
    )
    with xr.set_options(keep_attrs=True):  # the default of newer versions of xarray
        cube["aspect"] = cube["aspect"] * 100 % 360
        cube["landcover"] = xr.full_like(cube["landcover"], 1) + rng.integers(0, 3, (ny, nx))
        for name in cube.data_vars:
            cube[name] = cube[name].where(rng.random(cube[name].shape) > gaps)
            hole = rng.random((ny, nx)) < gaps  # whole variables go missing too
            cube[name] = cube[name].where(~xr.DataArray(hole, dims=("y", "x")))
        empty = xr.DataArray(rng.random((ny, nx)) < 0.1, dims=("y", "x"))
        return cube.where(~empty).odc.assign_crs("EPSG:4326")


def make_sites(cube: xr.Dataset, *, species: int = 3, seed: int = 1) -> xr.Dataset:
    """Every cell of a cube as a site; species follow bio1 and landcover, one in ten not surveyed."""
    rng = np.random.default_rng(seed)
    sites = cube.stack(site=("y", "x")).reset_index("site").transpose("site", ...)
    signal = sites["bio1"].fillna(0).values + (sites["landcover"] == 2).values
    chance = 1 / (1 + np.exp(-2 * signal[:, None] + rng.normal(size=species)))
    labels = (rng.random(chance.shape) < chance).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    sites["presence"] = (("site", "species"), labels)
    return sites.assign_coords(species=[f"species {i}" for i in range(species)])


def train_small(sites: xr.Dataset, fusion: str, **config) -> gm.Model:
    """Train for a moment, far enough that weights are not their initial values."""
    sizes = {"width": 16, "heads": 2, "depth": 2, "inner": 1, "frequencies": 8, "sigma": 0.3}
    network = gm.NetworkConfig(fusion=fusion, members=1 + ("+" in fusion), **sizes)
    return gm.fit(
        sites,
        network=network,
        training=gm.TrainingConfig(
            epoch_steps=1, epochs=2, batch=32, block=100, warmup=2, **config
        ),
        rng=0,
    )


@pytest.fixture(scope="session")
def cube() -> xr.Dataset:
    """A cube of 12 × 14 cells with gaps of every kind."""
    import odc.geo.xr  # noqa: F401

    return make_cube()


@pytest.fixture(scope="session")
def crop(cube) -> xr.Dataset:
    """A corner of the cube, of 6 × 7 cells: laws of single cells need no more."""
    return cube.isel(y=slice(6), x=slice(7))


@pytest.fixture(scope="session")
def sites(cube) -> xr.Dataset:
    """Sites on every cell of the cube, three species."""
    return make_sites(cube)


SLOWLY = [pytest.param(f, marks=pytest.mark.slow) for f in ("group+sum", "cross", "late")]
"""Fusions whose laws the fast path leaves to test_combinations.py."""


@pytest.fixture(scope="session")
def small_model(sites) -> Callable[[str], gm.Model]:
    """A model of a fusion by name, trained once."""
    return functools.cache(lambda fusion: train_small(sites, fusion))


@pytest.fixture(scope="session", params=["group", "token", *SLOWLY])
def model(request, small_model) -> gm.Model:
    """A model of each fusion; the sum comes with the group."""
    return small_model(request.param)


@pytest.fixture(scope="session", params=["group", pytest.param("late", marks=pytest.mark.slow)])
def either_model(request, small_model) -> gm.Model:
    """Two models, for parts that reach a fusion only through predictions."""
    return small_model(request.param)
