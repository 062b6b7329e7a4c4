"""Files from elsewhere: devices, pipes, bombs and damage are refused before they are read."""

from __future__ import annotations

import os
import tracemalloc

import pytest

import geomiam as gm
from geomiam import errors
from geomiam.checks.files import read_text, refusing, regular_file
from geomiam.errors import GeomiamError, InputNotFound, SchemaError, SettingError, UnreadableFile
from geomiam.schema.catalogs import load_yaml

BODY = "modalities: {m: {variables: {v: {}}}}\n"
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{k}: &a{k}\n  <<: [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40)
)
ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 60)
)
BAD_YAML = {
    "a merge bomb": (MERGES + BODY, "aliases.*more than 1,000,000"),
    "an alias bomb": (ALIASES + BODY, "aliases.*more than 1,000,000"),
    "an alias of itself": ("a: &a [*a]\n" + BODY, "part of itself"),
    "deep lists": ("a: " + "[" * 5000 + "]" * 5000 + "\n" + BODY, "line 1.*deep"),
    "a key twice": ("name: a\n" + BODY + "name: b\n", "line 3: the key 'name'.*line 1"),
    "a date that is none": ("name: 2021-02-30\n" + BODY, "not valid YAML"),
    "a number that is none": ("name: !!int abc\n" + BODY, "not valid YAML"),
    "a python object": ("name: !!python/object/apply:os.system [ls]\n" + BODY, "not valid YAML"),
    "a list": ("[1, 2]\n", "holds list"),
    "nothing": ("", "holds NoneType"),
    "two documents": (BODY + "---\n" + BODY, "not valid YAML"),
    "too large": (BODY + "#" * 2**20, "more than the limit"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_a_catalog_that_is_no_plain_yaml_is_refused(tmp_path, name):
    text, message = BAD_YAML[name]
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(SchemaError, match=message):
        gm.Schema.from_yaml(tmp_path / "c.yaml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_aliases_that_mean_little_are_read(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "modalities:\n  m:\n    variables:\n      a: &v {units: mm}\n      b: {<<: *v, long_name: x}\n"
    )
    data, _ = load_yaml(file)
    assert data["modalities"]["m"]["variables"]["b"] == {"units": "mm", "long_name": "x"}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_named(tmp_path, encoding):
    (tmp_path / "c.yaml").write_bytes(("name: é\n" + BODY).encode(encoding))
    with pytest.raises(SchemaError, match=r"not UTF-8 text.*save it as UTF-8"):
        gm.Schema.from_yaml(tmp_path / "c.yaml")


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + b"name: s\n" + BODY.encode())
    assert gm.Schema.from_yaml(tmp_path / "c.yaml").name == "s"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_devices_folders_and_long_paths_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, "a" * 5000, "a\0b"):
        with pytest.raises(SchemaError, match=r"device or pipe|folder|cannot be opened"):
            gm.Schema.from_yaml(path)
    with pytest.raises(InputNotFound, match="there is no file"):
        gm.Schema.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "pipe" / "x")


def test_sizes_are_held_also_where_the_system_states_none(tmp_path):
    (tmp_path / "a").write_text("x" * 11)
    with pytest.raises(UnreadableFile, match="11 bytes, more than the limit of 10"):
        read_text(tmp_path / "a", max_bytes=10)
    if os.path.exists("/proc/self/maps"):
        with pytest.raises(UnreadableFile, match="more than 10 bytes"):
            read_text("/proc/self/maps", max_bytes=10)


def test_whatever_a_library_raises_becomes_one_error():
    for cause in (
        RecursionError(),
        OverflowError("big"),
        KeyError("k"),
        MemoryError(),
        OSError(5, "x"),
    ):
        with pytest.raises(GeomiamError, match=rf"damaged; fetch it again: {type(cause).__name__}"):
            with refusing(GeomiamError, "x is damaged; fetch it again"):
                raise cause
    with pytest.raises(SchemaError, match=r"^inner$"), refusing(GeomiamError, "outer"):
        raise SchemaError("inner")


def test_errors_are_also_the_exceptions_that_python_has():
    pairs = {
        "SettingError": ValueError,
        "InputNotFound": FileNotFoundError,
        "SchemaError": ValueError,
        "MissingVariable": KeyError,
        "OutputExists": FileExistsError,
        "MemoryRefused": MemoryError,
        "ArtifactError": ValueError,
    }
    for name, base in pairs.items():
        error = getattr(errors, name)("what 'it' is")
        assert isinstance(error, base) and isinstance(error, GeomiamError)
        assert str(error) == "what 'it' is"


def test_a_wrong_setting_is_named_with_its_value():
    with pytest.raises(
        SettingError, match=r"TrainingConfig: epochs: .*greater than or equal to 1; found 0"
    ):
        gm.TrainingConfig(epoch_steps=1, epochs=0)
    with pytest.raises(SettingError, match=r"unknown field 'widht' \(value 8\); fields: width"):
        gm.NetworkConfig(widht=8)
    with pytest.raises(SettingError, match="found 'xxx"):
        gm.NetworkConfig(width="x" * 10_000)
