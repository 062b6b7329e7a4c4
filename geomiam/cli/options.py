"""Arguments and options that several verbs share, stated once.

Options that belong together are a dataclass. :func:`with_options` replaces such a parameter of a verb by one
flag per field, so flags and help texts are equal in every verb.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from geomiam.errors import GeomiamError
from geomiam.outputs.paths import expand

CubePath = Annotated[
    Path, typer.Argument(help="Cube: Zarr store, or folder of GeoTIFFs and NetCDF files.")
]
ModelPath = Annotated[Path, typer.Argument(help="Model directory.")]
SitesPath = Annotated[Path, typer.Argument(help="Sites: Zarr store from 'geomiam sample'.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
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
Using = Annotated[
    list[str] | None,
    typer.Option(
        "--using",
        "-u",
        help="Predictors to use; repeat. E.g. climate, bio1, 'landsat[time=2018]'; default: all.",
    ),
]
Spread = Annotated[
    bool, typer.Option("--spread", help="Also map the standard deviation over ensemble members.")
]
Species = Annotated[
    list[str] | None, typer.Option("--species", "-s", help="Species; repeat. Default: all.")
]


@dataclass(frozen=True)
class MapFlags:
    """Options of ``predict`` and ``explain``."""

    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Map to write: a Zarr store (path or URL), GeoTIFF (.tif) or netCDF (.nc).",
        ),
    ] = None
    using: Using = None
    species: Species = None
    require: Require = None
    mask: Mask = None
    clamp: Annotated[
        bool, typer.Option("--clamp", help="Move values beyond the training range to its limit.")
    ] = False
    novelty: Annotated[
        bool,
        typer.Option(
            "--novelty", help="Write how different each cell is from the training sites, too."
        ),
    ] = False
    value_of_information: Annotated[
        bool,
        typer.Option(
            "--value-of-information",
            help="Write how much each missing group is expected to change the prediction, too.",
        ),
    ] = False
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler, e.g. tcp://10.0.0.1:8786.")
    ] = None
    resume: Annotated[
        bool, typer.Option(help="Continue a map that was stopped, or start again.")
    ] = True
    plan: Annotated[
        bool, typer.Option("--plan", help="Print memory and time, estimated by a trial, and stop.")
    ] = False
    price_per_core_hour: Annotated[
        float | None,
        typer.Option(help="With --plan: also print core hours, workers and cost; in any currency."),
    ] = None
    cells: Annotated[
        float | None,
        typer.Option(
            help="With --price-per-core-hour: cells with data of a larger map, such as 5.8e8; default: those of the cube."
        ),
    ] = None
    hours: Annotated[
        float | None,
        typer.Option(
            help="With --price-per-core-hour: hours until the map is complete; more workers for fewer hours. "
            "Default: the workers of the plan."
        ),
    ] = None
    price_per_gb_month: Annotated[
        float | None,
        typer.Option(
            help="With --price-per-core-hour: also print the price of storage, for 10⁹ bytes and a month."
        ),
    ] = None
    overwrite: Overwrite = False

    def cost_settings(self) -> dict[str, Any] | None:
        """Return the checked settings of the cost of a map; None without a price of a core hour."""
        from geomiam.maps.cost import check_cost

        price = self.price_per_core_hour
        values = {n: getattr(self, n) for n in ("cells", "hours", "price_per_gb_month")}
        if price is None:
            flags = " and ".join(
                f"--{n.replace('_', '-')}" for n, v in values.items() if v is not None
            )
            if flags:
                raise GeomiamError(
                    f"{flags}: without a price of core hours, no cost is computed; pass --price-per-core-hour, "
                    "such as 0.05"
                )
            return None
        if not self.plan:
            raise GeomiamError("--price-per-core-hour is a part of the plan: pass --plan as well")
        settings = {"price_per_core_hour": price, **values}
        settings["price_per_gb_month"] = self.price_per_gb_month or 0.0
        check_cost(**settings)
        return settings


MASKING = ("masking", "masks")
COMMON = ("schema", "seed", "checkpoint", "overwrite")
NETWORK = (
    *("fusion", "members", "width", "heads", "depth", "dropout"),
    *("squares", "private_windows"),
)
LOOP = (
    *(
        "epochs",
        "steps",
        "epoch_steps",
        "batch",
        "lr",
        "weight_decay",
        "warmup",
        "complete",
        "masks_per_step",
    ),
    *("holdout", "keep", "patience", "block"),
)
LOSS = ("loss", "evenness", "shrink", "joint_epochs", "joint_lr")
DEVICE = ("accelerator", "devices", "precision")
STORED = ("reference_sites",)


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``fit``, ``pretrain`` and ``finetune``; None stands for the default of the library."""

    schema: Annotated[
        Path | None,
        typer.Option(
            help="Catalog (YAML); inferred from names, attributes and values if not given."
        ),
    ] = None
    masking: Annotated[
        str | None,
        typer.Option(help="miam (default), uniform, dirichlet, dropout, subset, ramp-miam, …"),
    ] = None
    masks: Annotated[
        str | None, typer.Option(help="Draw masks per 'batch' or per 'sample' (site).")
    ] = None
    fusion: Annotated[
        str | None,
        typer.Option(
            help="linear, quadratic, sum, group, several of these joined by '+', token, cross or late."
        ),
    ] = None
    members: Annotated[
        int | None, typer.Option(help="Number of networks, whose predictions are averaged.")
    ] = None
    width: Annotated[int | None, typer.Option(help="Width of the network.")] = None
    heads: Annotated[int | None, typer.Option(help="Attention heads.")] = None
    depth: Annotated[int | None, typer.Option(help="Transformer layers.")] = None
    dropout: Annotated[
        float | None, typer.Option(help="Share of activations that dropout sets to 0.")
    ] = None
    squares: Annotated[
        bool | None,
        typer.Option(
            help="Squares of the values of series, images and vectors are inputs, too; not in linear members. "
            "Default: yes; no with --recipe and in 'pretrain'."
        ),
    ] = None
    private_windows: Annotated[
        bool | None,
        typer.Option(
            help="Separate weights for each window of a series. Default: yes; no with --recipe and in 'pretrain'."
        ),
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            help="auto (bce for complete surveys, else weighted-bce; the default), bce, weighted-bce, "
            "maxent, cross-entropy."
        ),
    ] = None
    evenness: Annotated[
        float | None,
        typer.Option(help="For --loss maxent: 0: every record weighs the same; 1: every species."),
    ] = None
    shrink: Annotated[
        bool | None,
        typer.Option(
            help="For surveys with absences: correct overconfident probabilities, by the spatial folds that choose "
            "the fusion. Default: yes."
        ),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None
    epochs: Annotated[int | None, typer.Option(help="Upper limit of epochs.")] = None
    epoch_steps: Annotated[
        int | None,
        typer.Option(help="Least steps of an epoch: few sites are passed several times."),
    ] = None
    batch: Annotated[int | None, typer.Option(help="Sites in a batch.")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None
    warmup: Annotated[
        float | None,
        typer.Option(
            help="Steps over which the learning rate rises: below 1 a share of all, else a number."
        ),
    ] = None
    complete: Annotated[
        float | None,
        typer.Option(help="Share of the sites of a batch in which masking hides nothing."),
    ] = None
    masks_per_step: Annotated[
        int | None,
        typer.Option(help="Masks of every batch; the loss is the mean over them."),
    ] = None
    holdout: Annotated[
        float | None,
        typer.Option(
            help="Share of sites that do not train and choose the best epoch; 0: all train."
        ),
    ] = None
    keep: Annotated[
        str | None, typer.Option(help="Use the weights of the 'best' or the 'last' epoch.")
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without a better score before stopping (--keep best)."),
    ] = None
    joint_epochs: Annotated[
        int | None, typer.Option(help="Epochs of all branches together (--recipe ume-mma).")
    ] = None
    joint_lr: Annotated[float | None, typer.Option(help="Learning rate of the joint epochs.")] = (
        None
    )
    block: Annotated[
        str | None,
        typer.Option(help="Side of validation blocks, such as '100 km'; default: from the data."),
    ] = None
    reference_sites: Annotated[
        int | None,
        typer.Option(
            help="Training sites to store with the model, for 'predict --novelty'; 0: none. Default 5000."
        ),
    ] = None
    accelerator: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None
    devices: Annotated[
        int | None, typer.Option(help="Number of devices; each batch is shared among them.")
    ] = None
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints; an interrupted training is continued from there."
        ),
    ] = None
    overwrite: Overwrite = False

    def given(self, *names: str) -> dict[str, Any]:
        """Return the named options that the user passed."""
        values = {n: getattr(self, n) for n in names}
        return {n: v for n, v in values.items() if v is not None}


