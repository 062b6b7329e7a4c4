"""Saved models: a directory with ``model.safetensors``, ``config.json``, a card and a STAC item.

A calibrated model also has ``calibration.safetensors``, see :mod:`geomiam.model.calibration`.

Nothing is pickled or unpickled. All sizes are checked against bounds and against the configuration
before a weight is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from geomiam._version import __version__
from geomiam.checks.files import read_text, reason, refusing, regular_file
from geomiam.checks.names import check_species
from geomiam.errors import ArtifactError, InputNotFound, SelectionError
from geomiam.model.calibration import FILE as CALIBRATION
from geomiam.model.calibration import Calibration, read_calibration
from geomiam.model.model import LINKS, Model
from geomiam.model.reference import FILE, Reference, scaling_of
from geomiam.model.weight_file import check_counts, check_weights, read_header, read_weights
from geomiam.networks.backbones import restore
from geomiam.networks.config import NetworkConfig
from geomiam.networks.torch_defaults import standard_torch
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import MODEL
from geomiam.outputs.paths import expand
from geomiam.outputs.text import markdown_block, markdown_cell
from geomiam.outputs.write import atomic_path, copy_mode
from geomiam.schema.schema import Schema
from geomiam.tokens.features import features_of
from geomiam.tokens.scaler import Scaler

FORMAT = 2
"""Format 1 has no ``offsets`` of the members and no calibration sites."""
READABLE = (1, 2)
WEIGHTS, CONFIG, CARD, ITEM = "model.safetensors", "config.json", "README.md", "stac-item.json"
MOST_CONFIG_BYTES = 16 * 2**20
OFFSETS = "offsets"
"""Tensor of the biases of ensemble members, which a model may lack."""
CARD_SPECIES = 5
"""Species whose thresholds are in the card."""
KEYS = {"format", "geomiam", "schema", "scaler", "species", "network", "link", "about"}


def save_model(model: Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model directory; an interrupted save leaves no directory."""
    config = {"format": FORMAT, "geomiam": __version__, **model.specification()}
    config["about"] = model.about
    with locked_output(path, overwrite, kind=MODEL) as target, atomic_path(target) as partial:
        partial.mkdir()
        state = model.network.state_dict()  # a backbone may hold one tensor under two names
        weights = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
        save_file(weights, partial / WEIGHTS, metadata={"model_id": model.id})
        (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        (partial / CARD).write_text(card(model), encoding="utf-8")
        if not model.is_encoder:  # the extension describes inputs and outputs
            item = json.dumps(model.stac_item(), indent=1)
            (partial / ITEM).write_text(item, encoding="utf-8")
        if model.calibration is not None:
            model.calibration.save(partial / CALIBRATION)
            copy_mode(partial / CARD, partial / CALIBRATION)
        copy_mode(partial / CARD, partial / WEIGHTS)
        if model.reference:
            model.reference.save(partial, scaling_of(model))
            copy_mode(partial / CARD, partial / FILE)
        check_output(target, overwrite, kind=MODEL)  # again: a file may be there by now
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

    See Also
    --------
    geomiam.Model : ``model.save(path)`` writes the folder.

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
        version = str(config.get("geomiam"))[:40]
        if version == __version__:
            raise
        raise ArtifactError(
            f"{error}. The model was saved by geomiam {version}, this is geomiam {__version__}: load it "
            f"with geomiam {version}, or train it again"
        ) from error


def _load(path: Path, config: dict[str, Any], backbones: Mapping[str, nn.Module]) -> Model:
    _check_config(path / CONFIG, config)
    header = read_header(path / WEIGHTS)
    invalid = f"{path / CONFIG} does not describe a model"
    with refusing(ArtifactError, invalid, passing=ArtifactError):
        network = NetworkConfig(**config["network"])
        if set(backbones) != set(network.encoders):  # code is not saved, so it is passed again
            modules = ", ".join(f'"{name}": <your module>' for name in network.encoders)
            call = f'gm.load_model("{path}"' + (f", backbones={{{modules}}})" if modules else ")")
            raise ArtifactError(
                f"{path} has backbones of {list(network.encoders)}, found backbones= of "
                f"{list(backbones)}; the file holds their weights and not their code: call {call}"
            )
        check_counts(header, network, modalities=len(config["schema"]["modalities"]))
        plan = _plan(config, network, backbones, source=str(path / CONFIG))
        if OFFSETS in header.tensors and network.members > 1:
            shape = network.members, len(plan.species)
            plan.network.offsets = torch.empty(shape, device="meta")
    check_weights(path / WEIGHTS, header, plan.network.state_dict())
    weights = read_weights(path / WEIGHTS, header, config)
    plan.network.to_empty(device="cpu")
    restore(plan.network, backbones, network)
    plan.network.load_state_dict(weights, strict=True)
    model = replace(plan, network=plan.network.eval(), about=config["about"])
    reference = Reference.load(path, features_of(model.layout), scaling_of(model))
    return replace(model, reference=reference, calibration=_calibration(path, model))


def _calibration(path: Path, model: Model) -> Calibration | None:
    """Return the calibration sites of a model, None if it has none."""
    about = model.about.get("calibration")
    if about is None:
        return None
    species = len(model.species)
    return read_calibration(path / CALIBRATION, model.layout, species=species, about=about)


def as_model(model: Model | str | Path) -> Model:
    """Return a model; a path is read with :func:`geomiam.load_model`."""
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
        f"| {markdown_cell(m.name)} | {', '.join(map(markdown_cell, m.variables))} | {markdown_cell(m.license or '')} | "
        f"{markdown_cell(m.citation or '')} |"
        for m in model.schema.modalities.values()
    )
    paragraphs = [
        f"# {markdown_cell(model.schema.title or model.schema.name)}",
        markdown_block(model.summary()),
        "Predicts from any subset of these predictors; NaN means missing.",
        f"| modality | variables | licence | citation |\n| --- | --- | --- | --- |\n{rows}",
    ]
    if blocks := model.about.get("blocks") or model.about.get("validation", {}).get("blocks"):
        size = f"{blocks['blocks']} blocks of {blocks['km']:g} km a side"
        paragraphs.append(f"Validated on spatial blocks: {size} ({blocks['reason']}).")
    paragraphs += ["## Training", markdown_block(json.dumps(_readable(model.about), indent=1))]
    if model.quantity and not model.is_encoder:
        paragraphs += ["## Predictions", model.quantity.meaning]
        if model.thresholds.size:
            paragraphs.append(_thresholds(model))
    elif not model.is_encoder:
        paragraphs.append(
            "The loss of the training is not recorded: read the predictions as a ranking."
        )
    if model.reference:
        paragraphs.append(
            f"`{FILE}` holds the standardised predictors of {len(model.reference):,} training sites, without "
            "coordinates and labels, for maps of novelty. Where predictors are public, their values can reveal "
            "the place of a site: train with `reference_sites=0` to leave them out."
        )
    paragraphs.append(
        "Maps of endangered species can reveal their sites: coarsen them before sharing.\n"
    )
    return "\n\n".join(paragraphs)


