"""The kinds of outputs that geomiam writes."""

from __future__ import annotations

from functools import partial

from geomiam.outputs.contents import (
    Kind,
    stranger_in_file,
    stranger_in_folder,
    stranger_in_json,
    stranger_in_store,
)

CUBE, SITES, MAP = (Kind(n, partial(stranger_in_store, name=n)) for n in ("cube", "sites", "map"))
MODEL = Kind(
    "model directory",
    partial(
        stranger_in_folder,
        name="model directory",
        files=("model.safetensors", "config.json", "README.md"),
        proof="config.json",
        keys=("format", "geomiam"),
    ),
)
CHECKPOINT = Kind(
    "checkpoint",
    partial(
        stranger_in_folder,
        name="checkpoint",
        files=("state.json", "state.safetensors"),
        proof="state.json",
        keys=("fingerprint", "history"),
    ),
)
DEMO = Kind(
    "demo",
    partial(
        stranger_in_folder,
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
    "table of results", partial(stranger_in_json, keys=("settings", "summary")), folder=False
)
PICTURE = Kind("picture", stranger_in_file, folder=False)
GEOTIFF = Kind("GeoTIFF", stranger_in_file, folder=False)
