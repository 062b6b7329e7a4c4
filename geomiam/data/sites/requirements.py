"""Requirements of cells: predictors that must be observed, and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.coverage import chunked, gridded, observed_cells
from geomiam.data.grid.grid import place_dims
from geomiam.errors import SelectionError


@dataclass(frozen=True)
class Requirements:
    """Groups of variables, each with at least one observed value in a cell, and a mask."""

    groups: tuple[tuple[str, ...], ...] = ()
    """Variables of each group."""
    mask: str | None = None
    """Variable that is NaN or 0 where cells do not count."""

    @classmethod
    def of(
        cls, cube: xr.Dataset, require: str | Sequence[str] = (), mask: str | None = None
    ) -> Requirements:
        """Return requirements by modalities (of the attribute ``modality``) and variables of a cube.

        Raises
        ------
        SelectionError
            If the cube has no such modality or variable.
        """
        names = (require,) if isinstance(require, str) else tuple(require)
        members: dict[str, list[str]] = {}
        for name in gridded(cube):
            members.setdefault(str(cube[name].attrs.get("modality", name)), []).append(name)
        variables = {name: [name] for name in gridded(cube)}
        choices = variables | members
        if unknown := [n for n in names if n not in choices]:
            raise SelectionError(
                f"require={unknown} is not a modality or variable of the cube; it has modalities "
                f"{list(members)} and variables {list(variables)}"
            )
        if mask is not None and mask not in variables:
            raise SelectionError(
                f"mask='{mask}' is not a variable of the cube; it has {list(variables)}"
            )
        return cls(tuple(tuple(choices[n]) for n in names), mask)

    def candidates(self, cube: xr.Dataset) -> xr.DataArray:
        """Return whether each cell has an observed predictor and satisfies the requirements; lazy."""
        return observed_cells(cube) & self.satisfied(chunked(cube))

    def satisfied(self, ds: xr.Dataset) -> Any:
        """Return whether each cell or site has all required groups and is unmasked; True without any."""
        conditions = [reduce(or_, [_any_finite(ds[v]) for v in group]) for group in self.groups]
        if self.mask is not None:
            conditions.append(unmasked(ds[self.mask]))
        return reduce(and_, conditions, True)


def unmasked(mask: xr.DataArray) -> xr.DataArray:
    """Return where a mask is neither NaN nor 0."""
    values = mask.reset_coords(drop=True)
    return values.notnull() & (abs(values) < np.inf) & (values != 0)


def _any_finite(variable: xr.DataArray) -> xr.DataArray:
    values = variable.reset_coords(drop=True)
    finite = abs(values) < np.inf  # False for NaN
    return finite.any([d for d in finite.dims if d not in place_dims(variable)])
