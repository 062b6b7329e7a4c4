"""Readers of published data sets; each returns sites as an xarray.Dataset."""

from geomiam_bench.readers.disdat import disdat, disdat_schema
from geomiam_bench.readers.geolifeclef import geolifeclef, geolifeclef_schema
from geomiam_bench.readers.geoplant import geoplant, geoplant_schema
from geomiam_bench.readers.satbird import satbird, satbird_schema
from geomiam_bench.readers.splotopen import splotopen, splotopen_schema
from geomiam_bench.readers.taxabench import taxabench, taxabench_schema

__all__ = [
    "disdat",
    "disdat_schema",
    "geolifeclef",
    "geolifeclef_schema",
    "geoplant",
    "geoplant_schema",
    "satbird",
    "satbird_schema",
    "splotopen",
    "splotopen_schema",
    "taxabench",
    "taxabench_schema",
]
