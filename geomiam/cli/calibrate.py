"""``geomiam calibrate``: a model with calibration sites, for prediction sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geomiam.cli.options import ModelPath, Overwrite, with_options
from geomiam.cli.outputs import TableFlags, reserve
from geomiam.outputs.kinds import MODEL

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Most species in the table for people."""


@with_options()
def calibrate(
    model: ModelPath,
    sites: Annotated[
        Path,
        typer.Argument(
            help="Sites with presences and absences that did not train the model: Zarr store, such as the "
            "--test of 'geomiam split'."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model directory to write.")],
    blocks: Annotated[
        str | None,
        typer.Option(
            help="Side of spatial blocks that count alike, such as '50 km'; default: each site counts."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most sites to store, drawn at random; default 5000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sites that are drawn.")] = 0,
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Add calibration sites to a model, for 'predict --interval': prediction sets with a stated rate of errors.

    The written model has the weights of MODEL, which is left as it is. The table counts presences and absences,
    and the greatest level at which a set can exclude each of these labels.
    """
    import geomiam as gm

    reserve(out, overwrite, kind=MODEL, inputs=[model, sites])
    number = {} if limit is None else {"limit": limit}
    data = gm.open_sites(sites).load()
    calibrated_model = gm.calibrate(gm.load_model(model), data, blocks=blocks, rng=seed, **number)
    calibrated_model.save(out, overwrite=overwrite)
    rows = _rows(calibrated_model)
    output.say(rows, f"{_text(rows, calibrated_model.about['calibration'])} → {out}")


def _rows(model: Any) -> pd.DataFrame:
    """Return the labels of each species, their blocks, and the greatest level that excludes a label."""
    import numpy as np
    import pandas as pd

    columns: dict[str, Any] = {"species": list(model.species)}
    labels, blocks = model.calibration.labels, model.calibration.blocks
    for name, label in (("presences", 1), ("absences", 0)):
        of_label = (labels == label).T
        count = np.array([len(np.unique(blocks[rows])) for rows in of_label])
        columns[name] = of_label.sum(1)
        columns[f"blocks_of_{name}"] = count
        columns[f"level_of_{name}"] = count / (count + 1)
    return pd.DataFrame(columns)


def _text(rows: pd.DataFrame, about: dict[str, Any]) -> str:
    lines = ["presences   level  absences   level  species"]
    for row in rows.head(SHOWN).to_dict("records"):
        numbers = [f"{row[n]:9,}  {row[f'level_of_{n}']:6.1%}" for n in ("presences", "absences")]
        lines.append(f"{'  '.join(numbers)}  {row['species']}")
    if len(rows) > SHOWN:
        lines.append(f"… and {len(rows) - SHOWN:,} more species (--csv has all)")
    lines.append("level: the greatest --interval at which a set can exclude the label")
    blocks = f" in {about['blocks']:,} blocks" if about["blocks"] < about["sites"] else ""
    lines.append(f"{about['sites']:,} calibration sites{blocks}")
    return "\n".join(lines)
