"""The schema of predictors: variables, modalities and groups; catalogs and their messages."""

from geomiam.schema.schema import Schema
from geomiam.schema.variable import Group, Modality, Variable

__all__ = ["Group", "Modality", "Schema", "Variable"]
