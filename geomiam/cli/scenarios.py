"""``geomiam project``, ``change`` and ``red-list``: other times and places, and the size of ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from geomiam.cli.options import ModelPath, Overwrite, Species, Using, named_paths, with_options
from geomiam.cli.outputs import TableFlags, reserve, reserve_pair
from geomiam.cli.records import RecordColumns
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import MAP
from geomiam.outputs.paths import expand
from geomiam.outputs.write import save_picture

if TYPE_CHECKING:
    import pandas as pd


@with_options()
def project(
    model: ModelPath,
    scenarios: Annotated[
        list[str],
        typer.Argument(
            help="Cube of each time or place: Zarr store or folder of GeoTIFFs. NAME=PATH names the scenario; "
            "default: the name of the file."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Zarr store to write, with one map per scenario.")
    ],
    using: Using = None,
    species: Species = None,
    sites: Annotated[
        Path | None,
        typer.Option(
            help="Held-out sites on which the skill is measured; default: the scores that the model stores."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="Score on the held-out sites.")] = "auc",
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Map other times or places, such as future climates, from the predictors that each of them has.

    Predictors that a scenario lacks are left out by name, and the loss of skill without them is printed.
    The map of one scenario is OUT/NAME, such as maps.zarr/2070 for 'change', 'classify' and 'export'.
    """
    import geomiam as gm

    paths = named_paths(scenarios)
    reserve(out, overwrite, kind=MAP, inputs=[model, sites, *paths.values()])
    projection = gm.project(
        model,
        {name: gm.open_cube(path) for name, path in paths.items()},
        using=using,
        species=species,
        sites=gm.open_sites(sites).load() if sites else None,
        metric=metric,
    )
    projection.write(out, overwrite=overwrite)
    table = gm.Projection.open(out).table.reset_index()
    output.say(table, _projected(table, metric if sites else "auc", out))


def _projected(table: pd.DataFrame, metric: str, out: Path) -> str:
    lines = ["  skill  with all    loss  outside  scenario"]
    for row in table.to_dict("records"):
        scores = [_number(row["skill"], 7), _number(row["skill_all"], 8)]
        scores.append(_number(row["skill_loss"], 6))
        left_out = f", without {row['left_out']}" if row["left_out"] else ""
        lines.append(
            "  ".join([*scores, f"{row['outside_range']:7.1%}", row["scenario"] + left_out])
        )
    sources = " and ".join(dict.fromkeys(s for s in table["skill_from"] if s)) or "no held-out site"
    lines.append(f"skill: {metric} from {sources}; outside: predictors outside the training range")
    lines.append(f"{len(table)} maps → {out}")
    return "\n".join(lines)


def _number(value: float, width: int) -> str:
    return f"{value:{width}.4f}" if math.isfinite(value) else f"{'–':>{width}}"


@dataclass(frozen=True)
class ThresholdFlags:
    """What separates presence and absence in ``change``."""

    threshold: Annotated[
        float | None, typer.Option(help="Least suitability of a presence, for all species.")
    ] = None
    model: Annotated[
        Path | None,
        typer.Option(help="Model directory, whose thresholds separate presence and absence."),
    ] = None
    kind: Annotated[
        str, typer.Option(help="Threshold of the model, as for 'geomiam classify'.")
    ] = "max-tss"

    def __post_init__(self) -> None:
        if self.model and self.threshold is not None:
            raise GeomiamError("--model and --threshold both set the thresholds; pass one of them")

    def change(self, *maps: Any) -> Any:
        """Return the change from the first map to the second, the shift and the overlap."""
        import geomiam as gm

        overlap = gm.ranges.overlap(*maps)
        if self.model:
            model, kind = gm.load_model(self.model), cast(Any, self.kind)  # the library checks it
            maps = tuple(gm.classify(m, model, kind=kind) for m in maps)
        result = gm.ranges.change(*maps, threshold=self.threshold)
        shift = gm.ranges.shift(*maps, threshold=self.threshold)
        return result.merge(shift).merge(overlap).compute()


