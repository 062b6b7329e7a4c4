"""``geomiam fit``, ``pretrain`` and ``finetune``: from sites or a cube to a model directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli_maps import ModelPath, Overwrite
from geomiam.cli_outputs import reserve
from geomiam.errors import GeomiamError
from geomiam.outputs.claim import refuse_overlap
from geomiam.outputs.kinds import MODEL
from geomiam.outputs.paths import expand, real_path

SitesPath = Annotated[Path, typer.Argument(help="Sites: Zarr store from 'geomiam sample'.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Model directory to write.")]
SchemaPath = Annotated[
    Path | None, typer.Option(help="Catalog (YAML); inferred from attributes if not given.")
]
Masking = Annotated[
    str | None,
    typer.Option(help="miam (default), uniform, dirichlet, dropout, subset, ramp-miam, …"),
]
Fusion = Annotated[
    str | None, typer.Option(help="group (default), token, cross, late, sum, group+sum.")
]
Width = Annotated[int | None, typer.Option(help="Width of the network; default 192.")]
Epochs = Annotated[int, typer.Option(help="Most epochs.")]
Block = Annotated[
    str | None,
    typer.Option(help="Side of validation blocks, such as '100 km'; default: from the data."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Folder to save to and go on from.")]


def fit(
    sites: SitesPath,
    out: Out,
    schema: SchemaPath = None,
    system: Annotated[
        str | None,
        typer.Option(help="Network and masks of a system: masksdm, ume, ume-mma, maestro, …"),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Model directory to start from, as of 'pretrain'.")
    ] = None,
    masking: Masking = None,
    fusion: Fusion = None,
    members: Annotated[int | None, typer.Option(help="Networks that answer together.")] = None,
    width: Width = None,
    loss: Annotated[
        str,
        typer.Option(
            help="auto (bce for complete surveys, else weighted-bce), bce, weighted-bce, maxent, "
            "cross-entropy."
        ),
    ] = "auto",
    epochs: Epochs = 100,
    block: Block = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on sites, by masking."""
    import geomiam as gm

    _reserve(out, overwrite, inputs=[sites, schema, start], checkpoint=checkpoint)
    first = gm.load_model(start) if start else None
    given = {"masking": masking, "fusion": fusion}
    if system and (clash := [f"--{k}" for k, v in given.items() if v]):
        raise GeomiamError(
            f"--system {system} says what {' and '.join(clash)} says; give one of them"
        )
    data = gm.open_sites(sites).load()
    facts = _schema(data, schema, first)
    with _settings():
        sizes = _given(fusion=fusion, members=members, width=width)
        base = first.config.model_copy(update={"explainer": 0}) if first else gm.NetworkConfig()
        network = gm.NetworkConfig(**base.model_dump() | sizes)
        training = gm.TrainingConfig(loss=loss, epochs=epochs, block=block)  # type: ignore[arg-type]
        how: dict[str, Any] = {"schema": facts, "network": network, "training": training}
        how["masking"] = gm.masking.named(masking) if masking else None
    if system:
        how = gm.system(system).options(facts, network=network, training=training)
    if first:
        how["warm_start"] = first
    model = gm.fit(data, rng=seed, checkpoint=checkpoint, **how)
    _save(model, out, overwrite)


def pretrain(
    data: Annotated[Path, typer.Argument(help="Cube or sites: Zarr store. Labels do not count.")],
    out: Out,
    schema: SchemaPath = None,
    cells: Annotated[int, typer.Option(help="Cells of a cube to learn from, at most.")] = 10_000,
    masking: Masking = None,
    fusion: Fusion = None,
    width: Width = None,
    epochs: Epochs = 100,
    block: Block = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Learn what predictors tell of one another, without labels; 'fit --start' goes on from there."""
    import geomiam as gm

    _reserve(out, overwrite, inputs=[data, schema], checkpoint=checkpoint)
    with _settings():
        network = gm.NetworkConfig(**_given(fusion=fusion, width=width))
        training = gm.TrainingConfig(epochs=epochs, block=block)
        strategy = gm.masking.named(masking) if masking else None
    model = gm.pretrain(
        _open(data),
        gm.Schema.from_yaml(schema) if schema else None,
        masking=strategy,
        network=network,
        training=training,
        rng=seed,
        checkpoint=checkpoint,
        n=cells,
    )
    _save(model, out, overwrite)


def finetune(
    model: ModelPath,
    sites: SitesPath,
    out: Out,
    train: Annotated[
        str, typer.Option(help="head: new species; all: everything, slowly; new: new predictors.")
    ],
    schema: SchemaPath = None,
    epochs: Epochs = 100,
    block: Block = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Let a trained model learn new species, a new region or new predictors."""
    import geomiam as gm

    _reserve(out, overwrite, inputs=[model, sites, schema], checkpoint=checkpoint)
    with _settings():
        training = gm.TrainingConfig(epochs=epochs, block=block)
    tuned = gm.finetune(
        gm.load_model(model),
        gm.open_sites(sites).load(),
        schema=schema,
        train=train,  # type: ignore[arg-type]
        training=training,
        rng=seed,
        checkpoint=checkpoint,
    )
    _save(tuned, out, overwrite)


def _reserve(
    out: Path, overwrite: bool, *, inputs: list[Path | None], checkpoint: Path | None
) -> None:
    """Refuse before training what could not be saved after it, and keep other writers away."""
    reserve(out, overwrite, kind=MODEL, inputs=[*inputs, checkpoint])
    if checkpoint:
        refuse_overlap(real_path(checkpoint), [*inputs, out])


def _save(model: Any, out: Path, overwrite: bool) -> None:
    model.save(out, overwrite=overwrite)
    typer.echo(f"{model}\n→ {out}")


def _schema(data: Any, path: Path | None, start: Any) -> Any:
    """The catalog that is given, that of the model to start from, or what the sites say."""
    import geomiam as gm

    if path:
        return gm.Schema.from_yaml(path)
    if start:
        return start.schema
    schema = gm.infer_schema(data)
    typer.echo(str(schema))
    return schema


def _open(path: Path) -> Any:
    """Open a store of sites, in memory, or of a cube, lazily."""
    import xarray as xr

    import geomiam as gm

    with xr.open_zarr(expand(path), consolidated=False) as head:
        sites = "site" in head.dims
    return gm.open_sites(path).load() if sites else gm.open_cube(path)


def _given(**options: Any) -> dict[str, Any]:
    """Options that were said."""
    return {k: v for k, v in options.items() if v is not None}


@contextmanager
def _settings() -> Iterator[None]:
    """Turn what pydantic or a strategy says of a setting into one line."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        said = [f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise GeomiamError("; ".join(said).replace("--: Value error, ", "")) from None
    except ValueError as error:
        raise GeomiamError(str(error)) from None
