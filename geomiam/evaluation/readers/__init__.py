"""Readers of the field's data sets: each gives sites in the package's form."""

from geomiam.evaluation.readers.disdat import disdat, disdat_schema
from geomiam.evaluation.readers.geolifeclef import geolifeclef, geolifeclef_schema
from geomiam.evaluation.readers.geoplant import geoplant, geoplant_schema

__all__ = [
    "disdat",
    "disdat_schema",
    "geolifeclef",
    "geolifeclef_schema",
    "geoplant",
    "geoplant_schema",
]
