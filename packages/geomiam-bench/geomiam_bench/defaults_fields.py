"""Synthetic surveys whose predictors are climate series, or images of the terrain, beside single numbers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

MONTHS, CHIP = 12, 8
"""Steps of a series, and pixels along the side of an image."""
TESTED = 2000
"""Other sites of the same landscape, with a known truth."""
SIDE = 120
"""Side of the landscape in cells."""


def seasonal(n: int, species: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Return sites and other sites with 12 months of two weather variables and three soil numbers.

    A species has an optimum in the mean of three consecutive months of each variable, and in one soil
    number.
    """
    rng = np.random.default_rng([n, species, MONTHS])
    cells = rng.choice(SIDE**2, n + TESTED, replace=False)
    month = np.arange(MONTHS)
    weather = {}
    for name in ("temp", "rain"):
        mean, amplitude, noise = (_field(rng)[cells][:, None] for _ in range(3))
        season = np.sin(2 * np.pi * (month - rng.uniform(0, MONTHS)) / MONTHS)
        steps = mean + (1 + amplitude / 2) * season + 0.5 * noise * rng.normal(size=MONTHS)
        weather[name] = steps + 0.2 * rng.normal(size=steps.shape)
    soil = np.stack([_field(rng)[cells] for _ in range(3)], 1)
    score = np.full((len(cells), species), 1.5)
    for steps in weather.values():
        months = (rng.integers(0, MONTHS, species) + np.arange(3)[:, None]) % MONTHS
        score -= _distance(steps[:, months].mean(1), rng)
    score -= _distance(soil[:, rng.integers(0, 3, species)], rng)
    variables = {
        name: (("site", "month"), steps.astype("f4"), {"modality": "weather"})
        for name, steps in weather.items()
    }
    return _split(_labelled(variables | _numbers(soil, "soil"), score, cells, rng), n)


def textured(n: int, species: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Return sites and other sites with an image of the relief around each, and four climate numbers.

    A species has an optimum of the roughness (standard deviation) of its image, of the mean, and of one climate
    number.
    """
    rng = np.random.default_rng([n, species, CHIP])
    cells = rng.choice(SIDE**2, n + TESTED, replace=False)
    roughness = np.exp(0.6 * _field(rng)[cells])
    level = _field(rng)[cells]
    pixels = gaussian_filter(rng.normal(size=(len(cells), CHIP, CHIP)), (0, 1, 1))
    pixels /= pixels.std((1, 2), keepdims=True)
    chip = level[:, None, None] + roughness[:, None, None] * pixels
    climate = np.stack([_field(rng)[cells] for _ in range(4)], 1)
    score = 1.5 - _distance(np.repeat(np.log(chip.std((1, 2)))[:, None] / 0.6, species, 1), rng)
    score -= _distance(np.repeat(chip.mean((1, 2))[:, None], species, 1), rng)
    score -= _distance(climate[:, rng.integers(0, 4, species)], rng)
    variables = {"relief": (("site", "v", "u"), chip.astype("f4"), {"modality": "relief"})}
    return _split(_labelled(variables | _numbers(climate, "climate"), score, cells, rng), n)


def _field(rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field, flat, of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8, mode="wrap")
    return ((field - field.mean()) / field.std()).ravel()


def _distance(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return squared distances ``(n, S)`` to an optimum of each species, in widths of its niche."""
    z = (values - values.mean(0)) / values.std(0)
    species = values.shape[1]
    return ((z - rng.normal(size=species)) / rng.uniform(0.7, 1.5, species)) ** 2


def _numbers(values: np.ndarray, modality: str) -> dict[str, tuple]:
    return {
        f"{modality}_{i}": ("site", column.astype("f4"), {"modality": modality})
        for i, column in enumerate(values.T)
    }


def _labelled(
    variables: dict[str, tuple], score: np.ndarray, cells: np.ndarray, rng: np.random.Generator
) -> xr.Dataset:
    row, column = np.divmod(cells, SIDE)
    chance = 1 / (1 + np.exp(-score))
    presence = (rng.random(chance.shape) < chance).astype("f4")
    labels = {
        "presence": (("site", "species"), presence),
        "truth": (("site", "species"), chance),
    }
    lengths = {
        name: size
        for dims, values, _ in variables.values()
        for name, size in zip(np.atleast_1d(dims), values.shape)
    }
    return xr.Dataset(
        variables | labels,
        coords={
            **{d: np.arange(size) for d, size in lengths.items() if d != "site"},
            "x": ("site", 10 + 0.08 * column),
            "y": ("site", 40 + 0.08 * row),
            "species": [f"species {i}" for i in range(score.shape[1])],
        },
    )


def _split(sites: xr.Dataset, n: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the training sites without the truth, and the others."""
    return sites.isel(site=slice(n)).drop_vars("truth"), sites.isel(site=slice(n, None))
