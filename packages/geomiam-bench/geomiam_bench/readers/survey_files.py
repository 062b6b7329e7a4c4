"""The files of GeoPlant and of the GeoLifeCLEF challenges 2024 and 2025, in whatever folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import check_component
from geomiam_bench.readers.files import nothing_found, walk

Source = Literal["PA", "PO"]
KEY = "surveyId"
CUBE = re.compile(r"(\d+)_cube\.pt")
IMAGES = (".jpeg", ".jpg", ".tif", ".tiff")
VARIANTS = {"iid", "ood", "glc25"}


@dataclass(frozen=True)
class SurveyFiles:
    """The files of one source and split below a folder, told by the words in their paths."""

    root: Path
    source: Source
    split: str
    files: tuple[Path, ...]
    sharded: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path, source: Source, split: str) -> SurveyFiles:
        """Walk a folder once.

        Raises
        ------
        OccurrenceError
            If the source is unknown.
        """
        if source not in get_args(Source):
            raise OccurrenceError(f"source='{source}' is unknown; use {get_args(Source)}")
        files, sharded = walk(root)
        return cls(root, source, split, tuple(files), tuple(sharded))

    def fits(self, path: Path) -> bool:
        """Whether a path says neither another source nor another split."""
        said = self.words(path)
        source = said & {"pa", "po"} <= {self.source.lower()}
        first, *variants = self.split.lower().split("-")
        split = said & {"train", "test"} <= {first}
        return source and split and said & VARIANTS <= set(variants)

    def words(self, path: Path) -> set[str]:
        """The words of a path below the folder; a challenge's name in front is none of them."""
        parts = [re.sub(r"^glc\d\d[-_]", "", p.lower()) for p in path.relative_to(self.root).parts]
        words = {w for p in parts for w in re.split(r"[^a-z0-9]+", p)}
        return words | ({"po"} if "p0" in words else set())

    def tables(self, pattern: str) -> list[Path]:
        """Tables whose name fits a pattern, the last the newest."""
        named = [p for p in self.files if re.search(pattern, p.name.lower())]
        return [p for p in named if p.suffix.lower() == ".csv" and self.fits(p)]

    def records(self) -> pd.DataFrame:
        """Metadata: one row per survey, or per survey and species.

        Raises
        ------
        OccurrenceError
            If there are none, or they lack a column.
        """
        found = sorted(self.tables("metadata"), key=lambda p: (len(p.name), p))
        exact = [p for p in found if self.split.lower().split("-")[0] in self.words(p)]
        if not (exact or found):
            raise nothing_found(self.root, [f"*{self.source}*metadata*{self.split}*.csv"])
        path = (exact or found)[0]
        table = pd.read_csv(path)
        if lost := [c for c in (KEY, "lon", "lat") if c not in table]:
            raise OccurrenceError(f"{path} has no columns {lost}, found {list(table.columns)}")
        return table[table["subset"] == self.split] if "subset" in table else table

    @cached_property
    def cubes(self) -> dict[str, dict[int, Path]]:
        """Cubes of climate and Landsat by survey."""
        found: dict[str, dict[int, Path]] = {"bioclim": {}, "landsat": {}}
        for path in self.files:
            match = CUBE.search(path.name)
            kind = next((k for k in found if k in path.name.lower()), None)
            if match and kind and self.fits(path):
                found[kind][int(match[1])] = path
        return found

    def patch_folders(self) -> dict[str, list[Path]]:
        """Sharded folders by what their path says: rgb, nir, or all bands in one."""
        found: dict[str, list[Path]] = {"rgb": [], "nir": [], "all": []}
        for folder in filter(self.fits, self.sharded):
            said = self.words(folder)
            found[next((k for k in ("rgb", "nir") if k in said), "all")].append(folder)
        return found

    def patches(self, ids: np.ndarray) -> dict[str, list[Path | None]]:
        """Images of surveys, by kind: ``ABCD`` lies in ``CD/AB/``."""
        folders = {k: f for k, f in self.patch_folders().items() if f}
        return {k: [image_of(f, str(i)) for i in ids] for k, f in folders.items()}


def image_of(folders: Sequence[Path], survey: str, *, end: str = "") -> Path | None:
    """The image of a survey ``…ABCD`` in ``CD/AB/``, its name ending in ``end`` and a suffix."""
    check_component(survey)  # from a table: never a path
    inside = Path(survey[-2:]) / survey[-4:-2]
    places = (f / inside / f"{survey}{end}{suffix}" for f in folders for suffix in IMAGES)
    return next((path for path in places if path.is_file()), None)