def _thresholds(model: Model) -> str:
    """Return the thresholds of the first species as a table, with their source."""
    limits = model.thresholds.isel(species=slice(CARD_SPECIES))
    rows = [
        f"| {markdown_cell(str(k))} | {' | '.join(f'{v:.3f}' for v in limits.sel(kind=k).values)} |"
        for k in limits["kind"].values
    ]
    names = " | ".join(markdown_cell(str(s)) for s in limits["species"].values)
    head = f"| threshold | {names} |\n| --- |{' --- |' * limits.sizes['species']}"
    source = markdown_cell(str(limits.attrs["source"]))
    return "\n".join([f"Thresholds, chosen on {source}:\n", head, *rows])


def _readable(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance without long entries for programs, in every step of fine-tuning too."""
    entries = {k: v for k, v in about.items() if k not in ("history", "fingerprint", "thresholds")}
    if isinstance(steps := entries.get("finetuning"), list):
        entries["finetuning"] = [_readable(s) if isinstance(s, Mapping) else s for s in steps]
    return entries


def _read_config(path: Path) -> dict[str, Any]:
    """Return the mapping in ``config.json``, with any keys."""
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


def _check_config(file: Path, config: dict[str, Any]) -> None:
    """Refuse keys, formats and links that this version does not have."""
    keys = set(config)
    if keys != KEYS:
        raise ArtifactError(
            f"{file}: missing keys {sorted(KEYS - keys)}, unknown keys {sorted(keys - KEYS)[:5]}"
        )
    if config["format"] not in READABLE:
        raise ArtifactError(
            f"{file} has format {config['format']}; this version reads formats {READABLE[0]} to {FORMAT}"
        )
    if config["link"] not in list(LINKS):
        raise ArtifactError(f"{file}: link {config['link']!r} is not one of {list(LINKS)}")


def _plan(
    config: dict[str, Any],
    network: NetworkConfig,
    backbones: Mapping[str, nn.Module],
    *,
    source: str,
) -> Model:
    """Return the model on the meta device: weights with a shape and no memory."""
    _check_nulls(config["schema"], path="schema")
    schema = Schema.from_dict(config["schema"], location=source)
    scaler = Scaler.from_dict(config["scaler"])
    scaler.check(schema)
    if not isinstance(config["species"], list):  # of a pre-trained model it is empty
        raise ValueError("'species' is not a list of names")
    if not isinstance(config["about"], dict):
        raise ValueError("'about' is not a mapping")
    with torch.device("meta"):
        return Model.untrained(
            schema,
            scaler=scaler,
            species=check_species(config["species"]),
            config=network,
            backbones=backbones,
            link=config["link"],
        )


def _check_nulls(value: Any, *, path: str) -> None:
    """Refuse null in a saved schema: defaults are not written, so a valid one has no null."""
    if value is None:
        raise ArtifactError(f"{path} is null; save the model again")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_nulls(item, path=f"{path} → {key}")
