"""The command line: the verbs of the package, on files."""

from __future__ import annotations

from typing import Annotated

import typer

from geomiam._version import __version__
from geomiam.cli import (
    build,
    correlations,
    demo,
    evaluate,
    info,
    maps,
    records,
    report,
    response,
    scenarios,
    sites,
    train,
)
from geomiam.cli.messages import run_app, say
from geomiam.cli.outputs import with_locks

HELP = """Map species from the predictors that each place has, with the contribution of each group of predictors.

A first look:    geomiam demo

Your own data:

  geomiam build catalog.yaml --out cube.zarr                predictors on one grid

  geomiam records gbif.zip --out records.parquet            read and clean records, with counts

  geomiam sample cube.zarr records.parquet --out sites.zarr predictors at the records

  geomiam split sites.zarr --train train.zarr --test test.zarr   hold out spatial blocks

  geomiam fit train.zarr --schema catalog.yaml --out model  train by masking

  geomiam evaluate model test.zarr --subsets every          AUC from each subset, held out

  geomiam response model bio1 --data train.zarr             response curve of a predictor

  geomiam predict model cube.zarr --out map.zarr            suitability of every cell

  geomiam explain model cube.zarr --out why.zarr            and the contribution of each group

  geomiam project model cube.zarr 2070.zarr --out times.zarr     other times, with what they have

  geomiam change times.zarr/cube times.zarr/2070 --model model   gain and loss in km²

  geomiam report model --map why.zarr --test test.zarr --out report.html   with the ODMAP tables
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(requested_version: bool) -> None:
    if requested_version:
        say(f"geomiam {__version__}")
        raise typer.Exit


@app.callback()
def _every_verb(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for verb in (
    demo.demo,
    build.build,
    records.records,
    sites.sample,
    correlations.correlations,
    sites.split,
    train.fit,
    train.pretrain,
    train.finetune,
    evaluate.cross_validate,
    evaluate.evaluate,
    response.response,
    maps.predict,
    maps.explain,
    maps.export,
    maps.classify,
    scenarios.project,
    scenarios.change,
    scenarios.red_list,
    report.report,
    info.info,
):
    app.command()(with_locks(verb))


def main() -> None:
    """Run the command line."""
    run_app(app)
