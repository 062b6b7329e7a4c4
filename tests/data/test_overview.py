"""The repr of ``ds.miam``: size, CRS and predictors by modality, without reading a value."""

from __future__ import annotations

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401 (registers .odc)
import xarray as xr
from conftest import make_cube, make_sites


def unreadable(block: np.ndarray) -> np.ndarray:
    raise AssertionError("a chunk was read")


def test_a_cube_names_its_size_crs_and_predictors_and_reads_no_chunk():
    cube = make_cube(ny=12, nx=14)
    lazy = cube.map(
        lambda v: v.copy(data=da.asarray(v.data).map_blocks(unreadable, dtype=v.dtype, meta=v.data))
    )
    first, *lines = repr(lazy.miam).splitlines()
    assert first == "cube of 12 × 14 cells"
    assert "  CRS: EPSG:4326" in lines
    modalities = {str(v.attrs["modality"]) for v in cube.data_vars.values()}
    for modality in modalities:
        names = [k for k, v in cube.data_vars.items() if v.attrs["modality"] == modality]
        assert f"  {modality}: {', '.join(names)}" in lines
    assert len(lines) == 1 + len(modalities)


def test_sites_name_their_species():
    sites = make_sites(make_cube())
    first, *lines = repr(sites.miam).splitlines()
    assert first == f"{sites.sizes['site']:,} sites"
    assert f"  species: {', '.join(sites['species'].values)}" in lines
    assert not [line for line in lines if "presence" in line]


def test_names_are_escaped_and_any_dataset_has_a_repr():
    ds = xr.Dataset({"a": ("z", [1, 2], {"modality": "<b>\x1b[31m"})})
    html = ds.miam._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert "\x1b" not in html + repr(ds.miam)