def named_paths(texts: list[str]) -> dict[str, str]:
    """Return paths by name, from NAME=PATH, or PATH with the name of the file."""
    paths: dict[str, str] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or Path(expand(text)).exists():
            name, path = Path(text).stem, text
        if name in paths:
            raise GeomiamError(
                f"'{name}' is the name of {paths[name]} and of {path}; pass NAME=PATH, such as '{name} 2={path}'"
            )
        paths[name] = path
    return paths


LAST = ("seed", "checkpoint", "overwrite", "as_json", "as_csv")
"""Options at the end of the help of every verb; ``--out`` is the first."""


def _place(parameter: inspect.Parameter) -> int:
    """Return the place of an option in the help; equal numbers keep their order."""
    if parameter.name in LAST:
        return 2 + LAST.index(parameter.name)
    return int(parameter.name != "out")


def with_options(**names: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces each parameter of a verb that is a dataclass of options by its flags.

    A keyword argument names a parameter and the fields of it to use; default all.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        parameters = list(inspect.signature(verb, eval_str=True).parameters.values())
        groups: dict[str, Any] = {
            p.name: p.annotation for p in parameters if is_dataclass(p.annotation)
        }
        flags = {g: names.get(g) or tuple(f.name for f in fields(t)) for g, t in groups.items()}
        parameters = [p for p in parameters if p.name not in groups]
        for group, dataclass_type in groups.items():
            annotations = get_type_hints(dataclass_type, include_extras=True)
            defaults = {f.name: f.default for f in fields(dataclass_type)}
            parameters += [
                inspect.Parameter(
                    n,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=defaults[n],
                    annotation=annotations[n],
                )
                for n in flags[group]
            ]

        @functools.wraps(verb)
        def call(**values: Any) -> None:
            options = {g: t(**{n: values.pop(n) for n in flags[g]}) for g, t in groups.items()}
            verb(**values, **options)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        parameters.sort(key=_place)
        # typer reads both to build the flags
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have it
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate
