"""Attributes of a variable in a built cube: from the catalog, and else from its file."""

from __future__ import annotations

import xarray as xr

from geomiam.data.values.attributes import flags_of, text_of
from geomiam.schema.data_source import Source
from geomiam.sources.report import Told
from geomiam.sources.tasks import Task


def described(array: xr.DataArray, task: Task, told: Told, source: Source) -> xr.DataArray:
    """Return a variable with the attributes of its catalog, and else of its file.

    Parameters
    ----------
    array
        On the grid of the cube; its attributes are those of the file.
    task
        What was read.
    told
        How it was read.
    source
        Where it comes from; of a derived variable that of its elevation.
    """
    variable, modality = task.variable, task.modality
    classes = variable.classes
    if variable.kind == "categorical" and not classes:
        classes = flags_of(array.attrs)
    attrs = {
        "modality": modality.name,
        "units": variable.units or text_of(array.attrs, "units"),
        "long_name": variable.long_name,
        "kind": variable.kind,
        "source": modality.source or source.title or source.name,
        "license": modality.license or source.license,
        "citation": modality.citation or source.citation,
        "resampling": told.resampling,
        "source_crs": told.crs,
        "source_resolution": told.resolution,
        "flag_values": list(classes),
        "flag_meanings": " ".join(m.replace(" ", "_") for m in classes.values()),
    }
    array = array.copy(deep=False)
    array.attrs = {k: v for k, v in attrs.items() if v}
    return array
