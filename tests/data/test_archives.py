"""Hostile and damaged archives of records are refused before they are read."""

from __future__ import annotations

import warnings
import zipfile

import pytest
from helpers_records import DWC, archive_xml, check_simple, gbif_archive, meta, pack, unpack

import geomiam as gm
from geomiam.errors import OccurrenceError


def archive_with(path, **changes):
    return pack(path, {**gbif_archive(), **{k.replace("_", "."): v for k, v in changes.items()}})


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>
<archive><core>&b;</core></archive>"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_xml": BOMB}, "meta.xml in a.zip declares a document type or entities"),
        ({"metadata_xml": BOMB}, "metadata.xml in a.zip declares a document type"),
        ({"metadata_xml": BOMB.encode("utf-16")}, "metadata.xml in a.zip declares a document type"),
        ({"meta_xml": "<archive>" + "<a>" * 300 + "</a>" * 300 + "</archive>"}, "nested elements"),
        ({"meta_xml": "<archive>"}, "meta.xml in a.zip is no valid XML"),
        ({"meta_xml": "<archive/>"}, "no table with the core nothing"),
        (
            {"meta_xml": archive_xml(meta(["id"], row_type=f"{DWC}Taxon"))},
            "Taxon with the core Taxon",
        ),
        ({"meta_xml": archive_xml(meta(["id"], file="../occurrence.txt"))}, r"no file '\.\./occ"),
        ({"meta_xml": archive_xml(meta(["id"], file="/etc/passwd"))}, "no file '/etc/passwd'"),
        ({"meta_xml": archive_xml(meta(["id"], file="https://a.b/c"))}, "no file 'https:"),
        (
            {"meta_xml": archive_xml(meta(["id"])).replace('index="0"', 'index="9e9"')},
            "does not describe",
        ),
        (
            {"meta_xml": archive_xml(meta(["id"])).replace('index="0"', 'index="-1"')},
            "outside 0 to",
        ),
        ({"meta_xml": archive_xml(meta(["id"])).replace("UTF-8", "utf-999")}, "encoding='utf-999'"),
        (
            {"meta_xml": archive_xml(meta(["id"] * 5 + [f"t{i}" for i in range(40)]))},
            "does not have the form",
        ),
        ({"occurrence_txt": bytes(2**27)}, "unpacks to 134,217,728, more than"),
        ({"meta_xml": b" " * 2**23 + b"<archive/>"}, "meta.xml in a.zip .* more than 4,194,304"),
    ],
)
def test_hostile_archives_are_refused_before_they_are_read(tmp_path, changes, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = archive_with(tmp_path / "a.zip", **changes)
    with pytest.raises(OccurrenceError, match=message):
        gm.read_records(source)


def test_names_in_a_zip_file_never_become_paths(tmp_path):
    files = {"../../evil.txt": "x", "/abs.txt": "y", **gbif_archive()}
    check_simple(gm.read_records(pack(tmp_path / "a.zip", files)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_links_out_of_an_archive_are_not_followed(tmp_path):
    folder = unpack(tmp_path / "a", gbif_archive())
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (folder / "occurrence.txt").unlink()
    (folder / "occurrence.txt").symlink_to(secret)
    with pytest.raises(OccurrenceError, match="link to a file outside the folder"):
        gm.read_records(folder)
    path = tmp_path / "b.zip"
    files = gbif_archive()
    del files["occurrence.txt"]
    pack(path, files)
    link = zipfile.ZipInfo("occurrence.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(OccurrenceError, match="is a link, which is not followed"):
        gm.read_records(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04damaged", b"species,lon,lat\na,1,2\n"])
def test_damaged_zip_files_are_refused(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(OccurrenceError, match=r"a\.zip cannot be read; it is damaged"):
        gm.read_records(path)


def test_a_truncated_archive_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", gbif_archive())
    data = path.read_bytes()
    start = data.index(b"occurrence.txt") + 14
    path.write_bytes(data[:start] + bytes(40) + data[start + 40 :])
    with pytest.raises(OccurrenceError, match=r"damaged|does not have the form"):
        gm.read_records(path)


def test_zip_files_without_a_single_table_name_their_files(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.csv": "x", "b.csv": "y"})
    with pytest.raises(
        OccurrenceError, match=r"no meta.xml and 2 tables.*pass the path of that file"
    ):
        gm.read_records(path)
