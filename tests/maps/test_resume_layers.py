"""A map with every layer at once is stopped amid a block and resumes: equal to an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest
import xarray as xr
from conftest import train_small

import geomiam as gm
from geomiam.maps import job as jobs
from geomiam.maps.store import Place
from geomiam.maps.write import make_map

CHUNKS = {"y": 6, "x": 3}
GROUPS = ["climate", "terrain", "embedding"]
"""Groups that the stored sites can provide: those without a series or an image."""
SHARED = {
    "spread": True,
    "novelty": True,
    "value_of_information": gm.ValueOptions(neighbours=4),
    "groups": GROUPS,
}
LAYERS = {"suitability", "observed", "outside_range"}
LAYERS |= {
    "value_of_information",
    "value_standard_error",
    "missing_groups",
    "dissimilarity",
    "mess",
}
MAPS = {
    "prediction sets": (False, {"interval": 0.9}, {"spread", "prediction_set"}),
    "interactions": (True, {"order": 2}, {"shapley", "interaction", "shapley_spread"}),
}


@pytest.fixture(scope="module")
def ensemble(sites) -> gm.Model:
    """An ensemble of two with calibration sites."""
    model = train_small(sites.isel(site=slice(0, None, 2)), "group+sum")
    return gm.calibrate(model, sites.isel(site=slice(1, None, 2)))


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def stop_within_a_block(monkeypatch, blocks: int, layers: int) -> None:
    """Let a write fail in the block after ``blocks``, when some of its layers are on disk."""
    names_of, calls = jobs.cell_variables, []

    def some_names(maps: xr.Dataset, split: jobs.Blocks):
        calls.append(1)
        for number, name in enumerate(names_of(maps, split)):
            if len(calls) > blocks and number == layers:
                raise OSError("the disk is full")
            yield name

    monkeypatch.setattr(jobs, "cell_variables", some_names)


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_of_every_layer_that_is_stopped_within_a_block_ends_equal(
    ensemble, crop, tmp_path, monkeypatch, kind
):
    shapley, further, names = MAPS[kind]
    settings = {
        "chunks": CHUNKS,
        "shapley": shapley,
        "options": gm.MapOptions(**SHARED, **further),
        "progress": False,
    }
    path = tmp_path / "map.zarr"
    with dask.config.set(scheduler="synchronous"):
        with monkeypatch.context() as patch:
            stop_within_a_block(patch, blocks=1, layers=4)
            with pytest.raises(OSError, match="the disk is full"):
                gm.write_map(crop, ensemble, path, **settings)
        growing = Path(Place(str(path)).growing)
        written = {p.parts[0] for p in map(Path, content(growing)) if "c" in p.parts[1:2]}
        assert written >= {"suitability", "observed"} and not (tmp_path / "map.zarr").exists()
        report = make_map(crop, ensemble, path, **settings)
        assert (report.blocks, report.of) == (2, 3)
        gm.write_map(crop, ensemble, tmp_path / "whole.zarr", **settings)
    assert content(path) == content(tmp_path / "whole.zarr")
    with xr.open_zarr(path, consolidated=False) as maps:
        assert set(maps) >= LAYERS | names
        assert all(maps[name].notnull().any() for name in LAYERS | names)
