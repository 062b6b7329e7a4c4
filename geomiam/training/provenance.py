"""Record of a training in the model: settings, sites, scores, place and time, and a fingerprint of the sites.

The fingerprint detects that a model was fitted on given sites. It is a Bloom filter of one hash, between
an eighth and a quarter full. It contains every training site, and the same share of all other places. So
a set of sites can be recognised, while a single place, such as that of a threatened species, cannot be
looked up.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import platform
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import xarray as xr

from geomiam._version import __version__
from geomiam.errors import GridError, TrainedOnTheseSites, warn
from geomiam.geo.crs import crs_name, crs_of
from geomiam.labels import label_counts
from geomiam.masking import to_dict
from geomiam.splits import site_coordinates
from geomiam.tokens.select import group_coverage
from geomiam.training.checkpoint import Progress
from geomiam.training.loop import Run

LOAD = 0.25
"""Largest share of the filter that is set."""
MOST_BITS = 24
"""2 MiB; enough for 5 million sites."""
LONGEST = 2**20
"""Most characters of an attribute of the sites that the provenance stores."""
SOURCE_KEYS = ("source", "kind", "crs", "resolution", "resampling")
SURE = 1e-6
"""Probability of as many hits by chance, at and below which sites count as training sites."""


def provenance(runs: Sequence[Run], ends: Sequence[Progress], sites: xr.Dataset) -> dict[str, Any]:
    """Return the record of a training; values that differ between members are listed or averaged."""
    run = runs[0]
    best_rows = [end.history[end.best_epoch] for end in ends]
    auc = {
        k: [row[k] for row in best_rows if row[k] is not None]
        for k in best_rows[0]
        if k.startswith("auc_")
    }
    return {
        "masking": to_dict(run.masking),
        "training": min((r.config for r in runs), key=lambda c: c.lr).model_dump(),
        "seeds": [r.seed for r in runs],
        "sites": site_counts(run),
        "presences": dict(zip(run.model.species, label_counts(run.table.labels).present.tolist())),
        "best_epochs": [end.best_epoch for end in ends],
        "validation_auc": {
            k.removeprefix("auc_"): float(np.mean(v)) if v else None for k, v in auc.items()
        },
        "history": [{"member": i, **row} for i, end in enumerate(ends) for row in end.history],
        "fingerprint": fingerprint(sites),
        "coverage": group_coverage(run.model.layout, run.table.observed.numpy()),
        **place_and_time(sites),
        **data_sources(sites),
        "software": software(),
    }


def site_counts(run: Run) -> dict[str, int]:
    """Return the number of training sites, and of validation sites that do not train."""
    train, valid = run.table.train, run.table.valid
    return {"train": len(train), "validation": len(np.setdiff1d(valid, train))}


def place_and_time(sites: xr.Dataset) -> dict[str, list[Any]]:
    """Return extent and first and last date of sites, as far as the sites have them."""
    about: dict[str, list[Any]] = {}
    try:
        xy = site_coordinates(sites)
        about["extent"] = [*np.nanmin(xy, 0).tolist(), *np.nanmax(xy, 0).tolist()]
    except GridError:  # sites without coordinates have no extent to report
        pass
    if "time" in sites.coords and sites["time"].dims == ("site",):
        first, last = sites["time"].min().values, sites["time"].max().values
        about["dates"] = [str(first)[:10], str(last)[:10]]
    return about


def data_sources(sites: xr.Dataset) -> dict[str, Any]:
    """Return CRS, records, background and sources of the predictors, as far as attributes of the sites state them."""
    about: dict[str, Any] = {}
    with contextlib.suppress(GridError):
        about["crs"] = crs_name(crs_of(sites))
    records = _parsed(sites.attrs.get("records"), dict)
    if records:
        about["records"] = records
    if sampling := _parsed(sites.attrs.get("sampled"), dict):
        about["sampled"] = sampling
    if isinstance(kind := sites.attrs.get("background_kind"), str):
        count = sites.attrs.get("background_drawn")
        about["background"] = {
            "kind": kind,
            **({"points": int(count)} if count is not None else {}),
            **{
                k: v
                for k in ("bias", "area")
                if isinstance(v := sites.attrs.get(f"background_{k}"), str)
            },
        }
    rows = [row for row in _parsed(sites.attrs.get("sources"), list) or () if isinstance(row, dict)]
    if rows:
        about["sources"] = _by_source(rows)
    return about


def _parsed(text: Any, kind: type) -> Any:
    """Return an attribute in JSON if it is short and of the expected type; None otherwise."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def _by_source(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for the variables that share source, grid and resampling."""
    entries: dict[str, dict[str, Any]] = {}
    for row in rows:
        common = {k: str(row[k]) for k in SOURCE_KEYS if row.get(k)}
        entry = entries.setdefault(json.dumps(common), {**common, "variables": []})
        entry["variables"].append(str(row.get("variable", "")))
    return list(entries.values())


