"""Catalogs: sources that are distinguished by name, and errors with location and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers_small import every_kind, schema_of, variable
from pydantic import ValidationError

import geomiam as gm
from geomiam.errors import SchemaError
from geomiam.schema.schema import Schema
from geomiam.schema.variable import KINDS, Variable

CATALOGS = sorted((Path(gm.__file__).parent.parent / "catalogs").glob("*.yaml"))

CATALOG = """\
# a comment
name: alps
title: The Alps
modalities:
  climate:
    license: CC0
    variables:
      bio1: {kind: scalar, units: degC, long_name: mean temperature}
      aspect:
        kind: circular
        period: 6.28
  landsat:
    variables:
      ndvi: {kind: series, window: 3}
      cover: {kind: categorical, classes: {1: wood, 2: field}}
      chip: {kind: image, patch: 4}
      embedding: {kind: vector}
groups:
  weather: [bio1]
  sight: {members: [landsat, aspect]}
"""


def read(tmp_path: Path, text: str) -> Schema:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return Schema.from_yaml(path)


def message(tmp_path: Path, text: str) -> str:
    with pytest.raises(SchemaError) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_a_catalog_becomes_a_schema_with_every_fact(tmp_path):
    schema = read(tmp_path, CATALOG)
    assert (schema.name, schema.title) == ("alps", "The Alps")
    assert list(schema.modalities) == ["climate", "landsat"]
    assert list(schema.variables) == ["bio1", "aspect", "ndvi", "cover", "chip", "embedding"]
    assert {v.kind for v in schema.variables.values()} == set(KINDS)
    assert schema.modalities["climate"].license == "CC0"
    assert schema.variables["bio1"] == Variable(
        name="bio1", kind="scalar", units="degC", long_name="mean temperature"
    )
    assert schema.variables["aspect"].period == 6.28
    assert schema.variables["ndvi"].window == 3
    assert schema.variables["chip"].patch == 4
    assert schema.variables["cover"].classes == {1: "wood", 2: "field"}


@pytest.mark.parametrize("path", CATALOGS, ids=lambda p: p.stem)
def test_every_catalog_that_comes_with_geomiam_loads(path):
    schema = Schema.from_yaml(path)
    assert schema.name == path.stem
    assert schema.variables
    assert Schema.from_dict(schema.to_dict()) == schema


def test_there_is_a_catalog_to_load():
    assert CATALOGS


def test_the_kind_is_scalar_where_none_is_given(tmp_path):
    schema = read(tmp_path, "modalities:\n  soil:\n    variables:\n      clay:\n      sand: {}\n")
    assert [v.kind for v in schema.variables.values()] == ["scalar", "scalar"]
    assert schema.name == "schema"


@pytest.mark.parametrize(
    ("old", "new", "line", "place", "fix"),
    [
        ("title:", "titel:", 3, "titel", "unknown key 'titel'; did you mean 'title'?"),
        ("modalities:", "modality:", 4, "modality", "unknown key 'modality'; did you mean 'modal"),
        ("license:", "licence:", 6, "modalities → climate → licence", "did you mean 'license'?"),
        ("units:", "unit:", 8, "modalities → climate → variables → bio1 → unit", "mean 'units'?"),
        ("period:", "perod:", 11, "climate → variables → aspect → perod", "mean 'period'?"),
        ("members:", "membres:", 20, "groups → sight → membres", "did you mean 'members'?"),
        ("title:", "zzz:", 3, "zzz", "allowed keys: name, title, description"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_key(
    tmp_path, old, new, line, place, fix
):
    message_text = message(tmp_path, CATALOG.replace(old, new, 1))
    assert f"catalog.yaml, line {line}: " in message_text
    assert f"{place}: " in message_text
    assert fix in message_text


def test_each_wrong_key_has_its_own_line(tmp_path):
    text = CATALOG.replace("units:", "unit:").replace("kind: circular", "kind: angle")
    message_text = message(tmp_path, text).splitlines()
    assert len(message_text) == 2
    assert "line 8" in message_text[0] and "line 10" in message_text[1]


def test_a_wrong_kind_is_reported_with_all_kinds(tmp_path):
    message_text = message(tmp_path, CATALOG.replace("kind: circular", "kind: angle"))
    assert (
        "line 10: modalities → climate → variables → aspect → kind: 'angle' is not a kind"
        in message_text
    )
    assert ", ".join(KINDS) in message_text


def test_a_cloud_cover_of_radar_is_refused(tmp_path):
    source = "{kind: stac, product: sentinel1, time: '2021', max_cloud: 20}"
    message_text = message(tmp_path, f"sources:\n  radar: {source}\n{CATALOG}")
    assert "line 2: " in message_text
    assert "'max_cloud' is for optical scenes, since radar has no cloud cover" in message_text


@pytest.mark.parametrize(
    ("entry", "setting", "kind"),
    [
        ("{kind: scalar, window: 3}", "window", "series"),
        ("{kind: series, patch: 3}", "patch", "image"),
        ("{kind: scalar, classes: {1: a}}", "classes", "categorical"),
    ],
)
def test_a_setting_of_another_kind_is_refused_with_both_remedies(tmp_path, entry, setting, kind):
    message_text = message(tmp_path, f"modalities:\n  a:\n    variables:\n      b: {entry}\n")
    assert "line 4: modalities → a → variables → b: " in message_text
    assert f"'{setting}' belongs to kind: {kind}" in message_text
    assert f"set kind: {kind} or remove '{setting}'" in message_text


@pytest.mark.parametrize(
    ("entry", "message_text"),
    [
        ("{kind: series, window: 0}", "greater than or equal to 1; found 0"),
        ("{kind: circular, period: -1}", "greater than 0; found -1"),
        ("{kind: scalar, dims: [month]}", r"kind: scalar takes no dims"),
        ("{kind: image, dims: [u]}", "kind: image needs 2 dims"),
        ("7", "found 7"),
    ],
)
def test_a_value_out_of_range_is_shown_with_its_line(tmp_path, entry, message_text):
    result = message(tmp_path, f"modalities:\n  a:\n    variables:\n      b: {entry}\n")
    assert "line 4" in result and message_text in result


def test_a_variable_in_two_modalities_is_refused_naming_both(tmp_path):
    message_text = message(
        tmp_path, "modalities:\n  a:\n    variables: {v: }\n  b:\n    variables: {v: }\n"
    )
    assert "variable 'v' is in modalities 'a' and 'b'" in message_text
    assert "rename or remove one" in message_text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("modalities: {}\n", "line 1: modalities: "),
        ("modalities:\n", "line 1: modalities: "),
        ("name: x\nmodalities: [a, b]\n", "line 2: modalities: "),
        ("modalities:\n  a:\n    variables: {}\n", "line 3: modalities → a → variables: "),
        ("modalities:\n  a:\n", "line 2: modalities → a → variables: this key is required"),
        ("name: x\n", "modalities: this key is required; add 'modalities:'"),
        ("modalities: {a: {variables: {v: }}}\ngroups: {g: []}\n", "line 2: groups → g → members"),
    ],
)
def test_empty_parts_are_refused_where_they_stand(tmp_path, text, place):
    assert place in message(tmp_path, text)


@pytest.mark.parametrize(("text", "result"), [("- a\n", "list"), ("", "NoneType"), ("3", "int")])
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text, result):
    message_text = message(tmp_path, text)
    assert f"holds {result}; a catalog is a mapping with 'modalities:'" in message_text


def test_invalid_yaml_is_refused_with_the_line(tmp_path):
    message_text = message(tmp_path, "name: x\nmodalities: {a: [\n")
    assert "is not valid YAML" in message_text and "line 3" in message_text


def test_yaml_cannot_build_objects(tmp_path):
    assert "not valid YAML" in message(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


def test_facts_cannot_be_changed(tmp_path):
    schema = read(tmp_path, CATALOG)
    for fact, key in [
        (schema, "name"),
        (schema.modalities["climate"], "license"),
        (schema.variables["bio1"], "units"),
        (schema.groups["weather"], "members"),
    ]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(fact, key, "other")


@pytest.mark.parametrize("bound", [False, True])
def test_a_schema_survives_plain_types_and_json(tmp_path, bound):
    schema = every_kind() if bound else read(tmp_path, CATALOG)
    assert Schema.from_dict(schema.to_dict()) == schema
    text = json.dumps(schema.to_dict())
    assert Schema.from_dict(json.loads(text)) == schema
    assert json.dumps(Schema.from_dict(json.loads(text)).to_dict()) == text


def test_labels_keep_their_type_through_json():
    v = variable("v", "series", labels={"step": (1, 2.5, "x")})
    back = Schema.from_dict(json.loads(json.dumps(schema_of(m=[v]).to_dict()))).variables["v"]
    assert [type(label) for label in back.labels["step"]] == [int, float, str]


def test_from_dict_states_where_without_line_numbers():
    with pytest.raises(SchemaError, match=r"config: modalitys: unknown key 'modalitys'") as caught:
        Schema.from_dict({"modalitys": {}}, location="config")
    assert "line" not in str(caught.value)


def test_without_groups_each_modality_is_one():
    schema = every_kind()
    assert list(schema.groups) == list(schema.modalities)
    assert all(g.members == (name,) for name, g in schema.groups.items())


def test_a_group_may_be_a_list_or_a_mapping(tmp_path):
    groups = read(tmp_path, CATALOG).groups
    assert {n: g.members for n, g in groups.items()} == {
        "weather": ("bio1",),
        "sight": ("landsat", "aspect"),
    }


def test_replace_changes_the_named_variables_and_nothing_else():
    schema = every_kind()
    new = variable("bio1", units="K")
    changed_files = schema.replace({"bio1": new})
    assert changed_files.variables["bio1"].units == "K"
    assert list(changed_files.variables) == list(schema.variables)
    assert schema.variables["bio1"].units is None
    assert changed_files.replace({"bio1": schema.variables["bio1"]}) == schema


def test_subset_keeps_the_order_of_the_schema_and_gives_each_a_group():
    schema = schema_of(
        groups={"all": ["a", "b", "c"]}, a=[variable("x")], b=[variable("y")], c=[variable("z")]
    )
    small = schema.subset(["c", "a"])
    assert list(small.modalities) == list(small.groups) == ["a", "c"]
    assert list(small.variables) == ["x", "z"]


def test_subset_of_an_unknown_modality_is_refused_with_the_nearest():
    with pytest.raises(SchemaError, match=r"'climat'.*did you mean 'climate'"):
        every_kind().subset(["climat", "cover"])


def test_a_variable_is_bound_once_dims_and_labels_are_known():
    assert not Variable(name="a", kind="series", dims=("t",)).bound
    assert variable("a", "series", labels={"t": (1, 2)}).bound
    assert variable("a", "series", labels={"t": (1, 2)}).sizes == (2,)
    assert every_kind().bound
    assert not every_kind().replace({"chip": Variable(name="chip", kind="image")}).bound
