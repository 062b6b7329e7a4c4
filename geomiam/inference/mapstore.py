"""A map that grows on disk or in an object store: begun, stopped at any time, resumed, completed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.cube.grid import restore
from geomiam.cube.store import _replace, claim, encodable
from geomiam.errors import OutputExists, ResumeRefused
from geomiam.inference.job import DONE, Job, placed

STATUS, MADE, ANSWERED = "geomiam_status", "geomiam_made_from", "geomiam_cells_answered"
LAYERS = 2**22
"""Bytes of a chunk up to which several species or groups lie in it: a viewer reads whole chunks."""


@dataclass(frozen=True)
class Place:
    """Where a map will be, and where it grows until it is complete."""

    path: str

    @property
    def remote(self) -> bool:
        """In an object store, where nothing can be renamed: the map grows at its final place."""
        return "://" in self.path

    @property
    def growing(self) -> str:
        """The unfinished store."""
        local = Path(self.path)
        return self.path if self.remote else str(local.with_name(f".{local.name}.building"))

    def claim(self, overwrite: bool) -> None:
        """Refuse what must not be replaced.

        Raises
        ------
        OutputExists
            When a complete map is there and ``overwrite`` is False, or something else is.
        """
        if not self.remote:
            claim(self.path, overwrite)
            return
        attrs = self.attrs()
        if attrs is None or attrs.get(STATUS) in ("begun", "building", "written"):
            return
        if STATUS not in attrs:
            raise OutputExists(f"{self.path} holds data that are no map of geomiam: choose another")
        if not overwrite:
            raise OutputExists(f"{self.path} exists; pass overwrite=True to replace it")

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
        """Read which blocks are done; see :data:`geomiam.inference.job.DONE`."""
        return np.asarray(self._group("r")[DONE][...]).astype(int)  # type: ignore[index]

    def _group(self, mode: Any) -> Any:
        import zarr

        return zarr.open_group(self.growing, mode=mode, use_consolidated=False)

    def begin(self, template: xr.Dataset, job: Job, prints: Mapping[str, str]) -> np.ndarray:
        """Write the whole store but its values, set its status last, and return no marks."""
        if not self.remote:
            shutil.rmtree(self.growing, ignore_errors=True)
            Path(self.growing).parent.mkdir(parents=True, exist_ok=True)
        template.to_zarr(
            self.growing, mode="w", zarr_format=3, consolidated=False, compute=False
        )  # compute=False: nothing of the template's lazy zeros is written
        shape = job.blocks.shape
        one = (1,) * len(shape)  # one file per block: set at once, by whoever wrote the block
        names = [f"block_{d}" for d in job.blocks.sizes]
        layout: dict[str, Any] = {"shape": shape, "chunks": one, "dimension_names": names}
        self._group("r+").create_array(DONE, dtype="uint64", fill_value=0, **layout)
        self.put(**{STATUS: "building", MADE: dict(prints)})
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
        attrs = self.attrs() or {}
        whole = () if self.remote else ("complete",)  # killed before it was put in its place
        if attrs.get(STATUS) not in ("building", "written", *whole):
            return None
        then = attrs.get(MADE, {})
        if changed := [k for k in prints if then.get(k) != prints[k]]:
            raise ResumeRefused(_refusal(self.growing, changed, then, prints))
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
        claim(self.path, overwrite)  # again: hours may have passed
        _replace(Path(self.path), Path(self.growing))

    def answered(self) -> int:
        """Cells with an answer in the complete map."""
        import zarr

        return int(zarr.open_group(self.path, mode="r").attrs[ANSWERED])  # type: ignore[arg-type]


def _refusal(path: str, changed: list[str], then: Mapping[str, str], now: Mapping[str, str]) -> str:
    said = "; ".join(f"{k} was {_short(then.get(k))}, is {_short(now[k])}" for k in changed)
    return (
        f"an unfinished map at {path} was made from another {' and '.join(changed)}: {said}. Finish "
        "it with what it was begun with, or pass resume=False to throw it away and start anew"
    )


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
    out = encodable(restore(out, ds))
    for name in placed(out, job.blocks):
        out[name].encoding["chunks"] = chunks_on_disk(out[name], job)
    return out.assign_attrs({"Conventions": "CF-1.11", STATUS: "begun"})


def chunks_on_disk(array: xr.DataArray, job: Job) -> tuple[int, ...]:
    """One block in place; along other dims as many layers as fit :data:`LAYERS`, outer dims last."""
    place = prod(job.blocks.steps[str(d)] for d in array.dims if d in job.blocks.steps)
    room = max(1, LAYERS // (place * array.dtype.itemsize))
    sizes: list[int] = []
    for dim in reversed([str(d) for d in array.dims]):
        if dim in job.blocks.steps:
            sizes.append(job.blocks.steps[dim])
            continue
        sizes.append(job.blocks.layers.get(dim) or max(1, min(array.sizes[dim], room)))
        room = max(1, room // sizes[-1])
    return tuple(reversed(sizes))
