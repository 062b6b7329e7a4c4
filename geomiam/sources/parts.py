"""One variable of a catalog on a grid: read, scaled, brought there, stacked; and how that was done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SourceError
from geomiam.origin import Source
from geomiam.schema import Modality, Schema, Variable
from geomiam.sources.files import files_of
from geomiam.sources.rasters import NotThere, cells_under, joined, labelled, raster

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

FINER = 2.0
"""From so many source cells along the side of a cell on, their average is taken."""
CHIP = ("v", "u")


@dataclass
class Told:
    """How a variable came to be: what the report says of it."""

    variable: str
    modality: str
    source: str
    kind: str
    files: int = 0
    absent: int = 0
    crs: str = ""
    resolution: str = ""
    resampling: str = ""
    bytes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What is to be read for one variable, from where and onto which grid."""

    variable: Variable
    modality: Modality
    source: Source
    box: GeoBox
    base: Path

    @property
    def chips(self) -> int:
        """Cells per side of a cell; 1 for none."""
        return self.modality.chips or 1

    def told(self) -> Told:
        """Return an empty report."""
        return Told(self.variable.name, self.modality.name, self.source.name, self.source.kind)


Reader = Callable[[Task, Told], xr.DataArray]


def tasks(schema: Schema, box: GeoBox, *, base: Path) -> list[Task]:
    """Return one task for each variable that comes from a source.

    Raises
    ------
    SourceError
        When none does.
    """
    made = []
    for modality in schema.modalities.values():
        for variable in modality.variables.values():
            if origin := modality.origin_of(variable.name):
                source = origin.over(schema.sources[origin.source])
                fine = finer(box, modality.chips or 1)
                made.append(Task(variable, modality, source, fine, base))
    if not made:
        raise SourceError(
            f"catalog '{schema.name}' says of no variable where it is from; add 'sources:' and, to "
            "modalities or variables, 'from:'"
        )
    return made


def finer(box: GeoBox, times: int) -> GeoBox:
    """Return the grid with each cell split ``times × times``."""
    from odc.geo.geobox import GeoBox

    if times == 1:
        return box
    shape = tuple(n * times for n in box.shape.yx)
    return GeoBox(shape, box.affine * box.affine.scale(1 / times), box.crs)


def from_files(task: Task, told: Told) -> xr.DataArray:
    """Read a raster, NetCDF or Zarr source onto the grid of a task, ``(own dims …, y, x)``.

    Raises
    ------
    SourceError
        When files are missing or do not hold what the catalog says.
    """
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    steps = [_step(task, paths, told, tiled=files.tiled) for paths in files.paths]
    if told.files == 0:
        raise SourceError(f"'{task.variable.name}': none of {told.absent} tiles is there")
    array = _stacked(steps, files.steps)
    return _named(array, task.variable)


def _step(task: Task, paths: Sequence[str], told: Told, *, tiled: bool) -> xr.DataArray:
    """Files that together cover the place, on the grid."""
    parts = []
    for path in paths:
        try:
            parts.append(_file(path, task))
        except NotThere:
            if not tiled:
                raise
            told.absent += 1
    told.files += len(parts)
    return _onto(parts, task, told) if parts else _nowhere(task.box)


def _file(path: str, task: Task) -> xr.DataArray:
    read = raster if task.source.kind == "raster" else labelled
    return read(path, task.source, task.variable).rename(task.variable.name)


def _onto(parts: Sequence[xr.DataArray], task: Task, told: Told) -> xr.DataArray:
    from geomiam.cube.grid import geobox, same_grid, spatial_dims
    from geomiam.cube.warp import onto, window

    boxes = [geobox(p) for p in parts]
    how = task.source.resampling or _resampling(boxes[0], task)
    _tell(told, boxes[0], task.box, "none" if same_grid(boxes[0], task.box) else how)
    near = [(p, b) for p, b in zip(parts, boxes, strict=True) if window(b, task.box)]
    if not near:
        told.notes.append(f"'{task.variable.name}' has no data on the grid: it lies elsewhere")
        rest = [s for d, s in parts[0].sizes.items() if d not in spatial_dims(parts[0])]
        return _nowhere(
            task.box, rest, [d for d in parts[0].dims if d not in spatial_dims(parts[0])]
        )
    for part, box in near:
        told.bytes += _bytes(part, box, task.box)
    made = [onto(p, task.box, dims=("y", "x"), resampling=how) for p, _ in near]
    return joined(made, how)


def _resampling(own: GeoBox, task: Task) -> str:
    if task.variable.kind in ("categorical", "circular"):
        return "nearest"
    return "average" if cells_under(own, task.box) >= FINER else "bilinear"


def _tell(told: Told, own: GeoBox, box: GeoBox, how: str) -> None:
    if not told.crs:
        told.crs = crs_name(own)
        told.resolution = f"{abs(own.resolution.x):.6g} {own.crs.units[0]}"
    told.resampling = how


def crs_name(box: GeoBox) -> str:
    """Return the code of a grid's CRS, or its name where it has none."""
    if box.crs is None:
        return "no CRS"
    return f"EPSG:{box.crs.epsg}" if box.crs.epsg else str(box.crs.proj.name)


def _bytes(part: xr.DataArray, own: GeoBox, box: GeoBox) -> int:
    """Numbers of a file under the grid, as float32."""
    from geomiam.cube.warp import window

    rows, cols = window(own, box) or (slice(0, 0), slice(0, 0))
    planes = part.size // max(own.shape.y * own.shape.x, 1)
    return 4 * planes * (rows.stop - rows.start) * (cols.stop - cols.start)


