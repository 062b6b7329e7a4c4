"""The data sets that judge the default fit: synthetic surveys and species, and real ones by folder.

Synthetic sets have a known truth and need no files. Real ones are read from a folder that holds
``maps/`` and ``disdat/`` (see the data sets' pages for where they come from); of disdat only the
training records are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter

import geomiam as gm
from geomiam_bench.defaults_fields import seasonal, textured

CELLS = 80
"""Side of a synthetic landscape, in cells; larger ones have two cells for every site."""


@dataclass(frozen=True)
class Case:
    """Sites to learn from, and, if the truth is known, other sites to be judged on."""

    name: str
    sites: xr.Dataset
    test: xr.Dataset | None = None
    is_part: bool = False
    """Whether the sites are a random part of a larger set, so that other parts can be drawn."""


Maker = Callable[[], Case]


def makers(folder: Path | None = None, *, draw: int = 0) -> dict[str, Maker]:
    """Return every data set and size by name, the cheap ones first; ``draw`` numbers the random parts."""
    cases: dict[str, Maker] = {}
    for kind, n, species, predictors in SYNTHETIC:
        name = f"{kind} {n}×{species}, {predictors} predictors"
        cases[name] = partial(synthetic, name, kind, n=n, species=species, predictors=predictors)
    for kind, make in {"series": seasonal, "images": textured}.items():
        for n, species in ((300, 10), (3000, 10)):
            name = f"{kind} {n}×{species}"
            cases[name] = partial(_of_fields, name, make, n=n, species=species)
    for presences in (20, 40, 150):
        cases[f"virtual species, {presences} presences"] = partial(virtual, presences)
    sets = {"Ariolimax buttoni": ariolimax} | ({} if folder is None else readers(folder))
    for size in (50, 100, 300, 1000, 3000, 10_000, 30_000, None):
        for name, read in sets.items():
            label = f"{name}, {'all' if size is None else f'{size:,}'} sites"
            cases[label] = partial(_part, label, read, size, draw=draw)
    return cases


SYNTHETIC = [
    ("linear", 50, 40, 6),
    ("linear", 100, 40, 6),
    ("linear", 300, 20, 6),
    ("linear", 100, 5, 3),
    ("linear", 100, 1, 20),
    ("linear", 300, 1, 20),
    ("unimodal", 100, 20, 6),
    ("unimodal", 300, 1, 3),
    ("unimodal", 1000, 20, 6),
    ("interaction", 100, 20, 6),
    ("interaction", 300, 20, 6),
    ("interaction", 1000, 10, 10),
    ("unimodal", 10_000, 5, 6),
    ("unimodal", 100_000, 5, 6),
]


def _of_fields(name: str, make: Callable[..., tuple], *, n: int, species: int) -> Case:
    return Case(name, *make(n, species))


def synthetic(name: str, kind: str, *, n: int, species: int, predictors: int) -> Case:
    """Return a survey of smooth random fields, and 2,000 other cells of the same fields."""
    rng = np.random.default_rng([len(kind), n, species, predictors])
    side = max(CELLS, math.ceil((2 * (n + 2000)) ** 0.5))
    fields = [
        gaussian_filter(rng.normal(size=(side, side)), 8, mode="wrap") for _ in range(predictors)
    ]
    grid = np.stack([f / f.std() for f in fields], -1).astype("f4")
    cells = rng.choice(side**2, n + 2000, replace=False)
    row, column = np.divmod(cells, side)
    step = 0.1 * CELLS / side  # degrees, so that every landscape has the same extent
    z = grid[row, column]
    chance = 1 / (1 + np.exp(-_logits(kind, z, species, rng)))
    presence = (rng.random(chance.shape) < chance).astype("f4")
    modality = [
        {"modality": "climate" if i < predictors / 2 else "soil"} for i in range(predictors)
    ]
    sites = xr.Dataset(
        {f"v{i}": ("site", z[:, i], modality[i]) for i in range(predictors)}
        | {"presence": (("site", "species"), presence)},
        coords={
            "x": ("site", 10 + column * step),
            "y": ("site", 40 + row * step),
            "species": [f"species {i}" for i in range(species)],
        },
    )
    return Case(name, sites.isel(site=slice(n)), sites.isel(site=slice(n, None)))


def _logits(kind: str, z: np.ndarray, species: int, rng: np.random.Generator) -> np.ndarray:
    p = z.shape[1]
    if kind == "linear":
        return z @ rng.normal(0, 1.2, (p, species)) + rng.normal(-0.8, 0.7, species)
    if kind == "unimodal":
        centre, width = rng.normal(0, 1, (p, species)), rng.uniform(0.7, 1.5, (p, species))
        keep = rng.random((p, species)) < min(1, 3 / p)
        return 2 - (keep * ((z[:, :, None] - centre) / width) ** 2).sum(1)
    pairs = rng.integers(0, p, (2, 3, species))
    product = (z[:, pairs[0]] * z[:, pairs[1]] * rng.normal(0, 1.2, (3, species))).sum(1)
    return product + z @ rng.normal(0, 0.4, (p, species)) - 0.8


def virtual(presences: int, seed: int = 3) -> Case:
    """Return records of a species of warm and wet places, 2,000 background cells, and the map."""
    rng = np.random.default_rng(seed)
    shape = (120, 120)
    relief = gaussian_filter(rng.normal(size=shape), 7, mode="wrap")
    relief = np.clip(relief / relief.std() * 900 + 700, 0, None)
    warm = 26 - 0.0058 * relief + gaussian_filter(rng.normal(size=shape), 3) * 4
    wet = 2600 + 30_000 * gaussian_filter(rng.normal(size=shape), 10, mode="wrap")
    truth = np.exp(-(((warm - 21) / 2) ** 2) / 2) / (1 + np.exp(-(wet - 2800) / 250))
    layers = {
        "bio1": (warm, {"modality": "climate", "units": "degC"}),
        "bio12": (wet, {"modality": "climate", "units": "mm"}),
        "relief": (relief, {"modality": "terrain", "units": "m"}),
    }
    cube = xr.Dataset(
        {k: (("y", "x"), v.astype("f4"), attrs) for k, (v, attrs) in layers.items()},
        {"y": 11 - 0.025 * np.arange(120), "x": -86 + 0.025 * np.arange(120)},
    ).odc.assign_crs("EPSG:4326")
    cells = rng.choice(truth.size, presences, replace=False, p=truth.ravel() / truth.sum())
    place = {"x": cube.x.values[cells % 120], "y": cube.y.values[cells // 120]}
    records = pd.DataFrame({"species": "virtual", **place})
    sites = gm.add_background(gm.sample(cube, records), cube, n=2000, rng=0)
    all_cells = cube.drop_vars("spatial_ref").stack(site=("y", "x")).reset_index("site")
    all_cells["truth"] = (("site", "species"), truth.reshape(-1, 1))
    return Case(f"virtual species, {presences} presences", sites, all_cells)


def readers(folder: Path) -> dict[str, Callable[[], xr.Dataset]]:
    """Return the real data sets below a folder, by name."""
    disdat = {f"disdat {r}": partial(records_of, folder, r) for r in ("AWT", "NSW", "SA", "SWI")}
    return {
        "French birds": partial(french_birds, folder),
        "Bryce Canyon plants": partial(bryce_canyon, folder),
        "neotropical plants": partial(neotropics, folder),
        **disdat,
    }


def ariolimax() -> xr.Dataset:
    """Return the presences and background of the demo."""
    return gm.demo.sample_records(gm.demo.load_cube(), gm.demo.load_records())


def french_birds(folder: Path) -> xr.Dataset:
    """Return one row per site of the French breeding bird survey, from a period drawn for each."""
    table = pd.read_parquet(folder / "maps/france_birds/sites.parquet")
    table = table.sample(frac=1, random_state=0).drop_duplicates("site").sort_values("site")
    cube = _layers(folder / "maps/france_birds/europe_50km.zarr")
    at = {a: xr.DataArray(table[a].to_numpy(), dims="site") for a in ("lat", "lon")}
    layers = cube.sel(at, method="nearest").drop_vars("spatial_ref", errors="ignore")
    predictors = ["temp", "precip", "cover_agri", "cover_water", "cover_wet", "sdiv_hab"]
    columns = list(table.columns)
    species = columns[columns.index(predictors[-1]) + 1 : columns.index("on_grid")]
    for name in predictors:
        layers[name] = ("site", table[name].to_numpy("f4"), {"modality": "site"})
    return _labelled(layers, table[["lon", "lat"]], (table[species] > 0).to_numpy(), species)


def bryce_canyon(folder: Path) -> xr.Dataset:
    """Return the vegetation plots of Bryce Canyon; species in fewer than 2 plots are left out."""
    sites = pd.read_parquet(folder / "maps/bryce_canyon/sites.parquet").set_index("plot")
    cover = pd.read_parquet(folder / "maps/bryce_canyon/species_cover.parquet").set_index("plot")
    sites = sites[np.isfinite(sites[["east", "north"]]).all(axis=1)]
    present = cover.loc[sites.index] > 0
    present = present.loc[:, present.sum() >= 2]
    layers = xr.Dataset()
    for name, modality in BRYCE.items():
        values = sites[name]
        if values.dtype.kind not in "if":
            codes = pd.Categorical(values).codes
            attrs = {"flag_values": sorted(set(codes[codes >= 0].tolist()))}
            layers[name] = ("site", np.where(codes < 0, np.nan, codes).astype("f4"), attrs)
        else:
            layers[name] = ("site", values.to_numpy("f4"))
        layers[name].attrs["modality"] = modality
    place = pd.DataFrame({"lon": sites["east"], "lat": sites["north"]})
    labelled_sites = _labelled(layers, place, present.to_numpy(), list(present.columns))
    return labelled_sites.assign_attrs(crs="EPSG:26912")


BRYCE = {
    "annrad": "radiation",
    "grorad": "radiation",
    "asp": "topography",
    "elev": "topography",
    "slope": "topography",
    "pos": "topography",
    "depth": "soil",
}


def neotropics(folder: Path) -> xr.Dataset:
    """Return the cells with records of 41 species; the other species' records are background."""
    table = pd.read_parquet(folder / "maps/neotropics/occurrences.parquet")
    cube = _layers(folder / "maps/neotropics/predictors.zarr")
    cube = cube.drop_vars("spatial_ref", errors="ignore")
    cells = cube.sel(
        {a: xr.DataArray(table[a].to_numpy(), dims="site") for a in ("lat", "lon")},
        method="nearest",
    )
    table = table.assign(lon=cells["lon"].values, lat=cells["lat"].values)
    wide = table.pivot_table(
        index=["lon", "lat"], columns="species", values="value", aggfunc="max", fill_value=0
    )
    place = wide.index.to_frame(index=False)
    at = {a: xr.DataArray(place[a].to_numpy(), dims="site") for a in ("lat", "lon")}
    return _labelled(cube.sel(at, method="nearest"), place, wide.to_numpy() > 0, list(wide.columns))


