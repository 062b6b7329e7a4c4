"""The job of a map: it computes, writes and marks one block."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.explain.shapley_values import shapley as explain
from geomiam.inference.options import MapOptions
from geomiam.inference.outside import counts, outside_output, warn_of_counts
from geomiam.inference.predict import predict
from geomiam.inference.required import count_few
from geomiam.maps.block_graph import BlockGraph
from geomiam.maps.blocks import Blocks, Index
from geomiam.maps.fingerprint import add_values, digest_of_grid
from geomiam.maps.memory import peak_memory
from geomiam.model.model import Model
from geomiam.tokens.select import Selector, group_masks, visible_tokens
from geomiam.uncertainty.novelty import novelty
from geomiam.uncertainty.options import NoveltyOptions, ValueOptions
from geomiam.uncertainty.value_of_information import value_of_information

DONE = "done"
"""Array of the unfinished store with one number per block: 0, or 1 + the number of predicted cells."""


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
    session: Any = None
    """Session of a repository that holds the writes of the block."""


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

    def examples(self, ds: xr.Dataset) -> Iterator[xr.Dataset]:
        """Read the predictors of a few blocks, one after another."""
        for index in self.blocks.examples():
            yield self.part(ds, index).compute(scheduler="synchronous")

    def warn_if_outside(self, parts: Iterable[xr.Dataset]) -> None:
        """Compare the predictors of a few blocks with the training range before the start."""
        if not outside_output(self.model):
            deque(parts, maxlen=0)  # the caller may compute more while the parts are read
            return
        visible = visible_tokens(self.model.layout, self.using)
        outside = counts(parts, self.model, visible=visible)
        blocks = len(list(self.blocks.examples()))
        cells = f"in {blocks} of {self.blocks.count:,} blocks"
        warn_of_counts(outside, self.model, cells=cells)

    def __call__(self, part: xr.Dataset, index: Index, session: Any = None) -> BlockResult:
        """Compute a block, write it, and mark it as done after that.

        With the session of a repository, it is written there; the caller commits it.
        """
        import zarr

        location = self.store if session is None else session.store
        store: Any = zarr.open_group(location, mode="r+", use_consolidated=False)
        marks = store[DONE]
        assert isinstance(marks, zarr.Array)
        if before := int(np.asarray(marks[index])):  # a worker died after marking the block
            return BlockResult(index, before - 1, peak_memory())
        result = self._computed(part)
        window = self.blocks.window(index)
        for name in cell_variables(result, self.blocks):
            slices = tuple(window.get(str(d), slice(None)) for d in result[name].dims)
            store[name][slices] = result[name].values
        predicted_cells = int(result["suitability"].notnull().any("species").sum())
        marks[index] = predicted_cells + 1
        return BlockResult(index, predicted_cells, peak_memory(), self._few(result), session)

    def _computed(self, part: xr.Dataset) -> xr.Dataset:
        """Return the map of a block, without coordinates.

        Synchronous: the caller runs blocks in threads, so dask must start none and use no cluster.
        """
        shape = tuple(part.sizes.items())
        graph = self._graphs.get(shape) or BlockGraph.of(self.compute, part)
        self._graphs[shape] = graph
        return graph(part.compute(scheduler="synchronous"))

    @cached_property
    def _graphs(self) -> dict[Any, BlockGraph]:
        """Graphs by shape: blocks at the edges are smaller."""
        return {}

    def _few(self, result: xr.Dataset) -> int:
        """Count the cells with few groups; only the groups of the schema have a coverage of training sites."""
        if self.options.groups is not None or "coverage" not in self.model.about:
            return 0
        visible = visible_tokens(self.model.layout, self.using)
        return count_few(result, self.model, visible=visible)[0]

    def fingerprints(self, ds: xr.Dataset) -> dict[str, str]:
        """Return fingerprints of the model, the input, the settings and the version of geomiam.

        The fingerprint of the input covers names, dims, units, coordinates and the values of a few blocks.
        These are read once: this also warns if they are outside the training range.
        """
        chunks = {**self.blocks.steps, **self.blocks.layers}
        settings = {"shapley": self.shapley, "chunks": chunks, **self._settings()}
        digest = digest_of_grid(self.used(ds))
        self.warn_if_outside(add_values(digest, self.examples(ds)))
        return {
            "model": self.model.id,
            "input": digest.hexdigest(),
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

    @cached_property
    def key(self) -> str:
        """Key of this job on workers; equal jobs have equal keys."""
        content = json.dumps([self.store, self.shapley, self._settings()], default=str)
        return f"{self.model.id}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def cell_variables(maps: xr.Dataset, blocks: Blocks) -> list[str]:
    """Return the names of the variables with a value per cell."""
    return [str(n) for n, v in maps.data_vars.items() if set(blocks.sizes) <= set(v.dims)]
