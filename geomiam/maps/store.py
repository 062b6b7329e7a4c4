"""The store of a map on disk or in an object store: begin, resume, complete."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import restore
from geomiam.data.store.encoding import encodable, netcdf_attributes
from geomiam.errors import OutputExists, OutputRefused, ResumeRefused
from geomiam.maps.job import DONE, Job, cell_variables
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import MAP, MARK, STATUS
from geomiam.outputs.paths import check_names, expand, is_remote, real_path
from geomiam.outputs.write import remove, replace

MADE, ANSWERED = "geomiam_made_from", "geomiam_cells_answered"
LAYERS = 2**22
"""Most bytes of a chunk with several species or groups, since a viewer reads entire chunks."""


@dataclass(frozen=True)
class Place:
    """The path of a map, and of its unfinished store."""

    path: str

    @classmethod
    def of(cls, path: str | Path) -> Place:
        """Return the place of a path given by a user; local paths become absolute, for workers in other folders."""
        return cls(expand(path) if is_remote(path) else str(real_path(path)))

    @property
    def remote(self) -> bool:
        """Whether the map lies in an object store, which cannot rename: the map grows at its final path."""
        return is_remote(self.path)

    @property
    def growing(self) -> str:
        """Path of the unfinished store."""
        local = Path(self.path)
        return self.path if self.remote else str(local.with_name(f".{local.name}.building"))

    def claim(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> None:
        """Refuse to replace other data."""
        if not self.remote:
            check_output(self.path, overwrite, kind=MAP, inputs=inputs)
            return
        self._refuse_overlap(inputs)
        self._refuse_content(self.attrs(), overwrite)

    def _refuse_content(self, attrs: Mapping[str, Any] | None, overwrite: bool) -> None:
        """Refuse to replace a store with these attributes of its root."""
        if attrs is None or attrs.get(STATUS) in ("begun", "building", "written"):
            return
        if STATUS not in attrs:
            raise OutputExists(
                f"{self.path} holds other data than a map of geomiam: choose another"
            )
        if not overwrite:
            raise OutputExists(f"{self.path} exists; pass overwrite=True to replace it")

    @contextmanager
    def output_lock(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> Iterator[None]:
        """Lock the map against other writers; an object store has no locks."""
        if self.remote:
            yield
            return
        with locked_output(self.path, overwrite, kind=MAP, inputs=inputs):
            yield

    def _refuse_overlap(self, inputs: Iterable[Any]) -> None:
        own_prefix = self.path.rstrip("/") + "/"
        for input_url in (expand(i) for i in inputs if isinstance(i, (str, Path)) and is_remote(i)):
            input_prefix = input_url.rstrip("/") + "/"
            if own_prefix.startswith(input_prefix) or input_prefix.startswith(own_prefix):
                raise OutputRefused(f"the output {self.path} overlaps {input_url}; write elsewhere")

    def attrs(self) -> dict[str, Any] | None:
        """Return the attributes of the unfinished store; None if there is none."""
        try:
            return dict(group_of(self._unfinished(), "r").attrs)
        except (FileNotFoundError, ValueError):
            return None

    def marks(self) -> np.ndarray:
        """Return the marks of finished blocks; see :data:`geomiam.maps.job.DONE`."""
        return np.asarray(group_of(self._unfinished(), "r")[DONE][...]).astype(int)

    def _unfinished(self) -> Any:
        """Return the unfinished store for reading; FileNotFoundError if there is none."""
        return self.growing

    @contextmanager
    def _changes(self, message: str) -> Iterator[Any]:
        """Yield the unfinished store for writing; ``message`` describes the changes in a repository."""
        yield self.growing

    def writes(self) -> Writes:
        """Return the writes of blocks."""
        return Writes()

    def _clear(self) -> None:
        """Remove an unfinished map."""
        if not self.remote:
            remove(Path(self.growing))
            Path(self.growing).parent.mkdir(parents=True, exist_ok=True)

    def _sweep(self) -> None:
        """Delete the partial files of an interrupted write."""
        if not self.remote:
            for leftover in Path(self.growing).rglob("*.partial"):
                leftover.unlink(missing_ok=True)

    def begin(self, template: xr.Dataset, job: Job, prints: Mapping[str, str]) -> np.ndarray:
        """Write the store without values, set its status last, and return the marks of no block."""
        self._clear()
        shape = job.blocks.shape
        single_cells = (1,) * len(shape)  # one file per block, so workers set marks independently
        names = [f"block_{d}" for d in job.blocks.sizes]
        layout: dict[str, Any] = {"shape": shape, "chunks": single_cells, "dimension_names": names}
        with self._changes("begin a map") as store:
            # compute=False: the lazy zeros of the template are not written
            template.to_zarr(store, mode="w", zarr_format=3, consolidated=False, compute=False)
            group = group_of(store, "r+")
            group.create_array(DONE, dtype="uint64", fill_value=0, **layout)
            group.attrs.update({STATUS: "building", MADE: json.dumps(dict(prints))})
        return np.zeros(shape, int)

    def resume(self, prints: Mapping[str, str]) -> np.ndarray | None:
        """Return the marks of an unfinished map of the same origin, and delete its partial files.

        None if there is no such map. Empty if all blocks are written and only the last steps are missing.
        """
        if not self.remote and Path(self.growing).is_symlink():
            return None
        attrs = self.attrs() or {}
        final_states = () if self.remote else ("complete",)  # killed before the rename
        if attrs.get(STATUS) not in ("building", "written", *final_states):
            return None
        old_prints = _prints(attrs.get(MADE))
        if differences := [k for k in prints if old_prints.get(k) != prints[k]]:
            raise ResumeRefused(_refusal(self.growing, differences, old_prints, prints))
        self._sweep()
        return self.marks() if attrs[STATUS] == "building" else np.zeros(0, int)

    def complete(self, overwrite: bool, *, predicted_cells: int) -> None:
        """Delete the marks, set the status ``complete``, and move the map to its path.

        The status ``written`` is set first: a map that is interrupted between these steps resumes without
        computing a block again.
        """
        with self._changes("complete the map") as store:
            group = group_of(store, "r+")
            if group.attrs[STATUS] == "building":
                group.attrs.update({STATUS: "written", ANSWERED: predicted_cells})
            if DONE in group:
                del group[DONE]
            group.attrs.update({STATUS: "complete"})
        self._move(overwrite)

    def _move(self, overwrite: bool) -> None:
        """Move the complete map to its path."""
        if self.remote:
            return
        check_output(self.path, overwrite, kind=MAP)  # again: hours may have passed
        replace(Path(self.path), Path(self.growing))

    @property
    def finished(self) -> Any:
        """Path or store of the complete map."""
        return self.path

    def predicted(self) -> int:
        """Return the number of predicted cells of the complete map."""
        return int(group_of(self.finished, "r").attrs[ANSWERED])


class Writes:
    """Writes of blocks: in a folder or an object store, each is in place when it returns."""

    def fork(self) -> Any:
        """Return the session that the next block is written in."""
        return None

    def add(self, session: Any) -> None:
        """Add the session of a block that has been written."""

    def commit(self) -> None:
        """Make all blocks that were added permanent."""


def group_of(store: Any, mode: Any) -> Any:
    """Return the root group of a path or store."""
    import zarr

    return zarr.open_group(store, mode=mode, use_consolidated=False)


def _refusal(
    path: str,
    differences: list[str],
    old_settings: Mapping[str, str],
    new_settings: Mapping[str, str],
) -> str:
    reasons = "; ".join(
        f"{k} was {_short(old_settings.get(k))}, is {_short(new_settings[k])}" for k in differences
    )
    return (
        f"an unfinished map at {path} was made from another {' and '.join(differences)}: {reasons}. Finish "
        "it with the same arguments as before, or pass MapOptions(resume=False) to delete it and start again"
    )


def _prints(old_prints: Any) -> dict[str, str]:
    """Return the fingerprints of an unfinished map; earlier versions stored a mapping."""
    if not isinstance(old_prints, str):
        return old_prints if isinstance(old_prints, dict) else {}
    try:
        prints = json.loads(old_prints)
    except ValueError:
        return {}
    return prints if isinstance(prints, dict) else {}


def _short(text: str | None) -> str:
    return str(text) if text is None or text.startswith("{") else text[:12]


def template(ds: xr.Dataset, job: Job) -> xr.Dataset:
    """Return the map without values: names, dims, labels, CRS, attributes, chunks on disk.

    It follows from the lazy prediction of one cell, which is not computed.
    """
    import dask.array as da

    head = job.compute(ds.isel({d: slice(0, 1) for d in job.blocks.sizes}))
    names, zeros = cell_variables(head, job.blocks), {}
    for name, v in ((n, head[n].variable) for n in names):
        shape = tuple(job.blocks.sizes.get(str(d), n) for d, n in v.sizes.items())
        # one task, whatever the size of the map
        zeros[name] = (v.dims, da.zeros(shape, dtype=v.dtype, chunks=-1), v.attrs)
    out = head.drop_dims(list(job.blocks.sizes)).assign(zeros)[list(head.data_vars)]
    check_names(out.variables)
    out = encodable(restore(out, ds))
    for var in out.variables.values():
        var.attrs = netcdf_attributes(var.attrs)
    out.attrs = netcdf_attributes(out.attrs)
    for name in cell_variables(out, job.blocks):
        out[name].encoding["chunks"] = chunks_on_disk(out[name], job)
    return out.assign_attrs({"Conventions": "CF-1.11", MARK: MAP.name, STATUS: "begun"})


def chunks_on_disk(array: xr.DataArray, job: Job) -> tuple[int, ...]:
    """Return chunks of one block; along other dims as many layers as fit :data:`LAYERS`, inner dims first."""
    place = prod(job.blocks.steps[str(d)] for d in array.dims if d in job.blocks.steps)
    room = max(1, LAYERS // (place * array.dtype.itemsize))
    sizes: list[int] = []
    for dim in reversed([str(d) for d in array.dims]):
        if dim in job.blocks.steps:
            sizes.append(job.blocks.steps[dim])
            continue
        sizes.append(max(1, min(array.sizes[dim], job.blocks.layers.get(dim, room))))
        room = max(1, room // sizes[-1])
    return tuple(reversed(sizes))
