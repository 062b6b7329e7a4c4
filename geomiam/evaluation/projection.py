"""Maps of a model for several scenarios, and the table that compares them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from geomiam.data.store.store import open_zarr, write_zarr
from geomiam.errors import SelectionError
from geomiam.outputs.kinds import MAP


@dataclass(frozen=True, eq=False)
class Projection:
    """Maps of a model for several scenarios, returned by :func:`geomiam.project`.

    Attributes
    ----------
    maps : xarray.DataTree
        Maps of :func:`geomiam.predict` at the paths of the scenarios. Their attributes state ``left_out``
        (JSON list), ``skill``, ``skill_all`` and ``skill_from``.
    table : pandas.DataFrame
        One row per scenario: the predictors that were left out, the skill without them and with all, and
        the mean share of predictors outside the training range.

    Examples
    --------
    >>> projection = gm.project(model, {"now": cube, "2070": cube.drop_vars(["landsat", "chip"])})
    >>> projection.table.loc["2070", "left_out"]
    'landsat, chip'
    """

    maps: xr.DataTree
    table: pd.DataFrame

    def __getitem__(self, scenario: str) -> xr.Dataset:
        """Return the maps of one scenario."""
        return self.maps[scenario].to_dataset()

    def stacked(self) -> xr.Dataset:
        """Return the maps of all scenarios, which lie on one grid, along the dim ``scenario``."""
        names = list(self.table.index)
        parts = [self[n] for n in names]
        shared_names = set.intersection(*({str(v) for v in p.data_vars} for p in parts))
        parts = [p[[n for n in p.data_vars if n in shared_names]] for p in parts]
        out = xr.concat(
            parts,
            "scenario",
            join="exact",
            coords="minimal",
            compat="override",
            combine_attrs="drop_conflicts",
        )
        return out.assign_coords(scenario=names)

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the maps as one Zarr store, which appears at its path when complete.

        The group of a scenario is a map: ``maps.zarr/2070`` can be opened, exported and classified like any
        other.

        Parameters
        ----------
        path : str or pathlib.Path
        overwrite : bool
            Whether to replace an earlier projection or map.

        Returns
        -------
        pathlib.Path
            The store.

        Raises
        ------
        OutputExists, OutputRefused
            If the path exists and ``overwrite`` is False, or it is not a map of geomiam.
        NameRefused
            If the name of a scenario cannot be the name of a folder.

        Examples
        --------
        >>> path = gm.project(model, {"2070": cube}).write("maps.zarr")
        >>> gm.Projection.open(path).table.index.tolist()
        ['2070']
        """
        tree = self.maps.copy()
        tree.attrs = {**tree.attrs, "scenarios": list(self.table.index)}  # groups have no order
        return write_zarr(tree, path, overwrite=overwrite, kind=MAP)

    @classmethod
    def open(cls, path: str | Path) -> Projection:
        """Open a projection that was written with :meth:`write`; its maps are lazy.

        Parameters
        ----------
        path : str or pathlib.Path

        Returns
        -------
        Projection

        Raises
        ------
        SelectionError
            If the store has no group with a map of a projection.
        InputNotFound, UnreadableFile
            If there is no Zarr store, or it is damaged.

        Examples
        --------
        >>> path = gm.project(model, {"2070": cube}).write("future.zarr")
        >>> gm.Projection.open(path)["2070"]["suitability"].dims
        ('species', 'y', 'x')
        """
        tree = open_zarr(path)
        leaves = tree.leaves if isinstance(tree, xr.DataTree) else ()
        stored_maps = {n.path.strip("/"): n.to_dataset() for n in leaves if "left_out" in n.attrs}
        names = [str(n) for n in tree.attrs.get("scenarios", ())]
        if not names or not set(names) <= set(stored_maps):
            raise SelectionError(
                f"{path} is no projection: write one with gm.project(model, scenarios).write(path)"
            )
        return cls(tree, scenario_table({n: stored_maps[n] for n in names}, lazy=False))

    def __repr__(self) -> str:
        return f"projection to {len(self.table)} scenarios\n{self.table.to_string()}"


def scenario_table(maps: Mapping[str, xr.Dataset], *, lazy: bool = True) -> pd.DataFrame:
    """Return a row per scenario from the attributes of its map; ``lazy`` maps are not computed."""
    rows: dict[str, dict[str, Any]] = {}
    for name, ds in maps.items():
        skill, best = (float(ds.attrs.get(k, math.nan)) for k in ("skill", "skill_all"))
        rows[name] = {
            "left_out": ", ".join(json.loads(ds.attrs["left_out"])),
            "skill": skill,
            "skill_all": best,
            "skill_loss": best - skill,
            "skill_from": ds.attrs["skill_from"],
            "outside_range": _outside(ds, lazy=lazy),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scenario")


def _outside(maps: xr.Dataset, *, lazy: bool) -> float:
    """Return the mean share of predictors outside the training range; NaN for maps that stay lazy."""
    if "outside_range" not in maps or (lazy and maps["outside_range"].chunks is not None):
        return math.nan
    return float(maps["outside_range"].mean())
