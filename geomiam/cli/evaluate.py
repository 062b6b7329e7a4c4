"""``geomiam evaluate`` and ``cross-validate``: the skill of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.options import ModelPath, Overwrite, SitesPath, with_options
from geomiam.cli.outputs import TableFlags, reserve
from geomiam.outputs.kinds import PICTURE
from geomiam.outputs.write import save_picture


@with_options()
def evaluate(
    model: ModelPath,
    sites: SitesPath,
    subsets: Annotated[
        str, typer.Option(help="unimodal, pairs, leave-one-out, every, variables, all; join by +.")
    ] = "unimodal+all",
    metrics: Annotated[
        str, typer.Option(help="auc, auc_prg, average_precision, tss, boyce, cor, …; join by ,.")
    ] = "auc",
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the scores to write, e.g. skill.png.")
    ] = None,
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Score a model on labelled sites, for subsets of the predictors."""
    import geomiam as gm

    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[model, sites])
    names = [m.strip() for m in metrics.split(",")]
    data = gm.open_sites(sites).load()
    table = gm.evaluate(gm.load_model(model), data, subsets=subsets, metrics=names)
    rows = table.drop_dims(["species", "modality"]).to_dataframe().reset_index()
    output.say(rows, _scores_text(rows, names))
    if figure:
        save_picture(gm.plot.subsets(table, metric=names[0])[0].figure, figure, overwrite=overwrite)


def _scores_text(rows: Any, names: list[str]) -> str:
    lines = ["  ".join(f"{m[:9]:>9}" for m in names) + "  unscored     sites  subset"]
    for row in rows.to_dict("records"):
        scores = "  ".join(f"{row[f'mean_{m}']:9.4f}" for m in names)
        unscored_text = f"{row[f'unscored_{names[0]}']:8.0f}"
        lines.append(f"{scores}  {unscored_text}  {row['sites']:8,.0f}  {row['subset']}")
    return "\n".join(lines)