def software() -> dict[str, str]:
    """Return the versions that a training depends on."""
    versions = {"geomiam": __version__, "python": platform.python_version()}
    return versions | {"torch": str(torch.__version__), "numpy": np.__version__}


def fingerprint(sites: xr.Dataset) -> str | None:
    """Return the filter of the places of sites as base64 text; None without coordinates."""
    keys = _keys(sites)
    if keys is None:
        return None
    # One hash of n keys sets a share 1 − exp(−n / 2^bits) of the filter.
    cells = len(keys) / -np.log1p(-LOAD)
    bits = int(np.clip(np.ceil(np.log2(cells)), 6, MOST_BITS))
    table = np.zeros(2**bits, bool)
    table[keys % np.uint64(2**bits)] = True
    return base64.b64encode(np.packbits(table).tobytes()).decode()


def shared_with(about: Mapping[str, Any], sites: xr.Dataset) -> float:
    """Return the share of the places of sites that a model was fitted on, 0 if it could be chance.

    ``about`` is the provenance of the model; that of its fine-tuning counts too. Without coordinates the
    share is 0.
    """
    keys = _keys(sites)
    if keys is None or not len(keys):
        return 0.0
    steps = about.get("finetuning")
    entries = [about, *(steps if isinstance(steps, list) else [])]
    tables = [_table(e.get("fingerprint")) for e in entries if isinstance(e, Mapping)]
    return max((_share(keys, t) for t in tables if t is not None), default=0.0)


def warn_if_trained_on(about: Mapping[str, Any], sites: xr.Dataset) -> None:
    """Warn with TrainedOnTheseSites if a model was fitted on some of the sites."""
    if share := shared_with(about, sites):
        warn(
            f"the model was fitted on about {share:.0%} of these sites, so its scores are too high: hold "
            "out blocks with test = gm.splits.hold_out_blocks(sites, share=0.2), fit on "
            "sites.isel(site=~test) and evaluate on sites.isel(site=test), or use gm.cross_validate "
            "(command line: geomiam split)",
            TrainedOnTheseSites,
        )


def _keys(sites: xr.Dataset) -> np.ndarray | None:
    """Return a hash of each distinct place and time; None without coordinates."""
    try:
        places = np.ascontiguousarray(site_coordinates(sites), np.float32) + np.float32(0)  # no -0
    except GridError:
        return None
    rows = [row.tobytes() for row in places]
    if "time" in sites.coords and sites["time"].dims == ("site",):
        times = sites["time"].values.astype(str)
        rows = [row + time.encode() for row, time in zip(rows, times)]
    digests = (blake2b(row, digest_size=8).digest() for row in dict.fromkeys(rows))
    return np.frombuffer(b"".join(digests), "<u8")


def _table(text: Any) -> np.ndarray | None:
    """Return the filter in base64 text, boolean; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        table = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    except (ValueError, binascii.Error):
        return None
    return table.astype(bool) if table.size and table.size & (table.size - 1) == 0 else None


def _share(keys: np.ndarray, table: np.ndarray) -> float:
    """Estimate the share of keys that were put into a filter, 0 if chance explains the hits."""
    from scipy.stats import binom

    load = float(table.mean())
    hits = int(table[keys % np.uint64(table.size)].sum())
    if load == 1 or binom.sf(hits - 1, len(keys), load) > SURE:
        return 0.0
    # Of the other keys, a share `load` hits by chance: hits / n = share + (1 − share) · load.
    return (hits / len(keys) - load) / (1 - load)
