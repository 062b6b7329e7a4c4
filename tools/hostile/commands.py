"""Hostile arguments and outputs on the command line."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import geomiam as gm

from . import nasty
from .run import Input, Refused, Unclear, apart

TINY = [
    "--width",
    "8",
    "--heads",
    "1",
    "--depth",
    "1",
    "--fusion",
    "sum",
    "--epochs",
    "1",
    "--steps",
    "2",
]
OUTS = (
    "out", "model", "model/inside", "cube.zarr", "cube.zarr/inside", "cube.zarr/v", "sites.zarr", "records.csv",
    "../precious", "../precious/thesis.txt", ".", "..", "/", "/dev/null", "/dev/full", "/proc/x", "/home/../etc/x",
    "link", "loop", "other", "out\x00x", "o" * 300, "a/b/c/out", "~nobody-here/x", "s3://bucket/x", "file:///tmp/../x",
    "http://x/y", "", " ", "-", "--", "out.tif", "out.nc", "out.csv", "\ud800", "é\u202e", "mapless.zarr", "out\n",
)  # fmt: skip
TEXTS = (
    *(v for v in nasty.VALUES if isinstance(v, str)),
    "a", "b", "nan", "inf", "-1", "0", "1e400", "999999999999", "a[", "a[t=1]", "[]", "a=b", "*", ",", "1,2,3",
    "0,0,0,0", "5,50,6,49", "-inf,0,inf,1", "1,2,3,4,5", "EPSG:0", "100 km", "-3 km", "km", "0 m", "1e9 km",
)  # fmt: skip
VERBS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "info": (["@path"], ()),
    "records": (
        ["records.csv"],
        ("--species", "--x", "--y", "--presence", "--crs", "--encoding", "--doi", "--uncertainty", "--first-year",
         "--outliers", "--tolerance", "--cube", "--land", "--countries", "--reference", "--thin", "--seed", "--figure"),
    ),
    "sample": (["cube.zarr", "records.csv"], ("--species", "--x", "--y", "--presence", "--keep", "--background", "--bias", "--within", "--crs", "--seed")),
    "fit": (
        ["sites.zarr", *TINY],
        ("--schema", "--recipe", "--start", "--masking", "--fusion", "--members", "--width", "--loss", "--epochs",
         "--block", "--seed", "--checkpoint", "--lr", "--batch", "--holdout", "--keep"),
    ),
    "evaluate": (["model", "sites.zarr"], ("--subsets", "--metrics", "--figure")),
    "predict": (["model", "cube.zarr"], ("--using", "--species", "--scheduler")),
    "explain": (["model", "cube.zarr"], ("--using", "--species", "--group", "--scheduler")),
    "build": (["c.yaml"], ("--like", "--bounds", "--bbox", "--root")),
    "finetune": (["model", "sites.zarr", "--train", "all", "--epochs", "1"], ("--train", "--schema", "--block")),
}  # fmt: skip
REPLACED = (("build", "cube.zarr"), ("sample", "sites.zarr"), ("fit", "model"))
"""Outputs of the same kind that are no input of the verb: ``--overwrite`` replaces them."""
WRITERS = ("records", "sample", "fit", "predict", "explain", "build", "finetune")


def make(folder: Path) -> None:
    """Write a cube, records, sites, a catalog and a model."""
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    axes = {"y": 50 - 0.25 * np.arange(8), "x": 5 + 0.25 * np.arange(8)}
    layer = {k: (("y", "x"), rng.normal(size=(8, 8)).astype("f4"), {"modality": k}) for k in "ab"}
    cube = xr.Dataset(layer, axes).odc.assign_crs("EPSG:4326")
    gm.write_cube(cube, folder / "cube.zarr", progress=False)
    place = {"lon": rng.uniform(5, 6.7, 90), "lat": rng.uniform(48.3, 49.9, 90)}
    table = pd.DataFrame(
        {"species": rng.choice(["s", "t"], 90), **place, "presence": rng.integers(0, 2, 90)}
    )
    table.to_csv(folder / "records.csv", index=False)
    sites = gm.sample(cube, table)
    gm.write_sites(sites, folder / "sites.zarr")
    network = gm.NetworkConfig(width=8, heads=1, depth=1, inner=0, fusion="sum")
    model = gm.fit(
        sites, network=network, training=gm.TrainingConfig(epochs=1, holdout=0, keep="last"), rng=0
    )
    model.save(folder / "model")
    shape = {"count": 1, "height": 8, "width": 8, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(
        folder / "v.tif", "w", driver="GTiff", transform=from_origin(5, 50, 0.25, 0.25), **shape
    ) as f:
        f.write(np.ones((1, 8, 8), "float32"))
    (folder / "c.yaml").write_text(
        "name: c\ngrid: {crs: EPSG:4326, resolution: 0.25, bounds: [5, 48, 7, 50]}\n"
        "sources: {s: {path: v.tif}}\nmodalities: {m: {from: s, variables: {v: {}}}}\n"
    )
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").write_text("notes")
    shutil.copytree(folder / "cube.zarr", folder / "mapless.zarr")
    (folder / "mapless.zarr" / "precious.txt").write_text("precious")
    os.symlink("other", folder / "link")
    os.symlink("loop", folder / "loop")


def inputs(rng: np.random.Generator, count: int) -> Iterator[Input]:
    base = Path(tempfile.mkdtemp(prefix="hostile-base-"))
    apart(lambda: make(base))
    try:
        for number in range(count):
            yield _one(np.random.default_rng(rng.integers(2**63)), number, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _one(rng: np.random.Generator, number: int, base: Path) -> Input:
    verb = nasty.pick(rng, tuple(VERBS))
    words, flags = VERBS[verb]
    paths = (*OUTS, *nasty.NAMES)
    words = [nasty.pick(rng, paths) if w == "@path" else w for w in words]
    out = "out.csv" if verb == "records" else "out"
    if verb in WRITERS and rng.random() < 0.5:
        out = nasty.pick(rng, OUTS)
    elif words and rng.random() < 0.25:
        at = int(rng.integers(min(len(words), 2)))
        words[at] = nasty.pick(rng, paths)
    elif flags:
        words = [*words, nasty.pick(rng, flags), nasty.pick(rng, TEXTS)]
    words = [verb, *words, *(["--out", out] if verb in WRITERS else [])]
    if verb in WRITERS and rng.random() < 0.6:
        words.append("--overwrite")

    def prepare(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True, symlinks=True)

    def call(folder: Path) -> bool:
        os.chdir(folder)
        sys.argv = ["geomiam", *words]
        text, status = _called()
        if "Traceback" in text or "This is an error in geomiam" in text:
            raise Unclear(text[-250:])
        if status:
            if "error:" in text.lower() or "Usage:" in text:
                raise Refused(text[-250:])
            raise Unclear(f"status {status}: {text[-250:]}")
        return True

    changes = (
        (out,)
        if out
        in ("out", "a/b/c/out", "out.tif", "out.nc", "out.csv", "é\u202e", " ", "out\n", "o" * 300)
        else ()
    )
    replaces = (verb, out) in REPLACED and words[-1] == "--overwrite"
    outputs = ("out", "a", "-", "--", *changes, *([out] if replaces else []))
    return Input("command line", f"#{number} {words}"[:160], prepare, call, outputs=outputs)


def _called() -> tuple[str, int]:
    from geomiam.cli import main

    out = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException as error:
            return f"Traceback {type(error).__name__}: {error}", 1
    return out.getvalue(), status
