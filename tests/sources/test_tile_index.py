"""Products of many files: those under the grid are chosen by a table of their bounds, or by a VRT."""

import numpy as np
import pytest
import rasterio
from helpers_build import UTM, one, tif, tile_table, vrt
from helpers_stac import not_there, serve
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam.errors import SchemaError, SourceError

WEST = GeoBox.from_bbox((499800, 5499800, 500300, 5500800), crs="EPSG:32631", resolution=10)
EAST = GeoBox.from_bbox((500300, 5499800, 500900, 5500800), crs="EPSG:32631", resolution=10)
FAR = GeoBox.from_bbox((700000, 5499800, 700500, 5500800), crs="EPSG:32631", resolution=10)
BUCKET = "gs://tiles/annual"
TABLE = {"path": "index.parquet", "prefix": BUCKET, "where": {"year": "2024"}}


def ramp(box):
    """Eastings and northings of pixels, so that a tile that lies elsewhere, or upside down, is noticed."""
    ys, xs = (c.values for c in box.coordinates.values())
    return (xs[None, :] - 499000 + (ys[:, None] - 5499000) / 7).astype("float32")


def tiles(folder, *, flip=False):
    """Write two tiles of 2024 beside each other and their table, which also names tiles that are not there."""
    rows = []
    for name, box in (("w", WEST), ("e", EAST), ("far", FAR)):
        box = box.flipy() if flip else box
        rows += [(f"{BUCKET}/{year}/{name}.tiff", box, year) for year in (2023, 2024)]
        if name != "far":
            tif(folder / f"2024/{name}.tiff", ramp(box), box)
    tile_table(folder / "index.parquet", rows)


def read(folder, root, index=TABLE, **source):
    path = one(folder, {"root": str(root), "index": index, "resampling": "bilinear", **source})
    return gm.build_cube(path, UTM)


@pytest.mark.parametrize("flip", [False, True])
def test_the_tiles_of_a_table_under_the_grid_are_read(tmp_path, flip):
    tiles(tmp_path, flip=flip)
    np.testing.assert_allclose(read(tmp_path, tmp_path).layer, ramp(UTM), atol=1e-2)


def test_of_a_table_on_the_web_the_files_are_read_from_its_folder(tmp_path):
    tiles(tmp_path)
    requests = set()

    def record(handler, body):
        requests.add(handler.path)
        return handler._send(body) if body else not_there(handler, body)

    with serve(tmp_path, {"": record}) as base:
        cube = read(tmp_path, base).compute()
    np.testing.assert_allclose(cube.layer, ramp(UTM), atol=1e-2)
    assert requests == {"/index.parquet", "/2024/w.tiff", "/2024/e.tiff"}


def test_a_year_without_tiles_lists_those_there_are(tmp_path):
    tiles(tmp_path)
    with pytest.raises(
        SourceError, match=r"none of the 6 tiles.*year: 2019.*have year: 2023, 2024"
    ):
        read(tmp_path, tmp_path, {**TABLE, "where": {"year": 2019}})
    tile_table(tmp_path / "index.parquet", [(f"{BUCKET}/2024/far.tiff", FAR, 2024)])
    with pytest.raises(
        SourceError, match=r"none of the 1 tiles.*touches the grid; correct the grid"
    ):
        read(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["gs://other/w.tiff", f"{BUCKET}/../w.tiff", f"{BUCKET}//etc/w.tiff", f"{BUCKET}/C:/w.tiff"],
)
def test_a_file_outside_the_folder_of_its_index_is_refused(tmp_path, name):
    tile_table(tmp_path / "index.parquet", [(name, WEST, 2024)])
    with pytest.raises(SourceError, match=r"does not lie below 'gs://tiles/annual'"):
        read(tmp_path, tmp_path)


def test_a_table_without_bounds_and_a_damaged_one_are_named(tmp_path):
    import pandas as pd

    pd.DataFrame({"path": ["a"], "minx": [0.0]}).to_parquet(tmp_path / "index.parquet")
    with pytest.raises(SourceError, match=r"no column 'wgs84_west'; it has path, minx"):
        read(tmp_path, tmp_path, "index.parquet")
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match=r"index of source 's'.*index\.parquet cannot be read"):
        read(tmp_path, tmp_path, "index.parquet")


def test_a_tile_across_the_antimeridian_lies_on_both_sides(tmp_path):
    box = GeoBox.from_bbox((179, 0, 181, 2), crs="EPSG:4326", resolution=0.1)
    tif(tmp_path / "a.tif", np.full(box.shape, 7, "float32"), box)
    table = {"wgs84_west": 179.0, "wgs84_south": 0.0, "wgs84_east": -179.0, "wgs84_north": 2.0}
    import pandas as pd

    pd.DataFrame([{"path": "a.tif", **table}]).to_parquet(tmp_path / "index.parquet")
    path = one(tmp_path, {"root": str(tmp_path), "index": "index.parquet"})
    for bounds in ((179.2, 0.5, 179.8, 1), (-179.8, 0.5, -179.2, 1)):
        place = GeoBox.from_bbox(bounds, crs="EPSG:4326", resolution=0.1)
        assert (gm.build_cube(path, place).layer == 7).all()


def test_the_tiles_of_a_vrt_under_the_grid_are_read(tmp_path):
    for name, box in (("w", WEST), ("e", EAST)):
        tif(tmp_path / f"layer/{name}.tif", ramp(box), box)
    vrt(
        tmp_path / "layer.vrt",
        {f"./layer/{n}.tif": b for n, b in (("w", WEST), ("e", EAST), ("f", FAR))},
    )
    cube = read(tmp_path, tmp_path, "{variable}.vrt")
    np.testing.assert_allclose(cube.layer, ramp(UTM), atol=1e-2)
    with rasterio.open(tmp_path / "layer.vrt") as file:  # the file is one that GDAL opens
        assert file.shape == (100, 20070)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><VRTDataset/>', "definitions"),
        ("<VRTDataset", "cannot be read"),
        ("<VRTDataset rasterXSize='1' rasterYSize='1'/>", "cannot be read"),
    ],
)
def test_a_vrt_with_definitions_and_a_damaged_one_are_refused(tmp_path, text, message):
    (tmp_path / "layer.vrt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read(tmp_path, tmp_path, "layer.vrt")


def test_an_index_of_another_form_is_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"ends in \.parquet or \.vrt, found path: tiles\.csv"):
        read(tmp_path, tmp_path, "tiles.csv")
    with pytest.raises(SchemaError, match=r"'where' selects rows of a table"):
        read(tmp_path, tmp_path, {"path": "a.vrt", "where": {"year": 1}})
