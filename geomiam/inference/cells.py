"""From labelled data to blocks and back: the one way in and out for predict and shapley.

numpy in → numpy out, dask in → dask out; nothing is computed while the graph is built.
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
from geomiam.tokens.blocks import Block

DEFAULT_LIMIT = 4 * 2**30
"""Bytes that one block may need unless the caller says otherwise."""

SLAB = 8192
"""Rows standardised and computed at a time, so that a large block in memory is not copied whole."""


@dataclass(frozen=True)
class Output:
    """One variable of the result: its name, its own dims with their labels, dtype and attributes."""

    name: str
    labels: dict[str, Sequence[Any]]
    dtype: np.dtype
    attrs: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the own dims."""
        return tuple(len(v) for v in self.labels.values())

    @property
    def bytes_per_cell(self) -> int:
        """Size of one cell's result."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class BlockTask:
    """What runs on each block, wherever it runs: arrays in, arrays out."""

    model: Model
    names: tuple[str, ...]
    """Variables, in the order of the arrays that come in."""
    compute: Callable[[Block], tuple[np.ndarray, ...]]
    outputs: tuple[Output, ...]
    alone: bool
    """Not one of many workers: all cores may be used and progress visible."""

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...] | np.ndarray:
        """``(*place, *own dims)`` per variable in, ``(*place, *output dims)`` per output out.

        One output comes by itself, as xarray wants it.
        """
        variables = self.model.schema.variables
        own = [a.shape[a.ndim - len(variables[n].dims) :] for n, a in zip(self.names, arrays)]
        place = np.broadcast_shapes(*(a.shape[: a.ndim - len(o)] for a, o in zip(arrays, own)))
        rows = {
            n: np.broadcast_to(a, place + o).reshape(-1, *o)
            for n, a, o in zip(self.names, arrays, own)
        }
        results = tuple(np.empty((prod(place), *o.shape), o.dtype) for o in self.outputs)
        keep_freed_memory()
        with torch_threads(None if self.alone else 1):
            for part in self._slabs(prod(place)):
                block = self._encode({k: v[part] for k, v in rows.items()})
                for result, computed in zip(results, self.compute(block)):
                    result[part] = computed
        made = tuple(r.reshape(place + r.shape[1:]) for r in results)
        return made if len(made) > 1 else made[0]

    def _encode(self, rows: dict[str, np.ndarray]) -> Block:
        n = len(next(iter(rows.values())))
        absent = {k: v for k, v in self.model.schema.variables.items() if k not in rows}
        nothing = {k: np.broadcast_to(np.float32(np.nan), (n, *v.sizes)) for k, v in absent.items()}
        return self.model.encode(rows | nothing, limits=True)

    def _slabs(self, n: int) -> Iterator[slice]:
        look = {} if self.alone else {"disable": True}
        with progress_bar(total=n, desc="cells", unit="cell", leave=False, **look) as bar:
            for start in range(0, n, SLAB):
                yield slice(start, start + SLAB)
                bar.update(min(SLAB, n - start))


def over_cells(
    ds: xr.Dataset,
    model: Model,
    compute: Callable[[Block], tuple[np.ndarray, ...]],
    *,
    outputs: Sequence[Output],
    visible: np.ndarray,
    memory_limit: int | str | None = None,
) -> xr.Dataset:
    """Apply a block function to every cell or site.

    Parameters
    ----------
    ds : xarray.Dataset
        Cube or sites.
    compute : callable
        Block of n rows → one array ``(n, *own dims)`` per output.
    outputs : sequence of Output
    visible : numpy.ndarray
        Boolean ``(t,)``; variables without a visible token are not read.
    memory_limit : int or str, optional
        Most bytes a dask block may need; default 4 GiB.

    Returns
    -------
    xarray.Dataset
        Output dims first, place dims in the order of the data; coordinates and CRS of the data.

    Raises
    ------
    MemoryRefused
        If a block would need more than the limit.
    """
    found = predictors(ds, model.schema, variables=model.layout.variables_of(visible))
    own = {n: list(model.schema.variables[n].dims) for n in found}
    arrays = [a.drop_vars([d for d in own[n] if d in a.coords]) for n, a in found.items()]
    alone = all(a.chunks is None for a in arrays)
    if not alone:
        arrays = [a.chunk({d: -1 for d in own[str(a.name)]}) for a in arrays]
        _promise(arrays, outputs, model, limit=memory_limit)
    task = BlockTask(model, tuple(found), compute, tuple(outputs), alone)
    results = xr.apply_ufunc(
        task,
        *arrays,
        input_core_dims=[own[str(a.name)] for a in arrays],
        output_core_dims=[list(o.labels) for o in outputs],
        dask="parallelized",
        keep_attrs=False,  # a result is not of the modality, flags or units of the first predictor
        output_dtypes=[o.dtype for o in outputs],
        dask_gufunc_kwargs={
            "output_sizes": {d: len(v) for o in outputs for d, v in o.labels.items()}
        },
    )
    results = results if isinstance(results, tuple) else (results,)
    return _label(ds, results, outputs, model)


def _label(
    ds: xr.Dataset, results: Sequence[xr.DataArray], outputs: Sequence[Output], model: Model
) -> xr.Dataset:
    """The single place that puts names, dims, coordinates, CRS and attributes on results."""
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
    restorable = (
        SITE in place or spatial_pair(place) is not None
    )  # a single row has no grid to restore
    return restore(out, ds) if restorable and set(place) <= set(out.dims) else out


def _place_of(ds: xr.Dataset, model: Model) -> list[str]:
    """Dims of place in the order of the predictors; that of ``ds.dims`` follows the coordinates."""
    dims = [ds[k].dims for k in model.schema.variables if k in ds] or [tuple(ds.dims)]
    return list(dict.fromkeys(str(d) for names in dims for d in names if is_place(d)))


def _promise(
    arrays: Sequence[xr.DataArray],
    outputs: Sequence[Output],
    model: Model,
    *,
    limit: int | str | None,
) -> None:
    """Refuse before anything starts what would not fit."""
    out = sum(o.bytes_per_cell for o in outputs)
    dims = list(dict.fromkeys(str(d) for a in arrays for d in a.dims if is_place(d)))
    promise(model, out, cells=_cells_per_block(arrays), limit=limit, dims=dims)


def promise(
    model: Model,
    out: int,
    *,
    cells: int,
    limit: int | str | None,
    dims: Sequence[str] = ("y", "x"),
) -> int:
    """Return the bytes that a block needs; ``out`` are those of one cell's results, ``dims`` of place.

    Raises
    ------
    MemoryRefused
        If they are more than the limit; default 4 GiB.
    """
    from dask.utils import format_bytes, parse_bytes

    most = DEFAULT_LIMIT if limit is None else parse_bytes(limit)
    each = bytes_per_cell(model, out)
    need = cells * each
    if need > most:
        side = int((most / each) ** (1 / max(len(dims), 1)))
        sizes = ", ".join(f"{d}={side}" for d in dims)
        raise MemoryRefused(
            f"a block of {cells:,} cells needs {format_bytes(need)} ({each:,} bytes per "
            f"cell), over the limit of {format_bytes(most)}: use smaller chunks, e.g. "
            f"ds.chunk({sizes}), ask for fewer species, or pass memory_limit=..."
        )
    return need


def bytes_per_cell(model: Model, out: int) -> int:
    """Bytes that a block holds per cell: predictors as read and as rows, results as rows and as grid."""
    values = sum(prod(v.sizes) for v in model.schema.variables.values())
    return 2 * 4 * values + 2 * out


def _cells_per_block(arrays: Sequence[xr.DataArray]) -> int:
    sizes: dict[Any, int] = {}
    for a in arrays:
        for dim, chunks in a.chunksizes.items():
            if is_place(dim):
                smallest = min(
                    max(chunks), sizes.get(dim, max(chunks))
                )  # chunks are unified by splitting
                sizes[dim] = smallest
    return prod(sizes.values())


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Limit torch's threads: dask runs blocks side by side, and threads inside them only collide."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
