"""Dates in the links of a static STAC catalog, by which documents outside a period are not read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ACQUIRED = re.compile(
    r"(?:S2[A-D]?_(?!OPER)(?:[^_]+_){1,2}|L[CET]\d\d_L2S[PR]_\d{6}_|S1[A-D]_(?:[^_]+_+){3})"
    r"((?:19|20)\d{6})(?!\d)"
)
"""Name of a product of Sentinel-2, Landsat or Sentinel-1; its first date is that of the acquisition."""
MONTH = re.compile(r"(?<![^/])((?:19|20)\d\d)[/-](0?[1-9]|1[0-2])(?=[/.-]|$)")
"""Year and month of a path, such as ``2020/3/`` or ``2020-03-15.json``. A day is not read, since ``2020/3/31/`` may
be followed by a tile: 31 is a zone of UTM, too."""
SEPARATOR = re.compile(r"[/\\]+")

Link = Mapping[str, Any]


class LinkDates:
    """Selects the links of a catalog by the dates of acquisition in names of products, or in folders.

    Folders count below the document at which the search starts: those above were named by the user.
    """

    def __init__(self, top: str, start: str, end: str) -> None:
        # one day more at both ends: a path may have the local date
        ends = (np.datetime64(start[:10]) - 1, np.datetime64(end[:10]) + 1)
        self._first, self._last = (str(day).replace("-", "") for day in ends)
        self._root = SEPARATOR.split(top)[:-1]
        self.skipped = {"item": 0, "child": 0}

    def selected(self, base: str, links: Sequence[Link]) -> list[Link]:
        """Return the links of a document without those to items or catalogs outside the period."""
        folder = SEPARATOR.split(base)[:-1]
        selection = []
        for link in links:
            if self._is_outside(folder, link):
                self.skipped[link["rel"]] += 1
            else:
                selection.append(link)
        return selection

    def note(self) -> str:
        """Return a note on what was not read; empty if all was."""
        items, catalogs = self.skipped["item"], self.skipped["child"]
        counts = [f"{items} items"] * bool(items) + [f"{catalogs} catalogs"] * bool(catalogs)
        if not counts:
            return ""
        return (
            f"{' and '.join(counts)} were not read: by the dates in their names or folders they are outside the "
            "period"
        )

    def _is_outside(self, folder: list[str], link: Link) -> bool:
        href, title = link.get("href"), link.get("title")
        if not isinstance(href, str):
            return False
        parts = self._below_root(folder, href)
        if link["rel"] == "item":
            for name in (*parts[:-3:-1], title):  # its file, its folder, its title
                if isinstance(name, str) and (match := ACQUIRED.match(name)):
                    return not self._first <= match[1] <= self._last
        months = {f"{y}{int(m):02d}" for y, m in MONTH.findall("/".join(parts))}
        if len(months) != 1:  # none, or also the month of the processing
            return False
        return not self._first[:6] <= months.pop() <= self._last[:6]

    def _below_root(self, folder: list[str], href: str) -> list[str]:
        """Return the parts of a link's path below the folder of the top; only its file for other places."""
        parts, depth = SEPARATOR.split(href.partition("?")[0]), len(self._root)
        is_absolute = parts[0] == "" or parts[0].endswith(":")  # /…, https://…, C:/…
        if not is_absolute:
            parts = _joined(folder, parts)
        return parts[depth:] if parts[:depth] == self._root else parts[-1:]


def _joined(folder: list[str], parts: list[str]) -> list[str]:
    """Return the parts of a relative path from a folder."""
    path = list(folder)
    for part in parts[:-1]:
        if part == "..":
            path = path[:-1]
        elif part != ".":
            path.append(part)
    return [*path, parts[-1]]
