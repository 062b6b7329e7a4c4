"""Random cells of a cube: the candidates, drawn evenly over the area or with the weights of a bias."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from operator import and_

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.data.sites.bias import Bias, draw_near, rows_of
from geomiam.data.sites.cells import Requirements, read_cells
from geomiam.data.sites.restrictions import Removals, Restrictions
from geomiam.errors import LabelError, SettingError, warn
from geomiam.geo.crs import crs_of

BLOCK = 4_000_000
"""Number of cells processed at a time when drawing. It limits memory, and the drawn cells depend on it."""
ANY = Requirements()
EVERYWHERE = Restrictions()


def random_cells(
    cube: xr.Dataset,
    *,
    n: int | None,
    rng: np.random.Generator,
    requirements: Requirements = ANY,
    bias: Bias | None = None,
    restrictions: Restrictions = EVERYWHERE,
) -> tuple[xr.Dataset, int]:
    """Draw random cells on which a predictor is observed, evenly over the area, and read them.

    Returns variables ``(site, *own dims)`` of at most ``n`` cells (None: all) in random order, and the
    number of candidates. Lazy variables are read chunk by chunk. With ``bias``, cells are drawn with its
    weights in place of equal ones. Raises LabelError without a candidate.
    """
    cube = restore(cube, cube)
    layer = None if bias is None else bias.layer
    mask, removals = _candidate_cells(cube, requirements, layer=layer, restrictions=restrictions)
    candidates = int(mask.sum())
    check_candidates(
        candidates, n, description="cells with an observed predictor", removals=removals
    )
    count = candidates if n is None else min(n, candidates)
    if bias is None or bias.layer is not None:
        rows = None if layer is None else rows_of(layer)
        cells = draw_cells(mask, count, weights=_row_weights(cube), rng=rng, layer=rows)
    else:
        cells = draw_near(mask, count, records=bias.records, km=bias.km, box=geobox(cube), rng=rng)
        if len(cells) < count:
            _report_narrow(len(cells), count, bias)
    return read_cells(cube, cells), candidates


def _candidate_cells(
    cube: xr.Dataset,
    requirements: Requirements,
    *,
    layer: xr.DataArray | None,
    restrictions: Restrictions,
) -> tuple[np.ndarray, Removals]:
    """Return the candidates ``(y, x)``, and the number of cells that weights and each restriction remove."""
    import dask

    conditions = {}
    if layer is not None:
        conditions["bias="] = (layer > 0) & (layer < np.inf)
    if restrictions.envelope:
        conditions["outside_envelope="] = restrictions.outside(cube)
    masks = list(accumulate([requirements.candidates(cube), *conditions.values()], and_))
    negative = False if layer is None else (layer < 0).any()
    mask, sums, is_negative = dask.compute(masks[-1], [m.sum() for m in masks], negative)
    if is_negative:
        raise SettingError(
            "bias= has negative values; weights are at least 0, such as layer.clip(0)"
        )
    removals = dict(zip(conditions, -np.diff([int(s) for s in sums])))
    mask = np.require(mask.transpose(*spatial_dims(cube)).values, requirements=["C", "W"])
    return mask, removals | restrictions.clear(mask, cube)


def _report_narrow(count: int, size: int, bias: Bias) -> None:
    """Warn that the kernel density covers fewer cells than requested; LabelError if it covers none."""
    if not count:
        raise LabelError(
            f"no background can be drawn {bias.text}: it is 0 on all candidates; pass a larger bandwidth"
        )
    warn(
        f"only {count:,} of {size:,} background points could be drawn {bias.text}: few other cells lie near the records; "
        "pass a larger bandwidth or a smaller n"
    )


def check_candidates(
    candidates: int, n: int | None, *, description: str, removals: Removals
) -> None:
    """Raise SettingError if n is no count; LabelError, with the removals, if there is no candidate."""
    if n is not None:
        check_count("n", n, minimum=1, hint="None draws every candidate")
    if candidates:
        return
    if total := sum(removals.values()):
        counts = ", ".join(f"{name} removes {count:,}" for name, count in removals.items())
        raise LabelError(
            f"no background can be drawn: of {total:,} {description}, {counts}; relax these restrictions"
        )
    raise LabelError(
        f"there are no {description}, so no background can be drawn; check gm.coverage(cube, schema)"
    )


def _row_weights(cube: xr.Dataset) -> np.ndarray:
    """Return the relative area of the cells of each row ``(y,)``."""
    lat, crs = cube[spatial_dims(cube)[0]].values, crs_of(cube)
    return np.cos(np.deg2rad(lat)).clip(1e-9) if crs.geographic else np.ones(len(lat))


def draw_cells(
    mask: np.ndarray,
    n: int,
    *,
    weights: np.ndarray,
    rng: np.random.Generator,
    layer: Callable[[int, int], np.ndarray] | None = None,
) -> np.ndarray:
    """Draw at most n cells of a mask ``(y, x)`` without replacement, in random order.

    ``weights`` are those of the cells of each row ``(y,)``, positive; ``layer`` reads further weights of a
    range of rows. Returns rows and columns ``(min(n, candidates), 2)``.
    """
    # Each cell gets an exponential waiting time divided by its weight. The n cells with the shortest
    # times are a weighted sample without replacement (Efraimidis and Spirakis 2006, Information
    # Processing Letters 97). One pass with n cells in memory is sufficient.
    width = mask.shape[1]
    best, waits = np.empty(0, int), np.empty(0)
    step = max(1, BLOCK // max(1, width))
    for start in range(0, len(mask), step):
        cells = np.flatnonzero(mask[start : start + step]) + start * width
        wait = rng.exponential(size=len(cells)) / weights[cells // width]
        if layer is not None:
            wait /= layer(start, min(start + step, len(mask))).ravel()[cells - start * width]
        near = wait < (waits[-1] if len(waits) == n else np.inf)
        best, waits = np.append(best, cells[near]), np.append(waits, wait[near])
        keep = np.argsort(waits, kind="stable")[:n]
        best, waits = best[keep], waits[keep]
    return np.stack(np.divmod(best, width), axis=1)
