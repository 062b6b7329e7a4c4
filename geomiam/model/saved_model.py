"""Saved models: a directory with ``model.safetensors``, ``config.json`` and a card.

Nothing is pickled or unpickled. All sizes are checked against bounds and against the configuration
before a weight is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from geomiam._version import __version__
from geomiam.checks.files import read_text, reason, refusing, regular_file
from geomiam.checks.names import check_species
from geomiam.errors import ArtifactError, InputNotFound, SelectionError
from geomiam.model.model import LINKS, Model
from geomiam.model.weight_file import check_counts, check_weights, read_header, read_weights
from geomiam.networks.backbones import restore
from geomiam.networks.config import NetworkConfig
from geomiam.networks.torch_defaults import standard_torch
from geomiam.outputs.atomic import atomic_path, copy_mode
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import MODEL
from geomiam.outputs.markdown import block, cell
from geomiam.outputs.paths import expand
from geomiam.schema.schema import Schema
from geomiam.tokens.scaler import Scaler

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
MOST_CONFIG_BYTES = 16 * 2**20
KEYS = {"format", "geomiam", "schema", "scaler", "species", "network", "link", "about"}


def save_model(model: Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model directory; an interrupted save leaves no directory.

    Raises
    ------
    OutputExists
        If ``path`` exists and ``overwrite`` is False, or is no model directory.
    """
    config = {
        "format": FORMAT,
        "geomiam": __version__,
        **model.specification(),
        "about": model.about,
    }
    with locked_output(path, overwrite, kind=MODEL) as target, atomic_path(target) as partial:
        partial.mkdir()
        state = model.network.state_dict()  # a backbone may hold one tensor under two names
        weights = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
        save_file(weights, partial / WEIGHTS, metadata={"model_id": model.id})
        (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        (partial / CARD).write_text(card(model), encoding="utf-8")
        copy_mode(partial / CARD, partial / WEIGHTS)
        check_output(
            target, overwrite, kind=MODEL
        )  # again: a file may have been put there meanwhile
    return target


@standard_torch()
def load_model(path: str | Path, *, backbones: Mapping[str, nn.Module] | None = None) -> Model:
    """Read a model directory.

    Parameters
    ----------
    path : str or pathlib.Path
        Directory that :meth:`Model.save` wrote.
    backbones : mapping of str to torch.nn.Module, optional
        For a model with backbones: the same architectures, by variable, since code is not saved.
        The saved weights replace theirs.

    Returns
    -------
    Model
        On the CPU and in evaluation mode.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated, changed or too large, a key is unknown, the tensors are not
        those that the configuration implies, or ``backbones`` are not those of the model. The message
        names both versions if another version saved the model.

    Examples
    --------
    >>> path = model.save("model")
    >>> gm.load_model(path).id == model.id
    True
    """
    path = Path(expand(path))
    config = _read_config(path)
    try:
        return _load(path, config, backbones or {})
    except ArtifactError as error:
        raise ArtifactError(f"{error}{_versions(config)}") from error


def _load(path: Path, config: dict, backbones: Mapping[str, nn.Module]) -> Model:
    _check_config(path / CONFIG, config)
    header = read_header(path / WEIGHTS)
    invalid = f"{path / CONFIG} does not describe a model"
    with refusing(ArtifactError, invalid, passing=ArtifactError):
        network = NetworkConfig(**config["network"])
        _check_backbones(path, network, backbones)
        check_counts(header, network, modalities=len(config["schema"]["modalities"]))
        scaler, plan = _plan(config, network, backbones, source=str(path / CONFIG))
    check_weights(path / WEIGHTS, header, plan.network.state_dict())
    weights = read_weights(path / WEIGHTS, header, config)
    plan.network.to_empty(device="cpu")
    restore(plan.network, backbones, network)
    plan.network.load_state_dict(weights, strict=True)
    return Model(
        plan.schema,
        scaler,
        plan.species,
        plan.config,
        plan.network.eval(),
        plan.link,
        config["about"],
    )


def _versions(config: dict) -> str:
    """Return a sentence with both versions if another one saved the model, else nothing."""
    version = str(config.get("geomiam"))[:40]
    if version == __version__:
        return ""
    return (
        f". The model was saved by geomiam {version}, this is geomiam {__version__}: load it with "
        f"geomiam {version}, or train it again"
    )


def as_model(model: Model | str | Path) -> Model:
    """Return a model; a path is read with :func:`geomiam.load_model`.

    Raises
    ------
    SelectionError
        If it is neither a model nor a path.
    ArtifactError
        If the path holds no readable model.
    """
    if isinstance(model, (str, Path)):
        return load_model(model)
    if not isinstance(model, Model):
        raise SelectionError(
            f"expected a model or the path of one, found {type(model).__name__}; the order is data, "
            "model, as in gm.predict(cube, model)"
        )
    return model


def card(model: Model) -> str:
    """Return the model card, Markdown."""
    rows = "\n".join(
        f"| {cell(m.name)} | {', '.join(map(cell, m.variables))} | {cell(m.license or '')} | "
        f"{cell(m.citation or '')} |"
        for m in model.schema.modalities.values()
    )
    about = _readable(model.about)
    return (
        f"# {cell(model.schema.title or model.schema.name)}\n\n{block(model.summary())}\n\n"
        "Predicts from any subset of these predictors; NaN means missing.\n\n"
        f"| modality | variables | licence | citation |\n| --- | --- | --- | --- |\n{rows}\n\n"
        f"{_validation(model)}## Training\n\n{block(json.dumps(about, indent=1))}\n\n"
        f"{_meaning(model)}Maps of endangered species can reveal their sites: coarsen them before "
        "sharing.\n"
    )


def _validation(model: Model) -> str:
    """Return the paragraph on the spatial blocks of the validation."""
    blocks = model.about.get("blocks") or model.about.get("validation", {}).get("blocks")
    if not blocks:
        return ""
    return (
        f"Validated on spatial blocks: {blocks['blocks']} blocks of {blocks['km']:g} km a side "
        f"({blocks['reason']}).\n\n"
    )


def _readable(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance without long entries for programs, in every step of fine-tuning too."""
    entries = {k: v for k, v in about.items() if k not in ("history", "fingerprint")}
    if isinstance(steps := entries.get("finetuning"), list):
        entries["finetuning"] = [_readable(s) if isinstance(s, Mapping) else s for s in steps]
    return entries


def _meaning(model: Model) -> str:
    """Return a paragraph on the meaning of the predictions; nothing for a model without species."""
    if model.is_encoder:
        return ""
    if model.quantity is None:
        return "The loss of the training is not recorded: read the predictions as a ranking.\n\n"
    return f"## Predictions\n\n{model.quantity.meaning}\n\n"


def _read_config(path: Path) -> dict:
    """Return the mapping in ``config.json``; its keys are not checked."""
    file = path / CONFIG
    try:
        regular_file(file, max_bytes=MOST_CONFIG_BYTES, error=ArtifactError)
    except InputNotFound:
        raise ArtifactError(f"{path} is no model directory: {CONFIG} is missing") from None
    try:
        config = json.loads(read_text(file, max_bytes=MOST_CONFIG_BYTES, error=ArtifactError))
        json.dumps(config, ensure_ascii=False).encode()  # an escaped lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{file} is not valid JSON ({reason(error)}); the file may be truncated"
        ) from None
    if not isinstance(config, dict):
        raise ArtifactError(f"{file}: missing keys {sorted(KEYS)}, found {type(config).__name__}")
    return config


def _check_config(file: Path, config: dict) -> None:
    """Refuse keys, formats and links that this version does not have."""
    keys = set(config)
    if keys != KEYS:
        raise ArtifactError(
            f"{file}: missing keys {sorted(KEYS - keys)}, unknown keys {sorted(keys - KEYS)[:5]}"
        )
    if config["format"] != FORMAT:
        raise ArtifactError(
            f"{file} has format {config['format']}; this version reads format {FORMAT}"
        )
    if config["link"] not in list(LINKS):
        raise ArtifactError(f"{file}: link {config['link']!r} is not one of {list(LINKS)}")


def _check_backbones(
    path: Path, network: NetworkConfig, backbones: Mapping[str, nn.Module]
) -> None:
    """Refuse backbones that are not those of the model; code is not saved, so they are passed again."""
    if set(backbones) != set(network.encoders):
        arguments = ", ".join(f'"{name}": <your module>' for name in network.encoders)
        call = f'gm.load_model("{path}"' + (f", backbones={{{arguments}}})" if arguments else ")")
        raise ArtifactError(
            f"{path} has backbones of {list(network.encoders)}, found backbones= of {list(backbones)}; "
            f"the file holds their weights and not their code: call {call}"
        )


def _plan(
    config: dict,
    network: NetworkConfig,
    backbones: Mapping[str, nn.Module] | None,
    *,
    source: str,
) -> tuple[Scaler, Model]:
    """Return the scaler, and the model on the meta device: weights with a shape and no memory."""
    _check_nulls(config["schema"], path="schema")
    schema, scaler = (
        Schema.from_dict(config["schema"], location=source),
        Scaler.from_dict(config["scaler"]),
    )
    scaler.check(schema)
    if not isinstance(config["species"], list):  # of a pre-trained model it is empty
        raise ValueError("'species' is not a list of names")
    if not isinstance(config["about"], dict):
        raise ValueError("'about' is not a mapping")
    settings: dict[str, Any] = {
        "scaler": scaler,
        "species": check_species(config["species"]),
        "config": network,
        "backbones": backbones,
    }
    with torch.device("meta"):
        return scaler, Model.untrained(schema, **settings, link=config["link"])


def _check_nulls(value: Any, *, path: str) -> None:
    """Refuse null in a saved schema: defaults are not written, so a valid one has no null."""
    if value is None:
        raise ArtifactError(f"{path} is null; save the model again")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_nulls(item, path=f"{path} → {key}")
