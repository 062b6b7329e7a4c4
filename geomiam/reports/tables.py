"""The tables of the ODMAP protocol, filled from the metadata of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from geomiam.evaluation.projection import Projection
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.reports.evidence import Evidence, ReportOptions
from geomiam.reports.fields import FIELDS, MISSING
from geomiam.reports.odmap_texts import field_texts

if TYPE_CHECKING:
    import pandas as pd


def odmap(
    model: Model | str | Path,
    *,
    table: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    maps: xr.Dataset | None = None,
    sites: xr.Dataset | None = None,
    projection: Projection | None = None,
    texts: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the fields of the ODMAP protocol, version 1.0, filled from the metadata of a model.

    Parameters
    ----------
    model : Model or path
    table : xarray.Dataset or mapping of str to xarray.Dataset, optional
        Skill from :func:`geomiam.evaluate` or :func:`geomiam.cross_validate`.
    maps : xarray.Dataset, optional
        From :func:`geomiam.predict` or :func:`geomiam.shapley`.
    sites : xarray.Dataset, optional
        Sites of the response curves of the report.
    projection : Projection, optional
        From :func:`geomiam.project`; fills the fields on scenarios and transfer data.
    texts : mapping of str to str, optional
        Texts of the author by key; they replace the text from the model.

    Returns
    -------
    pandas.DataFrame
        One row per field, in the order of the protocol: ``key``, ``section``, ``element``, ``field``,
        ``text`` and ``complete``. A field that the metadata do not determine has the text "to be completed by
        the author" with the content that belongs into it.

    Raises
    ------
    SelectionError
        If a key of ``texts`` is no field, or the map is of another model.

    See Also
    --------
    geomiam.report : the report with these tables.

    References
    ----------
    Zurell et al. (2020), Ecography 43, 1261-1277.

    Examples
    --------
    >>> fields = gm.reports.odmap(model, texts={"authors": "A. Author"}).set_index("key")
    >>> fields.loc["authors", "text"], bool(fields.loc["hypotheses", "complete"])
    ('A. Author', False)
    >>> bool(fields["complete"].sum() > 20)
    True
    """
    options = ReportOptions(texts=texts or {})
    evidence = Evidence.of(
        as_model(model), table=table, maps=maps, sites=sites, projection=projection, options=options
    )
    return odmap_table(evidence)


def odmap_table(evidence: Evidence) -> pd.DataFrame:
    """Return the table of :func:`odmap` from checked material."""
    import pandas as pd

    texts = field_texts(evidence)
    return pd.DataFrame(
        {
            "key": key,
            "section": field.section,
            "element": field.element,
            "field": field.label,
            "text": texts.get(key, f"{MISSING}: {field.content}"),
            "complete": key in texts,
        }
        for key, field in FIELDS.items()
    )
