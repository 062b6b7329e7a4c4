"""Reading of small XML files from archives: without declarations of document types and entities."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from geomiam.checks.files import reason
from geomiam.errors import GeomiamError, UnreadableFile

MAX_DEPTH = 200
"""Largest depth of nested elements."""


def parse_xml(
    data: bytes, *, location: str, error: type[GeomiamError] = UnreadableFile
) -> ElementTree.Element:
    """Return the root element of an XML document; ``location`` is its name in messages.

    Entities can expand to gigabytes or name other files, and they need a declaration of the document
    type. A document with such a declaration is refused before it is expanded, and a damaged one too: both raise
    ``error``.
    """
    depth = 0

    def refuse(*_: Any) -> None:
        raise error(
            f"{location} declares a document type or entities, which are not read: remove the line <!DOCTYPE …>"
        )

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise error(f"{location} has more than {MAX_DEPTH} nested elements; it is not metadata")

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    scan = expat.ParserCreate()
    scan.StartDoctypeDeclHandler = refuse
    scan.EntityDeclHandler = refuse
    scan.StartElementHandler, scan.EndElementHandler = enter, leave
    try:
        scan.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as cause:
        if isinstance(cause, GeomiamError):
            raise
        raise error(f"{location} is no valid XML ({reason(cause)}); fetch it again") from None


def local_name(element: ElementTree.Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def first_text(root: ElementTree.Element, *names: str) -> str:
    """Return the text of the first descendant with one of the names, with single blanks; or no text."""
    for element in root.iter():
        if local_name(element) in names and (text := " ".join("".join(element.itertext()).split())):
            return text
    return ""
