"""A map that grows on disk or in an object store: begun, stopped at any time, resumed, completed."""

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
from geomiam.maps.job import DONE, Job, placed
from geomiam.outputs.atomic import remove, replace
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.contents import MARK, STATUS
from geomiam.outputs.kinds import MAP
from geomiam.outputs.paths import check_names, expand, is_remote, real_path

MADE, ANSWERED = "geomiam_made_from", "geomiam_cells_answered"
LAYERS = 2**22
"""Bytes of a chunk up to which several species or groups lie in it: a viewer reads whole chunks."""


@dataclass(frozen=True)
class Place:
    """Where a map will be, and where it grows until it is complete."""

    path: str

    @classmethod
    def of(cls, path: str | Path) -> Place:
        """Return the place of a path as users write it; a local one is absolute, for workers elsewhere."""
        return cls(expand(path) if is_remote(path) else str(real_path(path)))

    @property
    def remote(self) -> bool:
        """In an object store, where nothing can be renamed: the map grows at its final place."""
        return is_remote(self.path)

    @property
    def growing(self) -> str:
        """The unfinished store."""
        local = Path(self.path)
        return self.path if self.remote else str(local.with_name(f".{local.name}.building"))

    def claim(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> None:
        """Refuse what must not be replaced.

        Raises
        ------
        OutputExists
            When a complete map is there and ``overwrite`` is False, or something else is.
        OutputRefused
            When the map overlaps an input or lies inside another store.
        """
        if not self.remote:
            check_output(self.path, overwrite, kind=MAP, inputs=inputs)
            return
        self._refuse_overlap(inputs)
        attrs = self.attrs()
        if attrs is None or attrs.get(STATUS) in ("begun", "building", "written"):
            return
        if STATUS not in attrs:
            raise OutputExists(f"{self.path} holds data that are no map of geomiam: choose another")
        if not overwrite:
            raise OutputExists(f"{self.path} exists; pass overwrite=True to replace it")

    @contextmanager
    def output_lock(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> Iterator[None]:
        """Keep other writers away; an object store has no locks.

        Raises
        ------
        OutputBusy
            When another writer is at work on this map.
        """
        if self.remote:
            yield
            return
        with locked_output(self.path, overwrite, kind=MAP, inputs=inputs):
            yield

    def _refuse_overlap(self, inputs: Iterable[Any]) -> None:
        here = self.path.rstrip("/") + "/"
        for other in (expand(i) for i in inputs if isinstance(i, (str, Path)) and is_remote(i)):
            there = other.rstrip("/") + "/"
            if here.startswith(there) or there.startswith(here):
                raise OutputRefused(f"the output {self.path} overlaps {other}; write elsewhere")

    def attrs(self) -> dict[str, Any] | None:
        """Attributes of the unfinished store; None where there is none."""
        try:
            return dict(self._group("r").attrs)
        except (FileNotFoundError, ValueError):
            return None

    def put(self, **attrs: Any) -> None:
        """Set attributes of the unfinished store."""
        self._group("r+").attrs.update(attrs)

    def marks(self) -> np.ndarray:
        """Read which blocks are done; see :data:`geomiam.maps.job.DONE`."""
        return np.asarray(self._group("r")[DONE][...]).astype(int)  # type: ignore[index]

    def _group(self, mode: Any) -> Any:
        import zarr

        return zarr.open_group(self.growing, mode=mode, use_consolidated=False)

    def begin(self, template: xr.Dataset, job: Job, prints: Mapping[str, str]) -> np.ndarray:
        """Write the whole store but its values, set its status last, and return no marks."""
        if not self.remote:
            remove(Path(self.growing))
            Path(self.growing).parent.mkdir(parents=True, exist_ok=True)
        template.to_zarr(
            self.growing, mode="w", zarr_format=3, consolidated=False, compute=False
        )  # compute=False: nothing of the template's lazy zeros is written
        shape = job.blocks.shape
        one = (1,) * len(shape)  # one file per block: set at once, by whoever wrote the block
        names = [f"block_{d}" for d in job.blocks.sizes]
        layout: dict[str, Any] = {"shape": shape, "chunks": one, "dimension_names": names}
        self._group("r+").create_array(DONE, dtype="uint64", fill_value=0, **layout)
        self.put(**{STATUS: "building", MADE: json.dumps(dict(prints))})
        return np.zeros(shape, int)

    def resume(self, prints: Mapping[str, str]) -> np.ndarray | None:
        """Return the marks of an unfinished map of the same origin, and sweep its leftovers.

        None where there is no such map; nothing where all blocks are there and only the last steps
        are missing.

        Raises
        ------
        ResumeRefused
            When one of another origin is there.
        """
        if not self.remote and Path(self.growing).is_symlink():
            return None
        attrs = self.attrs() or {}
        whole = () if self.remote else ("complete",)  # killed before it was put in its place
        if attrs.get(STATUS) not in ("building", "written", *whole):
            return None
        stored = _prints(attrs.get(MADE))
        if changed := [k for k in prints if stored.get(k) != prints[k]]:
            raise ResumeRefused(_refusal(self.growing, changed, stored, prints))
        if not self.remote:
            for torn in Path(self.growing).rglob("*.partial"):  # of a write that was killed
                torn.unlink(missing_ok=True)
        return self.marks() if attrs[STATUS] == "building" else np.zeros(0, int)

    def complete(self, overwrite: bool, *, answered: int) -> None:
        """Take the marks away, say that the map is complete, and put it in its place.

        ``written`` comes first: killed between these steps, no block is made again.
        """
        group = self._group("r+")
        if group.attrs[STATUS] == "building":
            self.put(**{STATUS: "written", ANSWERED: answered})
        if DONE in group:
            del group[DONE]
        self.put(**{STATUS: "complete"})
        if not self.remote:
            self._move(overwrite)

    def _move(self, overwrite: bool) -> None:
        check_output(self.path, overwrite, kind=MAP)  # again: hours may have passed
        replace(Path(self.path), Path(self.growing))

    def answered(self) -> int:
        """Cells with an answer in the complete map."""
        import zarr

        return int(zarr.open_group(self.path, mode="r").attrs[ANSWERED])  # type: ignore[arg-type]


def _refusal(path: str, changed: list[str], then: Mapping[str, str], now: Mapping[str, str]) -> str:
    said = "; ".join(f"{k} was {_short(then.get(k))}, is {_short(now[k])}" for k in changed)
    return (
        f"an unfinished map at {path} was made from another {' and '.join(changed)}: {said}. Finish "
        "it with the same arguments as before, or pass resume=False to delete it and start again"
    )


def _prints(stored: Any) -> dict[str, str]:
    """Read the fingerprints of an unfinished map; earlier versions stored a mapping."""
    if not isinstance(stored, str):
        return stored if isinstance(stored, dict) else {}
    try:
        prints = json.loads(stored)
    except ValueError:
        return {}
    return prints if isinstance(prints, dict) else {}


def _short(text: str | None) -> str:
    return text if text is None or text.startswith("{") else text[:12]  # type: ignore[return-value]


def template(ds: xr.Dataset, job: Job) -> xr.Dataset:
    """Return the map without its values: names, dims, labels, CRS, attributes, chunks on disk.

    It is made from the answer to one cell, which is not computed either.
    """
    import dask.array as da

    head = job.answer(ds.isel({d: slice(0, 1) for d in job.blocks.sizes}))
    names, zeros = placed(head, job.blocks), {}
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
    for name in placed(out, job.blocks):
        out[name].encoding["chunks"] = chunks_on_disk(out[name], job)
    return out.assign_attrs({"Conventions": "CF-1.11", MARK: MAP.name, STATUS: "begun"})


def chunks_on_disk(array: xr.DataArray, job: Job) -> tuple[int, ...]:
    """One block in place; along other dims as many layers as fit :data:`LAYERS`, outer dims last."""
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
