"""Kinds are inferred where name and values agree; what could be a number stays a number."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import geomiam as gm
from geomiam.data.infer import numbered_modalities
from geomiam.data.kinds import guess_kind, sample_values
from geomiam.errors import DoubtfulKind

RNG = np.random.default_rng(0)
KOPPEN = RNG.integers(1, 31, (90, 120)).astype("u1")
WORLDCOVER = RNG.choice([10, 20, 30, 40, 50, 60, 80, 90, 95, 100], (90, 120)).astype("u1")
SHARES = RNG.integers(0, 101, (90, 120)).astype("u1")
ASPECT = RNG.uniform(0, 360, (90, 120)).astype("f4")
HEIGHTS = RNG.integers(-50, 2500, (90, 120)).astype("i2")


def layer(name: str, values: np.ndarray, **attrs) -> xr.DataArray:
    return xr.DataArray(values, dims=("y", "x"), name=name, attrs=attrs)


@pytest.mark.parametrize(
    ("name", "values", "attrs"),
    [
        ("landcover", WORLDCOVER, {}),
        ("ESA_WorldCover_2021_v200", WORLDCOVER, {}),
        ("land_cover", WORLDCOVER.astype("f4"), {}),
        ("LandUse", WORLDCOVER, {"units": "1"}),
        ("koppen_geiger_0p1", KOPPEN, {}),
        ("Köppen", KOPPEN, {}),
        ("soil_type", KOPPEN, {}),
        ("SoilType", KOPPEN, {}),
        ("b1", KOPPEN, {"long_name": "WRB soil class"}),
        ("nlcd_2019", WORLDCOVER, {}),
        ("LC_Type1", KOPPEN, {}),
        ("hydrological_soil_group", KOPPEN, {}),
        ("landcover_2015", WORLDCOVER, {}),
        ("biome", KOPPEN.astype("i4") * 20, {}),
    ],
)
def test_codes_of_classes_with_a_name_for_it_are_categorical(name, values, attrs):
    guess = guess_kind(layer(name, values, **attrs))
    assert (guess.kind, guess.doubt) == ("categorical", "")


@pytest.mark.parametrize(
    ("name", "values", "attrs"),
    [
        ("tree_cover", SHARES, {}),
        ("landcover_percent", SHARES, {}),
        ("consensus_full_class_1", SHARES, {}),  # EarthEnv: the share of one class
        ("landcover_diversity", KOPPEN, {}),
        ("landcover", SHARES, {"units": "%"}),
        ("elevation", HEIGHTS, {}),
        ("bio_12", RNG.integers(0, 3000, (90, 120)).astype("u2"), {}),
        ("frost_days", SHARES, {"units": "day"}),
        ("population", RNG.poisson(40, (90, 120)).astype("i4") ** 2, {}),
        ("mask", RNG.integers(0, 2, (90, 120)).astype("u1"), {}),
        ("biomass", HEIGHTS, {}),
        ("classical_index", ASPECT, {}),
        ("slope", ASPECT / 4, {"units": "degrees"}),
    ],
)
def test_counts_percentages_and_heights_stay_numbers_without_a_doubt(name, values, attrs):
    guess = guess_kind(layer(name, values, **attrs))
    assert (guess.kind, guess.doubt) == ("scalar", "")


@pytest.mark.parametrize(
    ("name", "values", "instead", "words"),
    [
        ("lc", WORLDCOVER, "categorical", "10 distinct integers from 10 to 100"),
        (
            "months",
            RNG.integers(0, 13, (90, 120)).astype("u1"),
            "categorical",
            "13 distinct integers",
        ),
        ("landcover", ASPECT, "categorical", "there are fractions"),
        ("landcover", np.full((90, 120), np.nan, "f4"), "categorical", "there are no values"),
        ("aspect", ASPECT / 60, "circular", "the values are"),  # radians
        ("aspect", ASPECT / 2, "circular", "the values are"),  # folded
    ],
)
def test_a_doubtful_guess_is_a_number_with_a_warning_that_settles_it(name, values, instead, words):
    ds = layer(name, values).to_dataset()
    call = rf"'{name}' is read as scalar.*{words}.*kinds=\{{'{name}': '{instead}'\}}"
    with pytest.warns(DoubtfulKind, match=f"(?s){call}"):
        assert gm.infer_schema(ds).variables[name].kind == "scalar"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gm.infer_schema(ds, kinds={name: "scalar"})


@pytest.mark.parametrize(
    ("values", "attrs"),
    [
        (ASPECT, {}),
        (ASPECT, {"units": "degrees"}),
        (ASPECT - 180, {}),
        (np.where(ASPECT < 1, np.nan, ASPECT), {"units": "deg"}),
    ],
)
def test_aspect_in_degrees_is_circular(values, attrs):
    guess = guess_kind(layer("aspect", values, **attrs))
    assert (guess.kind, guess.doubt, guess.period) == ("circular", "", None)


def test_an_angle_in_radians_has_their_period():
    schema = gm.infer_schema(layer("wind_direction", ASPECT / 57.3, units="rad").to_dataset())
    assert schema.variables["wind_direction"].kind == "circular"
    assert schema.variables["wind_direction"].period == pytest.approx(2 * np.pi)


@pytest.mark.parametrize("name", ["northness", "aspect_cos", "aspect_sine", "cos aspect"])
def test_components_of_an_angle_are_numbers(name):
    guess = guess_kind(layer(name, np.cos(ASPECT)))
    assert (guess.kind, guess.doubt) == ("scalar", "")


def test_flat_ground_marked_by_minus_one_is_doubtful():
    with pytest.warns(DoubtfulKind, match="-1, which often mark flat ground"):
        gm.infer_schema(layer("aspect", np.where(ASPECT < 30, -1, ASPECT)).to_dataset())


def test_codes_of_missing_data_are_no_values():
    codes = np.where(KOPPEN == 3, -9999, KOPPEN.astype("i4"))
    assert guess_kind(layer("koppen", codes, _FillValue=-9999)).reason.startswith(
        "name, and 29 whole numbers"
    )


# Laziness.


def counting(values: np.ndarray, chunks: int) -> tuple[xr.DataArray, list]:
    """A dask array that records each block that is requested."""
    shapes: list = []

    def note(block: np.ndarray) -> np.ndarray:
        shapes.append(block.shape)
        return block

    lazy = da.from_array(values, chunks=chunks).map_blocks(
        note, dtype=values.dtype, meta=values[:0, :0]
    )
    return lazy, shapes


def test_of_a_lazy_layer_a_few_windows_are_read_and_only_where_the_name_requires_it():
    big = np.tile(KOPPEN, (20, 20)).astype("f4")
    lazy, shapes = counting(big, 100)
    plain, unread = counting(big, 100)
    schema = gm.infer_schema(
        xr.Dataset({"koppen": (("y", "x"), lazy), "bio1": (("y", "x"), plain)})
    )
    assert schema.variables["koppen"].kind == "categorical"
    assert schema.variables["bio1"].kind == "scalar"
    assert len(shapes) == 1
    assert unread == []
    assert "4,096 of 4,320,000 values read" in str(schema)


def test_windows_without_data_are_passed_over():
    big = np.full((900, 900), np.nan, "f4")
    big[-100:, -100:] = 3
    lazy, shapes = counting(big, 100)
    assert sample_values(xr.DataArray(lazy, dims=("y", "x"))).levels.tolist() == [3]
    assert len(shapes) == 9


def test_a_chunk_that_is_too_large_is_not_read():
    lazy = da.zeros((8000, 8000), chunks=-1, dtype="f4")
    with pytest.warns(DoubtfulKind, match=r"there are no values \(0 of 64,000,000 values read"):
        gm.infer_schema(xr.Dataset({"landcover": (("y", "x"), lazy)}))


def test_a_small_table_is_read_whole():
    sites = xr.DataArray(np.arange(300.0), dims="site")
    assert sample_values(sites).levels.size == 300


# Files.


def write_tif(path, values, *, colours: bool) -> xr.Dataset:
    import rasterio
    import rioxarray
    from rasterio.transform import from_origin

    place = {"crs": "EPSG:4326", "transform": from_origin(5, 50, 0.1, 0.1)}
    sizes = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **place, **sizes) as file:
        file.write(values, 1)
        if colours:
            file.write_colormap(1, {int(v): (int(v), 0, 0) for v in np.unique(values)})
    return rioxarray.open_rasterio(path).squeeze("band", drop=True).to_dataset(name="layer")


def test_a_colour_table_makes_classes(tmp_path):
    ds = write_tif(tmp_path / "a.tif", WORLDCOVER, colours=True)
    assert gm.infer_schema(ds).variables["layer"].kind == "categorical"
    assert gm.infer_schema(gm.open_cube(ds)).variables["layer"].kind == "categorical"
    plain = write_tif(tmp_path / "b.tif", SHARES, colours=False)
    assert gm.infer_schema(plain).variables["layer"].kind == "scalar"


def test_category_names_beside_a_file_are_its_classes(tmp_path):
    ds = write_tif(tmp_path / "a.tif", np.full((8, 8), 2, "u1"), colours=False)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category />'
        "<Category>open water</Category><Category>wood &amp; scrub</Category></CategoryNames>"
        "</PAMRasterBand></PAMDataset>"
    )
    classes = {1: "open water", 2: "wood & scrub"}
    assert gm.infer_schema(ds).variables["layer"].classes == classes
    cube_variable = gm.infer_schema(gm.open_cube(ds)).variables["layer"]
    assert cube_variable.classes == {1: "open_water", 2: "wood_&_scrub"}


# Modalities.


@pytest.mark.parametrize(
    "pattern",
    [
        "bio{}",
        "bio_{:02d}",
        "BIO{}",
        "wc2.1_10m_bio_{}",
        "CHELSA_bio{}_1981-2010_V.2.1",
        "CHELSA_bio10_{:02d}",
        "bioclim_{}",
    ],
)
def test_bioclimatic_layers_are_one_modality(pattern):
    names = [pattern.format(i) for i in range(1, 20)]
    assert numbered_modalities([*names, "biomass", "elevation"]) == dict.fromkeys(names, "bioclim")


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        ([f"prec_{i:02d}" for i in range(1, 13)], "prec"),
        ([f"wc2.1_10m_tavg_{i}" for i in range(1, 13)], "wc2.1_10m_tavg"),
        ([f"A{i:02d}" for i in range(64)], "A"),
        (["clay_0-5cm", "clay_5-15cm", "clay_15-30cm"], "clay_cm"),
        (["1", "2", "3"], "layers"),
    ],
)
def test_numbered_layers_are_one_modality(names, modality):
    assert numbered_modalities(names) == dict.fromkeys(names, modality)


def test_layers_that_are_few_or_of_other_names_stand_alone():
    assert numbered_modalities(["bio1", "clay", "ndvi_1", "ndvi_2", "symbio1"]) == {}


def test_a_stated_modality_and_modalities_win_over_numbers():
    ds = xr.Dataset(
        {f"bio{i}": ("site", np.random.default_rng(i).normal(size=9)) for i in range(1, 20)}
    )
    assert list(gm.infer_schema(ds).modalities) == ["bioclim"]
    ds["bio1"].attrs["modality"] = "heat"
    schema = gm.infer_schema(ds, modalities={"rain": ["bio12", "bio13"]})
    assert [len(m.variables) for m in schema.modalities.values()] == [1, 16, 2]
    assert list(schema.modalities) == ["heat", "bioclim", "rain"]


# The table.


def test_the_table_names_modality_kind_units_and_evidence():
    ds = xr.Dataset(
        {
            "bio1": layer("bio1", HEIGHTS / 100, units="degC"),
            "bio12": layer("bio12", HEIGHTS / 7),
            "landcover": layer("landcover", WORLDCOVER),
            "ndvi": (("y", "x", "month"), np.zeros((90, 120, 12), "f4")),
        }
    )
    lines = [" ".join(line.split()) for line in str(gm.infer_schema(ds)).splitlines()]
    assert lines == [
        "inferred: 4 variables in 3 modalities",
        "modality variable kind units values from",
        "bioclim bio1 scalar degC a number",
        "bioclim bio12 scalar a number",
        "landcover landcover categorical name, and 10 whole numbers (6,704 of 10,800 values read)",
        "ndvi ndvi series month 12 dim 'month'",
    ]


def test_evidence_is_no_part_of_the_schema():
    schema = gm.infer_schema(layer("elevation", HEIGHTS).to_dataset())
    again = gm.Schema.from_dict(schema.to_dict())
    assert again == schema
    assert again.evidence == {}
