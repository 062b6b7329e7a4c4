"""Readers of the field's data sets: small folders in their layouts, read back value by value."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import SHARED, needs_shared
from helpers_readers import geoplant_folder, satbird_folder, save_image, save_tiff, shard
from PIL import Image

import geomiam as gm
from geomiam.errors import ArtifactError, OccurrenceError
from geomiam.tokens.layout import Layout
from geomiam_bench import readers
from geomiam_bench.readers.cubes import read_cube, read_pt
from geomiam_bench.readers.files import MissingFiles

SMALL = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4)
GLC = SHARED / "glc_sample"


def tokens(schema: gm.Schema) -> dict[str, int]:
    return dict(zip(schema.modalities, Layout.of(schema).sizes.tolist(), strict=True))


def bound(schema: gm.Schema, sites: xr.Dataset) -> gm.Schema:
    from geomiam.data.predictors import bind

    return bind(schema, sites)


# Tensors in .pt files ---------------------------------------------------------------------------

CUBE = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "tensor",
    [
        CUBE,
        CUBE.permute(2, 0, 1),  # strides
        CUBE[:, 1:, ::2],  # offset
        CUBE[:1].expand(5, 3, 4),  # strides of zero
        CUBE[0, 0, 3],  # no dims
        torch.zeros(0, 3),
        torch.tensor([1.0, float("nan"), float("inf")]),
        *(CUBE.to(d) for d in (torch.float64, torch.float16, torch.int64, torch.int32)),
        *(CUBE.to(d) for d in (torch.int16, torch.int8, torch.uint8, torch.bool)),
    ],
    ids=lambda t: f"{str(t.dtype)[6:]}-{'x'.join(map(str, t.shape))}",
)
def test_a_tensor_comes_back_as_torch_wrote_it(tensor, tmp_path):
    torch.save(tensor, tmp_path / "a.pt")
    read = read_pt(tmp_path / "a.pt")
    assert read.dtype == tensor.numpy().dtype
    np.testing.assert_array_equal(read, tensor.numpy())


def test_containers_of_tensors_come_back(tmp_path):
    view = CUBE[0]
    torch.save({"a": [CUBE, view], "b": (1, 2.5, "text", None, True)}, tmp_path / "a.pt")
    read = read_pt(tmp_path / "a.pt")
    np.testing.assert_array_equal(read["a"][0], CUBE)
    np.testing.assert_array_equal(read["a"][1], view)
    assert read["b"] == (1, 2.5, "text", None, True)


class Trap:
    """What an attacker writes: unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: {"cube": CUBE, "more": Trap(path / "trap")},
        lambda path: torch.nn.Linear(2, 2),
        lambda path: np.ones(3),
        lambda path: CUBE.bfloat16(),
    ],
    ids=["code", "module", "numpy", "bfloat16"],
)
def test_anything_else_is_refused_and_not_run(make, tmp_path):
    torch.save(make(tmp_path), tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match="nothing of it was run"):
        read_pt(tmp_path / "a.pt")
    assert not (tmp_path / "trap").exists()


