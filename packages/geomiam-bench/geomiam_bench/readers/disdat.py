"""The NCEAS presence-only benchmark (Elith et al. 2020), from Parquet files per region.

Layout: ``metadata.json`` and, per region, ``train_po``, ``train_bg``, ``test_env`` and ``test_pa``
as Parquet. The metadata name each region's predictors with modality and type, its groups of species
and the ``published_subset`` of covariates that published comparisons use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import below, expand
from geomiam.schema.schema import Schema

Background = Literal["target-group", "random"]
Groups = Literal["published", "original"]
PUBLISHED_GROUPS = {
    "NSW": {
        "birds": ("db", "nb"),
        "plants": ("ot", "ou", "rt", "ru"),
        "bats": ("ba",),
        "reptiles": ("sr",),
    }
}
"""Groups of the data files that published comparisons merge, by region (Valavi et al. 2021)."""
FILES = ("train_po", "train_bg", "test_env", "test_pa")
PLACE = ("siteid", "group", "x", "y", "lon", "lat")
WATER = ("sabio12", "sabio15", "sabio17", "sabio18")
"""South America has climate alone; its variables are split into precipitation and temperature."""


@dataclass(frozen=True)
class Region:
    """One region of the benchmark: its entry in the metadata and the folder of its files."""

    name: str
    folder: Path
    facts: dict

    @property
    def groups(self) -> dict[str, list[str]]:
        """Species of each taxonomic group."""
        return self.facts["groups"]

    def target_groups(self, groups: Groups) -> list[tuple[set[str], list[str]]]:
        """Groups of the data files, and their species, that share their recorded places."""
        group_names = PUBLISHED_GROUPS.get(self.name, {}) if groups == "published" else {}
        group_names = group_names or {name: (name,) for name in self.groups}
        return [
            (set(names), [s for name in names for s in self.groups.get(name, [])])
            for names in group_names.values()
        ]

    @property
    def species(self) -> list[str]:
        """All species, by name."""
        return sorted(s for names in self.groups.values() for s in names)

    def table(self, name: str) -> pd.DataFrame:
        """One of the four files."""
        return pd.read_parquet(self.folder / f"{name}.parquet")


def regions(folder: str | Path) -> list[str]:
    """Return the regions that a folder holds completely, in the order of its metadata.

    Raises
    ------
    OccurrenceError
        If there is no ``metadata.json``.
    """
    root = Path(expand(folder))
    return [name for name in _metadata(root) if all(_path(root, name, f).exists() for f in FILES)]


def region(folder: str | Path, name: str) -> Region:
    """Return one region.

    Raises
    ------
    OccurrenceError
        If the region, or one of its files, is not there.
    """
    root = Path(expand(folder))
    metadata = _metadata(root)
    if name not in metadata:
        raise OccurrenceError(f"no region '{name}' in {root}; it has {regions(root)}")
    if missing_files := [f for f in FILES if not _path(root, name, f).exists()]:
        raise OccurrenceError(
            f"region '{name}' lacks {[f + '.parquet' for f in missing_files]} in {root / name}"
        )
    return Region(name, below(root, name), metadata[name])


def disdat(
    folder: str | Path,
    name: str,
    *,
    background: Background = "target-group",
    groups: Groups = "published",
) -> tuple[xr.Dataset, xr.Dataset]:
    """Read the training records and the independent survey of one region as sites.

    Parameters
    ----------
    folder : path
        With ``metadata.json`` and one folder per region.
    name : str
        Region, such as ``"AWT"``.
    background : {"target-group", "random"}
        What the presences are contrasted with. ``"target-group"``: every place where any species of
        the same taxonomic group was recorded, that species included. ``"random"``: the region's
        random background sites; where others were recorded counts as not surveyed.
    groups : {"published", "original"}
        Taxonomic groups of the target-group background. ``"published"``: as published comparisons use
        them (Valavi et al. 2021), which merge groups of NSW: birds (db, nb), plants (ot, ou, rt, ru),
        bats (ba) and reptiles (sr). ``"original"``: those of the data files. The survey keeps the
        groups of the files, since each was surveyed at separate places.

    Returns
    -------
    training, survey : xarray.Dataset
        Predictors ``(site)``, ``presence(site, species)`` with NaN where a species' group was not
        surveyed, coordinates ``x, y`` (CRS of the region), ``lon, lat`` and, in the survey, ``group``.
        ``background(site)`` of the training sites marks those whose zeros are background.

    Raises
    ------
    OccurrenceError
        If files are missing, or the background or the groups are unknown.
    """
    if background not in get_args(Background):
        raise OccurrenceError(f"background='{background}' is unknown; use {get_args(Background)}")
    if groups not in get_args(Groups):
        raise OccurrenceError(f"groups='{groups}' is unknown; use {get_args(Groups)}")
    region_files = region(folder, name)
    return _training(region_files, background, groups), _survey(region_files)


def disdat_schema(
    folder: str | Path, name: str, *, covariates: Literal["published", "all"] = "published"
) -> Schema:
    """Return the schema of a region's predictors: the decorrelated published subset, or all.

    Coordinates are never among them. South America's single modality is split into temperature and
    water, so that every region has something to hide.

    Raises
    ------
    OccurrenceError
        If the region is not there.
    """
    metadata = region(folder, name).facts
    covariate_names = (
        metadata["published_subset"] if covariates == "published" else list(metadata["predictors"])
    )
    modalities: dict[str, dict] = {}
    for variable in covariate_names:
        covariate = metadata["predictors"][variable]
        variables = modalities.setdefault(
            _modality(variable, covariate["modality"]), {"variables": {}}
        )
        variables["variables"][variable] = _variable(covariate)
    return Schema.from_dict({"name": f"disdat-{name}", "modalities": modalities})


def _variable(fact: dict) -> dict:
    kind = "categorical" if fact["type"] == "categorical" else "scalar"
    return {"kind": kind, "units": fact["units"], "long_name": fact["description"]}


def _modality(variable: str, modality: str) -> str:
    if variable.startswith("sabio"):
        return "water" if variable in WATER else "temperature"
    return modality


def _training(region_files: Region, background: Background, groups: Groups) -> xr.Dataset:
    records = region_files.table("train_po")
    places = records.drop_duplicates(["x", "y"]).reset_index(drop=True)
    index = pd.MultiIndex.from_frame(places[["x", "y"]])
    row = index.get_indexer(pd.MultiIndex.from_frame(records[["x", "y"]]))
    column = {s: i for i, s in enumerate(region_files.species)}
    labels: np.ndarray = np.full((len(places), len(column)), np.nan, np.float32)
    if background == "target-group":
        for members, names in region_files.target_groups(groups):
            at = np.unique(row[records["group"].isin(members).to_numpy()])
            labels[np.ix_(at, np.array([column[s] for s in names], int))] = 0
    labels[row, records["species"].map(column)] = 1
    if background == "random":
        random = region_files.table("train_bg")
        places = pd.concat([places, random], ignore_index=True)
        labels = np.concatenate([labels, np.zeros((len(random), len(column)), np.float32)])
    sites = _sites(region_files, places, labels).assign_attrs(background_kind=background)
    return sites.assign_coords(background=("site", (labels == 0).any(1)))


def _survey(region_files: Region) -> xr.Dataset:
    places, survey_table = region_files.table("test_env"), region_files.table("test_pa")
    labels = survey_table.reindex(columns=region_files.species).to_numpy(
        dtype=np.float32, na_value=np.nan
    )
    return _sites(region_files, places, labels)


def _sites(region_files: Region, places: pd.DataFrame, labels: np.ndarray) -> xr.Dataset:
    variables = {
        n: (
            "site",
            places[n].to_numpy(np.float32),
            {"units": f["units"], "modality": _modality(n, f["modality"])},
        )
        for n, f in region_files.facts["predictors"].items()
    }
    coords = {
        n: ("site", places[n].to_numpy()) for n in PLACE if n in places and places[n].notna().all()
    }
    return xr.Dataset(
        {**variables, "presence": (("site", "species"), labels)},
        coords={**coords, "species": region_files.species},
        attrs={"region": region_files.name, "crs": f"EPSG:{region_files.facts['epsg']}"},
    )


def _metadata(folder: Path) -> dict:
    path = folder / "metadata.json"
    if not path.exists():
        raise OccurrenceError(
            f"no metadata.json in {folder}: pass the folder that holds it and one folder per region"
        )
    return json.loads(path.read_text())


def _path(folder: Path, name: str, file: str) -> Path:
    return below(folder, name) / f"{file}.parquet"
