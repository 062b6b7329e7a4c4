"""The files of GeoPlant and of the GeoLifeCLEF challenges 2024 and 2025, in any folders."""

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
    """The files of one source and split below a folder, identified by the words in their paths."""

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
        files, digit_folders = walk(root)
        return cls(root, source, split, tuple(files), tuple(digit_folders))

    def fits(self, path: Path) -> bool:
        """Return whether a path names neither another source nor another split."""
        path_words = self.words(path)
        source = path_words & {"pa", "po"} <= {self.source.lower()}
        first, *variants = self.split.lower().split("-")
        split = path_words & {"train", "test"} <= {first}
        return source and split and path_words & VARIANTS <= set(variants)

    def words(self, path: Path) -> set[str]:
        """Return the words of a path below the folder, without the name of a challenge in front."""
        parts = [re.sub(r"^glc\d\d[-_]", "", p.lower()) for p in path.relative_to(self.root).parts]
        words = {w for p in parts for w in re.split(r"[^a-z0-9]+", p)}
        return words | ({"po"} if "p0" in words else set())

    def tables(self, pattern: str) -> list[Path]:
        """Return the tables whose name matches a pattern."""
        matching_paths = [p for p in self.files if re.search(pattern, p.name.lower())]
        return [p for p in matching_paths if p.suffix.lower() == ".csv" and self.fits(p)]

    def records(self) -> pd.DataFrame:
        """Metadata: one row per survey, or per survey and species.

        Raises
        ------
        OccurrenceError
            If there are none, or they lack a column.
        """
        metadata_paths = sorted(self.tables("metadata"), key=lambda p: (len(p.name), p))
        exact = [p for p in metadata_paths if self.split.lower().split("-")[0] in self.words(p)]
        if not (exact or metadata_paths):
            raise nothing_found(self.root, [f"*{self.source}*metadata*{self.split}*.csv"])
        path = (exact or metadata_paths)[0]
        table = pd.read_csv(path)
        if missing_columns := [c for c in (KEY, "lon", "lat") if c not in table]:
            raise OccurrenceError(
                f"{path} has no columns {missing_columns}, found {list(table.columns)}"
            )
        return table[table["subset"] == self.split] if "subset" in table else table

    @cached_property
    def cubes(self) -> dict[str, dict[int, Path]]:
        """Cubes of climate and Landsat by survey."""
        cube_paths: dict[str, dict[int, Path]] = {"bioclim": {}, "landsat": {}}
        for path in self.files:
            match = CUBE.search(path.name)
            kind = next((k for k in cube_paths if k in path.name.lower()), None)
            if match and kind and self.fits(path):
                cube_paths[kind][int(match[1])] = path
        return cube_paths

    def patch_folders(self) -> dict[str, list[Path]]:
        """Return the sharded folders by the bands in their path: rgb, nir, or all bands in one."""
        folders_by_kind: dict[str, list[Path]] = {"rgb": [], "nir": [], "all": []}
        for folder in filter(self.fits, self.sharded):
            path_words = self.words(folder)
            folders_by_kind[next((k for k in ("rgb", "nir") if k in path_words), "all")].append(
                folder
            )
        return folders_by_kind

    def patches(self, ids: np.ndarray) -> dict[str, list[Path | None]]:
        """Return the images of surveys, by kind: ``ABCD`` lies in ``CD/AB/``."""
        folders = {k: f for k, f in self.patch_folders().items() if f}
        return {k: [image_of(f, str(i)) for i in ids] for k, f in folders.items()}


def image_of(folders: Sequence[Path], survey: str, *, end: str = "") -> Path | None:
    """Return the image of a survey ``…ABCD`` in ``CD/AB/``, its name ending in ``end`` and a suffix."""
    check_component(survey)  # ids come from a table and must not contain a path
    inside = Path(survey[-2:]) / survey[-4:-2]
    places = (f / inside / f"{survey}{end}{suffix}" for f in folders for suffix in IMAGES)
    return next((path for path in places if path.is_file()), None)