def test_damaged_files_are_distinguished_from_other_files(tmp_path):
    torch.save(CUBE, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ArtifactError, match=r"not a zip.*torch\.save"):
        read_pt(tmp_path / "a.pt")
    torch.save(CUBE, tmp_path / "b.pt")
    with (
        zipfile.ZipFile(tmp_path / "b.pt") as archive,
        zipfile.ZipFile(tmp_path / "c.pt", "w") as cut,
    ):
        for name in archive.namelist():
            raw = archive.read(name)
            cut.writestr(name, raw[:-8] if name.endswith("data/0") else raw)
    with pytest.raises(ArtifactError, match=r"damaged.*88 bytes for 24 values"):
        read_pt(tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as compressed_archive:
        compressed_archive.writestr("a/data.pkl", b"\x80\x02." * 100)
    with pytest.raises(ArtifactError, match="compressed"):
        read_pt(tmp_path / "d.pt")
    with pytest.raises(FileNotFoundError):
        read_pt(tmp_path / "none.pt")
    with pytest.raises(ArtifactError, match=r"\(2, 3, 4\), expected \(2, 3\)"):
        read_cube(tmp_path / "b.pt", (2, 3))


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    torch.save(torch.zeros(1).expand(2**20, 2**10), tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 5000
    with pytest.raises(ArtifactError, match="more than"):
        read_pt(tmp_path / "a.pt")


def test_a_tensor_cannot_reach_over_its_storage(tmp_path):
    """A stride in the description is made larger, byte for byte."""
    torch.save(CUBE, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as archive,
        zipfile.ZipFile(tmp_path / "b.pt", "w") as bad,
    ):
        for name in archive.namelist():
            raw = archive.read(name)
            if name.endswith("data.pkl"):
                assert raw.count(b"K\x0cK\x04K\x01") == 1  # strides 12, 4, 1
                raw = raw.replace(b"K\x0cK\x04K\x01", b"K\xffK\x04K\x01")
            bad.writestr(name, raw)
    with pytest.raises(ArtifactError, match="reaches over its 24 stored values"):
        read_pt(tmp_path / "b.pt")


# GeoPlant ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def europe(tmp_path_factory):
    return geoplant_folder(tmp_path_factory.mktemp("geoplant"))


@pytest.fixture(scope="module")
def surveys(europe):
    return readers.geoplant(europe)


def metadata(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "PresenceAbsenceSurveys" / "PA_metadata_train.csv")


def test_tables_are_joined_by_survey(europe, surveys):
    for path in (europe / "EnvironmentalValues").rglob("*.csv"):
        table = pd.read_csv(path).set_index("surveyId")
        for survey, site in zip(surveys["siteid"].values, range(surveys.sizes["site"])):
            for name in table.columns:
                assert surveys[name].values[site] == np.float32(table.loc[survey, name])


def test_labels_are_the_species_of_each_survey(europe, surveys):
    records = metadata(europe)
    expected = pd.crosstab(records["surveyId"], records["speciesId"].astype(int)).clip(upper=1)
    got = surveys["presence"].to_pandas().set_axis(surveys["siteid"].values)
    assert list(got.columns) == [str(c) for c in expected.columns]
    np.testing.assert_array_equal(got.loc[expected.index], expected)
    survey_rows = (
        records.drop_duplicates("surveyId").set_index("surveyId").loc[surveys["siteid"].values]
    )
    np.testing.assert_array_equal(surveys["lon"], survey_rows["lon"])
    np.testing.assert_array_equal(surveys["year"], survey_rows["year"])


def test_cubes_have_time_in_order_and_the_right_axes(europe, surveys):
    for site, survey in enumerate(surveys["siteid"].values):
        files = {p.parts[-4]: p for p in europe.rglob(f"*_{survey}_cube.pt")}
        climate = torch.load(files["BioclimTimeSeries"]).numpy()  # variable, year, month
        landsat = torch.load(files["SatelliteTimeSeries"]).numpy()  # band, quarter, year
        march = surveys["bioclim"].isel(site=site).sel(climate="tasmax", month="2018-03-01")
        assert float(march) == climate[2, 18, 2]
        autumn = surveys["landsat"].isel(site=site).sel(landsat_band="nir", quarter="2005-10-01")
        assert float(autumn) == landsat[3, 3, 5]
        archive = surveys["landsat"].isel(site=site).values.reshape(6, 21, 4)
        np.testing.assert_array_equal(archive, np.swapaxes(landsat, 1, 2))


def test_patches_are_red_green_blue_and_near_infrared(europe, surveys):
    for site, survey in enumerate(surveys["siteid"].values):
        path = {
            kind: next((europe / f"PA_Train_SatellitePatches_{kind}").rglob(f"{survey}.jpeg"))
            for kind in ("RGB", "NIR")
        }
        assert path["RGB"].parts[-3:-1] == (str(survey)[-2:], str(survey)[-4:-2])
        chip = surveys["sentinel2"].isel(site=site)
        rgb = np.asarray(Image.open(path["RGB"]))
        np.testing.assert_array_equal(
            chip.sel(s2_band=["red", "green", "blue"]), rgb.transpose(2, 0, 1)
        )
        np.testing.assert_array_equal(chip.sel(s2_band="nir"), np.asarray(Image.open(path["NIR"])))


def test_the_catalog_has_the_350_tokens_of_miam(tmp_path):
    sites = readers.geoplant(geoplant_folder(tmp_path, surveys=2, size=128))
    schema = bound(readers.geoplant_schema(sites), sites)
    assert tokens(schema) == {"tabular": 48, "time_series": 76 + 126, "satellite": 100}
    layout = Layout.of(schema)
    assert layout.size == 350
    sizes = {s.variable.name: s.size for s in layout.spans}
    assert (sizes["bioclim"], sizes["landsat"], sizes["sentinel2"]) == (76, 126, 100)
    assert schema.variables["LandCover-1"].kind == "categorical"
    assert "bioclim[climate=tas,month=2018-01-01..2018-12-01]" in layout.names


def test_sentinels_are_missing(europe, tmp_path):
    root = shutil.copytree(europe, tmp_path / "copy")
    path = root / "EnvironmentalValues/Elevation/PA-train-elevation.csv"
    table = pd.read_csv(path)
    table["Elevation"] = [np.inf, -np.inf, 3.4e38, -1e11, np.nan, 0.0, 12.5, 9e9, *[1.0] * 4]
    table.to_csv(path, index=False)
    sites = readers.geoplant(root, modalities=["tabular"])
    read = pd.Series(sites["Elevation"].values, sites["siteid"].values)
    got = read.loc[table["surveyId"]].to_numpy()
    np.testing.assert_array_equal(got, np.float32([np.nan] * 5 + [0, 12.5, 9e9, 1, 1, 1, 1]))


def test_a_missing_file_is_missing_data_and_counted(europe, tmp_path):
    root = shutil.copytree(europe, tmp_path / "copy")
    ids = metadata(root)["surveyId"].unique()
    next(root.rglob(f"*landsat*_{ids[2]}_cube.pt")).unlink()
    for survey in ids[3:5]:
        next((root / "PA_Train_SatellitePatches_NIR").rglob(f"{survey}.jpeg")).unlink()
    for path in root.rglob(f"{ids[6]}.jpeg"):
        path.unlink()
    with pytest.warns(MissingFiles) as warnings_caught:
        sites = readers.geoplant(root)
    assert len(warnings_caught) == 1
    message = str(warnings_caught[0].message)
    assert "landsat cubes of 1" in message and "nir of 3" in message and "rgb of 1" in message
    assert np.isnan(sites["landsat"]).all(("landsat_band", "quarter")).values.nonzero()[0] == [2]
    chips = np.isnan(sites["sentinel2"]).all(("row", "column"))
    assert chips.sel(s2_band="nir").values.nonzero()[0].tolist() == [3, 4, 6]
    assert chips.sel(s2_band="red").values.nonzero()[0].tolist() == [6]
    assert np.isfinite(sites["bioclim"]).all()


def test_a_few_surveys_are_read_alone(europe, surveys):
    expected = surveys["siteid"].values[[7, 1]]
    selection = readers.geoplant(europe, surveys=expected, modalities=["time_series"])
    xr.testing.assert_equal(selection["bioclim"], surveys["bioclim"].isel(site=[7, 1]))
    assert not {"sentinel2", "Bio1"} & set(selection)
    assert set(selection["species"].values) <= set(surveys["species"].values)
    assert readers.geoplant(europe, limit=3).sizes["site"] == 3
    often = readers.geoplant(europe, min_records=6)["presence"]
    assert (often.sum("site") >= 6).all() and 0 < often.sizes["species"]
    with pytest.raises(OccurrenceError, match=r"1 of 2 surveys.*\[5\]"):
        readers.geoplant(europe, surveys=[int(expected[0]), 5])


def test_patches_can_wait_until_they_are_needed(europe, surveys, tmp_path):
    root = shutil.copytree(europe, tmp_path / "copy")
    lazy = readers.geoplant(root, chunks=5)
    assert lazy["sentinel2"].chunks[0] == (5, 5, 2)
    xr.testing.assert_equal(lazy.compute(), surveys)
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError):  # nothing was kept
        lazy["sentinel2"].compute()


def test_records_have_no_absences(europe, tmp_path):
    root = tmp_path / "po"
    folder = root / "PresenceOnlyOccurrences"
    folder.mkdir(parents=True)
    metadata(europe).to_csv(folder / "PO_metadata_train.csv", index=False)
    for path in (europe / "EnvironmentalValues/Elevation").glob("*.csv"):
        shutil.copy(path, root / path.name.replace("PA", "PO"))
    sites = readers.geoplant(root, source="PO")
    values = sites["presence"].values
    assert set(values[~np.isnan(values)]) == {1} and np.isnan(values).any()
    with pytest.raises(OccurrenceError, match=r"\*PA\*metadata\*train\*\.csv.*PresenceOnly"):
        readers.geoplant(root)


def test_test_sets_without_species_have_no_labels(europe, tmp_path):
    root = shutil.copytree(europe, tmp_path / "copy")
    path = root / "PresenceAbsenceSurveys/PA_metadata_train.csv"
    table = metadata(root).drop(columns="speciesId").drop_duplicates()
    table.to_csv(path.with_name("PA_metadata_test_ood.csv"), index=False)
    for old in (root / "EnvironmentalValues").rglob("*.csv"):
        shutil.copy(old, old.with_name(old.name.replace("train", "test-ood")))
    sites = readers.geoplant(root, split="test-ood", modalities=["tabular"])
    assert "presence" not in sites and "test sets" in sites.attrs["no_presence"]
    assert readers.geoplant(root, limit=2, modalities=["tabular"])["presence"].any()


def test_what_was_looked_for_is_reported(tmp_path, europe):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(OccurrenceError, match=r"metadata.*found other\.txt"):
        readers.geoplant(tmp_path)
    with pytest.raises(OccurrenceError, match="is no folder"):
        readers.geoplant(tmp_path / "nowhere")
    with pytest.raises(OccurrenceError, match=r"no modalities \['radar'\]"):
        readers.geoplant(europe, modalities=["radar"])
    with pytest.raises(OccurrenceError, match="source='XX'"):
        readers.geoplant(europe, source="XX")
    shutil.copytree(europe / "PresenceAbsenceSurveys", tmp_path / "labels")
    with pytest.raises(OccurrenceError, match=r"files of 'satellite' \(PA train\)"):
        readers.geoplant(tmp_path, modalities=["satellite"])


def test_the_layout_of_the_challenge_of_2025_is_read_too(tmp_path):
    """One table with a column for the split, four-band TIFF patches of another size."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"surveyId": [5000108, 212, 5000108], "subset": ["test", "train", "test"]})
    table = table.assign(lon=[1.0, 2, 1], lat=[50.0, 51, 50], year=2018, speciesId=[3.0, 4.0, 5.0])
    table.to_csv(tmp_path / "metadata.csv", index=False)
    chips = {s: rng.integers(0, 4000, (4, 10, 10)).astype(np.uint16) for s in (5000108, 212)}
    for survey, split in {5000108: "test", 212: "train"}.items():
        place = tmp_path / "SatelitePatches" / f"PA-{split}" / shard(survey)
        save_image(place / f"{survey}.tiff", chips[survey])
    for split, survey in {"test": 5000108, "train": 212}.items():
        sites = readers.geolifeclef(tmp_path, edition=2025, split=split)
        assert sites["siteid"].values.tolist() == [survey]
        np.testing.assert_array_equal(sites["sentinel2"][0], chips[survey])
        schema = bound(readers.geolifeclef_schema(sites), sites)
        assert tokens(schema) == {"satellite": 100}
    assert sites["species"].values.tolist() == ["4"]


# GeoLifeCLEF ------------------------------------------------------------------------------------


@needs_shared
def test_the_real_sample_of_2023_is_read_value_by_value():
    sites = readers.geolifeclef(GLC)
    raw = xr.open_zarr(GLC / "glc23_sample.zarr", consolidated=False).load()
    assert sites["siteid"].values.tolist() == raw["obs"].values.tolist()
    np.testing.assert_array_equal(sites["sentinel2"], raw["sentinel2"].astype("f4"))
    np.testing.assert_array_equal(sites["landsat"], raw["landsat"])
    np.testing.assert_array_equal(sites["lights2009"], raw["lights2009"])
    species = raw["species_id"].values.astype(str)
    assert sites.sizes["species"] == 96
    for site in range(100):
        assert sites["species"].values[sites["presence"][site] == 1].tolist() == [species[site]]
    assert tokens(readers.geolifeclef_schema(sites)) == {
        "satellite": 100,
        "time_series": 126,
        "human": 2,
    }
    only = readers.geolifeclef(GLC, background="none", limit=7, chunks=3)
    assert only["sentinel2"].chunks[0] == (3, 3, 1)
    values = only["presence"].values
    assert (values == 1).sum() == 7 and np.isnan(values).sum() == values.size - 7


@needs_shared
def test_the_real_sample_trains_and_is_scored():
    sites = readers.geolifeclef(GLC)
    south = (sites["lat"] < 48).values
    mirror = np.stack([south, ~south], 1).astype(
        np.float32
    )  # 96 species of one record cannot be learned
    sites = sites.drop_vars(["presence", "species"]).isel(row=slice(0, 20), column=slice(0, 20))
    sites = sites.assign(presence=(("site", "species"), mirror)).assign_coords(species=["s", "n"])
    model = gm.fit(
        sites,
        readers.geolifeclef_schema(sites),
        network=SMALL,
        training=gm.TrainingConfig(epoch_steps=1, epochs=2, block=200, batch=50),
        rng=0,
    )
    table = gm.evaluate(model, sites, subsets="unimodal+all")
    assert table["subset"].values.tolist() == ["satellite", "time_series", "human", "all"]
    assert np.isfinite(table["auc"]).all()


def glc23(root: Path) -> tuple[pd.DataFrame, dict]:
    """The challenge's files: semicolons, a series per record that ends with ``eos``, rasters."""
    rng = np.random.default_rng(3)
    ids = [2522017, 2204483, 31]
    table = pd.DataFrame({"glcID": ids, "speciesId": [7, 8, 9], "patchID": [123456, 34, 777]})
    table = table.assign(timeSerieID=[11, 12, 13], lon=[1.25, 1.25, 9.5], lat=[50.5, 50.5, 42.0])
    table = table.assign(year=2018, dayOfYear=[100, 100, 5])  # the first two are one site
    table.to_csv(root / "Presence_only_occurrences_sample.csv", sep=";", index=False)
    series = {}
    for band in ("red", "nir"):
        values = pd.DataFrame(rng.integers(0, 200, (3, 84)), dtype=object)
        values.columns = [f"{y}_{q}" for y in range(2000, 2021) for q in range(1, 5)]
        values.iloc[2, 70:] = "eos"
        values.insert(0, "timeSerieID", [13, 12, 11])
        path = root / "SatelliteTimeSeries" / f"time_series_{band}.csv"
        path.parent.mkdir(exist_ok=True)
        values.to_csv(path, sep=";", index=False)
        series[band] = values.set_index("timeSerieID")
    for patch in (123456, 777):
        save_image(
            root / "SatelliteImages" / "rgb" / shard(patch) / f"{patch}.jpeg",
            rng.integers(0, 255, (8, 8, 3)).astype(np.uint8),
        )
    from rasterio.transform import from_origin

    raster = np.arange(20 * 20, dtype=np.int16).reshape(1, 20, 20)
    raster[0, 12, 9] = -1
    place = {"crs": "EPSG:4326", "transform": from_origin(0, 54, 1, 1)}
    save_tiff(root / "HumanFootprint" / "Built2009.tif", raster, nodata=-1, **place)
    return table, series


def test_the_files_of_2023_are_joined_by_patch_and_series(tmp_path):
    _, series = glc23(tmp_path)
    sites = readers.geolifeclef(tmp_path)
    assert sites["siteid"].values.tolist() == [2522017, 31]
    assert sites["presence"].sel(species=["7", "8", "9"]).values.tolist() == [[1, 1, 0], [0, 0, 1]]
    red_series = pd.to_numeric(series["red"].loc[11], errors="coerce").to_numpy(np.float32)
    np.testing.assert_array_equal(sites["landsat"][0].sel(landsat_band="red"), red_series)
    assert np.isnan(red_series[70:]).all() and np.isfinite(red_series[:70]).all()
    assert np.isnan(sites["landsat"].sel(landsat_band="green")).all()  # no such file
    path = tmp_path / "SatelliteImages" / "rgb" / shard(777) / "777.jpeg"
    np.testing.assert_array_equal(
        sites["sentinel2"][1, :3], np.asarray(Image.open(path)).transpose(2, 0, 1)
    )
    assert np.isnan(sites["sentinel2"][:, 3]).all()
    np.testing.assert_array_equal(sites["Built2009"], np.float32([3 * 20 + 1, np.nan]))
    assert sites["Built2009"].attrs["modality"] == "human"


def test_the_files_of_2022_give_altitude_and_land_cover(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"observation_id": [10561900, 10297014], "latitude": [45.0, 46.0]})
    table = table.assign(longitude=[3.0, 4.0], species_id=[241, 101], subset="train")
    path = tmp_path / "observations"
    path.mkdir()
    table.to_csv(path / "observations_fr_train.csv", sep=";", index=False)
    height = rng.integers(0, 900, (1, 8, 8)).astype(np.int16)
    cover = rng.integers(1, 30, (1, 8, 8)).astype(np.uint8)
    for survey in table["observation_id"]:
        place = tmp_path / "patches-fr" / shard(survey)
        save_image(place / f"{survey}_rgb.jpg", np.full((8, 8, 3), 90, np.uint8))
        save_image(place / f"{survey}_near_ir.jpg", np.full((8, 8), 60, np.uint8))
        save_tiff(place / f"{survey}_altitude.tif", height)
    save_tiff(place / f"{survey}_landcover.tif", cover)
    with pytest.warns(MissingFiles, match="landcover of 1"):
        sites = readers.geolifeclef(tmp_path)
    np.testing.assert_array_equal(sites["altitude"][0], height[0])
    np.testing.assert_array_equal(sites["landcover"], np.float32([np.nan, cover[0, 4, 4]]))
    schema = readers.geolifeclef_schema(sites)
    kinds = {v.name: v.kind for v in schema.variables.values()}
    assert kinds == {"sentinel2": "image", "altitude": "image", "landcover": "categorical"}
    assert sites["sentinel2"].sel(s2_band="nir").values == pytest.approx(60, abs=2)
    with pytest.raises(OccurrenceError, match=r"glc23\*\.zarr, \*_cube\.pt"):
        readers.geolifeclef(tmp_path / "patches-fr")


