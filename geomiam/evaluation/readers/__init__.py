"""Readers of the field's data sets: each gives sites in the package's form."""

from geomiam.evaluation.readers.disdat import disdat, disdat_schema

__all__ = ["disdat", "disdat_schema"]
