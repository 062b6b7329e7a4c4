"""``geomiam response``: response curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import ModelPath, Overwrite, Species, Using, with_options
from geomiam.cli.outputs import TableFlags, reserve
from geomiam.outputs.kinds import PICTURE
from geomiam.outputs.write import save_picture

if TYPE_CHECKING:
    import pandas as pd

PANELS = 9
"""Most species in a figure."""


@with_options()
def response(
    model: ModelPath,
    variables: Annotated[
        list[str],
        typer.Argument(
            help="Predictor, for a curve; or two, for a surface. E.g. bio1, or bio1 bio12."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Sites or cube (Zarr) over which the prediction is averaged; not needed by --kind alone."
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="partial: mean over the sites, whose other predictors keep their values; "
            "alone: from this predictor, with all others hidden."
        ),
    ] = "partial",
    using: Using = None,
    species: Species = None,
    points: Annotated[
        int | None, typer.Option(help="Values of each predictor; default 50, or 20 of two.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the curves to write, e.g. bio1.png.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sites that are used.")] = 0,
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Show how the prediction depends on a predictor: response curves, with the training range.

    --csv and --json print the curve: a row per species and value of the predictor.
    """
    import geomiam as gm

    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[model, data])
    curve = gm.explain.response(
        model,
        _open(data),
        variables,
        kind=cast(Any, kind),  # the library checks it
        using=using,
        species=species,
        options=gm.explain.ResponseOptions(points=points, rng=seed),
    )
    names = ["response", "spread", *(f"outside_{v}" for v in variables)]
    rows = curve[names].to_dataframe(["species", *variables]).reset_index()
    output.say(rows, _text(rows, curve, variables))
    if figure:
        save_picture(_figure(curve), figure, overwrite=overwrite)
        if not output.for_programs:
            panel_count = min(PANELS, curve.sizes["species"])
            say(f"curves of {panel_count} of {curve.sizes['species']} species → {figure}")


def _open(path: Path | None) -> Any:
    import geomiam as gm
    from geomiam.data.store.store import open_zarr

    if path is None:
        return None
    return gm.open_sites(path).load() if "site" in open_zarr(path).dims else gm.open_cube(path)


def _text(rows: pd.DataFrame, curve: Any, variables: list[str]) -> str:
    """Return where the response of each species is highest and lowest."""
    lines = []
    for name in variables:
        low, high = curve["training_range"].sel(variable=name).values.tolist()
        units = curve[name].attrs.get("units", "1")
        limits = f"{low:g} to {high:g}" if math.isfinite(low) else "not recorded"
        lines.append(f"{name}{'' if units == '1' else f' [{units}]'}: training range {limits}")
    lines.append("highest  at                lowest  at                species")
    for name, part in rows.groupby("species", sort=False):
        ends = []
        for row in (part["response"].idxmax(), part["response"].idxmin()):
            place = ", ".join(f"{v:.4g}" for v in part.loc[row, variables])
            ends.append(f"{part.loc[row, 'response']:7.4f}  {place:<16}")
        lines.append("  ".join([*ends, str(name)]))
    return "\n".join(lines)


def _figure(curve: Any) -> Any:
    """Draw a panel for each of the first species."""
    import geomiam as gm
    from geomiam.plot.canvas import several_axes

    names = curve["species"].values[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = (5.6 * columns, 4.2 * rows)
    axes = several_axes(None, len(names), rows=rows, columns=columns, figsize=size)
    for name, ax in zip(names, axes):
        gm.plot.response(curve, species=name, ax=ax)
    return axes[0].figure
