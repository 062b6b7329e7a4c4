"""Names from files: plain names of one folder, safe to print; anything else is refused."""

from __future__ import annotations

import pytest

import geomiam as gm
from geomiam.checks.names import check_folder, check_key, check_label, check_species, check_variable
from geomiam.errors import GeomiamError, NameRefused, SchemaError, printable

FOLDERS = ["../x", "/etc", "a/b", "a\\b", ".", "..", "...", "zarr.json", ".zattrs", "__x", "C:\\x"]
TEXTS = [
    "",
    "  ",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "n" * 201,
    "é" * 101,
    "\ud800",
    "a\u202eb",
    None,
    3,
    True,
]


@pytest.mark.parametrize("name", [*FOLDERS, *TEXTS])
@pytest.mark.parametrize("check", [check_folder], ids=["folder"])
def test_a_name_that_is_no_plain_folder_is_refused(check, name):
    with pytest.raises(NameRefused, match=r"rename it|give it a text|shorten"):
        check(name, "dim")


@pytest.mark.parametrize("name", ["spatial_ref", "presence", "site", "../a"])
def test_a_variable_has_no_name_of_the_cube_itself(name):
    with pytest.raises(NameRefused, match=name):
        check_variable(name)


@pytest.mark.parametrize(
    "name", ["bio1", "Soilgrid-phh2o", "temp (°C)", "a.b", ".x", "B04:B03", "n" * 200]
)
def test_ordinary_names_are_returned_as_they_are(name):
    assert check_variable(name) == check_folder(name, "dim") == check_key(name, "group") == name


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../b", "C:\\Users", "C:/Users", "\\\\host\\x"]
)
def test_a_modality_has_no_name_that_is_a_path(name):
    assert check_label(name, "species") == name  # species are labels and nothing else
    with pytest.raises(NameRefused, match="form of a path"):
        check_key(name, "modality")


def test_a_modality_may_have_an_inner_slash():
    assert check_key("Sentinel-1/2", "modality") == "Sentinel-1/2"


@pytest.mark.parametrize("names", [["a", "a"], [None], [""], [{}], ["\ud800"], ["a\x00"]])
def test_species_are_texts_and_none_is_there_twice(names):
    with pytest.raises(NameRefused, match="species"):
        check_species(names)
    assert check_species(["a", "b / c"]) == ("a", "b / c")


@pytest.mark.parametrize(
    "location", ["variable", "dim", "modality", "group", "source", "schema", "label"]
)
def test_a_schema_checks_every_name_in_it(location):
    bad = "../thesis\x1b[2J" if location == "label" else "../thesis"
    catalog = {
        "name": bad if location == "schema" else "s",
        "sources": {bad if location == "source" else "src": {"path": "v.tif"}},
        "modalities": {
            bad if location == "modality" else "m": {
                "variables": {
                    bad if location == "variable" else "v": {
                        "kind": "vector",
                        "dims": [bad if location == "dim" else "band"],
                        "labels": {
                            bad if location == "dim" else "band": [
                                bad if location == "label" else "b"
                            ]
                        },
                    }
                }
            }
        },
        "groups": {bad if location == "group" else "g": ["v"]},
    }
    with pytest.raises(SchemaError, match="thesis") as caught:
        gm.Schema.from_dict(catalog)
    assert "\x1b" not in str(caught.value)


def test_messages_have_no_control_characters_and_an_end():
    error = GeomiamError("a\x1b[31mb\r\x07\ud800 \u202e\ttab\nline é " + "x" * 10_000)
    text = str(error)
    assert text.encode()  # nothing that cannot be encoded
    assert text.startswith("a\\x1b[31mb\\r\\x07\\ud800 \\u202e\ttab\nline é ")
    assert len(text) < 4_100
    assert printable("plain") == "plain"
