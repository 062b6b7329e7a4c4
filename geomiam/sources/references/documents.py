"""Files of references as kerchunk and VirtualiZarr write them: one JSON file, or a folder of Parquet files."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from geomiam.checks.files import read_text, refusing
from geomiam.checks.sizes import MAX_BLOCK
from geomiam.errors import InputNotFound, SourceError
from geomiam.outputs.paths import expand, real_path
from geomiam.sources.references.targets import Targets
from geomiam.sources.web.allow_list import REMOTE, AllowList, host_of, scheme, scrub
from geomiam.sources.web.ranges import fetch_range
from geomiam.sources.web.requests import NoResponse

MOST_JSON = 2**28
"""Most bytes of a JSON file of references."""
MOST_RECORDS = 2**22
"""Most references in one Parquet file."""
RECORD_BYTES = 2**27
"""Most bytes of such a file in memory, of which 16 are kept."""
SLACK = 2**16
"""Bytes of a chunk beyond twice its values, such as the headers of codecs."""
METADATA = (".zgroup", ".zarray", ".zattrs")
"""Names of the metadata of Zarr 2."""
CODECS = frozenset(
    "adler32 astype bitround blosc bz2 crc32 crc32c delta fill_hdf_strings fixedscaleoffset fletcher32 gzip "
    "jenkins_lookup3 lz4 lzma packbits quantize shuffle vlen-bytes vlen-utf8 zlib zstd".split()
)
"""Codecs that turn bytes into numbers and text; ``pickle`` runs any code."""
CODECS_OF_TIFF = "imagecodecs_"
CHUNK = re.compile(r"\d+(\.\d+)*")
"""The numbers of a chunk along each dim."""
FIELD = re.compile(r"{{\s*(\w+)\s*}}")
"""A template of kerchunk; any other expression would need an interpreter."""


SUFFIXES = (".json", ".parq", ".parquet")
"""Ends of the names of references."""


def is_references(path: str | Path) -> bool:
    """Return whether a path is that of a file of references: ``.json``, or a folder ``.parq`` or ``.parquet``."""
    text = expand(path)
    suffix = Path(text.partition("?")[0].rstrip("/")).suffix.lower()
    return suffix == ".json" or (suffix in SUFFIXES and (bool(scheme(text)) or os.path.isdir(text)))


class References:
    """The metadata of a Zarr store, checked, and its chunks.

    ``metadata`` are the JSON texts of Zarr 2 by key. ``arrays`` are those of arrays, parsed.
    """

    def __init__(self, targets: Targets, metadata: Mapping[str, Any]) -> None:
        self.targets, self.place = targets, scrub(targets.location)
        self.metadata: dict[str, bytes] = {}
        self.arrays: dict[str, dict[str, Any]] = {}
        for key, value in metadata.items():
            name, _, kind = key.rpartition("/")
            document = json.loads(value) if isinstance(value, str) else value
            if not isinstance(document, dict):
                raise SourceError(f"'{key}' of {self.place} is no JSON object; write it again")
            if kind == ".zarray":
                self._check_codecs(name, document)
                self.arrays[name] = document
            self.metadata[key] = json.dumps(document).encode()
        if "" in self.arrays:
            raise SourceError(
                f"{self.place} is one array without names and coordinates, as kerchunk writes for a GeoTIFF; open the "
                "GeoTIFF itself: gm.open_cube('file.tif')"
            )
        if not self.arrays:
            raise SourceError(
                f"{self.place} has no references of Zarr 2 (a key that ends with .zarray); write them with kerchunk, "
                "or with VirtualiZarr: dataset.vz.to_kerchunk('references.json', format='json')"
            )

    def _check_codecs(self, name: str, document: Mapping[str, Any]) -> None:
        """Refuse codecs that may run code or are not known."""
        for codec in (*(document.get("filters") or ()), document.get("compressor") or {}):
            kind = codec.get("id") if isinstance(codec, dict) else codec
            if codec and not (kind in CODECS or str(kind).startswith(CODECS_OF_TIFF)):
                raise SourceError(
                    f"'{name}' of {self.place} is decoded by '{kind}', which is not used for references; the "
                    f"codecs are {', '.join(sorted(CODECS))}: open its file itself, or convert it to one of these"
                )

    def entry(self, key: str) -> Any:
        """Return bytes, or the list of a path and optionally first byte and size; KeyError if there is none."""
        raise NotImplementedError

    def read(self, key: str) -> bytes:
        """Return the bytes of a key; KeyError if there is no reference."""
        if key in self.metadata:
            return self.metadata[key]
        value, limit = self.entry(key), self._most(key.rpartition("/")[0])
        if isinstance(value, str):
            with refusing(SourceError, f"'{key}' of {self.place} is no base64; write it again"):
                is_coded = value.startswith("base64:")
                value = base64.b64decode(value[7:]) if is_coded else value.encode()
        if isinstance(value, bytes):
            self.targets.check_size(len(value), limit)
            return value
        if not isinstance(value, list) or len(value) not in (1, 3):
            raise SourceError(
                f"'{key}' of {self.place} is {str(value)[:80]}, expected text or [path, first byte, number of "
                "bytes]; write the references again"
            )
        try:
            return self.targets.read(*value, limit=limit)
        except FileNotFoundError:
            raise SourceError(
                f"{self.place} refers to {scrub(value[0])[:200]}, which does not exist; put the file back, or write "
                "the references again"
            ) from None

    def _most(self, name: str) -> int:
        """Return the most bytes of a chunk: codecs make values hardly larger, and a larger chunk may fill the memory."""
        array = self.arrays.get(name, {})
        kind = str(array.get("dtype"))
        if "|O" in kind or kind.startswith("["):  # text, or several numbers in a value
            return MAX_BLOCK
        values = np.dtype(kind).itemsize * prod(map(int, array["chunks"]))
        return min(MAX_BLOCK, 2 * values + SLACK)


class JSONReferences(References):
    """References of one JSON file; all of them are checked when it is opened."""

    def __init__(self, targets: Targets, document: Any) -> None:
        place = scrub(targets.location)
        version = document.get("version") if isinstance(document, dict) else document
        if version not in (None, 1) or not isinstance(document, dict):
            raise SourceError(
                f"{place} is no file of references, or of a version that is not read; write it with kerchunk"
            )
        if version == 1 and document.get("gen"):
            raise SourceError(
                f"{place} has generators ('gen'), which are programs and are not run; write the references one by one"
            )
        entries = document.get("refs") if version == 1 else document
        templates = document.get("templates") if version == 1 else None
        if not isinstance(entries, dict) or not isinstance(templates or {}, dict):
            raise SourceError(f"'refs' or 'templates' of {place} is no mapping; write it again")
        self.entries, self.templates = entries, templates or {}
        super().__init__(targets, {k: v for k, v in entries.items() if _is_metadata(k)})
        lists = [v for v in entries.values() if isinstance(v, list) and v]
        for text in {v[0] for v in lists if isinstance(v[0], str)}:
            self.targets.address(self._filled(text))

    def _filled(self, text: Any) -> Any:
        """Return a path with plain texts in place of its templates."""
        if not isinstance(text, str) or "{" not in text:
            return text
        path = FIELD.sub(lambda match: str(self.templates.get(match[1], match[0])), text)
        if "{{" in path or "{%" in path:
            raise SourceError(
                f"{self.place} refers to {scrub(path)[:200]}, of which only names in 'templates' are filled in, "
                "{{name}}; write the references again with plain paths"
            )
        return path

    def entry(self, key: str) -> Any:
        value = self.entries[key]
        return [self._filled(value[0]), *value[1:]] if isinstance(value, list) and value else value


class ParquetReferences(References):
    """References of a folder with a table for each array and range of chunks; tables are read when they are used."""

    def __init__(self, targets: Targets, document: Any) -> None:
        metadata = document.get("metadata") if isinstance(document, dict) else None
        size = document.get("record_size") if isinstance(document, dict) else None
        if not isinstance(metadata, dict) or not isinstance(size, int) or not 0 < size < 2**31:
            raise SourceError(
                f"'.zmetadata' of {scrub(targets.location)} has no 'metadata' or no 'record_size'; write the "
                "references with kerchunk.df.refs_to_dataframe"
            )
        super().__init__(targets, {k: v for k, v in metadata.items() if _is_metadata(k)})
        self.record_size = size
        tables = Targets(targets.location, targets.location)
        self._table = lru_cache(maxsize=16)(partial(_table, tables))

    def entry(self, key: str) -> Any:
        name, _, chunk = key.rpartition("/")
        array = self.arrays[name]
        if not CHUNK.fullmatch(chunk):
            raise KeyError(key)
        if array.get("dimension_separator", ".") != ".":
            raise SourceError(
                f"'{name}' of {self.place} separates the numbers of chunks by "
                f"{array['dimension_separator']!r}, which Parquet references do not; write them with '.'"
            )
        counts = [max(1, ceil(n / c)) for n, c in zip(array["shape"], array["chunks"], strict=True)]
        index = tuple(map(int, chunk.split("."))) if counts else ()
        record, row = divmod(
            int(np.ravel_multi_index(index, counts)) if counts else 0, self.record_size
        )
        table = self._table(f"{name}/refs.{record}.parq")
        if table is None or row >= len(table):
            raise KeyError(key)
        values = {c: table[c][row].as_py() for c in table.column_names}
        if values.get("raw") is not None:
            return values["raw"]
        if not values.get("path"):
            raise KeyError(key)
        start, size = values.get("offset"), values.get("size")
        return [values["path"], start, size] if start or size else [values["path"]]


def _table(tables: Targets, path: str) -> Any:
    """Return a table of references; None if there is none, as where all chunks are missing."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise SourceError(
            f"{scrub(tables.location)} is Parquet; pip install 'geomiam[references]'"
        ) from None
    place = f"{path} in {scrub(tables.location)}"
    try:
        data = tables.read(path)
    except InputNotFound:
        return None
    except NoResponse as error:
        if error.status == 404:
            return None
        raise
    with refusing(SourceError, f"{place} is damaged; write the references again"):
        # texts that are often repeated stay one
        file = parquet.ParquetFile(io.BytesIO(data), read_dictionary=["path", "raw"])
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > MOST_RECORDS or (
            sum(g.total_byte_size for g in groups) > RECORD_BYTES
        ):
            raise SourceError(
                f"{place} has {file.metadata.num_rows:,} references or more than {RECORD_BYTES:,} bytes; write at most "
                f"{MOST_RECORDS:,} in one file, by record_size="
            )
        names = [c for c in ("path", "offset", "size", "raw") if c in file.schema_arrow.names]
        return file.read(columns=names).combine_chunks()


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] in METADATA


