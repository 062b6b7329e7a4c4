"""Blocks of a map, and the job that computes, writes and marks one block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, prod
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import place_dims
from geomiam.data.store.encoding import chunk_sizes
from geomiam.explain.shapley_values import shapley as explain
from geomiam.geo.crs import crs_coordinate
from geomiam.inference.options import MapOptions
from geomiam.inference.outside import counts, outside_output, warn_of_counts
from geomiam.inference.predict import predict
from geomiam.inference.required import count_few
from geomiam.maps.memory import peak_memory
from geomiam.model.model import Model
from geomiam.tokens.select import Selector, group_masks, visible_tokens
from geomiam.uncertainty.novelty import novelty
from geomiam.uncertainty.options import NoveltyOptions, ValueOptions
from geomiam.uncertainty.value_of_information import value_of_information

DONE = "done"
"""Array of the unfinished store with one number per block: 0, or 1 + the number of predicted cells."""
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


@dataclass(frozen=True)
class BlockResult:
    """Counts of a block that has been written."""

    index: Index
    predicted: int
    """Cells with a prediction."""
    peak: int
    """Peak memory of the process in bytes."""
    few: int = 0
    """Cells with less than half of the groups that training sites had."""


@dataclass(frozen=True)
class Job:
    """The function that computes each block; sent once to each worker."""

    model: Model
    shapley: bool
    species: str | Sequence[str] | None
    using: Selector | Sequence[Selector] | None
    options: MapOptions
    blocks: Blocks
    store: str = ""

    @classmethod
    def of(
        cls,
        ds: xr.Dataset,
        model: Model,
        *,
        shapley: bool,
        species: str | Sequence[str] | None = None,
        using: Selector | Sequence[Selector] | None = None,
        chunks: Mapping[str, int] | None = None,
        options: MapOptions,
        store: str = "",
    ) -> Job:
        """Return the job of a map, split into blocks."""
        options.without_effect(shapley=shapley)
        layers = {"species": len(model.species_index(species))}
        if shapley or options.value_of_information is not None:
            visible = visible_tokens(model.layout, using)
            layers["group"] = len(group_masks(model.layout, options.groups, visible=visible))
        blocks = Blocks.of(ds, chunks, layers=layers)
        return cls(model, shapley, species, using, options, blocks, store)

    def compute(self, part: xr.Dataset) -> xr.Dataset:
        """Predict or explain lazily as one dask chunk, so the chunks of the cube do not change a bit of the result."""
        one_chunk = part.chunk(dict.fromkeys(self.blocks.sizes, -1))
        options = self.options
        shared: dict[str, Any] = {
            "using": self.using,
            "scale": options.scale,
            "options": options,
            "spread": options.spread,
        }
        if self.shapley:
            shared |= {"groups": options.groups, "order": options.order}
            maps = explain(one_chunk, self.model, species=self.species, **shared)
        else:
            shared |= {"interval": options.interval}
            maps = predict(one_chunk, self.model, species=self.species, **shared)
        cells = {k: getattr(options, k) for k in ("require", "mask", "memory_limit")}
        if options.novelty:
            new = novelty(one_chunk, self.model, using=self.using, options=NoveltyOptions(**cells))
            maps = maps.assign(new.data_vars)
        if options.value_of_information is not None:
            maps = maps.assign(self._values(one_chunk, clamp=options.clamp, **cells))
        return maps

    def _values(self, part: xr.Dataset, **cells: Any) -> dict[str, xr.DataArray]:
        """Return the layers of the value of information of a block."""
        options = ValueOptions.of(self.options.value_of_information)
        result = value_of_information(
            part,
            self.model,
            groups=self.options.groups,
            using=self.using,
            species=None if options.weights else self.species,
            scale=self.options.scale,
            options=replace(options, **cells),
        )
        return {str(n): layer for n, layer in result.data_vars.items()}

    def part(self, ds: xr.Dataset, index: Index) -> xr.Dataset:
        """Return the predictors of one block, lazily."""
        return self.used(ds).isel(self.blocks.window(index))

    def used(self, ds: xr.Dataset) -> xr.Dataset:
        """Return the variables of the cube that the map needs."""
        names = [*self.model.schema.variables, self.options.mask]
        return ds[[v for v in dict.fromkeys(names) if v in ds.data_vars]]

    def warn_if_outside(self, ds: xr.Dataset) -> None:
        """Compare a few blocks with the training range before the start."""
        if not outside_output(self.model):
            return
        blocks = list(self.blocks.examples())
        visible = visible_tokens(self.model.layout, self.using)
        outside = counts((self.part(ds, i) for i in blocks), self.model, visible=visible)
        cells = f"in {len(blocks)} of {self.blocks.count:,} blocks"
        warn_of_counts(outside, self.model, cells=cells)

    def __call__(self, part: xr.Dataset, index: Index) -> BlockResult:
        """Compute a block, write it, and mark it as done after that."""
        import zarr

        store: Any = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        marks = store[DONE]
        assert isinstance(marks, zarr.Array)
        if before := int(np.asarray(marks[index])):  # a worker died after marking the block
            return BlockResult(index, before - 1, peak_memory())
        # synchronous: the caller runs blocks in threads, so dask must start none and use no cluster
        result = self.compute(part).compute(scheduler="synchronous")
        window = self.blocks.window(index)
        for name in cell_variables(result, self.blocks):
            slices = tuple(window.get(str(d), slice(None)) for d in result[name].dims)
            store[name][slices] = result[name].values
        predicted_cells = int(result["suitability"].notnull().any("species").sum())
        marks[index] = predicted_cells + 1
        return BlockResult(index, predicted_cells, peak_memory(), self._few(result))

    def _few(self, result: xr.Dataset) -> int:
        """Count the cells with few groups; only the groups of the schema have a coverage of training sites."""
        if self.options.groups is not None or "coverage" not in self.model.about:
            return 0
        visible = visible_tokens(self.model.layout, self.using)
        return count_few(result, self.model, visible=visible)[0]

    def fingerprints(self, ds: xr.Dataset) -> dict[str, str]:
        """Return fingerprints of the model, the input, the settings and the version of geomiam.

        The fingerprint of the input covers names, dims, units, coordinates and the values of a few blocks.
        """
        chunks = {**self.blocks.steps, **self.blocks.layers}
        settings = {"shapley": self.shapley, "chunks": chunks, **self._settings()}
        return {
            "model": self.model.id,
            "input": self._digest(ds),
            "settings": json.dumps(settings, sort_keys=True, default=str),
            "geomiam": __version__,
        }

    def _settings(self) -> dict[str, Any]:
        """Return the settings that change values of the map and differ from their defaults."""
        no_values = ("memory_limit", "resume")
        settings = {k: v for k, v in self.options.changed().items() if k not in no_values}
        arguments: dict[str, Any] = {"using": self.using, "species": self.species}
        if "interval" in settings and self.model.calibration is not None:
            arguments["calibration"] = self.model.calibration.digest
        has_reference = self.options.novelty or self.options.value_of_information is not None
        if has_reference and self.model.reference is not None:
            arguments["reference"] = self.model.reference.digest
        return settings | {k: v for k, v in arguments.items() if v is not None}

    def _digest(self, ds: xr.Dataset) -> str:
        cube_part = self.used(ds)
        digest = hashlib.sha256()
        for name, v in sorted(cube_part.variables.items(), key=lambda item: str(item[0])):
            digest.update(f"{name} {v.dims} {v.shape} {v.attrs.get('units')}".encode())
        for coordinate in (
            cube_part[d] for d in sorted(map(str, cube_part.sizes)) if d in cube_part.coords
        ):
            digest.update(_bytes(coordinate.values))
        digest.update(str(cube_part.coords.get(crs_coordinate(ds) or "", "")).encode())
        for index in self.blocks.examples():
            part = self.part(ds, index).compute(scheduler="synchronous")
            for name in sorted(map(str, part.data_vars)):
                digest.update(_bytes(part[name].values))
        return digest.hexdigest()

    @cached_property
    def key(self) -> str:
        """Key of this job on workers; equal jobs have equal keys."""
        content = json.dumps([self.store, self.shapley, self._settings()], default=str)
        return f"{self.model.id}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _bytes(values: np.ndarray) -> bytes:
    """Return the bytes of an array; all NaN have the same bits."""
    if values.dtype.kind == "f":
        return np.where(np.isnan(values), np.nan, values).tobytes()
    return values.tobytes() if values.dtype.kind in "iubM" else str(values.tolist()).encode()


def cell_variables(maps: xr.Dataset, blocks: Blocks) -> list[str]:
    """Return the names of the variables with a value per cell."""
    return [str(n) for n, v in maps.data_vars.items() if set(blocks.sizes) <= set(v.dims)]