def _nowhere(box: GeoBox, sizes: Sequence[int] = (), dims: Sequence[Any] = ()) -> xr.DataArray:
    import dask.array as da

    data = da.full((*sizes, *box.shape.yx), np.float32(np.nan), dtype="float32", chunks=1024)
    return xr.DataArray(data, dims=(*dims, "y", "x"))


def _stacked(steps: Sequence[xr.DataArray], dims: Sequence[tuple[str, Any]]) -> xr.DataArray:
    """Put combinations of labels, in order, into dims of their own."""
    if not dims:
        return steps[0]
    import dask.array as da

    full = max(steps, key=lambda s: s.ndim)
    data = da.stack([da.broadcast_to(da.asarray(s.data), full.shape) for s in steps])
    data = data.reshape((*(len(v) for _, v in dims), *full.shape))
    coords = {d: list(v) for d, v in dims}
    return xr.DataArray(data, dims=(*coords, *full.dims), coords=coords)


def _named(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    """Give own dims the names and labels of the catalog."""
    from geomiam.cube.predictors import own_dims

    found = own_dims(array)
    wanted = [d for d in variable.dims if d not in CHIP]
    free = [d for d in found if d not in wanted]
    missing = [d for d in wanted if d not in found]
    if len(free) != len(missing):
        raise SourceError(
            f"'{variable.name}' has dims {found or 'none'} in its source, expected {tuple(wanted) or 'none'}; "
            "correct 'dims:', choose one by 'band:' or 'select:', or name it in 'path:'"
        )
    array = array.rename(dict(zip(free, missing, strict=True)))
    for dim in missing:
        labels = list(variable.labels.get(dim) or range(array.sizes[dim]))
        if dim in variable.labels and len(labels) != array.sizes[dim]:
            raise SourceError(
                f"'{variable.name}' has {array.sizes[dim]} steps along '{dim}', the catalog {len(labels)} labels"
            )
        if dim in variable.labels or dim not in array.coords:
            array = array.assign_coords({dim: labels})
    return array.transpose(*wanted, "y", "x")


def as_chips(array: xr.DataArray, times: int, variable: Variable) -> xr.DataArray:
    """Fold ``times × times`` fine cells into chips ``(…, y, x, v, u)`` of coarse ones."""
    if times == 1:
        return array
    rows, cols = variable.dims[-2:] if len(variable.dims) >= 2 else CHIP
    even = {d: -(-512 // times) * times for d in ("y", "x")}
    fine = array.chunk(even).coarsen(y=times, x=times)
    folded = fine.construct(y=("y", rows), x=("x", cols))
    labels = {rows: np.arange(times), cols: np.arange(times)}
    return folded.assign_coords(labels).transpose(..., "y", "x", rows, cols)


def derived(task: Task, told: Told, read: Reader, of: Task) -> xr.DataArray:
    """Return slope or aspect of elevation, read on one more cell on each side of the grid."""
    from dataclasses import replace

    from odc.geo.geobox import GeoBox

    from geomiam.sources.terrain import slope_aspect

    shape = tuple(n + 2 for n in task.box.shape.yx)
    wider = GeoBox(shape, task.box.affine * task.box.affine.translation(-1, -1), task.box.crs)
    z = read(replace(of, box=wider), told)
    if z.ndim != 2:
        raise SourceError(
            f"'{task.variable.name}' is derived of '{of.variable.name}', which is no plane"
        )
    slope, aspect = slope_aspect(z.data, task.box)
    which = task.source.derive or task.variable.name
    if which not in ("slope", "aspect"):
        raise SourceError(f"'{which}' cannot be derived; say 'derive: slope' or 'derive: aspect'")
    made = slope if which == "slope" else aspect
    return xr.DataArray(made.rechunk("auto"), dims=("y", "x"))


def sentinel(group: Sequence[Task], like: Any) -> dict[str, xr.DataArray]:
    """Read variables of one Sentinel-2 source together, so that each scene is looked at once."""
    from geomiam.sources.sentinel2 import sentinel2

    source = group[0].source
    bands = {t.variable.name: bands_of(t) for t in group}
    every = list(dict.fromkeys(itertools.chain.from_iterable(bands.values())))
    how: dict[str, Any] = {
        k: getattr(source, k) for k in ("mask", "snow", "dilate", "max_cloud", "composite")
    }
    catalogue = catalogue_of(group[0])
    ds = sentinel2(
        like,
        source.time,
        bands=every,
        source=catalogue,
        resample=source.resampling or "average",
        **how,
    )
    return {t.variable.name: _channels(ds, bands[t.variable.name], t.variable) for t in group}


def bands_of(task: Task) -> list[str]:
    band = task.source.band
    names = (
        band if isinstance(band, tuple) else (band or task.source.variable or task.variable.name,)
    )
    return [str(n) for n in names]


def catalogue_of(task: Task) -> str:
    """A local catalogue may be named relative to the YAML file."""
    root = task.source.root or "earth-search"
    local = task.base / root
    return str(local) if local.exists() else root


def _channels(ds: xr.Dataset, bands: list[str], variable: Variable) -> xr.DataArray:
    if len(bands) == 1:
        made = ds[bands[0]]
    else:
        made = xr.concat([ds[b] for b in bands], "band").assign_coords(band=bands)
    made = made.drop_vars([c for c in made.coords if c not in made.dims])
    return _named(made, variable)
