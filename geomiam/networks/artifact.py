"""Saved models: a directory of ``model.safetensors``, ``config.json`` and a card.

No pickle in or out. Everything is checked against bounds and against what the configuration implies
before a weight is allocated.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from geomiam._version import __version__
from geomiam.errors import ArtifactError, GeomiamError, OutputExists
from geomiam.networks.config import NetworkConfig
from geomiam.networks.encoders import restore
from geomiam.networks.model import LINKS, Model
from geomiam.networks.session import standard_torch
from geomiam.schema import Schema
from geomiam.tokens.scaler import Scaler

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
MOST_CONFIG_BYTES = 256 * 2**20
MOST_WEIGHTS = 2_000_000_000
DTYPES = {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}
"""Of counters that own encoders keep beside their weights; all else is float32."""
KEYS = {"format", "geomiam", "schema", "scaler", "species", "network", "link", "about"}


def save_model(model: Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model directory; it appears whole or not at all.

    Raises
    ------
    OutputExists
        If ``path`` exists and ``overwrite`` is False, or is no model directory.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists; pass overwrite=True to replace it")
    if path.is_file() or (path.exists() and any(path.iterdir()) and not (path / CONFIG).is_file()):
        raise OutputExists(
            f"{path} is no model directory; overwrite=True will not delete it: move it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {"format": FORMAT, "geomiam": __version__, **model.facts(), "about": model.about}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / "model"
        made.mkdir()
        state = model.network.state_dict()  # an own encoder may hold one tensor under two names
        weights = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
        save_file(weights, made / WEIGHTS, metadata={"model_id": model.id})
        (made / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        (made / CARD).write_text(card(model), encoding="utf-8")
        if path.exists():
            path.rename(Path(folder) / "old")
        made.rename(path)
    return path


@standard_torch()
def load_model(path: str | Path, *, encoders: Mapping[str, nn.Module] | None = None) -> Model:
    """Read a model directory.

    Parameters
    ----------
    path : str or pathlib.Path
        What :meth:`Model.save` wrote.
    encoders : mapping of str to torch.nn.Module, optional
        For a model with own encoders: the same architectures again, by variable, as code is not
        saved; their weights are replaced by the saved ones.

    Returns
    -------
    Model
        On the CPU, ready to predict.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated or too large, a key is unknown, or the tensors are not those
        that the configuration implies; or if ``encoders`` are not those of the model.
    """
    path = Path(path)
    config = _read_config(path)
    try:
        network = NetworkConfig.model_validate(config["network"])
        _check_encoders(path, network, encoders or {})
        scaler, plan = _plan(config, network, encoders, where=str(path / CONFIG))
    except ArtifactError:
        raise
    except (ValidationError, GeomiamError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path / CONFIG} does not describe a model: {error}") from error
    _check_weights(path / WEIGHTS, plan)
    try:
        weights = load_file(path / WEIGHTS)
    except SafetensorError as error:
        raise ArtifactError(f"{path / WEIGHTS} is damaged: {error}") from error
    plan.network.to_empty(device="cpu")
    restore(plan.network, encoders or {}, network)
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


def card(model: Model) -> str:
    """Return the model card, Markdown."""
    rows = "\n".join(
        f"| {m.name} | {', '.join(m.variables)} | {m.license or ''} | {m.citation or ''} |"
        for m in model.schema.modalities.values()
    )
    about = {k: v for k, v in model.about.items() if k != "history"}
    return (
        f"# {model.schema.title or model.schema.name}\n\n```\n{model.summary()}\n```\n\n"
        "Predicts from any subset of these predictors; NaN means missing.\n\n"
        f"| modality | variables | licence | citation |\n| --- | --- | --- | --- |\n{rows}\n\n"
        f"{_validation(model)}## Training\n\n```json\n{json.dumps(about, indent=1)}\n```\n\n"
        f"{_meaning(model)}Maps of endangered species can reveal their sites: coarsen them before "
        "sharing.\n"
    )


def _validation(model: Model) -> str:
    """Return the paragraph on the spatial blocks that validated."""
    blocks = model.about.get("blocks")
    if not blocks:
        return ""
    return (
        f"Validated on spatial blocks: {blocks['blocks']} blocks of {blocks['km']:g} km a side "
        f"({blocks['reason']}).\n\n"
    )


def _meaning(model: Model) -> str:
    """How the predictions are read, as a paragraph; nothing for a model without species."""
    if model.is_encoder:
        return ""
    if model.quantity is None:
        return "The loss of the training is not recorded: read the predictions as a ranking.\n\n"
    return f"## Predictions\n\n{model.quantity.meaning}\n\n"


def _read_config(path: Path) -> dict:
    file = path / CONFIG
    if not file.is_file():
        raise ArtifactError(f"{path} is no model directory: {CONFIG} is missing")
    if file.stat().st_size > MOST_CONFIG_BYTES:
        raise ArtifactError(f"{file} has {file.stat().st_size:,} bytes, over {MOST_CONFIG_BYTES:,}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{file} is not valid JSON ({error}); the file may be truncated"
        ) from None
    found = set(config) if isinstance(config, dict) else set()
    if found != KEYS:
        raise ArtifactError(
            f"{file}: missing keys {sorted(KEYS - found)}, unknown keys {sorted(found - KEYS)}"
        )
    if config["format"] != FORMAT:
        raise ArtifactError(
            f"{file} has format {config['format']}; this version reads format {FORMAT}"
        )
    if config["link"] not in list(LINKS):
        raise ArtifactError(f"{file}: link {config['link']!r} is not one of {list(LINKS)}")
    return config


def _check_encoders(path: Path, network: NetworkConfig, given: Mapping[str, nn.Module]) -> None:
    """Code is not saved, so an own encoder must be given again."""
    if set(given) != set(network.encoders):
        named = ", ".join(f'"{name}": <your module>' for name in network.encoders)
        call = f'gm.load_model("{path}"' + (f", encoders={{{named}}})" if named else ")")
        raise ArtifactError(
            f"{path} has own encoders of {list(network.encoders)}, found encoders= of {list(given)}; "
            f"the file holds their weights and not their code: call {call}"
        )


def _plan(
    config: dict,
    network: NetworkConfig,
    encoders: Mapping[str, nn.Module] | None,
    *,
    where: str,
) -> tuple[Scaler, Model]:
    """Build the model with weights that have shapes but no memory."""
    schema, scaler = (
        Schema.from_dict(config["schema"], where=where),
        Scaler.from_dict(config["scaler"]),
    )
    scaler.check(schema)
    if not isinstance(config["species"], list):  # an encoder's is empty
        raise ValueError("'species' is not a list of names")
    if not isinstance(config["about"], dict):
        raise ValueError("'about' is not a mapping")
    facts: dict[str, Any] = {
        "scaler": scaler,
        "species": tuple(map(str, config["species"])),
        "config": network,
        "encoders": encoders,
    }
    with torch.device("meta"):
        return scaler, Model.untrained(schema, **facts, link=config["link"])


def _check_weights(file: Path, plan: Model) -> None:
    """Compare the header of the weights with the shapes that the configuration implies."""
    wanted = {
        k: (list(v.shape), DTYPES.get(v.dtype, "F32")) for k, v in plan.network.state_dict().items()
    }
    total = sum(v.numel() for v in plan.network.state_dict().values())
    if total > MOST_WEIGHTS:
        raise ArtifactError(f"the configuration implies {total:,} weights, over {MOST_WEIGHTS:,}")
    header = _header(file)
    if set(header) != set(wanted):
        odd = sorted(set(header) ^ set(wanted))[:5]
        raise ArtifactError(f"{file}: tensor names differ from the configuration's, e.g. {odd}")
    for name, (shape, kind) in wanted.items():
        dtype, found, _ = header[name]
        if found != shape or dtype != kind:
            raise ArtifactError(f"{file}: '{name}' is {dtype} {found}, expected {kind} {shape}")
    end = max((last for _, _, last in header.values()), default=0)
    size = file.stat().st_size - 8 - struct.unpack("<Q", file.open("rb").read(8))[0]
    if size != end:
        raise ArtifactError(f"{file} holds {size:,} bytes of weights, expected {end:,}: truncated?")


def _header(file: Path) -> dict[str, tuple[str, list[int], int]]:
    """Type, shape and last byte of each tensor."""
    if not file.is_file():
        raise ArtifactError(f"{file.parent} is no model directory: {file.name} is missing")
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(file.stat().st_size, 100 * 2**20):
            raise ArtifactError(f"{file} has no valid header; the file may be truncated")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            return {
                k: (h["dtype"], h["shape"], int(h["data_offsets"][1])) for k, h in header.items()
            }
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
            raise ArtifactError(f"{file} has no valid header; the file may be truncated") from None
