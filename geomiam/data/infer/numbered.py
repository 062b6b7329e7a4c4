"""Modalities of numbered layers, such as bio1 … bio19, prec_01 … prec_12 or A00 … A63."""

from __future__ import annotations

import re
from collections.abc import Iterable

BIOCLIM = re.compile(r"(?:^|.*[^a-z])bio(?:clim)?[_\-. ]?0?([1-9]|1\d)(?!\d).*", re.IGNORECASE)
MIN_LAYERS = 3
"""Smallest number of layers with equal names except for numbers that form one modality."""


def modalities_of(names: Iterable[str]) -> dict[str, str]:
    """Return the modality of each numbered layer; other names are left out.

    Two or more bioclimatic variables (``bio_01``, ``wc2.1_10m_bio_12``, ``CHELSA_bio12_1981-2010_V.2.1``)
    are the modality ``bioclim``. Three or more other names that are equal except for their numbers are
    one modality, with the common part of their names.
    """
    names = list(names)
    bioclim = [n for n in names if BIOCLIM.fullmatch(n)]
    homes = dict.fromkeys(bioclim, "bioclim") if len(bioclim) > 1 else {}
    stems: dict[str, list[str]] = {}
    for name in (n for n in names if n not in homes and re.search(r"\d", n)):
        stems.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    for stem, members in stems.items():
        if len(members) >= MIN_LAYERS:
            homes |= dict.fromkeys(members, _common_name(members, stem))
    return homes


def _common_name(members: list[str], stem: str) -> str:
    """Return the common part of numbered names, with numbers that do not vary."""
    numbers = list(zip(*(re.findall(r"\d+", m) for m in members)))
    fixed = iter(n[0] if len(set(n)) == 1 else "" for n in numbers)
    text = re.sub("#", lambda _: next(fixed), stem)
    return re.sub(r"([_\-. ])[_\-. ]+", r"\1", text).strip("_-. ") or "layers"
