"""Real data train, predict and explain without special cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import SHARED, needs_shared

import geomiam as gm

BIRDS = SHARED / "maps" / "france_birds"
PLANTS = SHARED / "glc_sample" / "glc23_sample.zarr"
SMALL = gm.NetworkConfig(width=16, heads=2, depth=1, inner=1, frequencies=8)


def assert_adds_up(explanation: xr.Dataset) -> None:
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    assert float(np.abs(total - explanation["suitability"]).max()) < 1e-5


@pytest.fixture(scope="module")
def birds() -> tuple[xr.Dataset, xr.Dataset]:
    """Cube of Europe and the sites of the French breeding bird survey, second period."""
    cube = gm.open_cube(BIRDS / "europe_50km.zarr", chunks=None).load()
    records = pd.read_parquet(BIRDS / "sites.parquet")
    records = records[records["period"] == "2012-2017"]
    species = [c for c in records if "_" in c and c[0].isupper()]
    return cube, gm.sample(cube, records, species=species)


@pytest.mark.slow
@needs_shared
def test_french_birds_from_survey_to_explained_map_of_europe(birds):
    cube, sites = birds
    assert sites.sizes["species"] == 20
    schema = gm.infer_schema(cube, kinds={"koeppen": "categorical", "aspect": "circular"})
    assert len(schema.modalities) == 5
    network = gm.NetworkConfig(width=32, heads=2, depth=1, frequencies=16, sigma=0.1)
    training = gm.TrainingConfig(epoch_steps=1, epochs=25, block=100, warmup=20, lr=3e-3, batch=64)
    model = gm.fit(sites, schema, network=network, training=training, rng=0)
    assert (
        model.about["validation_auc"]["all"] > 0.62
    )  # on unseen blocks; .70 was seen, chance is .50
    maps = gm.predict(cube.chunk(lat=30, lon=40), model).compute()
    any_observed = np.zeros((71, 103), bool)
    for name in schema.variables:
        any_observed |= np.isfinite(cube[name].values)
    np.testing.assert_array_equal(np.isfinite(maps["suitability"]).all("species"), any_observed)
    complete = np.all([np.isfinite(cube[n].values) for n in schema.variables], axis=0)
    assert (
        complete.sum() < any_observed.sum()
    )  # real gaps: some cells lack something and are predicted
    assert_adds_up(gm.shapley(cube, model, species=model.species[0]))


@pytest.fixture(scope="module")
def plants() -> xr.Dataset:
    """Plant records with Sentinel-2 patches, Landsat series that stop early, and night lights."""
    sample = xr.open_zarr(PLANTS, consolidated=False).load().rename(obs="site")
    code = sample["species_id"].values
    common = np.unique(code)[:3]
    presence = np.stack([np.isin(code % 3, [k]) for k in range(len(common))], 1).astype(np.float32)
    sites = sample[["sentinel2", "landsat", "lights2009", "built2009"]].astype(np.float32)
    sites["presence"] = (("site", "species"), presence)
    return sites.assign_coords(
        species=["a", "b", "c"], x=("site", sample["lon"].values), y=("site", sample["lat"].values)
    )


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("fusion", ["group", "token"])
def test_plants_with_image_patches_and_series_with_real_gaps(plants, fusion):
    schema = gm.infer_schema(
        plants,
        modalities={
            "sentinel2": ["sentinel2"],
            "landsat": ["landsat"],
            "human": ["lights2009", "built2009"],
        },
    )
    kinds = {v.name: v.kind for v in schema.variables.values()}
    assert kinds == {
        "sentinel2": "image",
        "landsat": "series",
        "lights2009": "scalar",
        "built2009": "scalar",
    }
    schema = schema.replace(
        {"landsat": schema.variables["landsat"].model_copy(update={"window": 4})}
    )
    network = SMALL.model_copy(update={"fusion": fusion})
    model = gm.fit(
        plants,
        schema,
        network=network,
        training=gm.TrainingConfig(epoch_steps=1, epochs=2, block=200),
        rng=0,
    )
    sizes = dict(zip(schema.modalities, model.layout.sizes, strict=True))
    assert sizes == {
        "sentinel2": 4 * 25,
        "landsat": 6 * 21,
        "human": 2,
    }  # as in the paper: bands × patches, years
    assert np.isnan(plants["landsat"]).any()
    assert np.isfinite(gm.predict(plants, model)["suitability"]).all()
    explanation = gm.shapley(
        plants.isel(site=slice(0, 20)),
        model,
        groups={
            "recent": "landsat[time=2015:2020]",
            "infrared": "sentinel2[s2_band=nir]",
            "centre": "sentinel2[centre,s2_band=red]",
        },
        species="a",
    )
    assert_adds_up(explanation)


@needs_shared
def test_a_year_that_stops_early_keeps_its_quarters(plants):
    """A window of a series counts as observed as long as one of its values is there."""
    from test_laws import encode_sites

    plants = plants[["landsat", "presence"]]
    schema = gm.infer_schema(plants)
    schema = schema.replace(
        {"landsat": schema.variables["landsat"].model_copy(update={"window": 4})}
    )
    training = gm.TrainingConfig(epoch_steps=1, epochs=1, block=200)
    model = gm.fit(plants, schema, network=SMALL, training=training, rng=0)
    observed = encode_sites(plants, model).observed.reshape(-1, 6, 21)
    years = np.isfinite(plants["landsat"].values).reshape(-1, 6, 21, 4)
    np.testing.assert_array_equal(observed, years.any(-1))
    assert (years.any(-1) & ~years.all(-1)).any()
