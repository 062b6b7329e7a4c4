"""``geomiam-bench``: every benchmark is one command."""

from __future__ import annotations

from collections.abc import Callable

import typer

from geomiam.cli.messages import run_app
from geomiam_bench import (
    birds,
    calibration,
    cloud_gaps,
    cloud_sites,
    community,
    conformal,
    criteria,
    defaults,
    disdat_settings,
    extrapolation,
    geoplant,
    gpu,
    graphs,
    importance,
    kills,
    large_predictors,
    many_sites,
    map_ratio,
    maps,
    novelty,
    overviews,
    pages,
    planning,
    pretraining,
    shapley,
    skill,
    subsets,
    symbols,
    training,
    value,
)

app = typer.Typer(
    help="Benchmarks of geomiam: skill, costs, and the pages with their results.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "disdat": skill.disdat,
    "disdat-settings": disdat_settings.main,
    "missingness": skill.missingness,
    "systems": skill.systems,
    "subsets": subsets.main,
    "criteria": criteria.main,
    "defaults": defaults.main,
    "geoplant": geoplant.main,
    "community": community.main,
    "cloud-gaps": cloud_gaps.main,
    "cloud-sites": cloud_sites.main,
    "bird-sites": birds.main,
    "symbols": symbols.main,
    "pretraining": pretraining.main,
    "conformal": conformal.main,
    "calibration": calibration.main,
    "importance": importance.main,
    "shapley": shapley.main,
    "gpu": gpu.main,
    "maps": maps.main,
    "map-ratio": map_ratio.main,
    "novelty": novelty.main,
    "extrapolation": extrapolation.main,
    "training": training.main,
    "many-sites": many_sites.main,
    "large-predictors": large_predictors.main,
    "value": value.main,
    "kills": kills.main,
    "planning": planning.main,
    "graphs": graphs.main,
    "overviews": overviews.main,
    "pages": pages.main,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line."""
    run_app(app)
