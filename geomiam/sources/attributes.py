"""Attributes of a variable in a built cube: from the catalog, otherwise from its file."""

from __future__ import annotations

import xarray as xr

from geomiam.data.values.attributes import flags_of, text_of
from geomiam.schema.source import Source
from geomiam.sources.build_report import VariableReport
from geomiam.sources.variable_tasks import VariableTask


def with_attributes(
    array: xr.DataArray, task: VariableTask, report: VariableReport, source: Source
) -> xr.DataArray:
    """Return a variable with attributes of the catalog, otherwise of its file.

    Parameters
    ----------
    array
        Variable on the grid of the cube, with the attributes of the file.
    task
        The variable in the catalog.
    report
        CRS, resolution and resampling.
    source
        Source of the variable; for a derived variable that of its elevation.
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
        "resampling": report.resampling,
        "source_crs": report.crs,
        "source_resolution": report.resolution,
        "flag_values": list(classes),
        "flag_meanings": " ".join(m.replace(" ", "_") for m in classes.values()),
    }
    array = array.copy(deep=False)
    array.attrs = {k: v for k, v in attrs.items() if v}
    return array
