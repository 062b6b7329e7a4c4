"""The kinds of outputs that geomiam writes."""

from __future__ import annotations

from functools import partial

from geomiam.outputs.contents import (
    Kind,
    file_mismatch,
    folder_mismatch,
    json_mismatch,
    store_mismatch,
)

CUBE, SITES, MAP = (Kind(n, partial(store_mismatch, name=n)) for n in ("cube", "sites", "map"))
MODEL = Kind(
    "model directory",
    partial(
        folder_mismatch,
        name="model directory",
        files=("model.safetensors", "config.json", "README.md"),
        proof="config.json",
        keys=("format", "geomiam"),
    ),
)
CHECKPOINT = Kind(
    "checkpoint",
    partial(
        folder_mismatch,
        name="checkpoint",
        files=("state.json", "state.safetensors"),
        proof="state.json",
        keys=("fingerprint", "history"),
    ),
)
DEMO = Kind(
    "demo",
    partial(
        folder_mismatch,
        name="finished demo",
        files=(
            *("cube.zarr", "maps.zarr", "model", "summary.json"),
            *("suitability.png", "shapley.png", "training.png"),
        ),
        proof="summary.json",
        keys=("auc", "versions"),
    ),
)
RESULTS = Kind(
    "table of results", partial(json_mismatch, keys=("settings", "summary")), folder=False
)
PICTURE = Kind("picture", file_mismatch, folder=False)
GEOTIFF = Kind("GeoTIFF", file_mismatch, folder=False)
