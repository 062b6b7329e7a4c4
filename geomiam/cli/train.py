"""``geomiam fit``, ``pretrain`` and ``finetune``: from sites or a cube to a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from geomiam.cli.messages import say
from geomiam.cli.options import (
    COMMON,
    DEVICE,
    LOOP,
    LOSS,
    MASKING,
    NETWORK,
    STORED,
    ModelPath,
    SitesPath,
    TrainOptions,
    with_options,
)
from geomiam.cli.outputs import reserve
from geomiam.errors import GeomiamError, SettingError
from geomiam.outputs.check import refuse_overlap
from geomiam.outputs.kinds import MODEL
from geomiam.outputs.paths import expand, real_path

Out = Annotated[Path, typer.Option("--out", "-o", help="Model directory to write.")]
ENCODER = tuple(name for name in NETWORK if name != "members")
"""Options of the network of ``pretrain``, which trains one member."""
MOST_LOADED = 2**30
"""Most bytes of sites that are read into memory before the training."""
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="VARIABLE=KIND, to correct an inferred kind; repeat."),
]


@with_options(options=(*MASKING, *NETWORK, *LOSS, *LOOP, *STORED, *DEVICE, *COMMON))
def fit(
    sites: SitesPath,
    out: Out,
    kind: Kinds = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Published recipe to train: ume-mma, ume, masksdm, maestro, …"),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Model directory to start from, such as that of 'pretrain'.")
    ] = None,
    *,
    options: TrainOptions,
) -> None:
    """Train a model on sites, by masking.

    By default all settings follow from the number of sites, presences and species, and spatial folds
    choose the fusion, as for gm.fit(sites) in Python. A flag changes one setting.
    """
    import geomiam as gm

    network = options.given(*NETWORK)
    training = options.given(*LOSS, *LOOP, *STORED, *DEVICE)
    _reserve(out, options, inputs=[sites, options.schema, start])
    first = gm.load_model(start) if start else None
    set_by_recipe = options.given("masking", "masks", "fusion")
    if recipe and set_by_recipe:
        flags = " and ".join(f"--{name}" for name in set_by_recipe)
        raise GeomiamError(f"--recipe {recipe} sets {flags} itself; pass one of them")
    data = _sites(sites)
    schema = _schema(data, options.schema, first, kinds=kinds_of(kind, options.schema or start))
    if recipe:
        settings = _recipe(recipe, schema, network, training)
    else:
        settings = {"schema": schema, "network": network or None, "training": training or None}
        settings["masking"] = _strategy(options.masking, options.masks)
        _check_changes(network, training)
    if first:
        settings["warm_start"] = first
    model = gm.fit(data, checkpoint=options.checkpoint, rng=options.seed, **settings)
    _save(model, out, options)


def _recipe(
    name: str, schema: Any, network: dict[str, Any], training: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of fit for a published recipe with changed settings."""
    import geomiam as gm
    from geomiam.baselines.recipes import TRAINING

    return gm.baselines.recipe(name).options(
        schema,
        network=gm.NetworkConfig(**network),
        training=gm.TrainingConfig(**{**TRAINING.model_dump(), **training}),
    )


def _check_changes(network: dict[str, Any], training: dict[str, Any]) -> None:
    """Refuse values out of range before data are read; other settings follow from the data."""
    import geomiam as gm
    from geomiam.training.rule import SIZES

    members = len(network.get("fusion", "").split("+"))
    gm.NetworkConfig(**{**SIZES, "members": members, **network})
    keep = "best" if training.get("holdout") else "last"
    gm.TrainingConfig(**{"holdout": 0, "keep": keep, **training})


def _strategy(masking: str | None, masks: str | None) -> Any:
    """Return the masking strategy; None is the default of fit."""
    import geomiam as gm

    if masks not in (None, "batch", "sample"):
        raise SettingError(f"--masks {masks}: use 'batch' or 'sample'")
    if masks is None:
        return gm.masking.named(masking) if masking else None
    return gm.masking.named(masking or "miam", per_sample=masks == "sample")


