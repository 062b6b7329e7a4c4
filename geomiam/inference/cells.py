"""Apply a function of arrays to labelled data, block by block; used by predict and shapley.

numpy in → numpy out, dask in → dask out. Building the graph computes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import restore
from geomiam.data.predictors import predictors
from geomiam.errors import MemoryRefused
from geomiam.geo.dims import SITE, is_place, spatial_pair
from geomiam.inference.allocator import keep_freed_memory
from geomiam.model.model import Model
from geomiam.progress import progress_bar
from geomiam.tokens.encode import TokenArrays

DEFAULT_LIMIT = 4 * 2**30
"""Bytes that one dask chunk may need by default."""

SLAB = 8192
"""Rows that are standardised at a time, so that a large array in memory is not copied at once."""


Compute = Callable[..., tuple[np.ndarray, ...]]
"""Function of one block of tokens, or of one per dataset, that returns an array ``(n, ...)`` per output."""


@dataclass(frozen=True)
class Output:
    """One variable of the result: name, dims besides those of place with their labels, dtype, attributes."""

    name: str
    labels: dict[str, Sequence[Any]]
    dtype: np.dtype
    attrs: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dims besides those of place."""
        return tuple(len(v) for v in self.labels.values())

    @property
    def bytes_per_cell(self) -> int:
        """Bytes of the result of one cell."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class BlockTask:
    """The function that runs on each dask chunk: arrays in, arrays out."""

    model: Model
    names: tuple[tuple[str, ...], ...]
    """Variables of each dataset, in the order of the input arrays."""
    compute: Compute
    outputs: tuple[Output, ...]
    alone: bool
    """No other chunk runs at the same time: all cores are used, and a progress bar is shown."""
    clamp: bool = False
    """Values beyond the training range are its nearest limit."""

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...] | np.ndarray:
        """Return ``(*place, *output dims)`` per output from ``(*place, *own dims)`` per variable.

        A single output is returned without a tuple, as ``xarray.apply_ufunc`` requires.
        """
        variables = self.model.schema.variables
        keys = [(i, n) for i, names in enumerate(self.names) for n in names]
        own_dims = [a.shape[a.ndim - len(variables[n].dims) :] for (_, n), a in zip(keys, arrays)]
        place = np.broadcast_shapes(*(a.shape[: a.ndim - len(o)] for a, o in zip(arrays, own_dims)))
        rows: list[dict[str, np.ndarray]] = [{} for _ in self.names]
        for (i, n), a, o in zip(keys, arrays, own_dims):
            rows[i][n] = np.broadcast_to(a, place + o).reshape(-1, *o)
        results = tuple(np.empty((prod(place), *o.shape), o.dtype) for o in self.outputs)
        # In the process that computes: a setting of the client does not reach workers.
        keep_freed_memory()
        with torch_threads(None if self.alone else 1):
            for part in self._slabs(prod(place)):
                blocks = [self._encode({k: v[part] for k, v in r.items()}) for r in rows]
                for result, values in zip(results, self.compute(*blocks)):
                    result[part] = values
        results_in_place = tuple(r.reshape(place + r.shape[1:]) for r in results)
        return results_in_place if len(results_in_place) > 1 else results_in_place[0]

    def _encode(self, rows: dict[str, np.ndarray]) -> TokenArrays:
        n = len(next(iter(rows.values())))
        absent = {k: v for k, v in self.model.schema.variables.items() if k not in rows}
        all_missing = {
            k: np.broadcast_to(np.float32(np.nan), (n, *v.sizes)) for k, v in absent.items()
        }
        return self.model.encode(rows | all_missing, limits=True, clamp=self.clamp)

    def _slabs(self, n: int) -> Iterator[slice]:
        bar_options = {} if self.alone else {"disable": True}
        with progress_bar(total=n, desc="cells", unit="cell", leave=False, **bar_options) as bar:
            for start in range(0, n, SLAB):
                yield slice(start, start + SLAB)
                bar.update(min(SLAB, n - start))


def over_cells(
    ds: xr.Dataset,
    model: Model,
    compute: Compute,
    *,
    outputs: Sequence[Output],
    visible: np.ndarray,
    memory_limit: int | str | None = None,
    also: Sequence[xr.Dataset] = (),
    clamp: bool = False,
) -> xr.Dataset:
    """Apply a function of a block, which returns ``(n, *own dims)`` per output, to every cell or site.

    Dims of an output are first, then those of place in the order of the data. Variables without a token in
    ``visible (t,)`` are not read. The function gets a further block for each dataset of ``also``, which has the
    same cells. ``clamp`` moves values beyond the training range to its nearest limit.
    """
    names = model.layout.variables_of(visible)
    by_name = [predictors(data, model.schema, variables=names) for data in (ds, *also)]
    own_dims = {n: list(model.schema.variables[n].dims) for part in by_name for n in part}
    arrays = [
        a.drop_vars([d for d in own_dims[n] if d in a.coords])
        for arrays_of_data in by_name
        for n, a in arrays_of_data.items()
    ]
    alone = all(a.chunks is None for a in arrays)
    if not alone:
        # A cell needs all its own dims, such as time, in one chunk.
        arrays = [a.chunk({d: -1 for d in own_dims[str(a.name)]}) for a in arrays]
        dims = list(dict.fromkeys(str(d) for a in arrays for d in a.dims if is_place(d)))
        out = sum(o.bytes_per_cell for o in outputs) + len(also) * _predictor_bytes(model)
        check_memory(model, out, cells=_cells_per_block(arrays), limit=memory_limit, dims=dims)
    task = BlockTask(model, tuple(map(tuple, by_name)), compute, tuple(outputs), alone, clamp)
    results = xr.apply_ufunc(
        task,
        *arrays,
        input_core_dims=[own_dims[str(a.name)] for a in arrays],
        output_core_dims=[list(o.labels) for o in outputs],
        dask="parallelized",
        keep_attrs=False,  # else a result had the modality and units of the first predictor
        output_dtypes=[o.dtype for o in outputs],
        dask_gufunc_kwargs={
            "output_sizes": {d: len(v) for o in outputs for d, v in o.labels.items()}
        },
    )
    results = results if isinstance(results, tuple) else (results,)
    maps = _label(ds, results, outputs, model)
    return maps.assign_attrs(clamped=1) if clamp else maps


def _label(
    ds: xr.Dataset, results: Sequence[xr.DataArray], outputs: Sequence[Output], model: Model
) -> xr.Dataset:
    """Return results with names, dims, coordinates, CRS and attributes."""
    out = xr.Dataset()
    place = _place_of(ds, model)
    for result, output in zip(results, outputs):
        result = result.transpose(*output.labels, *(d for d in place if d in result.dims))
        result = result.assign_coords({d: list(v) for d, v in output.labels.items()})
        out[output.name] = result.assign_attrs(output.attrs)
    out.attrs = {
        "model_id": model.id,
        "groups": json.dumps(list(model.schema.groups)),
        "geomiam_version": __version__,
    }
    restorable = SITE in place or spatial_pair(place) is not None  # a single row has no grid
    return restore(out, ds) if restorable and set(place) <= set(out.dims) else out


def _place_of(ds: xr.Dataset, model: Model) -> list[str]:
    """Return the dims of place in the order of the predictors; ``ds.dims`` follows the coordinates."""
    dims = [ds[k].dims for k in model.schema.variables if k in ds] or [tuple(ds.dims)]
    return list(dict.fromkeys(str(d) for names in dims for d in names if is_place(d)))


def check_memory(
    model: Model, out: int, *, cells: int, limit: int | str | None, dims: Sequence[str] = ("y", "x")
) -> int:
    """Return the bytes that one dask chunk needs."""
    from dask.utils import format_bytes, parse_bytes

    limit_bytes = DEFAULT_LIMIT if limit is None else parse_bytes(limit)
    cell_bytes = bytes_per_cell(model, out)
    need = cells * cell_bytes
    if need > limit_bytes:
        side = int((limit_bytes / cell_bytes) ** (1 / max(len(dims), 1)))
        sizes = ", ".join(f"{d}={side}" for d in dims)
        raise MemoryRefused(
            f"a chunk of {cells:,} cells needs {format_bytes(need)} ({cell_bytes:,} bytes per "
            f"cell), over the limit of {format_bytes(limit_bytes)}: use smaller chunks, e.g. "
            f"ds.chunk({sizes}), predict fewer species, or pass memory_limit=..."
        )
    return need


def bytes_per_cell(model: Model, out: int) -> int:
    """Return the bytes that a chunk holds per cell.

    Predictors and results are in memory twice: as arrays of the grid and as rows.
    """
    return 2 * _predictor_bytes(model) + 2 * out


def _predictor_bytes(model: Model) -> int:
    """Return the bytes of all predictors of one cell."""
    return 4 * sum(prod(v.sizes) for v in model.schema.variables.values())


def _cells_per_block(arrays: Sequence[xr.DataArray]) -> int:
    sizes: dict[Any, int] = {}
    for a in arrays:
        for dim, chunks in a.chunksizes.items():
            if is_place(dim):
                # dask splits the chunks of several arrays at the borders of all
                sizes[dim] = min(max(chunks), sizes.get(dim, max(chunks)))
    return prod(sizes.values())


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of torch inside the context.

    Dask runs chunks in parallel, so further threads inside each chunk would compete for the same cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
