"""Functions that all readers use: find files, clean numbers, stack images, make labels from records."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.infer import infer_schema
from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import expand
from geomiam.schema.catalogs import catalogs
from geomiam.schema.schema import Schema

ABSURD = 1e10
"""Numbers beyond are sentinels of the sources (3.4e38, ±inf), never measurements."""
SHARD = re.compile(r"\d{1,2}")
"""Folders by digits of an id, of which there are thousands."""


class MissingFiles(UserWarning):
    """Files of a data set are missing for some sites; their values are NaN."""


def catalog(name: str) -> Schema:
    """Read a catalog that comes with geomiam."""
    return Schema.from_yaml(catalogs()[name])


def present(schema: Schema, sites: xr.Dataset | None) -> Schema:
    """Return the part of a schema that sites contain; all of it without sites.

    Raises
    ------
    OccurrenceError
        If they contain no variable of the schema.
    """
    if sites is None:
        return schema
    observed_names = [name for name in schema.variables if name in sites.data_vars]
    if not observed_names:
        raise OccurrenceError(
            f"the sites have none of the variables of '{schema.name}', found {list(sites.data_vars)[:8]}"
        )
    return schema if len(observed_names) == len(schema.variables) else schema.subset(observed_names)


def described(sites: xr.Dataset, name: str) -> Schema:
    """Return the schema that a reader's attributes define: ``modality``, ``kind``, ``window``, ``units``."""
    kinds = {str(n): v.attrs["kind"] for n, v in sites.data_vars.items() if "kind" in v.attrs}
    schema = infer_schema(sites, kinds=kinds, name=name)
    windows = {
        n: v.model_copy(update={"window": int(sites[n].attrs["window"])})
        for n, v in schema.variables.items()
        if "window" in sites[n].attrs
    }
    return schema.replace(windows)


def need_folder(folder: str | Path) -> Path:
    """Return the folder.

    Raises
    ------
    OccurrenceError
        If it is not there.
    """
    root = Path(expand(folder))
    if not root.is_dir():
        raise OccurrenceError(f"{root} is no folder: pass the one where the data set was unpacked")
    return root


def nothing_found(root: Path, looked_for: Iterable[str]) -> OccurrenceError:
    """Return an error with the files that were expected in a folder and those that are in it."""
    entries = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    listing = ", ".join(entries[:8]) + (f", … ({len(entries)})" if len(entries) > 8 else "")
    return OccurrenceError(
        f"{root} does not contain the files of this data set; looked for {', '.join(looked_for)}, found "
        f"{listing or 'nothing'}: pass the folder where it was unpacked"
    )


def walk(root: Path) -> tuple[list[Path], list[Path]]:
    """Return all files, and the folders that are sharded by digits, which are not entered."""
    files, digit_folders = [], []
    for folder, inner, names in os.walk(root):
        if any(SHARD.fullmatch(n) for n in inner):
            digit_folders.append(Path(folder))
        inner[:] = sorted(n for n in inner if not SHARD.fullmatch(n) and not n.startswith("."))
        files += [Path(folder) / n for n in sorted(names)]
    return files, sorted(digit_folders)


def column(table: pd.DataFrame, names: Sequence[str], *, meaning: str, path: Path) -> str:
    """Return the column that has one of some names, in any case.

    Raises
    ------
    OccurrenceError
        If none is there.
    """
    columns_by_name = {str(c).lower(): str(c) for c in reversed(table.columns)}
    for name in names:
        if name.lower() in columns_by_name:
            return columns_by_name[name.lower()]
    raise OccurrenceError(
        f"{path} has no column for {meaning}; looked for {list(names)}, found {list(table.columns)}"
    )


def clean(values: Any) -> np.ndarray:
    """Return float32 with NaN for text, ±inf and sentinels."""
    flat = pd.to_numeric(pd.Series(np.ravel(values)), errors="coerce")
    numbers = flat.to_numpy(np.float64, na_value=np.nan).reshape(np.shape(values))
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(numbers) <= ABSURD, numbers, np.nan).astype(np.float32)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table with commas, semicolons or tabs, whichever its first line has most of."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        head = lines.readline()
    return pd.read_csv(path, sep=max(",;\t", key=head.count), low_memory=False)


