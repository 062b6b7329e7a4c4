"""Layers that are numbered belong together: bio1 … bio19, prec_01 … prec_12, A00 … A63."""

from __future__ import annotations

import re
from collections.abc import Iterable

BIOCLIM = re.compile(r"(?:^|.*[^a-z])bio(?:clim)?[_\-. ]?0?([1-9]|1\d)(?!\d).*", re.IGNORECASE)
LEAST = 3
"""Layers of one name but for their number that are one modality."""


def modalities_of(names: Iterable[str]) -> dict[str, str]:
    """Return name → modality for numbered layers; names that stand alone are left out.

    Bioclimatic variables (``bio_01``, ``wc2.1_10m_bio_12``, ``CHELSA_bio12_1981-2010_V.2.1``) are one
    modality ``bioclim`` where there are two or more. Three or more other names that are equal but for
    their numbers are one modality, called by what they share.
    """
    names = list(names)
    bioclim = [n for n in names if BIOCLIM.fullmatch(n)]
    homes = dict.fromkeys(bioclim, "bioclim") if len(bioclim) > 1 else {}
    stems: dict[str, list[str]] = {}
    for name in (n for n in names if n not in homes and re.search(r"\d", n)):
        stems.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    for stem, members in stems.items():
        if len(members) >= LEAST:
            homes |= dict.fromkeys(members, _shared(members, stem))
    return homes


def _shared(members: list[str], stem: str) -> str:
    """Return the text that numbered names share; numbers that do not vary stay."""
    numbers = list(zip(*(re.findall(r"\d+", m) for m in members)))
    fixed = iter(n[0] if len(set(n)) == 1 else "" for n in numbers)
    text = re.sub("#", lambda _: next(fixed), stem)
    return re.sub(r"([_\-. ])[_\-. ]+", r"\1", text).strip("_-. ") or "layers"
