"""Reading the YAML of catalogs, safely and within bounds.

A YAML file of a few hundred bytes can expand to gigabytes, since aliases and merge keys (``<<``)
repeat their targets. The size is therefore computed on the syntax tree before anything is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from geomiam.checks.files import read_text, reason
from geomiam.errors import SchemaError

MOST_BYTES = 2**20
MOST_DEPTH = 40
MOST_NODES = 1_000_000
"""Most keys and values, with all aliases written out."""
MERGE = "tag:yaml.org,2002:merge"


def load_yaml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a YAML mapping.

    Returns
    -------
    tuple
        The mapping; and the text, for line numbers.

    Raises
    ------
    InputNotFound
        If there is no such file.
    SchemaError
        If it is not YAML or not a mapping, is too large or too deeply nested, or has a key twice.
    """
    text = read_text(path, max_bytes=MOST_BYTES, error=SchemaError)
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_size(root)
            _check_keys(root, set())
        data = yaml.safe_load(text)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise SchemaError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise SchemaError(
            f"{path} holds {type(data).__name__}; a catalog is a mapping with 'modalities:'"
        )
    return data, text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else reason(error)


def _check_events(text: str) -> None:
    """Check the depth and the length of the text by its events, without recursion."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or count > MOST_NODES:
            line = event.start_mark.line + 1 if event.start_mark else "?"
            raise SchemaError(
                f"line {line}: lists and mappings are nested more than {MOST_DEPTH} deep, or there are "
                f"more than {MOST_NODES:,} of them; a catalog has 7 levels"
            )


def _check_size(root: yaml.Node) -> None:
    """Refuse a text that expands to more than MOST_NODES keys and values."""
    total = _size(root, {}, [])
    if total > MOST_NODES:
        raise SchemaError(
            f"with its aliases (*) written out it has {total:,} keys and values, more than "
            f"{MOST_NODES:,}; write the lists out, and name each thing once"
        )


def _size(node: yaml.Node, sizes: dict[int, int], above: list[int]) -> int:
    """Return the number of keys and values below a node; each node is visited once."""
    if id(node) in above:
        raise SchemaError(
            f"line {node.start_mark.line + 1}: an alias (*) refers to a part of itself"
        )
    if id(node) not in sizes:
        inner = [*above, id(node)]
        sizes[id(node)] = 1 + sum(_size(child, sizes, inner) for child in _children(node))
    return sizes[id(node)]


def _check_keys(node: yaml.Node, visited_ids: set[int]) -> None:
    """Refuse a key that occurs twice in a mapping, of which YAML silently drops the first."""
    if id(node) in visited_ids:
        return
    visited_ids.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in lines:
                    raise SchemaError(
                        f"line {line}: the key '{key.value}' is already used in line "
                        f"{lines[key.value]}; rename or remove one"
                    )
                lines[key.value] = line
    for child in _children(node):
        _check_keys(child, visited_ids)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
