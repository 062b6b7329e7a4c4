"""``geomiam correlations``: correlated predictors, and a subset without strong correlations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer

from geomiam.cli.messages import say
from geomiam.cli.options import Overwrite, with_options
from geomiam.cli.outputs import TableFlags, reserve
from geomiam.outputs.kinds import PICTURE
from geomiam.outputs.write import save_picture

if TYPE_CHECKING:
    import pandas as pd


@with_options()
def correlations(
    data: Annotated[Path, typer.Argument(help="Cube or sites: Zarr store.")],
    variable: Annotated[
        list[str] | None, typer.Option(help="Predictor to compare; repeat. Default: all numbers.")
    ] = None,
    method: Annotated[str, typer.Option(help="pearson or spearman.")] = "pearson",
    threshold: Annotated[
        float, typer.Option(help="Largest absolute correlation in the subset.")
    ] = 0.7,
    vif: Annotated[
        float, typer.Option(help="Largest variance inflation factor in the subset.")
    ] = 10.0,
    prefer: Annotated[
        list[str] | None, typer.Option(help="Predictor to keep rather than others; repeat.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the correlations to write, e.g. r.png.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the cells that are read.")] = 0,
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Compare predictors: correlation, variance inflation, and a subset without strong correlations."""
    import geomiam as gm
    from geomiam.data.store.store import open_zarr

    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[data])
    is_sites = "site" in open_zarr(data).dims
    table = gm.correlations(
        gm.open_sites(data) if is_sites else gm.open_cube(data),
        variables=variable,
        method=cast(Any, method),  # the library checks it
        threshold=threshold,
        vif=vif,
        prefer=prefer or (),
        rng=seed,
    )
    rows = _rows(table)
    output.say(rows, _text(rows))
    if figure:
        save_picture(gm.plot.correlations(table).figure, figure, overwrite=overwrite)
        if not output.for_programs:
            say(f"figure → {figure}")


def _rows(table: Any) -> pd.DataFrame:
    """Return one row per predictor, with the other predictor of the strongest correlation."""
    strength = np.nan_to_num(np.abs(table["correlation"].values))
    np.fill_diagonal(strength, -1)
    strongest = strength.argmax(1)
    rows = table[["selected", "vif", "selected_vif", "reason"]].to_dataframe().reset_index()
    rows.insert(2, "strongest", table["variable"].values[strongest])
    values = table["correlation"].values[np.arange(len(strongest)), strongest]
    rows.insert(3, "correlation", values)
    return rows


def _text(rows: pd.DataFrame) -> str:
    lines = ["      r       VIF  subset  predictor"]
    for row in rows.to_dict("records"):
        is_selected = "yes" if row["selected"] else "no"
        reason = f" ({row['reason']})" if row["reason"] else f" (strongest: {row['strongest']})"
        lines.append(
            f"{row['correlation']:7.2f}  {row['vif']:8.1f}  {is_selected:>6}  {row['variable']}{reason}"
        )
    return "\n".join(lines)
