"""A map split into blocks, in the order of its dims of place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import place_dims
from geomiam.data.store.encoding import chunk_sizes

SIDE = 512
"""Cells along y and x of a block, if the cube has no chunks."""
SAMPLED = 5
"""Blocks that are read to compare ranges and to compute the fingerprint of the input."""
Index = tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """A map split into blocks, in the order of its dims of place."""

    sizes: Mapping[str, int]
    steps: Mapping[str, int]
    layers: Mapping[str, int] = field(default_factory=dict)
    """Requested chunks along other dims, such as species."""

    @classmethod
    def of(
        cls,
        ds: xr.Dataset,
        chunks: Mapping[str, int] | str | None = None,
        *,
        layers: Mapping[str, int] | None = None,
    ) -> Blocks:
        """Split along the requested chunks, or along those of the cube.

        Parameters
        ----------
        ds
            Cube or sites.
        chunks
            Sizes as in ``xarray.Dataset.chunk``: numbers, -1 or "auto".
        layers
            Sizes of the other dims of the map, such as species.

        Raises
        ------
        GridError
            For a dim that the map does not have, or a size that is not a number of cells.
        """
        sizes = {str(d): ds.sizes[d] for d in place_dims(ds)}
        side = SIDE if len(sizes) > 1 else SIDE**2
        dims = sizes | dict(layers or {})
        requested_chunks = dict.fromkeys(sizes, "auto") if chunks == "auto" else chunks
        cells_per_chunk = chunk_sizes(requested_chunks, dims, automatic=side)
        steps = {d: min(n, cells_per_chunk.get(d) or _step(ds, d)) for d, n in sizes.items()}
        return cls(sizes, steps, {d: n for d, n in cells_per_chunk.items() if d not in sizes})

    @property
    def shape(self) -> Index:
        """Number of blocks along each dim of place."""
        return tuple(ceil(n / self.steps[d]) for d, n in self.sizes.items())

    @property
    def count(self) -> int:
        """Number of blocks."""
        return prod(self.shape)

    @property
    def cells_of_one(self) -> int:
        """Number of cells of the largest block."""
        return prod(self.steps.values())

    @property
    def cells(self) -> int:
        """Number of cells of the map."""
        return prod(self.sizes.values())

    def window(self, index: Index) -> dict[str, slice]:
        """Return the slices of a block along the dims of place."""
        return {
            d: slice(i * self.steps[d], min((i + 1) * self.steps[d], n))
            for i, (d, n) in zip(index, self.sizes.items())
        }

    def cells_in(self, index: Index) -> int:
        """Return the number of cells of one block; blocks at the edges are smaller."""
        return prod(s.stop - s.start for s in self.window(index).values())

    def examples(self) -> Iterator[Index]:
        """Yield :data:`SAMPLED` blocks, evenly spread."""
        numbers = np.linspace(0, self.count - 1, min(SAMPLED, self.count)).astype(int)
        return (tuple(map(int, np.unravel_index(n, self.shape))) for n in np.unique(numbers))


def _step(ds: xr.Dataset, dim: str) -> int:
    """Return the size of the smallest chunks of the cube: those of dask, or those on disk."""
    lazy: list[int] = [max(v.chunksizes[dim]) for v in ds.variables.values() if dim in v.chunksizes]
    on_disk: list[int | None] = [
        v.encoding.get("preferred_chunks", {}).get(dim) for v in ds.data_vars.values()
    ]
    side = SIDE if len(place_dims(ds)) > 1 else SIDE**2
    return min(lazy or [n for n in on_disk if n] or [side])
