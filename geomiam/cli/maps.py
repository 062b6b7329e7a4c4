"""``geomiam predict``, ``explain`` and ``classify``: maps on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import CubePath, MapFlags, ModelPath, Overwrite, Spread, with_options
from geomiam.cli.outputs import reserve
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import MAP


@with_options()
def predict(
    model: ModelPath,
    cube: CubePath,
    spread: Spread = False,
    interval: Annotated[
        float | None,
        typer.Option(
            help="Also map prediction sets of this level, such as 0.9 (calibrated models)."
        ),
    ] = None,
    *,
    options: MapFlags,
) -> None:
    """Map suitability: every cell, from the predictors it has. A stopped map is continued."""
    _map(model, cube, options, spread=spread, interval=interval)


@with_options()
def explain(
    model: ModelPath,
    cube: CubePath,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Group to explain; repeat.")
    ] = None,
    order: Annotated[
        int, typer.Option(help="2: main effects and the interaction of each pair of groups, too.")
    ] = 1,
    spread: Spread = False,
    *,
    options: MapFlags,
) -> None:
    """Map suitability and the contribution of each group of predictors. A stopped map is continued."""
    _map(model, cube, options, shapley=True, groups=group, order=order, spread=spread)


def classify(
    model: ModelPath,
    maps: Annotated[
        Path, typer.Argument(metavar="map", help="Map: Zarr store from 'geomiam predict'.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Zarr store to write.")],
    kind: Annotated[
        str,
        typer.Option(
            help="Threshold: max-tss, equal-sensitivity-specificity, omission-10, prevalence or "
            "minimum-presence."
        ),
    ] = "max-tss",
    overwrite: Overwrite = False,
) -> None:
    """Map presence and absence by a threshold of the model: 1, 0 and NaN for each species."""
    import geomiam as gm
    from geomiam.data.store.store import open_zarr, write_zarr
    from geomiam.metrics.thresholds import check_kind

    kind_name: Any = check_kind(kind)
    reserve(out, overwrite, kind=MAP, inputs=[model, maps])
    classes = gm.classify(open_zarr(maps), gm.load_model(model), kind=kind_name)
    write_zarr(classes, out, overwrite=overwrite, kind=MAP)
    values = classes["threshold"].values
    for name, value in list(zip(classes["species"].values, values))[:10]:
        say(f"{value:.4f}  {name}")
    shown_part = f", the first 10 of {len(values):,}" if len(values) > 10 else ""
    say(
        f"thresholds {kind}{shown_part}, from the {classes['presence'].attrs['threshold_source']} → {out}"
    )


def export(
    maps: Annotated[
        Path, typer.Argument(metavar="map", help="Map: Zarr store from 'geomiam predict'.")
    ],
    out: Annotated[Path, typer.Argument(help="File to write: .tif, .nc or .zarr (GeoZarr).")],
    kind: Annotated[
        str | None,
        typer.Option(help="cog, netcdf, geozarr or ebvcube; default: by the suffix of the file."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Layer to write; repeat. Default: suitability and contributions of groups.",
        ),
    ] = None,
    style: Annotated[
        bool, typer.Option("--style", help="Write a QGIS style (.qml) beside a GeoTIFF.")
    ] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE: attribute of the file, such as license=CC0; repeat."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a map for other programs: cloud-optimised GeoTIFF, netCDF, GeoZarr or EBVCube."""
    import geomiam as gm

    if bad := [t for t in metadata or () if "=" not in t]:
        raise GeomiamError(f"--metadata {bad[0]}: expected KEY=VALUE, such as license=CC0")
    attrs = dict(t.split("=", 1) for t in metadata or ())
    options: dict[str, Any] = {"kind": kind, "layers": layer, "style": style, "metadata": attrs}
    say(f"{maps} → {gm.export(maps, out, overwrite=overwrite, **options)}")


def _map(
    model: Path,
    cube: Path,
    flags: MapFlags,
    *,
    shapley: bool = False,
    **layers: Any,
) -> None:
    import geomiam as gm
    from geomiam.maps.write import claim_map, make_map

    if flags.out is None and not flags.plan:
        raise GeomiamError(
            "--out is missing: the map to write; or pass --plan to print the plan only"
        )
    cost_settings = flags.cost_settings()
    if flags.out is not None and not flags.plan:
        claim_map(flags.out, flags.overwrite, inputs=[model, cube])  # before data are read
    data, loaded_model = gm.open_cube(cube), gm.load_model(model)
    with _client(flags.scheduler) as client:
        options = gm.MapOptions(
            **layers,
            require=flags.require or (),
            mask=flags.mask,
            clamp=flags.clamp,
            novelty=flags.novelty,
            value_of_information=gm.ValueOptions() if flags.value_of_information else None,
            resume=flags.resume,
        )
        shared: dict[str, Any] = {
            "shapley": shapley,
            "species": flags.species,
            "using": flags.using,
            "client": client,
            "options": options,
        }
        if flags.plan:
            plan = gm.plan_map(data, loaded_model, **shared)
            say(str(plan))
            if cost_settings is not None:
                say(str(plan.cost(**cost_settings)))
            return
        out, overwrite = str(flags.out), flags.overwrite
        say(
            str(
                make_map(
                    data, loaded_model, out, overwrite=overwrite, inputs=[model, cube], **shared
                )
            )
        )


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """Connect to a running cluster."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise GeomiamError("--scheduler needs dask.distributed: pip install distributed") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise GeomiamError(
            f"no dask scheduler responds at {address} ({error}); start one with 'dask scheduler'"
        ) from None
    with client:
        yield client
