"""The built-in demo: real records and predictors of the western United States, and a map from them."""

from geomiam.demo.demo import (
    load_cube,
    load_records,
    load_schema,
    network,
    on_the_map,
    run,
    sample_records,
    training,
)

__all__ = [
    "load_cube",
    "load_records",
    "load_schema",
    "network",
    "on_the_map",
    "run",
    "sample_records",
    "training",
]
