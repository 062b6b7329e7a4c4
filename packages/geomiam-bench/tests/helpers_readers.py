"""Small folders in the layouts of the field's data sets, with numbers that all differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

HUMAN = ("Built", "croplands", "HFP", "Lights", "NavWater", "Pasture", "Popdensity")
YEARS = {"croplands": (1992, 2005), "Popdensity": (1990, 2010), "Pasture": (1993, 2009)}


def human_columns() -> list[str]:
    """The 16 columns of the first version of the human footprint."""
    early = {"Built": 1994, "HFP": 1993, "Lights": 1994, "NavWater": 1994}
    pairs = [(n, *YEARS.get(n, (early.get(n, 0), 2009))) for n in HUMAN]
    two = [f"HumanFootprint-{n}{y}" for n, *years in pairs for y in years]
    return [*two, "HumanFootprint-Railways", "HumanFootprint-Roads"]


SOIL = ("bdod", "cec", "cfvo", "clay", "nitrogen", "phh2o", "sand", "silt", "soc")
TABLES = {
    "EnvironmentalValues/Climate/PA-train-bioclimatic.csv": [f"Bio{i}" for i in range(1, 20)],
    "EnvironmentalValues/SoilGrids/v2/PA-train-soilgrids.csv": [f"Soilgrid-{s}" for s in SOIL],
    "EnvironmentalValues/Elevation/PA-train-elevation.csv": ["Elevation"],
    "EnvironmentalValues/LandCover/PA-train-landcover.csv": [
        f"LandCover-{i}" for i in range(1, 14)
    ],
    "EnvironmentalValues/HumanFootprint/v1/PA-train-human-footprint.csv": human_columns(),
}


def save_pt(path: Path, values: np.ndarray) -> None:
    """Write a tensor as the data sets do."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(values), path)


def save_image(path: Path, pixels: np.ndarray) -> None:
    """Write a JPEG, or a GeoTIFF from ``(band, row, column)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        save_tiff(path, pixels)
        return
    from PIL import Image

    Image.fromarray(pixels).save(path, quality=95)


def save_tiff(path: Path, bands: np.ndarray, *, nodata: float | None = None, **place) -> None:
    """Write a GeoTIFF from ``(band, row, column)``."""
    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"transform": from_origin(0, 0, 10, 10)} | place
    shape = dict(zip(("count", "height", "width"), bands.shape))
    with rasterio.open(
        path, "w", driver="GTiff", dtype=bands.dtype, nodata=nodata, **shape, **place
    ) as image:
        image.write(bands)


def shard(survey: int) -> Path:
    """Folders of a survey's patch: ``CD/AB`` for ``…ABCD``."""
    return Path(str(survey)[-2:]) / str(survey)[-4:-2]


def geoplant_folder(root: Path, *, surveys: int = 12, size: int = 16, seed: int = 0) -> Path:
    """Surveys on a diagonal over Europe; three species that follow climate, soil or the image."""
    rng = np.random.default_rng(seed)
    ids = 1_320_000 + 137 * np.arange(surveys)
    place = np.stack([rng.uniform(0, 20, surveys), rng.uniform(42, 56, surveys)], 1).round(4)
    signal = rng.normal(size=(surveys, 3))
    _records(root, ids, place, signal + rng.normal(scale=0.3, size=signal.shape))
    _tables(root, ids, signal, rng)
    for row, survey in enumerate(ids):
        _cubes(root, int(survey), signal[row, 1], rng)
        _patch(root, int(survey), signal[row, 2], size=size, rng=rng)
    return root


def _records(root: Path, ids: np.ndarray, place: np.ndarray, signal: np.ndarray) -> None:
    rows = []
    for i, survey in enumerate(ids):
        present = [101, *(202 + 101 * np.flatnonzero(signal[i] > 0))]
        present = present if i % 2 else present[1:] or [101]
        rows += [(*place[i], 2017 + i % 5, 10.0, -np.inf, survey, float(s)) for s in present]
    columns = ["lon", "lat", "year", "geoUncertaintyInM", "areaInM2", "surveyId", "speciesId"]
    path = root / "PresenceAbsenceSurveys" / "PA_metadata_train.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _tables(root: Path, ids: np.ndarray, signal: np.ndarray, rng: np.random.Generator) -> None:
    for name, columns in TABLES.items():
        values = rng.normal(size=(len(ids), len(columns))) + signal[:, :1]
        if "LandCover" in name:
            values = rng.integers(1, 5, values.shape).astype(float)
        table = pd.DataFrame(values, columns=columns)
        table.insert(0, "surveyId", ids)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table.iloc[rng.permutation(len(table))].to_csv(path, index=False)


def _cubes(root: Path, survey: int, signal: float, rng: np.random.Generator) -> None:
    climate = rng.integers(300, 3000, (4, 19, 12)) + 1000 * signal
    landsat = rng.integers(0, 200, (6, 4, 21)) + 50 * signal
    folder = root / "BioclimTimeSeries" / "cubes" / "PA-train"
    name = f"GLC24-PA-train-bioclimatic_monthly_{survey}_cube.pt"
    save_pt(folder / name, climate.astype(np.float32))
    folder = root / "SatelliteTimeSeries" / "cubes" / "PA-train"
    name = f"GLC24-PA-train-landsat-time-series_{survey}_cube.pt"
    save_pt(folder / name, landsat.astype(np.float32))


def _patch(root: Path, survey: int, signal: float, *, size: int, rng: np.random.Generator) -> None:
    level = float(np.clip(128 + 40 * signal, 20, 235))
    pixels = np.clip(rng.normal(level, 8, (size, size, 4)), 0, 255).astype(np.uint8)
    for kind, image in (("RGB", pixels[..., :3]), ("NIR", pixels[..., 3])):
        folder = root / f"PA_Train_SatellitePatches_{kind}" / f"pa_train_patches_{kind.lower()}"
        save_image(folder / shard(survey) / f"{survey}.jpeg", image)


def satbird_folder(root: Path, *, hotspots: int = 6, seed: int = 0) -> Path:
    """Hotspots with four-band images, environment and encounter rates of three birds."""
    rng = np.random.default_rng(seed)
    ids = [f"L{100 + i}" for i in range(hotspots)]
    table = pd.DataFrame({"hotspot_id": ids})
    table["lon"], table["lat"] = rng.uniform(-110, -90, hotspots), rng.uniform(35, 45, hotspots)
    root.mkdir(parents=True, exist_ok=True)
    table.to_csv(root / "train_split.csv")
    for i, name in enumerate(ids):
        bands = rng.integers(1, 3000, (4, 80, 84)).astype(np.uint16)
        save_image(root / "images" / f"{name}.tif", bands)
        (root / "environmental_data").mkdir(exist_ok=True)
        environment = rng.normal(size=(27, 50, 50)).astype(np.float32)
        np.save(root / "environmental_data" / f"{name}.npy", environment)
        (root / "targets").mkdir(exist_ok=True)
        rates = {"probs": [0.5 * (i % 2), 0.01 * i, 0.0 if i else 1.0], "hotspot_id": name}
        target = rates | {"num_complete_checklists": 10 + i}
        (root / "targets" / f"{name}.json").write_text(json.dumps(target))
    return root
