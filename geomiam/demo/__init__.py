"""The built-in demo: real records and predictors of the western United States, and a map from them."""

from geomiam.demo.demo import (
    Timer,
    load_cube,
    load_records,
    load_schema,
    network,
    on_the_map,
    run,
    sample_records,
    say,
    training,
)

__all__ = [
    "Timer",
    "load_cube",
    "load_records",
    "load_schema",
    "network",
    "on_the_map",
    "run",
    "sample_records",
    "say",
    "training",
]
