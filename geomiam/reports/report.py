"""The report on a model: one self-contained HTML file."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from geomiam._version import __version__
from geomiam.evaluation.projection import Projection
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import REPORT
from geomiam.outputs.write import write_text
from geomiam.reports.evidence import Evidence, ReportOptions
from geomiam.reports.page import document
from geomiam.reports.sections import all_sections
from geomiam.reports.tables import odmap_table


def report(
    model: Model | str | Path,
    path: str | Path,
    *,
    table: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    maps: xr.Dataset | None = None,
    sites: xr.Dataset | None = None,
    explanation: xr.Dataset | None = None,
    projection: Projection | None = None,
    changes: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    options: ReportOptions | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report on a model as one self-contained HTML file, with the tables of the ODMAP protocol.

    The file has maps, an interactive map with the values of each cell, skill, uncertainty, novelty, value of missing data,
    response curves, Shapley maps, interactions, limiting groups, other times and places,
    limits, data sources, ODMAP tables and citations, each if its material is passed. Pictures are embedded, and nothing is loaded
    from the web. The page fits a phone and a printer.

    Parameters
    ----------
    model : Model or path
    path : str or pathlib.Path
        The file to write.
    table : xarray.Dataset or mapping of str to xarray.Dataset, optional
        Skill from :func:`geomiam.evaluate` or :func:`geomiam.cross_validate`, or several tables by title.
    maps : xarray.Dataset, optional
        ``(species, y, x)`` from :func:`geomiam.predict`, or a stored map. A map of more than 1000 rows or
        columns is read at every nth cell. Its layers ``spread`` and ``prediction_set``, and those of
        :func:`geomiam.novelty` and :func:`geomiam.value_of_information` if they are joined to it, have sections.
    sites : xarray.Dataset, optional
        Sites over which response curves are averaged.
    explanation : xarray.Dataset, optional
        From :func:`geomiam.shapley`; default: ``maps``, if it has Shapley values.
    projection : Projection, optional
        Maps of other times and places, and the loss of skill there, from :func:`geomiam.project`.
    changes : xarray.Dataset or mapping of str to xarray.Dataset, optional
        Range change from :func:`geomiam.ranges.change`, or several by title, such as
        ``{"now to 2070": change}``. Centroids of :func:`geomiam.ranges.shift` in the same Dataset are
        listed too.
    options : ReportOptions, optional
        Title, texts of the author, and number of figures; see :class:`geomiam.reports.ReportOptions`.
    overwrite : bool
        Whether to replace an earlier report. Other files are never replaced.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    SelectionError
        If the model is an encoder, the map is of another model, or a table or map is of another kind.
    OutputExists, OutputRefused
        If the file exists and ``overwrite`` is False, or it is not a report of geomiam.

    See Also
    --------
    geomiam.reports.odmap : the fields of ODMAP as a table.

    References
    ----------
    Zurell et al. (2020), Ecography 43, 1261-1277; Araújo et al. (2019), Science Advances 5, eaat4858, for
    standards of such reports.

    Examples
    --------
    >>> path = gm.report(model, "report.html", maps=gm.predict(cube, model))
    >>> "ODMAP" in path.read_text(encoding="utf-8")
    True
    """
    with locked_output(path, overwrite, kind=REPORT) as target:
        evidence = Evidence.of(
            as_model(model),
            table=table,
            maps=maps,
            sites=sites,
            explanation=explanation,
            projection=projection,
            changes=changes,
            options=options or ReportOptions(),
        )
        write_text(target, report_html(evidence))
    return target


def report_html(evidence: Evidence) -> str:
    """Return the page."""
    fields = odmap_table(evidence)
    day = datetime.date.today().isoformat()
    count = len(evidence.model.species)
    subtitle = f"Species distribution model of {count:,} species. Report of {day}."
    footer = f"Written by geomiam {__version__} on {day} from the model {evidence.model.id}."
    return document(evidence.title, subtitle, all_sections(evidence, fields), footer)
