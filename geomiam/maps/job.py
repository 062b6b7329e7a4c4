"""One block of a map: which cells, what is answered there, and where it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import place_dims
from geomiam.data.store.encoding import chunk_sizes
from geomiam.explain.shapley import shapley as explain
from geomiam.geo.crs import crs_coordinate
from geomiam.inference.outside import counts, outside_output, warn_of_counts
from geomiam.inference.predict import predict
from geomiam.inference.required import count_few
from geomiam.maps.memory import peak_memory
from geomiam.model.model import Model
from geomiam.tokens.select import group_masks, visible_tokens

DONE = "done"
"""Array of the unfinished store: one cell per block, 0 or 1 + the number of cells answered."""
SIDE = 512
"""Cells along y and x of a block, where the cube has no chunks."""
SAMPLED = 5
"""Blocks whose values stand for the whole input."""
Index = tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """A map cut into blocks, in the order of its place dims."""

    sizes: Mapping[str, int]
    steps: Mapping[str, int]
    layers: Mapping[str, int] = field(default_factory=dict)
    """Chunks asked for along other dims, such as species."""

    @classmethod
    def of(
        cls,
        ds: xr.Dataset,
        chunks: Mapping[str, int] | str | None = None,
        *,
        layers: Mapping[str, int] | None = None,
    ) -> Blocks:
        """Cut along the chunks asked for, else along those of the cube.

        Parameters
        ----------
        ds
            Cube or sites.
        chunks
            As ``xarray.Dataset.chunk`` takes them: numbers, -1 or "auto".
        layers
            Sizes of the other dims of the map, such as species.

        Raises
        ------
        GridError
            For a dim that the map does not have, or a size that is no number of cells.
        """
        sizes = {str(d): ds.sizes[d] for d in place_dims(ds)}
        side = SIDE if len(sizes) > 1 else SIDE**2
        dims = sizes | dict(layers or {})
        if chunks == "auto":
            chunks = dict.fromkeys(sizes, "auto")  # type: ignore[arg-type]
        cells_per_chunk = chunk_sizes(chunks, dims, automatic=side)
        steps = {d: min(n, cells_per_chunk.get(d) or _step(ds, d)) for d, n in sizes.items()}
        return cls(sizes, steps, {d: n for d, n in cells_per_chunk.items() if d not in sizes})

    @property
    def shape(self) -> Index:
        """Blocks along each place dim."""
        return tuple(ceil(n / self.steps[d]) for d, n in self.sizes.items())

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return prod(self.shape)

    @property
    def cells_of_one(self) -> int:
        """Cells of the largest block."""
        return prod(self.steps.values())

    @property
    def cells(self) -> int:
        """Cells of the map."""
        return prod(self.sizes.values())

    def window(self, index: Index) -> dict[str, slice]:
        """Return the cells of a block, as slices of place dims."""
        return {
            d: slice(i * self.steps[d], min((i + 1) * self.steps[d], n))
            for i, (d, n) in zip(index, self.sizes.items())
        }

    def cells_in(self, index: Index) -> int:
        """Cells of one block; those at the edges are smaller."""
        return prod(s.stop - s.start for s in self.window(index).values())

    def some(self) -> Iterator[Index]:
        """Yield a few blocks, evenly spread."""
        numbers = np.linspace(0, self.count - 1, min(SAMPLED, self.count)).astype(int)
        return (tuple(map(int, np.unravel_index(n, self.shape))) for n in np.unique(numbers))


def _step(ds: xr.Dataset, dim: str) -> int:
    """Side of the cube's smallest chunks: dask's, else those on disk."""
    lazy = [max(v.chunksizes[dim]) for v in ds.variables.values() if dim in v.chunksizes]
    stored = [v.encoding.get("preferred_chunks", {}).get(dim) for v in ds.data_vars.values()]
    return min(lazy or [s for s in stored if s] or [SIDE if len(place_dims(ds)) > 1 else SIDE**2])


@dataclass(frozen=True)
class Told:
    """What is known of a block that has been written."""

    index: Index
    answered: int
    peak: int
    """Most memory that the process has held, in bytes."""
    few: int = 0
    """Cells with less than half of the groups that training sites had."""


@dataclass(frozen=True)
class Job:
    """What runs for each block, wherever it runs; sent once to each worker."""

    model: Model
    shapley: bool
    options: Mapping[str, Any]
    blocks: Blocks
    store: str = ""

    @classmethod
    def of(
        cls,
        ds: xr.Dataset,
        model: Model,
        *,
        shapley: bool,
        options: Mapping[str, Any],
        chunks: Mapping[str, int] | str | None,
        store: str = "",
    ) -> Job:
        """Return the job of a whole map, cut into blocks."""
        layers = {"species": len(model.species_index(options.get("species")))}
        if shapley:
            visible = visible_tokens(model.layout, options.get("using"))
            layers["group"] = len(group_masks(model.layout, options.get("groups"), visible=visible))
        blocks = Blocks.of(ds, chunks, layers=layers)
        return cls(model, shapley, options, blocks, store)

    def answer(self, part: xr.Dataset) -> xr.Dataset:
        """Predict or explain lazily, as one piece: then the cube's chunks change not even a bit."""
        whole = part.chunk(dict.fromkeys(self.blocks.sizes, -1))
        return (explain if self.shapley else predict)(whole, self.model, **self.options)

    def part(self, ds: xr.Dataset, index: Index) -> xr.Dataset:
        """Return the predictors of one block, as lazy as they were."""
        return self.seen(ds).isel(self.blocks.window(index))

    def seen(self, ds: xr.Dataset) -> xr.Dataset:
        """Return the cube without what the model does not know."""
        names = [*self.model.schema.variables, self.options.get("mask")]
        return ds[[v for v in dict.fromkeys(names) if v in ds.data_vars]]

    def warn_if_outside(self, ds: xr.Dataset) -> None:
        """Compare a few blocks with the training range, before the work starts.

        Warns
        -----
        OutsideTrainingRange
            Where predictors are outside in many of these cells; see :mod:`geomiam.inference.outside`.
        """
        if not outside_output(self.model):
            return
        blocks = list(self.blocks.some())
        visible = visible_tokens(self.model.layout, self.options.get("using"))
        outside = counts((self.part(ds, i) for i in blocks), self.model, visible=visible)
        cells = f"in {len(blocks)} of {self.blocks.count:,} blocks"
        warn_of_counts(outside, self.model, cells=cells)

    def __call__(self, part: xr.Dataset, index: Index) -> Told:
        """Answer a block, write it, and only then mark it as done."""
        import zarr

        store = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        marks = store[DONE]
        assert isinstance(marks, zarr.Array)
        if before := int(np.asarray(marks[index])):  # a worker died between the mark and its report
            return Told(index, before - 1, peak_memory())
        # threads are ours: dask must neither start its own nor hand this block to a cluster
        made = self.answer(part).compute(scheduler="synchronous")
        window = self.blocks.window(index)
        for name in placed(made, self.blocks):
            where = tuple(window.get(str(d), slice(None)) for d in made[name].dims)
            store[name][where] = made[name].values  # type: ignore[index]
        answered = int(made["suitability"].notnull().any("species").sum())
        marks[index] = answered + 1
        return Told(index, answered, peak_memory(), self._few(made))

    def _few(self, made: xr.Dataset) -> int:
        """Count the cells with few groups; only the model's own groups are compared with training."""
        if self.options.get("groups") is not None or "coverage" not in self.model.about:
            return 0
        visible = visible_tokens(self.model.layout, self.options.get("using"))
        return count_few(made, self.model, visible=visible)[0]

    def prints(self, ds: xr.Dataset) -> dict[str, str]:
        """Return what the map follows from: model, input, settings and version, each as text.

        Of the input, everything but the values counts in full; of the values, those of a few
        blocks, spread evenly.
        """
        settings = {k: v for k, v in self.options.items() if k != "memory_limit"}
        settings = {
            "shapley": self.shapley,
            "chunks": {**self.blocks.steps, **self.blocks.layers},
            **settings,
        }
        return {
            "model": self.model.id,
            "input": self._digest(ds),
            "settings": json.dumps(settings, sort_keys=True, default=str),
            "geomiam": __version__,
        }

    def _digest(self, ds: xr.Dataset) -> str:
        seen = self.seen(ds)
        digest = hashlib.sha256()
        for name, v in sorted(seen.variables.items(), key=lambda item: str(item[0])):
            digest.update(f"{name} {v.dims} {v.shape} {v.attrs.get('units')}".encode())
        for coordinate in (seen[d] for d in sorted(map(str, seen.sizes)) if d in seen.coords):
            digest.update(_bytes(coordinate.values))
        digest.update(str(seen.coords.get(crs_coordinate(ds) or "", "")).encode())
        for index in self.blocks.some():
            part = self.part(ds, index).compute(scheduler="synchronous")
            for name in sorted(map(str, part.data_vars)):
                digest.update(_bytes(part[name].values))
        return digest.hexdigest()

    @cached_property
    def key(self) -> str:
        """Name under which workers keep this job: from its content, so equal jobs share it."""
        said = json.dumps([self.store, self.shapley, dict(self.options)], default=str)
        return f"{self.model.id}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _bytes(values: np.ndarray) -> bytes:
    """Content of an array; a gap is one gap, whatever bits its NaN has."""
    if values.dtype.kind == "f":
        return np.where(np.isnan(values), np.nan, values).tobytes()
    return values.tobytes() if values.dtype.kind in "iubM" else str(values.tolist()).encode()


def placed(made: xr.Dataset, blocks: Blocks) -> list[str]:
    """Names of the variables that have a value per cell."""
    return [str(n) for n, v in made.data_vars.items() if set(blocks.sizes) <= set(v.dims)]
