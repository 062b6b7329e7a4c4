"""Sites as Zarr: written, and read into memory or opened lazily."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from geomiam.data.store.store import Chunks, open_zarr, write_zarr
from geomiam.labels import refuse_large
from geomiam.outputs.kinds import SITES


def write_sites(sites: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write sites as Zarr v3; the store appears at its path only when complete.

    Parameters
    ----------
    sites
        Sites from :func:`sample`.
    path
        A local directory.
    overwrite
        Replace existing sites.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False.
    OutputRefused
        When ``path`` lies in a store, or has any content except sites of geomiam.

    See Also
    --------
    geomiam.open_sites : read them.

    Examples
    --------
    >>> import tempfile
    >>> import geomiam as gm
    >>> sites = gm.demo.sample_records(gm.demo.load_cube(), gm.demo.load_records())
    >>> path = gm.write_sites(sites, tempfile.mkdtemp() + "/sites.zarr")
    >>> gm.open_sites(path).sizes == sites.sizes
    True
    """
    return write_zarr(sites, path, overwrite=overwrite, kind=SITES)


def open_sites(path: str | Path, *, chunks: Chunks = None) -> xr.Dataset:
    """Read sites into memory, or open them lazily.

    Parameters
    ----------
    path
        A store of :func:`write_sites`.
    chunks
        None reads the sites into memory. ``{}`` opens them as dask arrays with the chunks of the store,
        ``{"site": 10_000}`` with others: :func:`geomiam.fit` then reads the labels in parts and keeps
        them compact, and copies the predictors to temporary files.

    Returns
    -------
    xr.Dataset
        The sites.

    Raises
    ------
    FileNotFoundError
        When there is no Zarr store at ``path``.
    MemoryRefused
        When the labels need more than 4 GiB and ``chunks`` is None.

    See Also
    --------
    geomiam.write_sites : write them.
    geomiam.sample : make sites from occurrences.

    Examples
    --------
    >>> path = gm.write_sites(sites, "sites.zarr")
    >>> gm.open_sites("sites.zarr").sizes == sites.sizes
    True
    >>> gm.open_sites("sites.zarr", chunks={"site": 100})["presence"].chunks is None
    False
    """
    sites: xr.Dataset = open_zarr(path, chunks=chunks)
    if chunks is not None:
        return sites
    if "presence" in sites:
        refuse_large(sites["presence"].shape, function="open_sites without chunks=")
    return sites.load()
