"""Options that the training verbs share, stated once.

:func:`with_options` replaces the parameter ``options`` of a verb by one flag per field of
:class:`TrainOptions`, so flags and help texts are equal in every verb.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

COMMON = ("schema", "seed", "checkpoint", "overwrite")
NETWORK = ("fusion", "members", "width", "heads", "depth", "dropout")
LOOP = (
    *("epochs", "steps", "batch", "lr", "weight_decay", "warmup"),
    *("holdout", "keep", "patience", "block"),
)
LOSS = ("loss", "evenness", "epoch_steps", "joint_epochs", "joint_lr")
DEVICE = ("accelerator", "devices", "precision")


def _flag(text: str, *, default: Any = None) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``fit``, ``pretrain`` and ``finetune``; None stands for the default of the library."""

    schema: Path | None = _flag(  # noqa: RUF009 (returns a field)
        "Catalog (YAML); inferred from names, attributes and values if not given."
    )
    masking: str | None = _flag("miam (default), uniform, dirichlet, dropout, subset, ramp-miam, …")
    masks: str | None = _flag("Draw masks per 'batch' or per 'sample' (site).")
    fusion: str | None = _flag(
        "linear, quadratic, sum, group, several of these joined by '+', token, cross or late."
    )
    members: int | None = _flag("Number of networks, whose predictions are averaged.")
    width: int | None = _flag("Width of the network.")
    heads: int | None = _flag("Attention heads.")
    depth: int | None = _flag("Transformer layers.")
    dropout: float | None = _flag("Share of activations that dropout sets to 0.")
    loss: str | None = _flag(
        "auto (bce for complete surveys, else weighted-bce; the default), bce, weighted-bce, "
        "maxent, cross-entropy."
    )
    evenness: float | None = _flag(
        "For --loss maxent: 0: every record weighs the same; 1: every species."
    )
    steps: int | None = _flag("Optimiser steps.")
    epochs: int | None = _flag("Upper limit of epochs.")
    epoch_steps: int | None = _flag("Least steps of an epoch: few sites are passed several times.")
    batch: int | None = _flag("Sites in a batch.")
    lr: float | None = _flag("Learning rate.")
    weight_decay: float | None = _flag("Weight decay.")
    warmup: float | None = _flag(
        "Steps over which the learning rate rises: below 1 a share of all, else a number."
    )
    holdout: float | None = _flag(
        "Share of sites that do not train and choose the best epoch; 0: all train."
    )
    keep: str | None = _flag("Use the weights of the 'best' or the 'last' epoch.")
    patience: int | None = _flag("Epochs without a better score before stopping (--keep best).")
    joint_epochs: int | None = _flag("Epochs of all branches together (--system ume-mma).")
    joint_lr: float | None = _flag("Learning rate of the joint epochs.")
    block: str | None = _flag(
        "Side of validation blocks, such as '100 km'; default: from the data."
    )
    accelerator: str | None = _flag("auto, cpu, cuda or mps.")
    devices: int | None = _flag("Number of devices; each batch is shared among them.")
    precision: str | None = _flag("32-true, bf16-mixed or 16-mixed.")
    seed: int = _flag("Random seed.", default=0)
    checkpoint: Path | None = _flag(  # noqa: RUF009 (returns a field)
        "Folder for checkpoints; an interrupted training is continued from there."
    )
    overwrite: bool = _flag("Replace the output if it exists.", default=False)

    def given(self, *names: str) -> dict[str, Any]:
        """Return the named options that the user passed."""
        values = {n: getattr(self, n) for n in names}
        return {n: v for n, v in values.items() if v is not None}


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces the parameter ``options`` of a verb by the named flags."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        verb_parameters = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [p for p in verb_parameters if p.name != "options"] + _parameters(names)

        @functools.wraps(verb)
        def call(**values: Any) -> None:
            options = {n: values.pop(n) for n in names}
            verb(**values, options=TrainOptions(**options))

        # typer reads both to build the flags
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _parameters(names: tuple[str, ...]) -> list[inspect.Parameter]:
    types = get_type_hints(TrainOptions)
    by_name = {f.name: f for f in fields(TrainOptions)}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=by_name[name].default,
            annotation=Annotated[types[name], _typer_option(name, by_name[name].metadata["help"])],
        )
        for name in names
    ]


def _typer_option(name: str, text: str) -> Any:
    if name == "overwrite":  # without the opposite flag
        return typer.Option("--overwrite", help=text)
    return typer.Option(help=text)
