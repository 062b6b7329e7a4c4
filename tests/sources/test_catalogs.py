"""Catalogs that come with geomiam: each is built from local files named and packed as the provider's."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from helpers_build import static, tif, tile_table, vrt, zone_store
from helpers_small import untrained
from helpers_stac import GRID, not_there, scene, serve
from helpers_weather import agera5, era5_land
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam.errors import SchemaError
from geomiam.schema.schema import Schema
from geomiam.schema.source import Source, source_kinds

PLACE = (4.0, 50.6, 4.2, 50.8)
"""West, south, east, north of all places, but for Sentinel-2."""
BOX = GeoBox.from_bbox(PLACE, crs="EPSG:4326", resolution=0.02)
WIDE = GeoBox.from_bbox((3.6, 50.2, 4.6, 51.2), crs="EPSG:4326", resolution=0.02)
BUILT = sorted(n for n, p in gm.catalogs().items() if Schema.from_yaml(p).sources)
KELVIN = ("bio1", "bio5", "bio6", "bio8", "bio9", "bio10", "bio11", "tas")
WET = (12, 13, 14, 16, 17, 18, 19)
CHELSA = "https://os.unil.cloud.switch.ch/chelsa02/chelsa/global/"
ADDRESSES = {
    "chelsa": (
        "bioclim/bio01/1981-2010/CHELSA_bio01_1981-2010_V.2.1.tif",
        "climatologies/tas/1981-2010/CHELSA_tas_01_1981-2010_V.2.1.tif",
    ),
    "chelsa-futures": (
        "bioclim/bio01/2041-2070/GFDL-ESM4/ssp585/CHELSA_gfdl-esm4_ssp585_bio01_2041-2070_V.2.1.tif",
    ),
}
"""Addresses of the provider, in full below ``CHELSA``."""


def flat(path, value, box=WIDE, *, dtype="int16", bands=1, **header):
    tif(path, np.full((bands, *box.shape.yx), value, dtype), box, **header)


def bioclim(folder, name):
    """Write the 19 variables as CHELSA packs them, one file per pattern ``name``; return the values in catalog units.

    Temperatures are tenths of a kelvin, precipitation is in mm without a scale.
    """
    expected = {}
    for i in range(1, 20):
        kelvin, wet = f"bio{i}" in KELVIN, i in WET
        header = {} if wet else {"scales": (0.1,), "offsets": (-273.15 if kelvin else 0.0,)}
        flat(folder / name.format(f"bio{i:02d}"), 2800 + i, dtype="uint16", nodata=65535, **header)
        expected[f"bio{i}"] = 2800 + i if wet else (2800 + i) * 0.1 - (273.15 if kelvin else 0)
    return expected


def chelsa(folder):
    """As the provider serves them: monthly temperature alone has a scale to kelvin and no offset."""
    expected = bioclim(folder, "bioclim/{0}/1981-2010/CHELSA_{0}_1981-2010_V.2.1.tif")
    for name in ("tas", "pr"):
        for month in range(1, 13):
            file = f"climatologies/{name}/1981-2010/CHELSA_{name}_{month:02d}_1981-2010_V.2.1.tif"
            header = {"scales": (0.1,), "offsets": (0.0,), "nodata": 65535}
            flat(folder / file, 2800 + month, dtype="uint16", **header)
        steps = (2800 + np.arange(1, 13)) * 0.1
        expected[name] = steps - (273.15 if name in KELVIN else 0)
    return {"chelsa": folder}, expected


FUTURE = {"model": "GFDL-ESM4", "ssp": "ssp585", "period": "2041-2070"}
PARAMETERS = {
    "alphaearth": {"year": 2024},
    "agera5": {"year": 2024},
    "chelsa-futures": FUTURE,
    "era5-land": {"year": 2024},
    "tessera": {"year": 2024},
    "soilgrids-quantiles": {"statistic": "Q0.05"},
}


def chelsa_futures(folder):
    name = "bioclim/{0}/2041-2070/GFDL-ESM4/ssp585/CHELSA_gfdl-esm4_ssp585_{0}_2041-2070_V.2.1.tif"
    return {"chelsa": folder}, bioclim(folder, name)


def worldclim(folder):
    expected = {f"bio{i}": i + 0.5 for i in range(1, 20)}
    for i in range(1, 20):
        flat(folder / f"wc2.1_30s_bio_{i}.tif", i + 0.5, dtype="float32", nodata=-3.4e38)
    flat(folder / "wc2.1_30s_elev.tif", 77, nodata=-32768)
    for name in ("tavg", "prec"):
        for month in range(1, 13):
            flat(folder / f"wc2.1_30s_{name}_{month:02d}.tif", month, dtype="float32")
        expected[name] = np.arange(1, 13)
    return {"worldclim": folder}, {**expected, "elevation": 77}


def copernicus_dem(folder):
    """Two tiles of one degree; to the north lies a third that is narrower, as above 50 degrees."""
    for lat, east in ((50, 4), (50, 3)):
        name = f"Copernicus_DSM_COG_30_N{lat:02d}_00_E{east:03d}_00_DEM"
        tile = GeoBox.from_bbox((east, lat, east + 1, lat + 1), crs="EPSG:4326", resolution=0.005)
        flat(folder / name / f"{name}.tif", 120, tile, dtype="float32")
    return {"copernicus": folder}, {"elevation": 120, "slope": 0, "aspect": np.nan}


SOIL = {"bdod": 0.01, "nitrogen": 0.01} | dict.fromkeys(
    ("cec", "cfvo", "clay", "phh2o", "sand", "silt", "soc"), 0.1
)
HOMOLOSINE = "+proj=igh +lon_0=0 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
MOLLWEIDE = "ESRI:54009"


def soilgrids(folder):
    box = GeoBox.from_bbox(WIDE.to_crs(HOMOLOSINE).boundingbox, resolution=1000)
    for name in SOIL:
        flat(folder / name / f"{name}_0-5cm_mean_1000.tif", 64, box, nodata=-32768)
    return {"soilgrids": folder}, {n: 64 * scale for n, scale in SOIL.items()}


def soilgrids_quantiles(folder):
    """Tiles of a VRT beside them, as the provider names both; the second tile lies elsewhere."""
    box = GeoBox.from_bbox(WIDE.to_crs(HOMOLOSINE).boundingbox, resolution=1000)
    far = GeoBox(box.shape, box.affine.translation(10**6, 0) * box.affine, box.crs)
    for name in SOIL:
        stem = f"{name}_0-5cm_Q0.05"
        tiles = {
            f"./{stem}/tileSG-016-0{i}/tileSG-016-0{i}_1-1.tif": b
            for i, b in ((46, box), (50, far))
        }
        flat(folder / name / next(iter(tiles)), 64, box, nodata=-32768)
        vrt(folder / name / f"{stem}.vrt", tiles)
    return {"soilgrids": folder}, {n: 64 * scale for n, scale in SOIL.items()}


def human_footprint(folder):
    box = GeoBox.from_bbox(WIDE.to_crs(MOLLWEIDE).boundingbox, resolution=1000)
    flat(folder / "hfp2018.tif", 33.5, box, dtype="float32")
    return {"footprint": folder}, {"human_footprint": 33.5}


def worldcover(folder):
    """A tile of three degrees, named by its south-western corner, in which 0 is nodata."""
    tile = GeoBox.from_bbox((3, 48, 6, 51), crs="EPSG:4326", resolution=0.005)
    codes = np.full(tile.shape, 10, "uint8")
    codes[::5] = 40
    codes[:, ::3] = 0
    path = tif(folder / "ESA_WorldCover_10m_2021_v200_N48E003_Map.tif", codes, tile)
    overviews(path, "mode")
    return {"worldcover": folder}, {"land_cover": 10}


def overviews(path, method):
    import rasterio

    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling[method])


AEF = "gs://alphaearth_foundations/satellite_embedding/v1/annual"


def alphaearth(folder):
    """Two tiles of a zone, whose rows run from south to north as the provider's, in a table with other years."""
    box = GeoBox.from_bbox(WIDE.to_crs("EPSG:32631").boundingbox, resolution=1000).flipy()
    west, east = box[:, : box.shape.x // 2], box[:, box.shape.x // 2 :]
    tiles = {
        f"{AEF}/2024/31N/xk9f-0000000000-0000000{i}92.tiff": b for i, b in enumerate((west, east))
    }
    for path, tile in tiles.items():
        file = folder / path.removeprefix(f"{AEF}/")
        flat(file, -100, tile, dtype="int8", bands=64, nodata=-128)
    rows = [(p, tile, 2024) for p, tile in tiles.items()]
    rows += [(p.replace("2024", "2023"), tile, 2023) for p, tile in tiles.items()]
    tile_table(folder / "aef_index.parquet", rows)
    return {"alphaearth": folder}, {"alphaearth": np.full(64, -((100 / 127.5) ** 2))}


def tessera(folder):
    """A zone whose first columns, without data, lie outside of the place."""
    box = GeoBox.from_bbox(WIDE.to_crs("EPSG:32631").boundingbox, resolution=1000)
    zone_store(folder / "v.zarr", {31: box})
    expected = np.clip(np.arange(1, 129) * 24, 0, 127) * 0.5
    return {"tessera": folder / "v.zarr"}, {"tessera": expected}


def europe(folder):
    expected = {}
    roots = {}
    for make in (chelsa, worldclim, soilgrids, human_footprint, worldcover):
        root, values = make(folder / make.__name__)
        roots |= root
        expected = values | expected  # of two climates, the first is taken
    missing = {"tavg", "prec"}
    return roots, {k: v for k, v in expected.items() if k not in missing} | {
        "slope": 0,
        "aspect": np.nan,
    }


MAKERS = {
    "agera5": agera5,
    "alphaearth": alphaearth,
    "chelsa": chelsa,
    "chelsa-futures": chelsa_futures,
    "copernicus-dem": copernicus_dem,
    "era5-land": era5_land,
    "europe": europe,
    "human-footprint": human_footprint,
    "soilgrids": soilgrids,
    "soilgrids-quantiles": soilgrids_quantiles,
    "tessera": tessera,
    "worldclim": worldclim,
    "worldcover": worldcover,
}


def test_there_is_a_test_for_every_catalog_with_sources():
    assert set(BUILT) == {*MAKERS, "sentinel2"}


LARGE = ("europe", "worldclim")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in MAKERS]
)
def test_a_catalog_is_built_from_files_of_the_providers_shape(tmp_path, name):
    roots, expected = MAKERS[name](tmp_path)
    grid = BOX if name != "europe" else None
    place = None
    if grid is None:
        place = BOX.to_crs("EPSG:3035").boundingbox.bbox
    parameters = PARAMETERS.get(name)
    cube = gm.build_cube(name, grid, bounds=place, roots=roots, parameters=parameters).compute()
    assert "unknown" not in str([v.source_crs for v in cube.data_vars.values()])
    assert (
        set(cube.data_vars) == set(expected) == set(Schema.from_yaml(gm.catalogs()[name]).variables)
    )
    middle = cube.isel({d: cube.sizes[d] // 2 for d in cube.odc.spatial_dims})
    for variable, value in expected.items():
        np.testing.assert_allclose(middle[variable], value, rtol=1e-5, atol=1e-4, err_msg=variable)
        assert cube[variable].license and cube[variable].citation, variable
        assert cube[variable].dtype == "float32"
        if cube[variable].kind == "vector":
            assert cube[variable].period == "2024"


@pytest.mark.parametrize("name", ADDRESSES)
def test_chelsa_is_requested_at_the_addresses_of_the_provider(tmp_path, name):
    MAKERS[name](tmp_path / "chelsa02/chelsa/global")
    paths = set()

    def record(handler, body):
        if not body:  # files that GDAL looks for beside a GeoTIFF
            return not_there(handler, body)
        paths.add(handler.path)
        return handler._send(body)

    root = Schema.from_yaml(gm.catalogs()[name]).sources["chelsa"].root
    parameters = FUTURE if name == "chelsa-futures" else None
    with serve(tmp_path, {"": record}) as base:
        roots = {"chelsa": base + urlsplit(root).path}
        gm.build_cube(name, BOX, roots=roots, parameters=parameters)["bio1"].compute()
    urls = {root.removesuffix(urlsplit(root).path) + path for path in paths}
    assert {CHELSA + address for address in ADDRESSES[name]} <= urls
    assert len(urls) == (43 if name == "chelsa" else 19)


def test_the_futures_have_the_variables_of_the_present():
    present, future = (Schema.from_yaml(gm.catalogs()[n]) for n in ("chelsa", "chelsa-futures"))
    bioclim = present.subset(["bioclim"]).without_origins()
    assert future.without_origins().modalities == bioclim.modalities
    assert [len(values) for values in future.parameters.values()] == [5, 3, 3]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_the_present_climate_is_projected_to_a_future(tmp_path):
    chelsa_futures(tmp_path)
    (path,) = (tmp_path / "bioclim/bio01").rglob("*.tif")
    kelvin = np.full(WIDE.shape, 2801, "uint16")
    kelvin[:, :20] = 0  # over the sea
    tif(path, kelvin, WIDE, scales=(0.1,), offsets=(-273.15,))
    cube = gm.build_cube("chelsa-futures", WIDE, roots={"chelsa": tmp_path}, parameters=FUTURE)
    assert cube.attrs["title"] == cube["bio1"].source == "CHELSA 2.1, GFDL-ESM4, ssp585, 2041-2070"
    observed = np.isfinite(cube["bio1"].values)
    assert observed[:, 20:].all() and not observed[:, :20].any()
    model = untrained(
        Schema.from_yaml(gm.catalogs()["chelsa"]).subset(["bioclim"]).without_origins()
    )
    projection = gm.project(model, {"ssp585/GFDL-ESM4": cube.isel(latitude=slice(2)).compute()})
    assert projection.table.loc["ssp585/GFDL-ESM4", "left_out"] == ""


@pytest.mark.slow
def test_the_sentinel2_catalog_searches_with_its_settings(tmp_path):
    keys = dict.fromkeys(("blue", "green", "red", "nir", "swir16", "swir22"))
    bands = {k: np.full((40, 40), 3000 + i, "uint16") for i, k in enumerate(keys)}
    items = [
        scene(tmp_path, f"s{m}", date=f"2021-0{m}-10T10:50:00Z", offset=-0.1, bands=bands)
        for m in (4, 7, 9)
    ]
    static(tmp_path, items)
    cube = gm.build_cube(
        "sentinel2", GRID, roots={"earth-search": tmp_path / "stac" / "catalog.json"}
    )
    assert cube.time.dt.month.values.tolist() == [4, 5, 6, 7, 8, 9]
    values_result = np.isfinite(cube.red).all(("y", "x")).values
    assert values_result.tolist() == [True, False, False, True, False, True]
    for i, name in enumerate(keys):
        np.testing.assert_allclose(cube[name][0], 0.2 + i * 1e-4, atol=1e-6)
    schema = gm.Schema.from_yaml(gm.catalogs()["sentinel2"])
    assert schema.license and schema.citation


@pytest.mark.parametrize("name", BUILT)
def test_every_catalog_states_its_licence_and_citation(name):
    schema = Schema.from_yaml(gm.catalogs()[name])
    for modality in schema.modalities.values():
        for variable in modality.variables:
            source = schema.sources[modality.origin_of(variable).source]
            if source.kind == "derived":  # of another that states it
                continue
            assert modality.license or source.license, variable
            assert modality.citation or source.citation, variable


def page():
    return (Path(gm.__file__).parents[1] / "docs" / "howto" / "cubes.md").read_text("utf-8")


def test_the_page_lists_every_catalog_and_every_kind_of_source():
    assert set(re.findall(r"^\| `([\w-]+)` \| .* \| .* \|$", page(), re.M)) == {
        *BUILT,
        *source_kinds(),
    }


def test_what_the_page_shows_is_understood(tmp_path):
    first, index, second = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    assert Source(name="tiles", **yaml.safe_load(index)).index.where == {"year": 2024}
    combination = first + second.replace("modalities:\n", "")
    (tmp_path / "page.yaml").write_text(combination, encoding="utf-8")
    schema = Schema.from_yaml(tmp_path / "page.yaml")
    assert list(schema.modalities) == ["optical", "terrain", "climate", "texture"]
    climate = schema.modalities["climate"]
    bio1 = climate.origin_of("bio1").over(schema.sources["chelsa"])
    assert (bio1.variable, bio1.scale, schema.modalities["texture"].chips) == ("bio01", None, 8)


def test_a_name_that_is_none_lists_those_there_are():
    with pytest.raises(SchemaError, match=r"no catalog at eurpe.*europe.*worldclim"):
        gm.build_cube("eurpe")
