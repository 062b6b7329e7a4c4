"""A short description of a cube or of sites, which reads no chunk."""

from __future__ import annotations

from contextlib import suppress

import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.dataset import as_dataset
from geomiam.errors import GridError
from geomiam.geo.crs import crs_name, crs_of
from geomiam.geo.dims import SITE, on_place, spatial_pair


def overview(obj: xr.Dataset | xr.DataTree) -> tuple[str, dict[str, str]]:
    """Return a title with the size, and CRS, species and the predictors of each modality as text."""
    ds = as_dataset(obj)
    pair = spatial_pair(ds.dims)
    title = f"{ds.sizes.get(SITE, 0):,} sites"
    if SITE not in ds.dims:
        title = f"cube of {' × '.join(f'{ds.sizes[d]:,}' for d in pair or ds.dims)} cells"
    lines = {}
    with suppress(GridError):  # a dataset without a CRS is described, too
        lines["CRS"] = crs_name(crs_of(ds))
    if "presence" in ds and "species" in ds.coords:
        lines["species"] = list_names(ds["species"].values.tolist())
    modalities: dict[str, list[str]] = {}
    for name in on_place(ds):
        if name != "presence":
            modality = str(ds[name].attrs.get("modality", "without modality"))
            modalities.setdefault(modality, []).append(name)
    return title, lines | {name: list_names(names) for name, names in modalities.items()}
