"""Predictors that are dask arrays are copied to temporary files and train the same model, to the bit."""

from __future__ import annotations

import mmap
import re
import sys
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites, weights_of

import geomiam as gm
from geomiam import NetworkConfig, on_disk
from geomiam.data.sites import table as table_module
from geomiam.data.sites.table import SiteTable, read_arrays
from geomiam.errors import ArtifactError, MemoryRefused, SettingError, UnreadableFile
from geomiam.on_disk import (
    array_on_disk,
    arrays_on_disk,
    in_parts,
    is_on_disk,
    read_ahead,
    read_at_random,
    row_parts,
)
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import fit_scaler, with_limits
from geomiam.training import reference as reference_module
from geomiam.training.advice import constant_predictors
from geomiam.training.table import encode_sites


def mixed_sites(n: int = 90) -> xr.Dataset:
    """Sites with numbers, classes, an angle and a series, and gaps."""
    rng = np.random.default_rng(3)
    sites = tiny_sites(n, species=3)
    cover = rng.integers(1, 5, n).astype(np.float32)
    cover[::11] = np.nan
    return sites.assign(
        cover=("site", cover, {"modality": "land"}),
        aspect=("site", rng.uniform(0, 360, n).astype(np.float32), {"units": "degrees"}),
    )


KINDS = {"cover": "categorical", "aspect": "circular"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of a few sites, for all functions that read in parts."""
    monkeypatch.setattr(table_module, "READ", 1200)
    monkeypatch.setattr(on_disk.row_parts, "__kwdefaults__", {"part": 1600})


# Arrays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_parts_hold_every_row_once_and_are_even(n):
    x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    parts = row_parts(x, part=120)
    np.testing.assert_array_equal(np.concatenate([x[p] for p in parts]), x)
    sizes = [p.stop - p.start for p in parts]
    assert max(sizes) <= 10 and max(sizes) - min(sizes) <= 1
    rows = np.arange(n) % 3 == 1
    np.testing.assert_array_equal(np.concatenate(list(in_parts(x, rows))), x[rows])


def test_an_array_on_disk_keeps_values_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = array_on_disk((5, 2))
    array[:] = 7
    assert is_on_disk(array) and not is_on_disk(array + 1) and array.sum() == 70
    del array
    assert list(tmp_path.iterdir()) == []
    assert array_on_disk((0, 2)).shape == (0, 2)


def test_arrays_of_one_file_do_not_overlap(monkeypatch):
    """A process on macOS may open 256 files by default, fewer than there may be predictors."""
    files = []
    open_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **k: files.append(k) or open_file(**k))
    shapes = {"a": (4, 3), "none": (4, 0), "b": (4,), "c": (4, 2, 2)}
    arrays = arrays_on_disk(shapes)
    assert {n: a.shape for n, a in arrays.items()} == shapes and len(files) == 1
    for number, array in enumerate(arrays.values()):
        array[:] = number
    assert [set(a.ravel().tolist()) for a in arrays.values()] == [{0}, set(), {2}, {3}]
    assert all(is_on_disk(a) for a in arrays.values() if a.size)


def test_a_folder_that_is_gone_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UnreadableFile, match=r"no folder for a temporary file .* TMPDIR"):
        array_on_disk((5, 2))


def test_a_file_larger_than_the_disk_is_refused():
    with pytest.raises(MemoryRefused, match=r"temporary file of .* GiB is needed .* TMPDIR"):
        array_on_disk((2**40, 2**10))


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="Windows reads pages as it likes")
def test_rows_are_read_ahead_and_nothing_else(monkeypatch):
    """The pages of an array are its bytes from the first on, so that a row lies in the requested pages."""
    array = array_on_disk((50, 3000))
    array[:] = np.arange(50)[:, None]
    calls = []

    class Pages:
        def madvise(self, *call):
            calls.append(call)

    class Rows(np.ndarray):
        base = Pages()

    read_at_random(array)
    read_ahead(array, np.array([0, 7, 49]))  # the last row ends with the file
    read_ahead(array.view(Rows), np.array([7]))
    ((advice, first, length),) = calls
    assert advice == mmap.MADV_WILLNEED and first % mmap.PAGESIZE == 0
    assert first <= 7 * 12_000 and first + length == 8 * 12_000 and length < 12_000 + mmap.PAGESIZE
    np.testing.assert_array_equal(array[[49, 7]], np.full((2, 3000), [[49], [7]]))


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of Linux")
def test_a_file_beyond_the_limits_of_the_user_is_refused():
    """A quota, or a disk that others fill meanwhile."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(MemoryRefused, match="temporary file"):
            array_on_disk((2**10, 2**10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_predictors_are_read_once_each_and_without_a_copy_in_memory(monkeypatch):
    monkeypatch.setattr(table_module, "READ", 2**20)
    monkeypatch.setattr(on_disk.row_parts, "__kwdefaults__", {"part": 2**20})
    reads: Counter[int] = Counter()

    def chunk(block_info=None):
        reads[block_info[None]["chunk-location"][0]] += 1
        return np.full((100, 2000), block_info[None]["chunk-location"][0], np.float32)

    values = da.map_blocks(chunk, chunks=((100,) * 40, (2000,)), dtype=np.float32, meta=np.ones(0))
    sites = tiny_sites(4000).assign(embedding=(("site", "dim"), values))
    schema = gm.infer_schema(sites, kinds={"embedding": "vector"})
    SiteTable.read(sites.isel(site=slice(100)), schema)  # imports take memory too
    reads.clear()
    tracemalloc.start()
    table = SiteTable.read(sites, schema).checked()
    scaler = with_limits(fit_scaler(table.arrays, schema), table.arrays, schema)
    tokens = encode_sites(table.arrays, layout=Layout.of(schema), scaler=scaler)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(reads) == list(range(40)) and set(reads.values()) == {1}
    assert peak < table.arrays["embedding"].nbytes / 4
    np.testing.assert_array_equal(scaler.limits["embedding"], [[0, 39]] * 2000)
    assert all(map(is_on_disk, tokens.values))


def test_arrays_of_misaligned_chunks_are_those_in_memory():
    sites = mixed_sites()
    schema = gm.infer_schema(sites, kinds=KINDS)
    lazy = sites.assign(
        {n: sites[n].chunk(site=s) for n, s in {"bio1": 7, "ndvi": 32, "cover": 90}.items()}
    )
    expected, arrays = read_arrays(sites, schema), read_arrays(lazy, schema)
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name])
        assert is_on_disk(arrays[name]) == (name in ("bio1", "ndvi", "cover"))


# The scaler ---------------------------------------------------------------------------------------


def test_moments_limits_and_classes_in_parts_are_those_of_all_rows():
    sites = mixed_sites(200)
    schema = gm.infer_schema(sites, kinds=KINDS)
    arrays, rows = read_arrays(sites, schema), np.arange(200) % 4 > 0
    scaler = with_limits(fit_scaler(arrays, schema, rows=rows), arrays, schema, rows=rows)
    bio, ndvi = (arrays[n][rows].astype(float) for n in ("bio1", "ndvi"))
    np.testing.assert_allclose(scaler.mean["bio1"], np.nanmean(bio), rtol=1e-12)
    np.testing.assert_allclose(scaler.std["bio1"], np.nanstd(bio), rtol=1e-12)
    np.testing.assert_allclose(scaler.mean["ndvi"], np.nanmean(ndvi), rtol=1e-12)
    np.testing.assert_array_equal(scaler.limits["bio1"], [np.nanmin(bio), np.nanmax(bio)])
    np.testing.assert_array_equal(scaler.classes["cover"], [1, 2, 3, 4])


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"training": {"steps": 5}},
        {"network": TINY_NETWORK, "training": {"steps": 10, "loss": "maxent"}},
        {
            "network": NetworkConfig(fusion="late", width=8, depth=1, heads=2),
            "warm_start": True,
            "training": quick(epochs=1),
        },
    ],
    ids=["default", "maxent", "late"],
)
@pytest.mark.filterwarnings("ignore")
def test_the_model_is_equal_to_the_bit(options):
    sites = mixed_sites()
    schema = gm.infer_schema(sites, kinds=KINDS)
    dense = gm.fit(sites, schema, **options)
    lazy = gm.fit(sites.chunk(site=13), schema, **options)
    assert lazy.id == dense.id and weights_of(lazy) == weights_of(dense)
    assert lazy.reference.digest == dense.reference.digest


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_arrays_in_memory_is_one_of_arrays_on_disk(tmp_path):
    sites = mixed_sites()
    options = {"network": TINY_NETWORK, "training": {"steps": 6}, "checkpoint": tmp_path / "run"}
    lazy = sites.chunk(site=13).assign(presence=sites["presence"])  # compact labels are other data
    assert weights_of(gm.fit(lazy, **options)) == weights_of(gm.fit(sites, **options))
    with pytest.raises(ArtifactError, match="other data"):
        gm.fit(lazy.assign(bio1=2 * lazy["bio1"]), **options)