def open_references(location: str | Path, allow: tuple[str, ...] = ()) -> References:
    """Read a file of references, by path or URL.

    ``allow`` are folders and URLs that the references may lead to, beside the folder of the file. Raises
    SourceError if the file is not valid, or refers to others.
    """
    text = expand(location).rstrip("/")
    text = text if scheme(text) else str(real_path(text))
    home = text.partition("?")[0].rpartition("/")[0] if scheme(text) else os.path.dirname(text)
    places = (p if scheme(p) not in ("", "file") else str(real_path(p)) for p in allow)
    targets = Targets(text, home, tuple(places))
    is_json = Path(text.partition("?")[0]).suffix.lower() == ".json"
    with refusing(SourceError, f"{scrub(text)} is no valid JSON of references; write it again"):
        document = json.loads(_text(text if is_json else f"{text}/.zmetadata"))
        return (JSONReferences if is_json else ParquetReferences)(targets, document)


def _text(location: str) -> str:
    if scheme(location) in REMOTE:
        allow_list = AllowList((host_of(location),))
        _, body, size = fetch_range(location, (0, MOST_JSON), allow_list)
        if size > MOST_JSON:
            raise SourceError(f"{scrub(location)} has {size:,} bytes, more than {MOST_JSON:,}")
        return body.decode("utf-8-sig")
    return read_text(location, max_bytes=MOST_JSON, error=SourceError)
