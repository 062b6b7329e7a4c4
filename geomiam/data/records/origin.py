"""The source of records, for reports: DOI, query, licence and citation of a download."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from geomiam.checks.xml import first_text, local_name, parse_xml
from geomiam.data.records.archive import Archive
from geomiam.errors import OccurrenceError

DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>]{1,200}")
KEY = re.compile(r"(?<!\d)(\d{7}-\d{6,18})(?!\d)")
"""Identifier of a download of GBIF, which is the name of its file."""
MAX_TEXT = 2**24
"""Largest file of metadata in bytes."""
SHOWN = 20_000
"""Largest number of characters of a query or of rights that are kept."""


def provenance(table: pd.DataFrame) -> dict[str, str]:
    """Return the origin, cleaning and thinning of records as the attribute ``records`` of sites, in JSON."""
    steps = {k: table.attrs[k] for k in ("origin", "cleaning", "thinning") if k in table.attrs}
    return {"records": json.dumps(steps)} if steps else {}


def origin_of(archive: Archive) -> dict[str, Any]:
    """Return what the metadata of an archive state on its source.

    These are some of ``doi``, ``title``, ``query``, ``licence``, ``date``, ``citation``, ``key`` and ``url``, and the number of
    ``datasets``. Raises OccurrenceError if the metadata are no valid XML.
    """
    out: dict[str, Any] = {}
    if match := KEY.search(archive.path.name):
        out["key"] = match[1]
        out["url"] = f"https://www.gbif.org/occurrence/download/{match[1]}"
    names = archive.names
    metadata = next((n for n in ("metadata.xml", "eml.xml") if n in names), None)
    if metadata is not None:
        out |= _of_metadata(archive, metadata)
    if "rights.txt" in names and "licence" not in out:
        out["licence"] = _licences(_text(archive, "rights.txt"))
    if "citations.txt" in names:
        text = _text(archive, "citations.txt")
        out["datasets"] = len([line for line in text.splitlines()[1:] if line.strip()])
        if "doi" not in out and (doi := DOI.search(text.partition("\n\n")[0])):
            out["doi"] = doi[0].rstrip(".,;)")
    if out.get("doi") and not out.get("citation"):
        out["citation"] = citation(out["doi"], title=out.get("title", ""), date=out.get("date", ""))
    return {k: v for k, v in out.items() if v}


def citation(doi: str, *, title: str = "", date: str = "") -> str:
    """Return a citation in the form that GBIF requests for its downloads, or with the title of other data."""
    is_download = doi.lower().startswith("10.15468/dl.")
    parts = ["GBIF.org", date, "GBIF Occurrence Download"] if is_download else [title, date]
    return ", ".join([*(p for p in parts if p), f"https://doi.org/{doi}"])


def _text(archive: Archive, name: str) -> str:
    return archive.read(name, max_bytes=MAX_TEXT).decode("utf-8", errors="replace")


def _of_metadata(archive: Archive, name: str) -> dict[str, Any]:
    """Return the facts of an EML document."""
    root = parse_xml(
        archive.read(name, max_bytes=MAX_TEXT),
        location=f"{name} in {archive.name}",
        error=OccurrenceError,
    )
    dataset = next((e for e in root.iter() if local_name(e) == "dataset"), root)
    title = first_text(dataset, "title")
    identifiers = [
        root.get("packageId", ""),
        *(" ".join(e.itertext()) for e in dataset if local_name(e) == "alternateIdentifier"),
        title,
    ]
    doi = next((m[0] for text in identifiers if (m := DOI.search(text))), "").rstrip(".,;)")
    abstract = first_text(dataset, "abstract")
    query = re.search(r"matching the query:\s*(.*?)\s*(?:The dataset includes|$)", abstract)
    return {
        "doi": doi,
        "title": title,
        "query": query[1][:SHOWN] if query else "",
        "licence": first_text(dataset, "intellectualRights", "licensed")[:SHOWN],
        "date": first_text(dataset, "pubDate"),
        "citation": first_text(root, "citation")[:SHOWN],
    }


def _licences(text: str) -> str:
    """Return the licences of the data sets in ``rights.txt``, each once."""
    lines = [
        line.split(":", 1)[1].strip()
        for line in text.splitlines()
        if line.startswith("Rights as supplied:")
    ]
    return "; ".join(sorted(set(filter(None, lines))))[:SHOWN]
