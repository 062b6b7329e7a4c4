"""A fingerprint of training sites, to detect that a model was fitted on given sites.

It is a Bloom filter of one hash, between an eighth and a quarter full. It contains every training site,
and the same share of all other places. So a set of sites can be recognised, while a single place, such
as that of a threatened species, cannot be looked up.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import GridError, TrainedOnTheseSites, warn
from geomiam.splits import site_coordinates

LOAD = 0.25
"""Largest share of the filter that is set."""
MOST_BITS = 24
"""2 MiB; enough for 5 million sites."""
SURE = 1e-6
"""Probability of as many hits by chance, at and below which sites count as training sites."""


def fingerprint(sites: xr.Dataset) -> str | None:
    """Return the filter of the places of sites as base64 text; None without coordinates."""
    keys = _keys(sites)
    if keys is None:
        return None
    cells = len(keys) / -np.log1p(-LOAD)
    bits = int(np.clip(np.ceil(np.log2(cells)), 6, MOST_BITS))
    table = np.zeros(2**bits, bool)
    table[keys % np.uint64(2**bits)] = True
    return base64.b64encode(np.packbits(table).tobytes()).decode()


def shared_with(about: Mapping[str, Any], sites: xr.Dataset) -> float:
    """Return the share of the places of sites that a model was fitted on, 0 if it could be chance.

    Parameters
    ----------
    about : mapping
        Provenance of a model; that of its fine-tuning counts too.
    sites : xarray.Dataset
        Without coordinates the share is 0.
    """
    keys = _keys(sites)
    if keys is None or not len(keys):
        return 0.0
    steps = about.get("finetuning")
    entries = [about, *(steps if isinstance(steps, list) else [])]
    tables = [_table(e.get("fingerprint")) for e in entries if isinstance(e, Mapping)]
    return max((_share(keys, t) for t in tables if t is not None), default=0.0)


def warn_if_trained_on(about: Mapping[str, Any], sites: xr.Dataset) -> None:
    """Warn if a model was fitted on some of the sites.

    Warns
    -----
    TrainedOnTheseSites
        With the share of such sites and the calls that hold sites out.
    """
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
    return (hits / len(keys) - load) / (1 - load)