def records_of(folder: Path, region: str) -> xr.Dataset:
    """Return the training records of a region with target-group background; never its survey."""
    from geomiam_bench.readers.disdat import disdat, disdat_schema

    sites, _ = disdat(folder / "disdat", region, background="target-group")
    schema = disdat_schema(folder / "disdat", region)
    for modality in schema.modalities.values():
        for name, variable in modality.variables.items():
            sites[name].attrs["modality"] = modality.name
            if variable.kind == "categorical":
                values = np.unique(sites[name].values[np.isfinite(sites[name].values)])
                sites[name].attrs["flag_values"] = values.astype(int).tolist()
    return sites[[*schema.variables, "presence"]]


def _layers(path: Path) -> xr.Dataset:
    """Return the layers of a store in the order of their names; a store lists them in any order."""
    cube = xr.open_zarr(path, consolidated=False).load()
    return cube[sorted(cube.data_vars)]


def _labelled(
    layers: xr.Dataset, place: pd.DataFrame, present: np.ndarray, species: list[str]
) -> xr.Dataset:
    sites = layers.drop_vars(["lon", "lat"], errors="ignore")
    sites["presence"] = (("site", "species"), present.astype("f4"))
    return sites.assign_coords(
        x=("site", place["lon"].to_numpy(float)),
        y=("site", place["lat"].to_numpy(float)),
        species=species,
    )


def _part(name: str, read: Callable[[], xr.Dataset], size: int | None, *, draw: int = 0) -> Case:
    """Return a random part of a data set, with the species that are seen at least twice in it."""
    sites = read()
    n = sites.sizes["site"]
    if size is not None and size >= n:
        raise ValueError(f"{n} sites are no more than {size}")
    if size is not None:
        rng = np.random.default_rng([size, draw] if draw else size)
        rows = np.sort(rng.choice(n, size, replace=False))
        sites = sites.isel(site=rows)
    labels = sites["presence"].transpose("site", "species").values
    often = ((labels == 1).sum(0) >= 2) & ((labels == 0).sum(0) >= 2)
    return Case(name, sites.isel(species=np.flatnonzero(often)), is_part=size is not None)