# SatBird ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return satbird_folder(tmp_path_factory.mktemp("satbird"))


def test_hotspots_have_the_middle_of_image_and_environment(birds):
    import rasterio

    sites = readers.satbird(birds)
    for site, name in enumerate(sites["siteid"].values):
        environment = np.load(birds / "environmental_data" / f"{name}.npy")
        assert float(sites["bio12"][site]) == environment[11, 25, 25]
        assert float(sites["soil8"][site]) == environment[26, 25, 25]
        with rasterio.open(birds / "images" / f"{name}.tif") as image:
            np.testing.assert_array_equal(sites["sentinel2"][site], image.read()[:, 8:72, 10:74])
    schema = readers.satbird_schema(sites)
    assert tokens(schema) == {"satellite": 100, "climate": 19, "soil": 8}


def test_hotspots_rates_become_labels(birds, tmp_path):
    sites = readers.satbird(birds, crop=8)
    rates = [
        json.loads((birds / "targets" / f"L{100 + i}.json").read_text())["probs"] for i in range(6)
    ]
    np.testing.assert_array_equal(sites["encounter_rate"], np.float32(rates))
    np.testing.assert_array_equal(sites["presence"], np.array(rates) > 0)
    often = readers.satbird(birds, crop=8, threshold=0.03)
    np.testing.assert_array_equal(often["presence"], np.array(rates) > 0.03)
    root = shutil.copytree(birds, tmp_path / "copy")
    (root / "targets" / "L102.json").unlink()
    (root / "images" / "L103.tif").unlink()
    with pytest.warns(MissingFiles, match="images of 1, targets of 1") as warnings_caught:
        sites = readers.satbird(root, crop=8)
    assert len(warnings_caught) == 1
    assert np.isnan(sites["presence"]).all("species").values.nonzero()[0] == [2]
    assert np.isnan(sites["sentinel2"][3]).all()


