"""Hostile model directories."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import geomiam as gm

from . import nasty
from .run import Input

FIXTURE = Path(__file__).parents[2] / "tests" / "files" / "model-format-1"
NUMBERS = ("width", "heads", "depth", "inner", "frequencies", "members", "experts", "explainer")


def sites() -> tuple[xr.Dataset, np.ndarray]:
    """Five sites, and what the intact model predicts for them."""
    expected = json.loads((FIXTURE / "expected.json").read_text())
    values = {k: np.array(v) for k, v in expected["site"].items()}
    ndvi = xr.DataArray(values.pop("ndvi"), dims=("site", "month"), coords={"month": [1, 4, 7, 10]})
    table = xr.Dataset({k: ("site", v) for k, v in values.items()}).assign(ndvi=ndvi)
    return table.set_coords(["x", "y"]), np.array(expected["suitability"])


def split(raw: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def inputs(rng: np.random.Generator, count: int) -> Iterator[Input]:
    for number in range(count):
        yield _one(np.random.default_rng(rng.integers(2**63)), number)


def _one(rng: np.random.Generator, number: int) -> Input:
    with_id = bool(rng.random() < 0.3)
    kind = nasty.pick(
        rng, ("config", "config", "config", "numbers", "header", "bytes", "text", "file")
    )
    config = json.loads((FIXTURE / "model" / "config.json").read_text())
    raw = (FIXTURE / "model" / "model.safetensors").read_bytes()
    header, body = split(raw)
    if not with_id:
        header.pop("__metadata__", None)
    weights, text, special, name = joined(header, body), json.dumps(config).encode(), None, ""
    if kind == "config":
        new, name = nasty.changed(rng, config)
        text = json.dumps(new).encode()
    elif kind == "numbers":
        selection = {nasty.pick(rng, NUMBERS): int(2 ** rng.integers(0, 13)) for _ in range(3)}
        config["network"].update(
            selection, fusion=nasty.pick(rng, ("group", "token", "cross", "late", "sum"))
        )
        text, name = json.dumps(config).encode(), str(selection)
    elif kind == "header":
        new, name = nasty.changed(rng, header)
        weights = joined(new, body)
    elif kind == "bytes":
        weights, name = nasty.scrambled(rng, weights)
    elif kind == "text":
        text, name = nasty.scrambled(rng, text)
    else:
        special, name = nasty.special(rng)
    target = nasty.pick(rng, ("config.json", "model.safetensors"))

    def prepare(folder: Path) -> None:
        shutil.copytree(FIXTURE / "model", folder / "model")
        (folder / "model" / "config.json").write_bytes(text)
        (folder / "model" / "model.safetensors").write_bytes(weights)
        if special:
            nasty.replace(folder / "model" / target, special)

    def call(folder: Path) -> bool:
        model = gm.load_model(folder / "model")
        table, expected = sites()
        predictions = gm.predict(table, model)["suitability"].transpose("site", "species").values
        str(model), model.history, gm.Model.save(model, folder / "out")
        same = predictions.shape == expected.shape and np.allclose(predictions, expected, atol=1e-5)
        harmless = kind == "config" and "about" in name
        # without its id a model with other facts is another model, which is no fault
        return same or harmless or (not with_id and np.isfinite(predictions).all())

    return Input(
        "model files", f"#{number} {kind} {name} {'' if with_id else 'no id'}", prepare, call
    )
