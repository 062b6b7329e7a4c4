"""The dask graph of one block, built once for blocks of equal shape and then computed with the data of each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

Arrays = dict[str, tuple[tuple[Hashable, ...], Any, dict[str, Any]]]
"""Dims, key in the graph, and attributes of each variable."""


@dataclass(frozen=True)
class BlockGraph:
    """Tasks whose inputs are the predictors of a block.

    Labels and the graph take some 20 ms to build, which is much beside a small network.
    """

    tasks: dict[Any, Any]
    inputs: dict[str, Any]
    """Key of the values of each predictor."""
    outputs: Arrays

    @classmethod
    def of(cls, compute: Callable[[xr.Dataset], xr.Dataset], part: xr.Dataset) -> BlockGraph:
        """Build the graph of a lazy function from a block whose values are not used."""
        import dask.array as da

        arrays, inputs = {}, {}
        for name, v in part.data_vars.items():
            key = (f"block-{name}", *(0 for _ in v.dims))
            chunks = tuple((n,) for n in v.shape)
            options: dict[str, Any] = {"dtype": v.dtype, "meta": np.empty((0,) * v.ndim, v.dtype)}
            arrays[name] = da.Array({key: None}, key[0], chunks, **options)
            inputs[str(name)] = key
        maps = compute(part.copy(data=arrays))
        tasks: dict[Any, Any] = {}
        outputs: Arrays = {}
        for name, v in maps.data_vars.items():
            if v.chunks is not None:
                # a layer of fewer groups than the map is padded by a second chunk
                array = v.data.rechunk(v.shape)
                tasks |= dict(array.dask)
                outputs[str(name)] = (v.dims, (array.name, *(0 for _ in v.dims)), v.attrs)
        return cls(tasks, inputs, outputs)

    def __call__(self, part: xr.Dataset) -> xr.Dataset:
        """Return the lazy variables of the function for a block in memory, without coordinates."""
        import dask

        values = {key: part[name].values for name, key in self.inputs.items()}
        results = dask.get(self.tasks | values, [key for _, key, _ in self.outputs.values()])
        layers = zip(self.outputs.items(), results, strict=True)
        return xr.Dataset({n: (dims, r, attrs) for (n, (dims, _, attrs)), r in layers})
