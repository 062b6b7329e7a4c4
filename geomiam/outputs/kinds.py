"""The kinds of outputs, and their recognition: whether a folder or file is an output of geomiam, without other files."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

MARK = "geomiam_output"  # attribute of a Zarr store with the kind of the output: cube, sites, map or scores
STATUS = "geomiam_status"  # attribute of a map; in earlier versions the only mark of a map
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that file managers create in folders
LARGEST = 256 * 2**20  # largest metadata file that is read, in bytes


@dataclass(frozen=True)
class Kind:
    """A kind of output, and the function that recognises it."""

    name: str
    mismatch: Callable[[Path], str | None]
    """Function that returns why a path is not such an output or has other files; None if it is one."""
    folder: bool = True


def store_mismatch(path: Path, *, name: str) -> str | None:
    """Return why a folder is not a Zarr store of this kind from geomiam; None if it is one."""
    attributes = _json(path / "zarr.json").get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    kind = attributes.get(MARK, "map" if STATUS in attributes else None)
    if kind is None:
        return f"is not a Zarr directory that geomiam wrote as {name}"
    if kind != name:
        return f"contains {kind}, not {name}"
    foreign = next(_foreign(path), None)
    return None if foreign is None else f"also contains {foreign.relative_to(path)}"


def _foreign(node: Path) -> Iterator[Path]:
    """Yield files and folders inside a Zarr v3 group or array that do not belong to it."""
    is_array = _json(node / "zarr.json").get("node_type") == "array"
    for entry in os.scandir(node):
        path, is_chunk = Path(entry.path), is_array and entry.name == "c"
        if entry.is_file(follow_symlinks=False):
            if not (is_chunk or _expected(entry.name, "zarr.json")):
                yield path
        elif entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
            yield path
        elif is_chunk:
            yield from _foreign_chunks(path)
        elif is_array or not (path / "zarr.json").is_file():
            yield path
        else:
            yield from _foreign(path)


def _foreign_chunks(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        number = entry.name.isascii() and entry.name.isdigit()
        if number and entry.is_dir(follow_symlinks=False):
            yield from _foreign_chunks(Path(entry.path))
        elif not (entry.is_file(follow_symlinks=False) and (number or _expected(entry.name))):
            yield Path(entry.path)


def _expected(name: str, *names: str) -> bool:
    """Return whether a file belongs to the store, to an interrupted write, or to a file manager."""
    return name in names or name in LITTER or name.endswith(".partial")


def folder_mismatch(
    path: Path, *, name: str, files: tuple[str, ...], proof: str, keys: tuple[str, ...]
) -> str | None:
    """Return why a folder has other files, or no ``keys`` in the JSON file ``proof``; None otherwise."""
    if not set(keys) <= set(_json(path / proof)):
        return f"is no {name}"
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        if entry.is_symlink() or entry.name not in (*files, *LITTER):
            return f"also contains {entry.name}"
    return None


def json_mismatch(path: Path, *, keys: tuple[str, ...]) -> str | None:
    """Return why a file is not a JSON table of geomiam; None if it is one."""
    document = _json(path)
    return None if set(keys) <= set(document) else f"has no {', '.join(map(repr, keys))} of geomiam"


def file_mismatch(path: Path) -> str | None:
    """Return why a picture or raster is not from geomiam, whose name is in the metadata of its files."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return None if content.find(b"geomiam") >= 0 else "was not written by geomiam"


def report_mismatch(path: Path) -> str | None:
    """Return why a file is not a report of geomiam, which the head of the page names; None if it is one."""
    with path.open("rb") as file:
        head = file.read(1000)
    mark = b'<meta name="generator" content="geomiam '
    return None if not head or mark in head else "is no report of geomiam"


def records_mismatch(path: Path, *, columns: str) -> str | None:
    """Return why a file is not a table of records of geomiam; None if it is one."""
    with path.open("rb") as file:
        is_csv = file.read(len(columns)) == columns.encode()
    return None if is_csv else file_mismatch(path)


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, or an empty one if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


CUBE, SITES, MAP, SCORES = (
    Kind(n, partial(store_mismatch, name=n)) for n in ("cube", "sites", "map", "scores")
)


def _folder(name: str, files: str, *, proof: str, keys: tuple[str, ...]) -> Kind:
    names = tuple(files.split())
    return Kind(name, partial(folder_mismatch, name=name, files=names, proof=proof, keys=keys))


MODEL = _folder(
    "model directory",
    "model.safetensors config.json README.md stac-item.json reference.safetensors "
    "calibration.safetensors",
    proof="config.json",
    keys=("format", "geomiam"),
)
CHECKPOINT = _folder(
    "checkpoint",
    "state.json state.safetensors",
    proof="state.json",
    keys=("fingerprint", "history"),
)
DEMO = _folder(
    "finished demo",
    "cube.zarr maps.zarr model summary.json suitability.png shapley.png training.png",
    proof="summary.json",
    keys=("auc", "versions"),
)
RESULTS = Kind(
    "table of results", partial(json_mismatch, keys=("settings", "summary")), folder=False
)
PICTURE = Kind("picture", file_mismatch, folder=False)
GEOTIFF = Kind("GeoTIFF", file_mismatch, folder=False)
NETCDF = Kind("netCDF file", file_mismatch, folder=False)
PAGE = Kind("interactive map", file_mismatch, folder=False)
STYLE = Kind("QGIS style", file_mismatch, folder=False)
RECORDS = Kind(
    "table of records",
    partial(records_mismatch, columns="species,lon,lat,presence"),
    folder=False,
)
REPORT = Kind("report", report_mismatch, folder=False)