@with_options(options=(*MASKING, *ENCODER, *LOOP, *DEVICE, *COMMON))
def pretrain(
    data: Annotated[Path, typer.Argument(help="Cube or sites: Zarr store. Labels are not read.")],
    out: Out,
    kind: Kinds = None,
    cells: Annotated[int, typer.Option(help="Most cells of a cube to use.")] = 10_000,
    *,
    options: TrainOptions,
) -> None:
    """Train without labels, to predict hidden predictors from the others.

    Defaults are those of gm.NetworkConfig and gm.TrainingConfig in Python. Then use 'fit --start'.
    """
    import geomiam as gm

    _reserve(out, options, inputs=[data, options.schema])
    network = gm.NetworkConfig(**options.given(*ENCODER))
    training = gm.TrainingConfig(**options.given(*LOOP, *DEVICE))
    cube = _open(data)
    model = gm.pretrain(
        cube,
        _schema(cube, options.schema, None, kinds=kinds_of(kind, options.schema)),
        masking=_strategy(options.masking, options.masks),
        network=network,
        training=training,
        checkpoint=options.checkpoint,
        rng=options.seed,
        n=cells,
    )
    _save(model, out, options)


@with_options(options=(*MASKING, *LOOP, *STORED, *DEVICE, *COMMON))
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
    *,
    options: TrainOptions,
) -> None:
    """Train a model further: for new species, a new region or new predictors.

    Defaults are the settings of the model's training, with a tenth of the learning rate for --train all.
    If all sites trained the model, the number of steps follows from the new sites.
    """
    import geomiam as gm

    _reserve(out, options, inputs=[model, sites, options.schema])
    finetuned_model = gm.finetune(
        gm.load_model(model),
        _sites(sites),
        schema=options.schema,
        train=cast(Any, train),  # the library checks it
        training=options.given(*LOOP, *STORED, *DEVICE) or None,
        masking=_strategy(options.masking, options.masks),
        checkpoint=options.checkpoint,
        rng=options.seed,
    )
    _save(finetuned_model, out, options)


def _reserve(out: Path, options: TrainOptions, *, inputs: list[Path | None]) -> None:
    """Refuse an output that could not be saved after the training, and lock it."""
    reserve(out, options.overwrite, kind=MODEL, inputs=[*inputs, options.checkpoint])
    if options.checkpoint:
        refuse_overlap(real_path(options.checkpoint), [*inputs, out])


def _save(model: Any, out: Path, options: TrainOptions) -> None:
    model.save(out, overwrite=options.overwrite)
    say(f"{model}\n→ {out}")


def kinds_of(texts: list[str] | None, catalog: Path | None) -> dict[str, str]:
    """Return kinds by variable, from VARIABLE=KIND."""
    if texts and catalog:
        raise GeomiamError(
            f"--kind is for inferred schemas; {catalog} has the kinds: leave --kind out"
        )
    if bad := [t for t in texts or () if "=" not in t]:
        raise GeomiamError(
            f"--kind {bad[0]}: expected VARIABLE=KIND, such as --kind cover=categorical"
        )
    return dict(t.split("=", 1) for t in texts or ())


def _schema(data: Any, path: Path | None, start: Any, *, kinds: dict[str, str]) -> Any:
    """Return the catalog, the schema of the model to start from, or an inferred one, which is printed."""
    import geomiam as gm

    if path:
        return gm.Schema.from_yaml(path)
    if start:
        return start.schema
    schema = gm.infer_schema(data, kinds=kinds)
    say(str(schema))
    return schema


def _open(path: Path) -> Any:
    """Open a store of sites or of a cube."""
    import xarray as xr

    import geomiam as gm

    with xr.open_zarr(expand(path), consolidated=False) as head:
        sites = "site" in head.dims
    return _sites(path) if sites else gm.open_cube(path)


def _sites(path: Path) -> Any:
    """Open sites: in memory if they need at most 1 GiB, otherwise lazily."""
    import geomiam as gm

    data = gm.open_sites(path, chunks={})
    return data if data.nbytes > MOST_LOADED else data.load()
