"""The file ``model.safetensors``: its header, and checks against a configuration before reading.

A configuration of a few bytes may describe more modules than fit into memory. The number of tensors in
the file limits them, because a network of more modules has more tensors.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from geomiam.checks.files import refusing, regular_file
from geomiam.errors import ArtifactError
from geomiam.networks.config import NetworkConfig

MOST_WEIGHTS = 2_000_000_000
MOST_HEADER_BYTES = 16 * 2**20
BLOCK_TENSORS = 4
"""Least number of tensors of a transformer block."""
DTYPES = {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}
"""Types of counters that backbones keep beside their weights; all other tensors are float32."""
FACTS = ("schema", "scaler", "species", "network", "link")
"""Keys of ``config.json`` that the id of a model covers."""


@dataclass(frozen=True)
class Header:
    """Header of a file of weights."""

    tensors: dict[str, tuple[str, list[int], int]]
    """Type, shape and last byte by name."""
    model_id: str
    """Empty if the file has none."""
    size: int
    """Bytes of weights in the file."""


def read_header(file: Path) -> Header:
    """Read the header of a safetensors file; refuse one that is too long or describes no tensors."""
    if not file.exists():
        raise ArtifactError(f"{file.parent} is no model directory: {file.name} is missing")
    regular_file(file, error=ArtifactError)
    invalid = f"{file} has no valid header; the file may be truncated"
    size = file.stat().st_size
    with refusing(ArtifactError, invalid), file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(size, MOST_HEADER_BYTES):
            raise ArtifactError(invalid)
        entries = json.loads(stream.read(length))
        about = entries.pop("__metadata__", None) or {}
        tensors = {
            k: (h["dtype"], h["shape"], int(h["data_offsets"][1])) for k, h in entries.items()
        }
        return Header(tensors, str(about.get("model_id", "")), size - 8 - length)


def check_counts(header: Header, network: NetworkConfig, *, modalities: int) -> None:
    """Refuse a configuration with more modules than the file has tensors, before they are built."""
    alone = [network.member(i) for i in range(network.members)]
    blocks = [sum(m.fusions[0].count_blocks(m, modalities=modalities)) for m in alone]
    minimum = sum(modalities + BLOCK_TENSORS * count for count in blocks)
    if minimum > len(header.tensors):
        raise ArtifactError(
            f"the configuration describes a network of at least {minimum:,} tensors, but the file of "
            f"weights has {len(header.tensors):,}: they do not belong together, save the model again"
        )


def check_weights(file: Path, header: Header, expected: Mapping[str, Tensor]) -> None:
    """Compare the header with the tensors that the configuration implies, which have no memory yet."""
    total = sum(v.numel() for v in expected.values())
    if total > MOST_WEIGHTS:
        raise ArtifactError(f"the configuration implies {total:,} weights, over {MOST_WEIGHTS:,}")
    if set(header.tensors) != set(expected):
        odd = sorted(set(header.tensors) ^ set(expected))[:5]
        raise ArtifactError(
            f"{file}: tensor names differ from the configuration's, e.g. {odd}; another state of geomiam "
            "saved it: load it there, or train it again"
        )
    for name, tensor in expected.items():
        shape, kind = list(tensor.shape), DTYPES.get(tensor.dtype, "F32")
        dtype, actual, _ = header.tensors[name]
        if actual != shape or dtype != kind:
            raise ArtifactError(f"{file}: '{name}' is {dtype} {actual}, expected {kind} {shape}")
    end = max((last for _, _, last in header.tensors.values()), default=0)
    if header.size != end:
        raise ArtifactError(
            f"{file} holds {header.size:,} bytes of weights, expected {end:,}: truncated?"
        )


def read_weights(file: Path, header: Header, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights; refuse any that are damaged, not finite, or not those of the id in the header."""
    with refusing(ArtifactError, f"{file} is damaged; save the model again"):
        weights = load_file(file)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                f"{file}: '{name}' has weights that are NaN or infinite; train again"
            )
    if header.model_id and header.model_id != identity({k: config[k] for k in FACTS}, weights):
        raise ArtifactError(
            f"{file.parent} was changed after it was saved, or is damaged: its content does not have "
            f"the id {header.model_id[:12]}; save the model again with model.save"
        )
    return weights


def identity(specification: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a model's specification, as JSON types, and its weights."""
    digest = hashlib.sha256(json.dumps(dict(specification), sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
