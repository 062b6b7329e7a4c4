"""``geomiam fit``, ``pretrain`` and ``finetune``: from sites or a cube to a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.maps import ModelPath, Overwrite
from geomiam.cli.messages import say
from geomiam.cli.outputs import reserve
from geomiam.errors import GeomiamError, SettingError
from geomiam.outputs.check import refuse_overlap
from geomiam.outputs.kinds import MODEL
from geomiam.outputs.paths import expand, real_path

SitesPath = Annotated[Path, typer.Argument(help="Sites: Zarr store from 'geomiam sample'.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Model directory to write.")]
SchemaPath = Annotated[
    Path | None,
    typer.Option(help="Catalog (YAML); inferred from names, attributes and values if not given."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="VARIABLE=KIND, to correct an inferred kind; repeat."),
]
Masking = Annotated[
    str | None,
    typer.Option(help="miam (default), uniform, dirichlet, dropout, subset, ramp-miam, …"),
]
Fusion = Annotated[
    str | None,
    typer.Option(
        help="linear, quadratic, sum, group, several of these joined by '+', token, cross or late."
    ),
]
Width = Annotated[int | None, typer.Option(help="Width of the network.")]
Epochs = Annotated[int | None, typer.Option(help="Upper limit of epochs.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
EpochSteps = Annotated[
    int | None, typer.Option(help="Least steps of an epoch: few sites are passed several times.")
]
Batch = Annotated[int | None, typer.Option(help="Sites in a batch.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate.")]
Decay = Annotated[float | None, typer.Option(help="Weight decay.")]
Warmup = Annotated[
    float | None,
    typer.Option(
        help="Steps over which the learning rate rises: below 1 a share of all, else a number."
    ),
]
Holdout = Annotated[
    float | None,
    typer.Option(help="Share of sites that do not train and choose the best epoch; 0: all train."),
]
Keep = Annotated[
    str | None, typer.Option(help="Use the weights of the 'best' or the 'last' epoch.")
]
Patience = Annotated[
    int | None, typer.Option(help="Epochs without a better score before stopping (--keep best).")
]
Masks = Annotated[str | None, typer.Option(help="Draw masks per 'batch' or per 'sample' (site).")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Devices = Annotated[
    int | None, typer.Option(help="Number of devices; each batch is shared among them.")
]
Precision = Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")]
Evenness = Annotated[
    float | None,
    typer.Option(help="For --loss maxent: 0: every record weighs the same; 1: every species."),
]
Block = Annotated[
    str | None,
    typer.Option(help="Side of validation blocks, such as '100 km'; default: from the data."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Folder for checkpoints; an interrupted training is continued from there."),
]


def fit(
    sites: SitesPath,
    out: Out,
    schema: SchemaPath = None,
    kind: Kinds = None,
    system: Annotated[
        str | None,
        typer.Option(help="Published system to train: masksdm, ume, ume-mma, maestro, …"),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Model directory to start from, such as that of 'pretrain'.")
    ] = None,
    masking: Masking = None,
    masks: Masks = None,
    fusion: Fusion = None,
    members: Annotated[
        int | None, typer.Option(help="Number of networks, whose predictions are averaged.")
    ] = None,
    width: Width = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks of attention.")] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Share of activations that dropout sets to 0.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="auto (bce for complete surveys, else weighted-bce; the default), bce, weighted-bce, "
            "maxent, cross-entropy."
        ),
    ] = None,
    evenness: Evenness = None,
    steps: Steps = None,
    epochs: Epochs = None,
    epoch_steps: EpochSteps = None,
    batch: Batch = None,
    lr: Rate = None,
    weight_decay: Decay = None,
    warmup: Warmup = None,
    holdout: Holdout = None,
    keep: Keep = None,
    patience: Patience = None,
    joint_epochs: Annotated[
        int | None, typer.Option(help="Epochs of all branches together (--system ume-mma).")
    ] = None,
    joint_lr: Annotated[
        float | None, typer.Option(help="Learning rate of the joint epochs.")
    ] = None,
    block: Block = None,
    accelerator: Device = None,
    devices: Devices = None,
    precision: Precision = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on sites, by masking.

    By default all settings follow from the number of sites, presences and species, and spatial folds
    choose the fusion, as for gm.fit(sites) in Python. A flag changes one setting.
    """
    import geomiam as gm

    sizes = _given(
        fusion=fusion, members=members, width=width, heads=heads, depth=depth, dropout=dropout
    )
    settings = _given(
        loss=loss,
        evenness=evenness,
        steps=steps,
        epochs=epochs,
        epoch_steps=epoch_steps,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        warmup=warmup,
        holdout=holdout,
        keep=keep,
        patience=patience,
        joint_epochs=joint_epochs,
        joint_lr=joint_lr,
        block=block,
        accelerator=accelerator,
        devices=devices,
        precision=precision,
    )
    _reserve(out, overwrite, inputs=[sites, schema, start], checkpoint=checkpoint)
    first = gm.load_model(start) if start else None
    of_system = {"masking": masking, "masks": masks, "fusion": fusion}
    if system and (clash := [f"--{k}" for k, v in of_system.items() if v]):
        raise GeomiamError(f"--system {system} sets {' and '.join(clash)} itself; give one of them")
    data = gm.open_sites(sites).load()
    predictors = _schema(data, schema, first, kinds=_kinds(kind, schema or start))
    if system:
        options = _system(system, predictors, sizes, settings)
    else:
        strategy = _strategy(masking, masks)
        _check_changes(sizes, settings)
        options = {"schema": predictors, "network": sizes or None, "training": settings or None}
        options["masking"] = strategy
    if first:
        options["warm_start"] = first
    model = gm.fit(data, rng=seed, checkpoint=checkpoint, **options)
    _save(model, out, overwrite)


