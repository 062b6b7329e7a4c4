"""The fields of the ODMAP protocol (Zurell et al. 2020), from the data file beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

MISSING = "to be completed by the author"
"""Text of a field that cannot be filled from the model."""


class Field(NamedTuple):
    """One field of ODMAP."""

    section: str
    element: str
    label: str
    content: str
    """The content that the author states."""


def _read() -> dict[str, Field]:
    text = Path(__file__).with_name("odmap.yaml").read_text(encoding="utf-8")
    return {
        key: Field(section, element, *entry)
        for section, elements in yaml.safe_load(text).items()
        for element, entries in elements.items()
        for key, entry in entries.items()
    }


FIELDS = _read()
"""Fields by key, in the order of the protocol."""