@with_options()
def change(
    before: Annotated[
        Path,
        typer.Argument(
            help="Earlier map: Zarr store from 'geomiam predict', or maps.zarr/NAME from 'geomiam project'."
        ),
    ],
    after: Annotated[Path, typer.Argument(help="Later map, on the same grid.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Zarr store to write, with the change of each cell."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Map of gain, loss and stable parts to write, e.g. change.png."),
    ] = None,
    species: Annotated[
        str | None,
        typer.Option("--species", "-s", help="Species of the figure; default: the first."),
    ] = None,
    overwrite: Overwrite = False,
    *,
    limits: ThresholdFlags,
    output: TableFlags,
) -> None:
    """Compare two maps: gain, loss and stable parts in km², the shift of the centroid, and niche overlap.

    The maps are of suitability, with --threshold or --model, or of presence and absence, from
    'geomiam classify'.
    """
    import geomiam as gm
    from geomiam.data.store.store import write_zarr

    reserve_pair(out, figure, overwrite, kind=MAP, inputs=[before, after, limits.model])
    result = limits.change(_open_map(before), _open_map(after))
    rows = _changes(result)
    output.say(rows, _change_text(rows))
    if out:
        write_zarr(result, out, overwrite=overwrite, kind=MAP)
    if figure:
        ax = gm.plot.range_change(result, species=species)
        save_picture(ax.figure, figure, overwrite=overwrite)
    output.say_paths(out, figure)


def _open_map(path: Path) -> Any:
    """Open one map; a store of several maps is refused with their names."""
    import xarray as xr

    import geomiam as gm
    from geomiam.data.store.store import open_zarr

    maps = open_zarr(path)
    if isinstance(maps, xr.DataTree):
        names = list(gm.Projection.open(path).table.index)
        raise GeomiamError(f"{path} has several maps; pass one of {[f'{path}/{n}' for n in names]}")
    return maps


def _changes(result: Any) -> pd.DataFrame:
    """Return one row per species, with units in the names of the columns."""
    areas = result["area"].transpose("class", "species").to_pandas().T.add_suffix("_km2")
    names = {"area_before": "before_km2", "area_after": "after_km2", "distance": "shift_km"}
    columns = ["percent_loss", "percent_gain", "percent_change", "direction", "schoener_d"]
    scores = result[[*names, *columns, "warren_i"]].reset_coords(drop=True).to_dataframe()
    return areas.join(scores.rename(columns=names)).reset_index()


def _change_text(rows: pd.DataFrame) -> str:
    columns = ["before_km2", "after_km2", "gain_km2", "loss_km2", "stable_present_km2"]
    lines = ["".join(f"{n.removesuffix('_km2').removesuffix('_present'):>12}" for n in columns)]
    lines[0] += "   change            shift  overlap D  species"
    for row in rows.to_dict("records"):
        areas = "".join(f"{row[n]:12,.0f}" for n in columns)
        shift = f"{row['shift_km']:,.0f} km {row['direction']}" if row["direction"] else "–"
        percent = f"{row['percent_change']:+.1f}%" if math.isfinite(row["percent_change"]) else "–"
        lines.append(f"{areas}{percent:>9}{shift:>17}{row['schoener_d']:11.3f}  {row['species']}")
    return "\n".join([*lines, "areas in km²"])


@with_options()
def red_list(
    records: Annotated[
        Path,
        typer.Argument(help="Records: GBIF zip, csv, tsv, txt, parquet or gpkg; or sites (Zarr)."),
    ],
    cell: Annotated[
        str, typer.Option(help="Side of the cells of the area of occupancy; 2 km is the standard.")
    ] = "2 km",
    *,
    columns: RecordColumns,
    output: TableFlags,
) -> None:
    """Measure ranges as the IUCN Red List does: area of occupancy (AOO) and extent of occurrence (EOO).

    b1 and b2 are the categories whose size threshold the EOO or AOO is below. Criterion B has further
    conditions.
    """
    import geomiam as gm
    from geomiam.data.store.store import is_zarr

    is_store = is_zarr(Path(expand(records)))
    data = gm.open_sites(records) if is_store else gm.read_records(records, **columns.arguments())
    rows = gm.ranges.red_list(data, cell=cell).to_dataframe().reset_index()
    lines = ["   AOO [km²]    EOO [km²]  b1  b2   records  species"]
    for row in rows.to_dict("records"):
        categories = "".join(f"{row[b] or '–':>4}" for b in ("b1", "b2"))
        sizes = f"{row['aoo']:12,.0f} {row['eoo']:12,.0f}"
        lines.append(f"{sizes}{categories}{row['records']:10,}  {row['species']}")
    output.say(rows, "\n".join(lines))
