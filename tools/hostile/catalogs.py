"""Hostile catalogs: read, planned, and built where they are accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin

import geomiam as gm

from . import nasty
from .run import Input

BASE: dict[str, Any] = {
    "name": "c",
    "title": "A catalog",
    "license": "CC-BY-4.0",
    "grid": {"crs": "EPSG:32631", "resolution": 20, "bounds": [500000, 5500000, 500160, 5500160]},
    "sources": {
        "s": {
            "path": "v.tif",
            "kind": "raster",
            "scale": 1,
            "offset": 0,
            "nodata": -9999,
            "band": 1,
        },
        "t": {"path": "{variable}.tif", "resampling": "nearest", "crs": "EPSG:32631", "root": "."},
    },
    "modalities": {
        "m": {"from": "s", "variables": {"a": {"units": "mm", "long_name": "A"}, "b": {}}},
        "n": {
            "from": {"source": "t", "variable": "v"},
            "variables": {
                "k": {"kind": "categorical", "classes": {1: "one", 2: "two"}},
                "z": {
                    "kind": "vector",
                    "dims": ["f"],
                    "labels": {"f": [1, 2]},
                    "from": {"source": "s", "band": [1, 1]},
                },
            },
        },
    },
    "groups": {"g": ["a", "b"], "h": ["n"]},
}
BOMBS = {
    "merge": "a0: &a0 {{k: 1}}\n{}".format(
        "".join(f"a{k}: &a{k}\n  <<: [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 32))
    ),
    "laughs": "a0: &a0 [x, x, x]\n"
    + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}, *a{k - 1}]\n" for k in range(1, 32)),
    "deep": "a: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep maps": "a: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
    "own": "a: &a {b: *a}\n",
    "python": "a: !!python/object/apply:os.system ['touch pwned']\n",
    "digits": "a: " + "9" * 5000 + "\n",
    "tabs": "\tname: c\n",
    "directive": "%YAML 9.9\n---\n",
    "binary": "a: !!binary QUFB\n",
    "tag": "!<tag:yaml.org,2002:set> {a, b}\n",
    "float": "a: 1_000.5e+9999\n",
    "sexagesimal": "a: 190:20:30:15:1:1:1:1:1\n",
    "long key": "? " + "k" * 5000 + "\n: 1\n",
}
PATHS = (
    "{variable:>999999999}", "{month:09999999d}", "{variable.__class__.__mro__}", "{0}", "{", "}", "{}",
    "{variable!r:>9}", "/dev/zero", "/etc/passwd", "/proc/self/mem", "../../precious/thesis.txt",
    "file:///etc/passwd", "http://127.0.0.1:1/x.tif", "ftp://x/y.tif", "/vsicurl/http://127.0.0.1:1/x",
    "/vsizip/x.zip/y.tif", "/vsimem/x", "GTIFF_DIR:1:v.tif", "<VRTDataset/>", "v.tif\n", "~/x.tif", "*", "**/*",
    "v.tif:x", "NETCDF:v.tif:a", "PG:host=x", "\\\\host\\x.tif", "C:\\x.tif", "v" * 5000, "v.tif/../v.tif", ".",
    "s3://bucket/x.tif", "data:,x", "/vsis3/x", "{ns}{lat}{ew}{lon}.tif", "{lat:02d}.tif", "v.tif?x=1",
)  # fmt: skip


def inputs(rng: np.random.Generator, count: int) -> Iterator[Input]:
    for number in range(count):
        yield _one(np.random.default_rng(rng.integers(2**63)), number)


def _text(data: Any) -> bytes:
    """YAML of data; surrogates are written as they are, which is no UTF-8."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=10**6)
    return text.encode("utf-8", "surrogatepass")


def _one(rng: np.random.Generator, number: int) -> Input:
    kind = nasty.pick(
        rng, ("value", "value", "value", "two values", "bytes", "bomb", "path", "grid", "file")
    )
    data, special, name = BASE, None, kind
    raw = None
    if kind in ("value", "two values"):
        data, name = nasty.changed(rng, data)
        if kind == "two values" and nasty.places(data):
            data, options = nasty.changed(rng, data)
            name = f"{name}; {options}"
    elif kind == "bytes":
        raw, name = nasty.scrambled(rng, _text(data))
    elif kind == "bomb":
        name = nasty.pick(rng, tuple(BOMBS))
        raw = BOMBS[name].encode() + (_text(data) if rng.random() < 0.7 else b"")
    elif kind == "path":
        name = nasty.pick(rng, PATHS)
        location = nasty.pick(rng, ("s", "t"))
        key = nasty.pick(rng, ("path", "path", "root"))
        data = {
            **data,
            "sources": {**data["sources"], location: {**data["sources"][location], key: name}},
        }
    elif kind == "grid":
        key = nasty.pick(rng, ("crs", "resolution", "bounds"))
        value = nasty.pick(rng, GRIDS[key])
        data, name = {**data, "grid": {**data["grid"], key: value}}, f"{key} {str(value)[:40]}"
    else:
        special, name = nasty.special(rng)
    try:
        raw = _text(data) if raw is None else raw
    except (yaml.YAMLError, RecursionError):
        raw = repr(data).encode("utf-8", "surrogatepass")
    target = nasty.pick(rng, ("c.yaml", "v.tif"))

    def prepare(folder: Path) -> None:
        place = {"crs": "EPSG:32631", "transform": from_origin(500000, 5500160, 20, 20)}
        shape = {"count": 1, "height": 8, "width": 8, "dtype": "float32"}
        with rasterio.open(folder / "v.tif", "w", driver="GTiff", **shape, **place) as file:
            file.write(np.ones((1, 8, 8), "float32"))
        (folder / "c.yaml").write_bytes(raw)
        if special:
            nasty.replace(folder / target, special)

    return Input("catalogs", f"#{number} {kind} {name}"[:140], prepare, _build)


GRIDS = {
    "crs": ("EPSG:999999", "EPSG:5773", "x", "EPSG:4978", "+proj=longlat", "PROJCS[", "EPSG:0", "4326", "+init=x",
            "+proj=pipeline +step +proj=axisswap", "EPSG:3035", "EPSG:4326", "OGC:CRS84", "GEOGCS[" * 500),
    "resolution": (1e-300, 1e300, 1e-5, 1e-4, 0.001, 0.05, 1e5, 0, -20, "20m", "a", [20, 20], True),
    "bounds": ([0, 0, 0, 0], [1, 1, 0, 0], [-1e308, -1e308, 1e308, 1e308], [0, 0, 1e9, 1e9], [1, 2, 3], [], "all",
               [500000, 5500000, 500160.001, 5500160], [0, 0, 1e-9, 1e-9], [500000, 5500000, 501e6, 5501e6]),
}  # fmt: skip


def _build(folder: Path) -> bool:
    schema = gm.Schema.from_yaml(folder / "c.yaml")
    str(schema), schema.to_dict()
    plan = gm.plan_cube(folder / "c.yaml")
    str(plan)
    if plan.bytes > 10**8 if hasattr(plan, "bytes") else False:
        return True
    cube = gm.build_cube(folder / "c.yaml", out=folder / "out", progress=False)
    if cube.nbytes > 2 * 10**8:
        return True
    names = {
        v.name
        for m in schema.modalities.values()
        for v in m.variables.values()
        if m.origin_of(v.name)
    }
    return names <= set(map(str, cube.data_vars))
