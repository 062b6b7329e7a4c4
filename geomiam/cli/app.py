"""The command line: the verbs of the package, on files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from geomiam._version import __version__
from geomiam.cli import (
    build,
    calibrate,
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

A first look:

\b
  geomiam demo

From your data to the report:

\b
  geomiam build catalog.yaml --out cube.zarr
  geomiam records gbif.zip --out records.parquet
  geomiam sample cube.zarr records.parquet --out sites.zarr
  geomiam split sites.zarr --train train.zarr --test test.zarr
  geomiam fit train.zarr --schema catalog.yaml --out model
  geomiam evaluate model test.zarr --subsets every
  geomiam response model bio1 --data train.zarr
  geomiam predict model cube.zarr --out map.zarr
  geomiam explain model cube.zarr --out why.zarr
  geomiam project model cube.zarr 2070.zarr --out times.zarr
  geomiam change times.zarr/cube times.zarr/2070 --model model
  geomiam report model --map why.zarr --test test.zarr --out report.html
"""
STEPS: dict[str, tuple[Callable[..., None], ...]] = {
    "First look": (demo.demo,),
    "Data": (build.build, records.records, sites.sample, correlations.correlations, sites.split),
    "Model": (train.fit, train.pretrain, train.finetune, calibrate.calibrate),
    "Check": (evaluate.cross_validate, evaluate.evaluate, response.response),
    "Map": (maps.predict, maps.explain, maps.classify, scenarios.project),
    "Ranges": (scenarios.change, scenarios.red_list),
    "Output": (maps.export, report.report, info.info),
}
"""The verbs by step of the work, in the order of the help."""


class VerbsByStep(TyperGroup):
    """The verbs of the command line; the help has a section for each step."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each verb with the first sentence of its help."""
        width = max(map(len, self.commands))
        for step, verbs in STEPS.items():
            names = [verb.__name__.replace("_", "-") for verb in verbs]
            texts = [(self.commands[n].help or "").partition("\n")[0] for n in names]
            with formatter.section(step):
                formatter.write_dl([(n.ljust(width), t) for n, t in zip(names, texts)])


app = typer.Typer(
    cls=VerbsByStep,
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


for verb in chain.from_iterable(STEPS.values()):
    app.command()(with_locks(verb))


def main() -> None:
    """Run the command line."""
    run_app(app)