def test_hotspots_as_rasters_with_borders_and_lazily(birds):
    sites = readers.satbird(birds, environment="raster", crop=90, limit=4, chunks=3)
    assert sites["sentinel2"].chunks[0] == sites["soil"].chunks[0] == (3, 1)
    environment = np.load(birds / "environmental_data" / "L101.npy")
    np.testing.assert_array_equal(sites["climate"][1], environment[:19])
    np.testing.assert_array_equal(sites["soil"][1], environment[19:])
    is_observed = np.isfinite(sites["sentinel2"].values)
    assert is_observed[:, :, 5:85, 3:87].all() and is_observed.sum() == 4 * 4 * 80 * 84
    with pytest.raises(OccurrenceError, match=r"valid_split\.csv.*train_split\.csv"):
        readers.satbird(birds, split="valid")


# sPlotOpen --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    root = tmp_path_factory.mktemp("splot")
    rng = np.random.default_rng(0)
    ids = np.array([16, 17, 40, 41, 90])
    header = pd.DataFrame({"PlotObservationID": ids, "Longitude": rng.uniform(-60, 60, 5)})
    header = header.assign(Latitude=rng.uniform(-40, 60, 5), Date_of_recording="1998-07-01")
    header = header.assign(Elevation=[10, np.nan, 30, 40, 50], Aspect=[0, 359, 90, np.nan, 180])
    header.to_csv(root / "sPlotOpen_header(2).txt", sep="\t", index=False)
    pairs = [(16, "A b"), (16, "C d"), (17, "A b"), (40, "E f"), (41, "A b"), (16, "A b")]
    names = pd.DataFrame(pairs, columns=["PlotObservationID", "Species"])
    names.to_csv(root / "sPlotOpen_DT(1).txt", sep="\t", index=False)
    climate = pd.DataFrame({"PlotObservationID": ids[::-1], "bio_1": [5.0, 4, -3.4e38, 2, 1]})
    climate.to_csv(root / "worldclim_data.csv")
    np.save(root / "satclip_embeddings.npy", rng.normal(size=(5, 6)))
    return root


