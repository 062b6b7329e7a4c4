"""Occurrence records from downloads of GBIF and from tables of any form: gm.read_records."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs_shared
from helpers_records import (
    DWC,
    archive_xml,
    check_simple,
    gbif_archive,
    meta,
    pack,
    records_cube,
    simple_text,
    unpack,
)

import geomiam as gm
from geomiam.errors import NamesJoined, OccurrenceError, OccurrencesLeftOut, SettingError

# GBIF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
@pytest.mark.parametrize("packing", ["csv", "txt", "zip"])
def test_simple_csv_of_gbif(tmp_path, end, bom, packing):
    data = bom + simple_text().replace("\n", end).encode()
    path = tmp_path / f"0001234-260626123456789.{packing}"
    if packing == "zip":
        pack(path, {"0001234-260626123456789.csv": data})
    else:
        path.write_bytes(data)
    records = gm.read_records(path, doi="https://doi.org/10.15468/dl.xyz123")
    check_simple(records)
    origin = records.attrs["origin"]
    assert origin["doi"] == "10.15468/dl.xyz123" and origin["rows"] == 6
    assert origin["file"] == path.name
    if packing == "zip":
        assert origin["url"].endswith("/0001234-260626123456789")


@pytest.mark.parametrize(
    "form", ["zip", "zip with a folder", "folder", "meta.xml", "occurrence.txt"]
)
def test_darwin_core_archive_of_gbif(tmp_path, form):
    files = gbif_archive()
    if form.startswith("zip"):
        prefix = "download/" if "folder" in form else ""
        source = pack(tmp_path / "a.zip", {prefix + k: v for k, v in files.items()})
    else:
        source = unpack(tmp_path / "a", files)
        source = source if form == "folder" else source / form
    records = gm.read_records(source)
    check_simple(records)
    origin = records.attrs["origin"]
    assert origin["doi"] == "10.15468/dl.abcdef"
    assert origin["query"] == '{ "TaxonKey" : [ "is Quercus & Acer" ] }'
    assert origin["licence"] == "This work is licensed under CC BY-NC 4.0"
    assert origin["date"] == "2026-11-01" and origin["datasets"] == 2
    assert "10.15468/dl.abcdef" in origin["citation"]
    assert json.loads(json.dumps(records.attrs)) == records.attrs


def test_sampling_reads_the_same_sources_and_keeps_their_origin(tmp_path):
    source = pack(tmp_path / "a.zip", gbif_archive())
    with pytest.warns(OccurrencesLeftOut, match="1 without coordinates, 1 without a species"):
        sites = gm.sample(records_cube(), source)
    with pytest.warns(OccurrencesLeftOut):
        same = gm.sample(records_cube(), gm.read_records(source))
    np.testing.assert_array_equal(sites["presence"], same["presence"])
    np.testing.assert_array_equal(sites["bio1"], same["bio1"])
    expected = [[np.nan, 1], [np.nan, 0], [np.nan, 0], [1, np.nan]]
    np.testing.assert_array_equal(sites["presence"], expected)
    assert json.loads(sites.attrs["records"])["origin"]["doi"] == "10.15468/dl.abcdef"
    assert json.loads(same.attrs["records"])["origin"]["rows"] == 6


def test_fields_with_a_default_and_without_a_header_are_read(tmp_path):
    terms = ["id", "scientificName", "decimalLatitude", "decimalLongitude"]
    default = f'<field term="{DWC}occurrenceStatus" default="ABSENT"/>'
    xml = archive_xml(meta(terms, extra=default, quote="&quot;")).replace(
        'ignoreHeaderLines="1"', ""
    )
    text = 'a\t"Quercus\tilex"\t51\t12\nb\tAcer\t52\t13\n'
    source = pack(tmp_path / "a.zip", {"meta.xml": xml, "occurrence.txt": text})
    records = gm.read_records(source)
    assert records["species"].tolist() == ["Quercus ilex", "Acer"]
    assert records["presence"].tolist() == [0, 0]


# Tables -----------------------------------------------------------------------------------------


def test_tables_of_any_form_give_the_same_records(tmp_path):
    gpd = pytest.importorskip("geopandas")
    lon, lat = np.array([12.05, 12.15, 12.25]), np.array([51.05, 51.15, 51.25])
    table = pd.DataFrame(
        {"Taxon": ["a", "b", "a"], "Longitude": lon, "Latitude": lat, "n": [1, 0, 2]}
    )
    frame = gpd.GeoDataFrame(table[["Taxon", "n"]], geometry=gpd.points_from_xy(lon, lat, crs=4326))
    metric = frame.to_crs(25832)
    columns = table.assign(e=metric.geometry.x, n_=metric.geometry.y)
    table.to_csv(tmp_path / "a.csv", sep=";", decimal=",", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    metric.to_parquet(tmp_path / "geo.parquet")
    metric.to_file(tmp_path / "a.gpkg")
    sources = [
        table,
        frame,
        metric,
        *(tmp_path / n for n in ("a.csv", "a.parquet", "geo.parquet", "a.gpkg")),
    ]
    results = [gm.read_records(s, presence="n") for s in sources]
    results.append(
        gm.read_records(columns[["Taxon", "n", "e", "n_"]], presence="n", x="e", y="n_", crs=25832)
    )
    for records in results:
        assert records["species"].tolist() == ["a", "b", "a"]
        assert records["presence"].tolist() == [1, 0, 1]
        np.testing.assert_allclose(records[["lon", "lat"]], np.stack([lon, lat], 1), atol=1e-9)
        assert not {"geometry", "Longitude", "Taxon", "n"} & set(records)
    assert {"e", "n_"} < set(results[-1])


def test_wide_tables_become_long_without_rows_for_not_surveyed():
    table = pd.DataFrame(
        {"lon": [1.0, 2], "lat": [3.0, 4], "oak": [1, 0], "ash": [np.nan, 7], "year": [5, 6]}
    )
    records = gm.read_records(table, species=["oak", "ash"])
    assert records.values.tolist() == [
        ["oak", 1.0, 3.0, 1.0, 5],
        ["oak", 2.0, 4.0, 0.0, 6],
        ["ash", 2.0, 4.0, 1.0, 6],
    ]


def test_records_that_are_all_without_species_or_outside_are_read_and_refused_by_sample():
    table = pd.DataFrame({"species": [None, None], "lon": [12.0, 12.5], "lat": [51.0, 51.0]})
    records = gm.read_records(table)
    assert records["species"].isna().all() and records["presence"].tolist() == [1, 1]
    with pytest.raises(
        OccurrenceError, match="no occurrence of 2 can be used: 2 without a species"
    ):
        gm.sample(records_cube(), records)
    away = table.assign(species=["a", None], lon=[99.0, 12.5])
    with pytest.raises(OccurrenceError, match="no occurrence of 2 can be used: 1 outside"):
        gm.sample(records_cube(), away)


def test_names_are_joined_and_coordinates_without_a_crs_stay(tmp_path):
    table = pd.DataFrame({"species": ["Oak", "oak ", "Oak"], "x": [400_000.0, 1, 2], "y": 5.0})
    with pytest.warns(NamesJoined):
        records = gm.read_records(table)
    assert set(records["species"]) == {"Oak"} and records.columns[1:3].tolist() == ["x", "y"]
    with pytest.warns(NamesJoined):
        assert "lon" in gm.read_records(table, crs="EPSG:32633")


def test_other_encodings_are_read_when_they_are_stated(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("species,lon,lat\nChêne,12.0,51.0\n".encode("latin-1"))
    with pytest.raises(OccurrenceError, match=r"cannot be read as UTF-8 .* encoding='cp1252'"):
        gm.read_records(path)
    assert gm.read_records(path, encoding="latin-1")["species"].tolist() == ["Chêne"]
    with pytest.raises(OccurrenceError, match="encoding='klingon' is unknown"):
        gm.read_records(path, encoding="klingon")
    with pytest.raises(SettingError, match="doi='10' is not a DOI"):
        gm.read_records(path, encoding="latin-1", doi="10")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"a": [1]}), r"no species column 'species'.*species=\.\.\."),
        (pd.DataFrame({"species": ["a"], "b": [1]}), r"no coordinate columns.*x='\.\.\.'"),
        (pd.DataFrame({"species": [], "lon": [], "lat": []}), "has no rows"),
        (pd.DataFrame({"species": ["a"], "lon": ["1,5"], "lat": [1]}), "decimal comma"),
        (
            pd.DataFrame({"species": ["a"], "lon": [1], "lat": [1], "presence": ["?"]}),
            "expected 1, 0",
        ),
    ],
)
def test_tables_that_lack_a_column_are_refused_with_the_argument_that_names_it(table, message):
    with pytest.raises(OccurrenceError, match=message):
        gm.read_records(table)


def test_points_outside_their_crs_are_refused():
    table = pd.DataFrame({"species": ["a", "b"], "x": [1e30, 4e6], "y": [1e30, 3e6]})
    with pytest.raises(OccurrenceError, match=r"1 of 2 points.*pass the crs="):
        gm.read_records(table, crs="EPSG:3035")


@needs_shared
def test_real_tables_with_absences_codes_and_other_crs():
    maps = SHARED / "maps"
    tinamou = gm.read_records(maps / "neotropics" / "tinamou_occurrences.parquet", presence="value")
    source = pd.read_parquet(maps / "neotropics" / "tinamou_occurrences.parquet")
    assert (tinamou["presence"] == 0).sum() == (source["value"] == 0).sum() > 0
    assert tinamou["source"].tolist() == source["source"].tolist()
    slug = maps / "pypi_western_usa" / "occurrences.parquet"
    by_degrees = gm.read_records(slug)
    by_metres = gm.read_records(slug, x="x_epsg32610", y="y_epsg32610", crs="EPSG:32610")
    np.testing.assert_allclose(
        by_metres[["lon", "lat"]], by_degrees[["lon", "lat"]], rtol=0, atol=1e-7
    )
    assert by_degrees["presence"].value_counts().to_dict() == {0: 4990, 1: 1595}
    plants = gm.read_records(
        SHARED / "glc_sample" / "presence_only_sample.parquet", species="speciesId"
    )
    assert len(plants) == 100 and plants["species"].str.fullmatch(r"\d+").all()


@needs_shared
def test_a_real_wide_table_of_counts():
    birds = pd.read_parquet(SHARED / "maps" / "france_birds" / "sites.parquet")
    species = [c for c in birds if c.count("_") == 1 and c[0].isupper()]
    records = gm.read_records(birds, species=species)
    assert len(species) == 20 and len(records) == np.isfinite(birds[species].to_numpy()).sum()
    assert (records["presence"] == 1).sum() == (birds[species] > 0).sum().sum()
