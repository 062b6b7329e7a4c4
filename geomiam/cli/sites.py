"""``geomiam sample`` and ``split``: sites at records with background, and their parts for training and test."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import CubePath, Mask, Overwrite, Require, SitesPath, with_options
from geomiam.cli.outputs import reserve
from geomiam.cli.records import RecordColumns
from geomiam.errors import GeomiamError, RecordsMerged
from geomiam.outputs.kinds import SITES

AREA = ("within", "beyond", "hull", "polygon", "outside_envelope", "quantile")


@dataclass(frozen=True)
class BackgroundFlags:
    """Background of ``sample``: number, kind, weights, and the fields of :class:`geomiam.BackgroundArea`."""

    background: Annotated[
        int, typer.Option(help="Number of random background points to add, or most of --points.")
    ] = 0
    target_group: Annotated[
        bool, typer.Option("--target-group", help="Sites of other species count as background.")
    ] = False
    points: Annotated[
        Path | None, typer.Option(help="Background points from a file: csv, parquet or gpkg.")
    ] = None
    bias: Annotated[
        str | None,
        typer.Option(
            help="Weights of random background: a variable of the cube, or the bandwidth of the kernel "
            "density of the records, e.g. '50 km'."
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(help="Largest distance of background from the records, e.g. '200 km'."),
    ] = None
    beyond: Annotated[
        str | None,
        typer.Option(help="Least distance of background from the records, e.g. '10 km'."),
    ] = None
    hull: Annotated[
        str | None,
        typer.Option(
            help="Background in the convex hull of the records, enlarged by e.g. '50 km'."
        ),
    ] = None
    polygon: Annotated[
        Path | None, typer.Option(help="Background in these polygons: gpkg, geojson or shp.")
    ] = None
    outside_envelope: Annotated[
        list[str] | None,
        typer.Option(help="Background outside the range of this variable at the records; repeat."),
    ] = None
    quantile: Annotated[
        float | None,
        typer.Option(help="Share of records beyond each end of that range, e.g. 0.05."),
    ] = None

    def added(self, sites: Any, cube: Any, *, seed: int, **needs: Any) -> Any:
        """Return the sites with background, if any is requested."""
        import geomiam as gm

        fields = {k: v for k in AREA if (v := getattr(self, k)) is not None}
        area = gm.BackgroundArea(**fields) if fields else None
        has_points = bool(self.background) or self.points is not None
        if (fields and not (has_points or self.target_group)) or (self.bias and not has_points):
            flag = next(iter(fields), "bias").replace("_", "-")
            raise GeomiamError(f"--{flag} needs background; pass --background 10000 as well")
        if self.target_group:
            sites = gm.add_background(sites, cube, kind="target-group", n=None, area=area, rng=seed)
        if has_points:
            new_points: dict[str, Any] = {"bias": self.bias, "points": self.points}
            count = self.background or None
            sites = gm.add_background(
                sites, cube, n=count, area=area, rng=seed, **new_points, **needs
            )
        return sites


@with_options()
def sample(
    cube: CubePath,
    records: Annotated[
        Path, typer.Argument(help="Records: GBIF zip, csv, tsv, txt, parquet or gpkg.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Zarr store to write.")],
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to keep as a predictor; repeat.")
    ] = None,
    thin: Annotated[
        bool, typer.Option(help="Count records of a species in one cell once, or use all.")
    ] = True,
    snap: Annotated[
        str | None,
        typer.Option(
            help="Move records without data to a cell with data within this distance, e.g. '5 km'."
        ),
    ] = None,
    require: Require = None,
    mask: Mask = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    overwrite: Overwrite = False,
    *,
    columns: RecordColumns,
    background: BackgroundFlags,
) -> None:
    """Take the predictors of a cube at occurrence records, and add background."""
    import geomiam as gm

    inputs = [cube, records, background.points, background.polygon]
    reserve(out, overwrite, kind=SITES, inputs=inputs)
    names = columns.arguments()
    occurrences = gm.read_records(records, **names) if names else records
    grid = gm.open_cube(cube, chunks=None)
    needs: dict[str, Any] = {"require": require or (), "mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsMerged)  # the last lines report them
        sites = gm.sample(grid, occurrences, keep=keep or (), thin=thin, snap=snap, **needs)
    sites = background.added(sites, grid, seed=seed, **needs)
    gm.write_sites(sites, out, overwrite=overwrite)
    say(_sampled(sites))
    say(f"{sites.sizes['site']:,} sites, {sites.sizes['species']:,} species → {out}")


def _sampled(sites: Any) -> str:
    """Return one line on the records that became sites, and one on background."""
    counts = json.loads(sites.attrs["sampled"])
    parts = [f"{counts['rows']:,} rows"]
    if counts["merged"]:
        parts.append(
            f"{counts['merged']:,} share cell and species with another row (--no-thin keeps all)"
        )
    if counts["absences"]:
        parts.append(f"{counts['absences']:,} are stated as absent")
    if counts["snapped"]:
        parts.append(f"{counts['snapped']:,} moved by up to {counts['snapped_km']:g} km")
    text = ", ".join(parts)
    if "background_kind" not in sites.attrs:
        return text
    numbers = [f"{sites.attrs[f'background_{k}']:,}" for k in ("drawn", "candidates")]
    words = [sites.attrs[k] for k in ("background_bias", "background_area") if k in sites.attrs]
    parts = [sites.attrs["background_kind"], *words]
    return f"{text}\nbackground: {numbers[0]} of {numbers[1]} candidates, {'; '.join(parts)}"


def split(
    sites: SitesPath,
    train: Annotated[Path, typer.Option(help="Training sites: Zarr store to write.")],
    test: Annotated[Path, typer.Option(help="Test sites: Zarr store to write.")],
    share: Annotated[float, typer.Option(help="Share of the sites to hold out, 0 to 1.")] = 0.2,
    block: Annotated[
        str | None,
        typer.Option(help="Side of the spatial blocks, such as '100 km'; default: from the data."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Hold out spatial blocks of sites, to evaluate a model on sites that did not train it."""
    import geomiam as gm

    reserve(train, overwrite, kind=SITES, inputs=[sites, test])
    reserve(test, overwrite, kind=SITES, inputs=[sites, train])
    if not 0 < share < 1:
        raise GeomiamError(f"--share must be between 0 and 1, found {share}; pass --share 0.2")
    data = gm.open_sites(sites)
    is_test = gm.splits.hold_out_blocks(data, share=share, block=block, rng=seed)
    for path, part in ((train, data.isel(site=~is_test)), (test, data.isel(site=is_test))):
        gm.write_sites(part, path, overwrite=overwrite)
        counts = f"{part.sizes['site']:,} sites"
        if "presence" in part:
            counts += f", {int((part['presence'] == 1).sum()):,} presences"
        say(f"{counts} → {path}")