def test_plots_are_joined_by_name_and_by_row(plots):
    sites = readers.splotopen(plots, min_records=1)
    np.testing.assert_array_equal(sites["bio_1"], np.float32([1, 2, np.nan, 4, 5]))
    vectors = np.load(plots / "satclip_embeddings.npy").astype(np.float32)
    np.testing.assert_array_equal(sites["satclip"], vectors)
    selection = readers.splotopen(plots, plots=[90, 17], min_records=1)
    np.testing.assert_array_equal(selection["satclip"], vectors[[4, 1]])
    assert sites["species"].values.tolist() == ["A b", "C d", "E f"]
    expected = [[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [np.nan] * 3]
    np.testing.assert_array_equal(sites["presence"], np.float32(expected))
    assert sites["year"].values.tolist() == [1998] * 5


def test_aspect_is_an_angle(plots):
    sites = readers.splotopen(plots, min_records=2)
    assert sites["species"].values.tolist() == ["A b"]
    schema = readers.splotopen_schema(sites)
    assert schema.variables["Aspect"].kind == "circular"
    assert tokens(schema) == {"topography": 2, "worldclim": 1, "satclip": 1}
    with pytest.raises(OccurrenceError, match=r"min_records=21.*the most is 3"):
        readers.splotopen(plots)


def test_tables_that_do_not_agree_are_refused(plots, tmp_path):
    root = shutil.copytree(plots, tmp_path / "copy")
    np.save(root / "satclip_embeddings.npy", np.zeros((4, 6)))
    with pytest.raises(OccurrenceError, match="has 4 rows, the header 5"):
        readers.splotopen(root, min_records=1)
    (root / "sPlotOpen_DT(1).txt").unlink()
    with pytest.raises(OccurrenceError, match=r"sPlotOpen_DT\*\.txt"):
        readers.splotopen(root)


# TaxaBench --------------------------------------------------------------------------------------

SHORT = ("loc", "env", "img", "aud", "sat")
LONG = ("location", "environment", "image", "audio", "satellite")


@pytest.fixture()
def taxa(tmp_path):
    names = ["Parus major"] * 3 + ["Turdus merula"] * 2 + ["Sitta europaea"]
    table = pd.DataFrame({"scientific_name": names, "latitude": [50.0, 51, -33, 89.9, -89.9, 0]})
    table = table.assign(longitude=[0.0, 179.9, -179.9, 5, 5, 5])
    table.to_csv(tmp_path / "test_df.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("form", ["rows", "modalities", "dict", "list", "npy"])
def test_vectors_are_one_token_per_modality(taxa, form):
    vectors = np.random.default_rng(0).normal(size=(6, 5, 7)).astype(np.float32)
    archive = torch.from_numpy(vectors)
    content = {
        "rows": archive,
        "modalities": archive.transpose(0, 1),
        "dict": {s: archive[:, k] for k, s in enumerate(SHORT)},
        "list": [archive[:, k] for k in range(5)],
    }
    if form == "npy":
        for k, name in enumerate(LONG):
            np.save(taxa / f"{name}.npy", vectors[:, k])
    else:
        torch.save(content[form], taxa / "taxabench_embeds_loc_env_img_aud_sat.pt")
    sites = readers.taxabench(taxa)
    for k, name in enumerate(LONG):
        np.testing.assert_array_equal(sites[name], vectors[:, k])
    schema = readers.taxabench_schema(sites)
    assert tokens(schema) == dict.fromkeys(LONG, 1)
    np.testing.assert_array_equal(
        sites["presence"].sel(species="Turdus merula"), np.float32([0, 0, 0, 1, 1, 0])
    )
    assert (sites["presence"].sum("species") == 1).all()


def test_rare_species_leave_with_their_observations(taxa):
    sites = readers.taxabench(taxa, min_records=2)
    assert sites["siteid"].values.tolist() == [0, 1, 2, 3, 4]
    assert sites["species"].values.tolist() == ["Parus major", "Turdus merula"]
    with pytest.raises(OccurrenceError, match=r"looked for \['genus'\], found"):
        readers.taxabench(taxa, species="genus")


def test_the_global_grid_gives_the_environment(taxa):
    grid = np.arange(18 * 36 * 20, dtype=np.float64).reshape(18, 36, 20)
    np.save(taxa / "bioclim_elevation_scaled.npy", grid)
    sites = readers.taxabench(taxa)
    cells = [(4, 18), (3, 35), (12, 0), (0, 18), (17, 18), (9, 18)]  # row from the north, column
    np.testing.assert_array_equal(sites["elevation"], [grid[r, c, 19] for r, c in cells])
    np.testing.assert_array_equal(sites["bio1"], [grid[r, c, 0] for r, c in cells])
    assert tokens(readers.taxabench_schema(sites)) == {"location": 2, "environment": 20}


def test_vectors_of_other_rows_are_refused(taxa):
    np.save(taxa / "image.npy", np.zeros((5, 7)))
    with pytest.raises(OccurrenceError, match=r"'image' are \(5, 7\), the table has 6 rows"):
        readers.taxabench(taxa)
