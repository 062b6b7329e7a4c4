"""``geomiam predict`` and ``geomiam explain``: maps on disk, planned, resumed, on any scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli_messages import say
from geomiam.errors import GeomiamError

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Using = Annotated[
    list[str] | None,
    typer.Option(
        "--using",
        "-u",
        help="What the model may see; repeat. E.g. climate, bio1, 'landsat[time=2018]'.",
    ),
]
Species = Annotated[
    list[str] | None, typer.Option("--species", "-s", help="Species to map; repeat. Default all.")
]
MapPath = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", help="Zarr store to write, a path or a URL; or map.tif, a GeoTIFF."
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a dask scheduler, e.g. tcp://10.0.0.1:8786.")
]
Resume = Annotated[bool, typer.Option(help="Go on with a map that was stopped, or start anew.")]
Planned = Annotated[
    bool, typer.Option("--plan", help="Say what it will cost, by a trial, and stop.")
]
Require = Annotated[
    list[str] | None,
    typer.Option(help="Modality, group or variable that a cell must have; repeat."),
]
Mask = Annotated[
    str | None,
    typer.Option(help="Variable of the cube, such as a land mask: 0 or missing leaves a cell out."),
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
    """Map suitability: every cell, from whatever it has. A stopped map goes on."""
    how = {"resume": resume, "overwrite": overwrite}
    what = {"shapley": False, "using": using, "species": species, **_needs(require, mask)}
    _map(model, cube, out, plan=plan, scheduler=scheduler, how=how, what=what)


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
    """Map suitability and, exactly, what each group of predictors adds to it. A stopped map goes on."""
    how = {"resume": resume, "overwrite": overwrite}
    what = {"shapley": True, "groups": group, "using": using, "species": species}
    what |= _needs(require, mask)
    _map(model, cube, out, plan=plan, scheduler=scheduler, how=how, what=what)


def _needs(require: list[str] | None, mask: str | None) -> dict[str, Any]:
    """Return the data that a cell must have, where any is asked for."""
    return ({"require": require} if require else {}) | ({"mask": mask} if mask else {})


def _map(
    model: Path,
    cube: Path,
    out: str | None,
    *,
    plan: bool,
    scheduler: str | None,
    how: dict[str, Any],
    what: dict[str, Any],
) -> None:
    import geomiam as gm
    from geomiam.inference.maps import claim_map, make_map

    if out is None and not plan:
        raise GeomiamError("--out is missing: the Zarr store to write; or ask with --plan only")
    if out is not None and not plan:
        how = {**how, "inputs": [model, cube]}
        claim_map(out, how["overwrite"], inputs=[model, cube])
    data, trained = gm.open_cube(cube), gm.load_model(model)
    with _client(scheduler) as client:
        if plan:
            say(str(gm.plan_map(data, trained, client=client, **what)))
        else:
            say(str(make_map(data, trained, str(out), client=client, **how, **what)))


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """Connect to a cluster that somebody else has started."""
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
            f"no dask scheduler answers at {address} ({error}); start one with 'dask scheduler'"
        ) from None
    with client:
        yield client