def _system(name: str, schema: Any, sizes: dict, settings: dict) -> dict[str, Any]:
    """Keywords of fit for a published system, of which single settings are changed."""
    import geomiam as gm
    from geomiam.baselines.recipes import TRAINING

    network = gm.NetworkConfig(**sizes)
    training = gm.TrainingConfig(**{**TRAINING.model_dump(), **settings})
    return gm.baselines.recipe(name).options(schema, network=network, training=training)


def _check_changes(sizes: dict, settings: dict) -> None:
    """Refuse values out of range before anything is read; the rest follows from the data."""
    import geomiam as gm
    from geomiam.training.rule import SIZES

    members = len(sizes.get("fusion", "").split("+"))
    gm.NetworkConfig(**{**SIZES, "members": members, **sizes})
    keep = "best" if settings.get("holdout") else "last"
    gm.TrainingConfig(**{"holdout": 0, "keep": keep, **settings})


def _strategy(masking: str | None, masks: str | None) -> Any:
    """The masking strategy; None is the default of fit."""
    import geomiam as gm

    if masks not in (None, "batch", "sample"):
        raise SettingError(f"--masks {masks}: use 'batch' or 'sample'")
    if masks is None:
        return gm.masking.named(masking) if masking else None
    return gm.masking.named(masking or "miam", per_sample=masks == "sample")


def pretrain(
    data: Annotated[Path, typer.Argument(help="Cube or sites: Zarr store. Labels are not read.")],
    out: Out,
    schema: SchemaPath = None,
    kind: Kinds = None,
    cells: Annotated[int, typer.Option(help="Most cells of a cube to use.")] = 10_000,
    masking: Masking = None,
    fusion: Fusion = None,
    width: Width = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    weight_decay: Decay = None,
    warmup: Warmup = None,
    holdout: Holdout = None,
    keep: Keep = None,
    patience: Patience = None,
    block: Block = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Train without labels, to predict hidden predictors from the others.

    Defaults are those of gm.NetworkConfig and gm.TrainingConfig in Python. Then use 'fit --start'.
    """
    import geomiam as gm

    _reserve(out, overwrite, inputs=[data, schema], checkpoint=checkpoint)
    network = gm.NetworkConfig(**_given(fusion=fusion, width=width))
    training = gm.TrainingConfig(
        **_given(
            epochs=epochs,
            steps=steps,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            warmup=warmup,
            holdout=holdout,
            keep=keep,
            patience=patience,
            block=block,
        )
    )
    strategy = gm.masking.named(masking) if masking else None
    cube = _open(data)
    model = gm.pretrain(
        cube,
        _schema(cube, schema, None, kinds=_kinds(kind, schema)),
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
        str,
        typer.Option(
            help="head: new species; all: all weights, at a low rate; new: new predictors."
        ),
    ],
    schema: SchemaPath = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    weight_decay: Decay = None,
    warmup: Warmup = None,
    holdout: Holdout = None,
    keep: Keep = None,
    patience: Patience = None,
    block: Block = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a model further: for new species, a new region or new predictors.

    Defaults are the settings of the model's training, with a tenth of the learning rate for --train all.
    If all sites trained the model, the number of steps follows from the new sites.
    """
    import geomiam as gm

    _reserve(out, overwrite, inputs=[model, sites, schema], checkpoint=checkpoint)
    settings = _given(
        epochs=epochs,
        steps=steps,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        warmup=warmup,
        holdout=holdout,
        keep=keep,
        patience=patience,
        block=block,
    )
    tuned = gm.finetune(
        gm.load_model(model),
        gm.open_sites(sites).load(),
        schema=schema,
        train=train,  # type: ignore[arg-type]
        training=settings or None,
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
    say(f"{model}\n→ {out}")


def _kinds(texts: list[str] | None, other: Path | None) -> dict[str, str]:
    """Kinds by variable, from VARIABLE=KIND."""
    if texts and other:
        raise GeomiamError(
            f"--kind is for inferred schemas; {other} has the kinds: leave --kind out"
        )
    if bad := [t for t in texts or () if "=" not in t]:
        raise GeomiamError(
            f"--kind {bad[0]}: expected VARIABLE=KIND, such as --kind cover=categorical"
        )
    return dict(t.split("=", 1) for t in texts or ())


def _schema(data: Any, path: Path | None, start: Any, *, kinds: dict[str, str]) -> Any:
    """The catalog, the schema of the model to start from, or one inferred from the data, printed."""
    import geomiam as gm

    if path:
        return gm.Schema.from_yaml(path)
    if start:
        return start.schema
    schema = gm.infer_schema(data, kinds=kinds)
    say(str(schema))
    return schema


def _open(path: Path) -> Any:
    """Open a store of sites, in memory, or of a cube, lazily."""
    import xarray as xr

    import geomiam as gm

    with xr.open_zarr(expand(path), consolidated=False) as head:
        sites = "site" in head.dims
    return gm.open_sites(path).load() if sites else gm.open_cube(path)


def _given(**options: Any) -> dict[str, Any]:
    """Options that the user passed."""
    return {k: v for k, v in options.items() if v is not None}
