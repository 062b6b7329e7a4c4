"""``geomiam records``: from a download to a clean table, with counts; and columns by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers_records import gbif_archive, pack, records_cube
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.errors import GeomiamError, OutputExists, OutputRefused, SelectionError


def geomiam(*arguments):
    """Return the output of a command that ends well; raise the error of another one."""
    result = CliRunner().invoke(app, ["records", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def download(tmp_path):
    return pack(tmp_path / "0001234-260626123456789.zip", gbif_archive())


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_download_becomes_a_clean_table_with_counts(tmp_path, download, suffix):
    out, figure = tmp_path / f"clean.{suffix}", tmp_path / "map.png"
    text = geomiam(download, "--out", out, "--figure", figure, "--uncertainty", "5 m")
    assert "6 records: 4 presences, 2 absences, 2 species" in text
    assert re.search(r"coordinates +6 +1 +1  coordinates missing", text)
    assert re.search("habitat +not run  pass --land for a land mask", text)
    assert re.search("early +not run  pass --first-year <value>", text)
    assert f"3 records: 1 presences, 2 absences, 2 species → {out}" in text
    records = gm.read_records(out)
    assert records["lon"].tolist() == [12.15, 12.25, 12.45] and "flagged" not in records
    if suffix == "parquet":
        assert records.attrs["origin"]["doi"] == "10.15468/dl.abcdef"
        assert records.attrs["cleaning"]["removed"] == 3
        expected = gm.clean_records(
            download, rules=gm.CleaningRules(uncertainty="5 m"), remove=False
        )
        assert records["occurrenceStatus"].tolist() == (
            expected.loc[~expected["flagged"], "occurrenceStatus"].tolist()
        )
    assert figure.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputExists, match="overwrite=True"):
        geomiam(download, "--out", out)
    geomiam(download, "--out", out, "--overwrite", "--no-remove")
    assert pd.Series(gm.read_records(out)["flagged"]).sum() == 2
    foreign = tmp_path / f"thesis.{suffix}"
    foreign.write_text("my thesis", encoding="utf-8")
    with pytest.raises(OutputRefused, match="was not written by geomiam"):
        geomiam(download, "--out", foreign, "--overwrite")


def test_counts_as_json_and_nothing_written_without_out(tmp_path, download):
    rows = json.loads(geomiam(download, "--json"))
    assert {r["test"]: r["flagged"] for r in rows}["coordinates"] == 1
    assert geomiam(download, "--csv").startswith("test,tested,flagged,only,description\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == [download.name]
    assert "not run" not in geomiam(download, "--no-clean")


def test_columns_land_countries_references_and_thinning(tmp_path):
    gpd = pytest.importorskip("geopandas")
    from shapely.geometry import box

    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "Art": "oak",
            "ost": rng.uniform(10, 14, 80).round(4),
            "nord": rng.uniform(50, 53, 80).round(4),
            "da": 1,
            "countryCode": "AA",
        }
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    cube = records_cube()
    cube["land"] = cube["bio1"] * 0 + (cube["lon"] > 11)
    gm.write_cube(cube, tmp_path / "cube.zarr")
    gpd.GeoDataFrame({"ISO_A2": ["AA"]}, geometry=[box(10, 50, 13, 53)], crs=4326).to_file(
        tmp_path / "countries.gpkg"
    )
    table[:3][["ost", "nord"]].set_axis(["lon", "lat"], axis=1).to_csv(tmp_path / "c.csv")
    names = [
        "--species",
        "Art",
        "--x",
        "ost",
        "--y",
        "nord",
        "--presence",
        "da",
        "--crs",
        "EPSG:4326",
    ]
    options = [
        *("--cube", tmp_path / "cube.zarr", "--land", "land"),
        *(
            "--countries",
            tmp_path / "countries.gpkg",
            "--reference",
            f"capitals={tmp_path / 'c.csv'}",
        ),
    ]
    rows = json.loads(geomiam(tmp_path / "a.csv", *names, *options, "--json"))
    counts = {r["test"]: r["flagged"] for r in rows}
    assert counts["habitat"] == (table["ost"] < 11).sum()
    assert counts["country"] == (table["ost"] > 13).sum()
    assert counts["capital"] >= 3
    out = tmp_path / "b.parquet"
    for thin in ("30 km", "cell"):
        text = geomiam(
            tmp_path / "a.csv", *names, *options, "--thin", thin, "-o", out, "--overwrite"
        )
        records = gm.read_records(out)
        assert (
            "thinning by" in text
            and len(records)
            == 80 - records.attrs["cleaning"]["removed"] - records.attrs["thinning"]["removed"]
        )


def test_sample_takes_columns_by_name(tmp_path):
    table = pd.DataFrame({"Art": ["oak", "ash"], "e": [11.0, 12], "n": [51.0, 52], "da": [1, 0]})
    table.to_csv(tmp_path / "a.csv", index=False)
    gm.write_cube(records_cube(), tmp_path / "cube.zarr")
    names = ["--species", "Art", "--x", "e", "--y", "n", "--presence", "da"]
    paths = [str(tmp_path / n) for n in ("cube.zarr", "a.csv", "s.zarr")]
    result = CliRunner().invoke(app, ["sample", *paths[:2], "--out", paths[2], *names])
    assert result.exit_code == 0, result.output
    assert gm.open_sites(paths[2])["presence"].sel(species="oak").max() == 1
    wide = pd.DataFrame({"oak": [1, 0], "ash": [0, 1], "lon": [11.0, 12], "lat": [51.0, 52]})
    wide.to_csv(tmp_path / "a.csv", index=False)
    names = ["--species", "oak", "--species", "ash", "--overwrite"]
    result = CliRunner().invoke(app, ["sample", *paths[:2], "--out", paths[2], *names])
    assert result.exit_code == 0 and gm.open_sites(paths[2])["presence"].sum() == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            ["--land", "nothing"],
            GeomiamError,
            "neither a variable of --cube.*nor a file of polygons",
        ),
        (["--reference", "capitals"], GeomiamError, "expected NAME=FILE"),
        (["--reference", "museums=DOWNLOAD"], SelectionError, "use centroids, capitals"),
        (["--thin", "cell"], GeomiamError, "pass --cube"),
        (["--countries", "DOWNLOAD"], GeomiamError, "has no geometries"),
        (["--out", "a.xlsx"], OutputRefused, r"use records\.parquet"),
    ],
)
def test_wrong_options_are_refused(download, options, error, message):
    options = [o.replace("DOWNLOAD", str(download)) for o in options]
    with pytest.raises(error, match=message):
        geomiam(download, *options)