@pytest.mark.filterwarnings("ignore")
def test_pretrained_and_finetuned_models_are_equal_to_the_bit():
    sites = mixed_sites()
    schema = gm.infer_schema(sites, kinds=KINDS)
    quickly = {"network": TINY_NETWORK, "training": {"steps": 3}}
    start, lazy = gm.fit(sites, schema, **quickly), sites.chunk(site=13)
    for train in ("head", "all"):
        options = {"train": train, "training": {"steps": 3}}
        species = [f"new {i}" for i in range(3)] if train == "head" else sites["species"].values
        expected, model = (
            gm.finetune(start, s.assign_coords(species=species), **options) for s in (sites, lazy)
        )
        assert weights_of(model) == weights_of(expected) and model.id == expected.id
    small = {"network": TINY_NETWORK, "training": {"epochs": 1}}
    encoders = [gm.pretrain(s, schema, **small) for s in (sites, lazy)]
    assert weights_of(encoders[0]) == weights_of(encoders[1])


@pytest.mark.filterwarnings("ignore")
def test_sites_that_were_sampled_in_parts_train_as_one(tmp_path):
    sites = tiny_sites(80)
    parts = []
    for number, part in enumerate((sites.isel(site=slice(50)), sites.isel(site=slice(50, None)))):
        gm.write_sites(part, tmp_path / f"{number}.zarr")
        parts.append(gm.open_sites(tmp_path / f"{number}.zarr", chunks={}))
    together = xr.concat(parts, "site", data_vars="all", join="outer")
    options = {"network": TINY_NETWORK, "training": {"steps": 6}}
    assert weights_of(gm.fit(together, **options)) == weights_of(gm.fit(sites, **options))


