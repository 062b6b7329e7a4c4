"""``geomiam predict`` and ``geomiam explain``: maps on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import CubePath, MapFlags, ModelPath, with_options
from geomiam.errors import GeomiamError


@with_options()
def predict(model: ModelPath, cube: CubePath, *, options: MapFlags) -> None:
    """Map suitability: every cell, from the predictors it has. A stopped map is continued."""
    _map(model, cube, options)


@with_options()
def explain(
    model: ModelPath,
    cube: CubePath,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Group to explain; repeat.")
    ] = None,
    *,
    options: MapFlags,
) -> None:
    """Map suitability and the contribution of each group of predictors. A stopped map is continued."""
    _map(model, cube, options, shapley=True, groups=group)


def _map(
    model: Path,
    cube: Path,
    flags: MapFlags,
    *,
    shapley: bool = False,
    groups: list[str] | None = None,
) -> None:
    import geomiam as gm
    from geomiam.maps.write import claim_map, make_map

    if flags.out is None and not flags.plan:
        raise GeomiamError(
            "--out is missing: the map to write; or pass --plan to print the plan only"
        )
    if flags.out is not None and not flags.plan:
        claim_map(flags.out, flags.overwrite, inputs=[model, cube])  # before data are read
    data, loaded_model = gm.open_cube(cube), gm.load_model(model)
    with _client(flags.scheduler) as client:
        options = gm.MapOptions(
            using=flags.using,
            groups=groups,
            require=flags.require or (),
            mask=flags.mask,
            client=client,
            resume=flags.resume,
        )
        shared: dict[str, Any] = {"shapley": shapley, "species": flags.species, "options": options}
        if flags.plan:
            say(str(gm.plan_map(data, loaded_model, **shared)))
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
