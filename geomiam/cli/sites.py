"""``geomiam split``: split sites into training sites and test sites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import Overwrite, SitesPath
from geomiam.cli.outputs import reserve
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import SITES


def split(
    sites: SitesPath,
    train: Annotated[Path, typer.Option(help="Training sites: Zarr store to write.")],
    test: Annotated[Path, typer.Option(help="Test sites: Zarr store to write.")],
    share: Annotated[float, typer.Option(help="Share of the sites to hold out, 0 to 1.")] = 0.2,
    block: Annotated[
        str | None,
        typer.Option(help="Side of the spatial blocks, such as '100 km'; default: from the data."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
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