@pytest.mark.filterwarnings("ignore")
def test_the_code_of_the_guide_samples_the_same_sites_in_parts(tmp_path, monkeypatch):
    page = Path(gm.__file__).parents[1] / "docs" / "howto" / "large-training.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
    (code,) = (block for block in blocks if "xr.concat" in block)
    records = gm.demo.load_records().rename(columns={"x": "lon", "y": "lat"})
    names = {"gm": gm, "cube": gm.demo.load_cube(), "records": records}
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), names)
    expected = gm.sample(names["cube"], records)
    places = [set(zip(s["x"].values, s["y"].values)) for s in (names["sites"], expected)]
    assert len(names["parts"]) > 1 and places[0] == places[1]
    assert names["sites"].sizes == expected.sizes and names["sites"]["altitude"].chunks


def test_several_processes_need_predictors_in_memory():
    with pytest.raises(SettingError, match=r"devices=2 .*sites\.load\(\)"):
        gm.fit(
            tiny_sites(60).chunk(site=20),
            network=TINY_NETWORK,
            training={"devices": 2, "accelerator": "cpu", "steps": 2},
        )


@pytest.mark.parametrize("n_extreme", [0, 1])
def test_constants_are_found_over_all_parts(n_extreme, recwarn):
    """One site of the last part decides whether a predictor varies."""
    x = np.full((1000, 2), 3, np.float32)
    x[::7] = np.nan
    x[-n_extreme or 1000 :] = 4
    assert len(row_parts(x)) > 1
    constant_predictors({"bio1": x})
    messages = [str(w.message) for w in recwarn]
    assert any("all predictors are constant" in m for m in messages) == (n_extreme == 0)


@pytest.mark.filterwarnings("ignore")
def test_the_sample_of_several_parts_has_the_extremes_and_is_even(monkeypatch):
    n = 1200
    sites = tiny_sites(n).assign(bio1=("site", np.arange(n, dtype=np.float32)))
    monkeypatch.setattr(reference_module, "PART", 4 * 3 * 200)
    model = gm.fit(
        sites, network=TINY_NETWORK, training={"steps": 2, "reference_sites": 120}, validation=False
    )
    rank = model.reference.values[:, 0] * model.scaler.std["bio1"] + model.scaler.mean["bio1"]
    assert len(rank) == 120
    np.testing.assert_allclose([rank.min(), rank.max()], [0, n - 1], atol=0.01)
    by_sixth = np.histogram(rank, 6, (0, n))[0]
    assert by_sixth.min() >= 8 and by_sixth.max() <= 34  # 20 on average