def choose(
    ids: np.ndarray, selection: Sequence | None, limit: int | None, *, name: str
) -> np.ndarray:
    """Return the rows of the wanted ids, in their order, or the first ``limit``, or all.

    Raises
    ------
    OccurrenceError
        If one is not there, or nothing is chosen.
    """
    rows = np.arange(len(ids))
    if selection is not None:
        rows = pd.Index(ids).get_indexer(pd.Index(selection))
        if (rows < 0).any():
            unknown_ids = np.asarray(selection)[rows < 0]
            raise OccurrenceError(
                f"{len(unknown_ids)} of {len(rows)} {name} are not in the data: {unknown_ids[:5].tolist()}; there are "
                f"{len(ids)}, such as {ids[:3].tolist()}"
            )
    rows = rows[:limit]
    if not len(rows):
        raise OccurrenceError(f"no {name} chosen of {len(ids)}; limit= must be at least 1")
    return rows


def stack(
    items: Sequence[Any],
    read: Callable[[Any], np.ndarray],
    shape: tuple[int, ...],
    *,
    chunks: int | None,
) -> Any:
    """Read one array per site as float32 ``(site, *shape)``; NaN where the item is None.

    ``read`` is a function of a module, so that it can be sent to workers. With ``chunks`` sites per dask chunk, sites are
    read when computed.
    """
    if chunks is None:
        return _read_all(items, read, shape)
    import dask.array as da
    from dask import delayed

    parts = [items[i : i + chunks] for i in range(0, len(items), chunks)]
    blocks = [
        da.from_delayed(delayed(_read_all)(part, read, shape), (len(part), *shape), np.float32)
        for part in parts
    ]
    return da.concatenate(blocks)


def _read_all(items: Sequence[Any], read: Callable, shape: tuple[int, ...]) -> np.ndarray:
    out = np.full((len(items), *shape), np.nan, np.float32)
    for row, item in enumerate(items):
        if item is not None:
            out[row] = read(item)
    return out


def read_image(path: Path) -> np.ndarray:
    """Read an image as float32 ``(band, row, column)``; nodata of a GeoTIFF is NaN.

    Raises
    ------
    ImportError
        For JPEG and PNG without Pillow.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path)
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"{path.name} needs Pillow: pip install pillow") from None
    with Image.open(path) as image:
        pixels = np.asarray(image, np.float32)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _read_tiff(path: Path) -> np.ndarray:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", NotGeoreferencedWarning
        )  # an image is found by its id, not by its place
        with rasterio.open(path) as image:
            return image.read(masked=True).astype(np.float32).filled(np.nan)


def labels(
    site: np.ndarray,
    names: np.ndarray,
    *,
    sites: int,
    min_records: int = 1,
    absent_label: float = 0.0,
) -> xr.DataArray:
    """Return ``presence(site, species)`` from records.

    Parameters
    ----------
    site : numpy.ndarray
        Site of each record.
    names : numpy.ndarray
        Species of each record.
    sites : int
        Number of sites.
    min_records : int
        Species at fewer sites are left out.
    absent_label : float
        Label where a species was not recorded: 0, or NaN for not surveyed.

    Raises
    ------
    OccurrenceError
        If no species is left.
    """
    codes, species = pd.factorize(names, sort=True)
    pairs = np.unique(np.stack([site, codes], 1)[codes >= 0], axis=0)
    count = np.bincount(pairs[:, 1], minlength=len(species))
    species_kept = np.flatnonzero(count >= min_records)
    if not len(species_kept):
        largest_count = count.max(initial=0)
        raise OccurrenceError(
            f"no species has min_records={min_records} records at these {sites} sites; the most is {largest_count}"
        )
    place = np.full(len(species), -1)
    place[species_kept] = np.arange(len(species_kept))
    values: np.ndarray = np.full((sites, len(species_kept)), absent_label, np.float32)
    pairs = pairs[place[pairs[:, 1]] >= 0]
    values[pairs[:, 0], place[pairs[:, 1]]] = 1
    coords = {"species": [str(species[k]) for k in species_kept]}
    return xr.DataArray(values, dims=("site", "species"), coords=coords)


def warn_missing(counts: Mapping[str, int], sites: int) -> None:
    """Warn once about missing files of sites."""
    missing_counts = {name: n for name, n in counts.items() if n}
    if missing_counts:
        counts_text = ", ".join(f"{name} of {n}" for name, n in missing_counts.items())
        warnings.warn(
            f"files are missing for some of the {sites} sites, which are NaN there: {counts_text}",
            MissingFiles,
            stacklevel=3,
        )
