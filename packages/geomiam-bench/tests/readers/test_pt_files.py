"""``.pt`` files that state wrong sizes: refused before memory is taken, with one kind of error."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import pytest
import torch

from geomiam.errors import ArtifactError
from geomiam_bench.readers import pt_words
from geomiam_bench.readers.cubes import read_cube, read_pt

STORE, END = zipfile.ZIP_STORED, b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: float) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(key: str = "0", count: int = 4, kind: str = "FloatStorage") -> bytes:
    storage_name = f"ctorch\n{kind}\n".encode()
    return b"(" + text("storage") + storage_name + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(size: float = 4, stride: float = 1, offset: float = 0, **storage_options) -> bytes:
    ends = number(offset) + b"(" + number(size) + b"t(" + number(stride) + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage(**storage_options) + ends + b"\x89ccollections\nOrderedDict\n)RtR"


def write(path, plan: bytes, *, data: dict[str, bytes] | None = None):
    with zipfile.ZipFile(path, "w", STORE) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + plan)
        for key, raw in (data or {"0": bytes(16)}).items():
            archive.writestr(f"a/data/{key}", raw)
    return path


def refused(path, message: str, *, shape=None, byte_limit=64 * 2**20):
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=message):
        read_pt(path) if shape is None else read_cube(path, shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < byte_limit


def test_the_plain_file_is_read(tmp_path):
    assert read_pt(write(tmp_path / "a.pt", tensor() + END)).tolist() == [0, 0, 0, 0]


def test_a_key_that_takes_for_ever_to_hash_is_not_hashed(tmp_path):
    nested_tuples = b"".join(b"h%ch%c\x86q%c" % (k, k, k + 1) for k in range(60))
    plan = b")q\0" + nested_tuples + b"}h\x3cNs."
    refused(write(tmp_path / "a.pt", plan), "a tuple where text was expected")


@pytest.mark.parametrize("kind", ["size", "stride", "offset"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2**70, -1, 0.5])
def test_sizes_that_are_no_counts_are_refused(tmp_path, kind, value):
    refused(write(tmp_path / "a.pt", tensor(**{kind: value}) + END), "damaged.*is ")


def test_a_tensor_larger_than_the_limit_is_refused_in_bytes(tmp_path, monkeypatch):
    values = {"count": 2, "kind": "DoubleStorage"}
    plan = tensor(size=2**28, stride=0, **values) + END  # 2^28 values of 8 bytes
    path = write(tmp_path / "a.pt", plan)
    refused(path, r"more than 1,073,741,824 bytes")
    refused(path, r"holds a tensor of \(268435456,\), expected \(4,\)", shape=(4,))
    monkeypatch.setattr(pt_words, "MOST_BYTES", 2**24)  # a first tensor below the limit is read
    two_tensors = b"(" + tensor(size=2**21, stride=0, **values) * 2 + b"t."
    refused(write(tmp_path / "b.pt", two_tensors), "more than 16,777,216 bytes")


def test_compressed_members_are_refused_also_beside_the_data(tmp_path):
    path = write(tmp_path / "a.pt", tensor() + END)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/byteorder", bytes(2**24))
    refused(path, "'a/byteorder' is compressed")


def test_storages_that_overlap_are_refused(tmp_path):
    """Two entries of the directory lead to the same bytes: more is stored than the file has."""
    size, count = 2**20, 8
    body, entries = b"", []
    plan = (
        b"\x80\x02(" + b"".join(storage(str(k), size, "ByteStorage") for k in range(count)) + b"t."
    )
    for name, raw in [("a/data.pkl", plan), *((f"a/data/{k}", bytes(size)) for k in range(1))]:
        entries.append((name, raw, len(body)))
        head = (20, 0, 0, 0, 0x21, zlib.crc32(raw), len(raw), len(raw), len(name), 0)
        body += struct.pack("<4s5H3I2H", b"PK\3\4", *head) + name.encode() + raw
    entries += [(f"a/data/{k}", entries[1][1], entries[1][2]) for k in range(1, count)]
    directory = b""
    for name, raw, at in entries:
        sizes = (zlib.crc32(raw), len(raw), len(raw), len(name), 0, 0, 0, 0, 0, at)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0x21, *sizes)
        directory += name.encode()
    tail = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(body), 0
    )
    (tmp_path / "a.pt").write_bytes(body + directory + tail)
    refused(tmp_path / "a.pt", "a/data/|damaged")


@pytest.mark.parametrize(
    ("position", "bits"), [(8, 1), (8, 0x20), (6, 99)], ids=["encrypted", "patched", "version"]
)
def test_zips_of_other_kinds_are_damage(tmp_path, position, bits):
    raw = bytearray(write(tmp_path / "a.pt", tensor() + END).read_bytes())
    at = -1
    while (at := raw.find(b"PK\1\2", at + 1)) >= 0:
        raw[at + position] |= bits
    (tmp_path / "a.pt").write_bytes(raw)
    refused(tmp_path / "a.pt", "is damaged; fetch it again")


@pytest.mark.parametrize("keep", [0, 10, 100, 200, -1, -10, -30])
def test_files_cut_short_are_refused(tmp_path, keep):
    torch.save(torch.zeros(5), tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(raw[:keep])
    refused(tmp_path / "a.pt", r"is damaged; fetch it again|is not a zip")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "device or pipe")
    refused(tmp_path, "is a folder")
