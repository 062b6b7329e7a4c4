"""``geomiam predict`` and ``geomiam explain``: maps on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.errors import GeomiamError

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Using = Annotated[
    list[str] | None,
    typer.Option(
        "--using",
        "-u",
        help="Predictors to use; repeat. E.g. climate, bio1, 'landsat[time=2018]'; default: all.",
    ),
]
Species = Annotated[
    list[str] | None, typer.Option("--species", "-s", help="Species to map; repeat. Default: all.")
]
MapPath = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="Map to write: a Zarr store (path or URL), or a GeoTIFF if the name ends in .tif.",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a dask scheduler, e.g. tcp://10.0.0.1:8786.")
]
Resume = Annotated[bool, typer.Option(help="Continue a map that was stopped, or start again.")]
Planned = Annotated[
    bool, typer.Option("--plan", help="Print memory and time, estimated by a trial, and stop.")
]
Require = Annotated[
    list[str] | None,
    typer.Option(help="Modality, group or variable that a cell must have data of; repeat."),
]
Mask = Annotated[
    str | None,
    typer.Option(
        help="Variable of the cube, such as a land mask; cells with 0 or NaN are left out."
    ),
]
CubePath = Annotated[Path, typer.Argument(help="Cube: Zarr store.")]
ModelPath = Annotated[Path, typer.Argument(help="Model directory.")]


def predict(
    model: ModelPath,
    cube: CubePath,
    out: MapPath = None,
    using: Using = None,
    species: Species = None,
    require: Require = None,
    mask: Mask = None,
    scheduler: Scheduler = None,
    resume: Resume = True,
    plan: Planned = False,
    overwrite: Overwrite = False,
) -> None:
    """Map suitability: every cell, from the predictors it has. A stopped map is continued."""
    storing = {"resume": resume, "overwrite": overwrite}
    options = {"shapley": False, "using": using, "species": species, **_needs(require, mask)}
    _map(model, cube, out, plan=plan, scheduler=scheduler, storing=storing, options=options)


def explain(
    model: ModelPath,
    cube: CubePath,
    out: MapPath = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Group to explain; repeat.")
    ] = None,
    using: Using = None,
    species: Species = None,
    require: Require = None,
    mask: Mask = None,
    scheduler: Scheduler = None,
    resume: Resume = True,
    plan: Planned = False,
    overwrite: Overwrite = False,
) -> None:
    """Map suitability and the contribution of each group of predictors. A stopped map is continued."""
    storing = {"resume": resume, "overwrite": overwrite}
    options = {"shapley": True, "groups": group, "using": using, "species": species}
    options |= _needs(require, mask)
    _map(model, cube, out, plan=plan, scheduler=scheduler, storing=storing, options=options)


def _needs(require: list[str] | None, mask: str | None) -> dict[str, Any]:
    """Return the options for the data that a cell must have; empty without any."""
    return ({"require": require} if require else {}) | ({"mask": mask} if mask else {})


def _map(
    model: Path,
    cube: Path,
    out: str | None,
    *,
    plan: bool,
    scheduler: str | None,
    storing: dict[str, Any],
    options: dict[str, Any],
) -> None:
    import geomiam as gm
    from geomiam.maps.write import claim_map, make_map

    if out is None and not plan:
        raise GeomiamError(
            "--out is missing: the map to write; or pass --plan to print the plan only"
        )
    if out is not None and not plan:
        storing = {**storing, "inputs": [model, cube]}
        claim_map(out, storing["overwrite"], inputs=[model, cube])
    data, loaded_model = gm.open_cube(cube), gm.load_model(model)
    with _client(scheduler) as client:
        if plan:
            say(str(gm.plan_map(data, loaded_model, client=client, **options)))
        else:
            say(str(make_map(data, loaded_model, str(out), client=client, **storing, **options)))


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
