"""Catalogs: those installed with geomiam, and reading of their YAML, safely and within bounds.

A YAML file of a few hundred bytes can expand to gigabytes, since aliases and merge keys (``<<``)
repeat their targets. The size is therefore computed on the syntax tree before anything is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from geomiam.checks.files import read_text, reason
from geomiam.errors import SchemaError
from geomiam.outputs.paths import expand

HERE = Path(__file__).parent.parent
MOST_BYTES = 2**20
MOST_DEPTH = 40
MOST_NODES = 1_000_000  # most keys and values, with all aliases written out
MERGE = "tag:yaml.org,2002:merge"


def catalogs() -> dict[str, Path]:
    """Return the catalogs that are installed with geomiam.

    Returns
    -------
    dict
        File by name. :func:`geomiam.build_cube` accepts the name. Relative folders in such a catalog
        are relative to the working directory.

    Raises
    ------
    FileNotFoundError
        If the installation has no catalogs.

    See Also
    --------
    geomiam.build_cube : build the cube of a catalog.

    Examples
    --------
    >>> import geomiam as gm
    >>> "chelsa" in gm.catalogs()
    True
    """
    for folder in (HERE / "catalogs", HERE.parent / "catalogs"):  # installed, or a checkout
        if files := {p.stem: p for p in sorted(folder.glob("*.yaml"))}:
            return files
    raise FileNotFoundError(f"no catalogs beside {HERE}; install geomiam again")


def find_catalog(catalog: str | Path) -> tuple[Path, Path]:
    """Return the file of a catalog, by path or name, and the folder that its relative paths start from."""
    path = Path(expand(catalog))
    if path.is_file():
        return path, path.resolve().parent
    installed_catalogs = catalogs()
    if str(catalog) in installed_catalogs:
        return installed_catalogs[str(catalog)], Path.cwd()
    raise SchemaError(
        f"no catalog at {catalog}, and no folder; correct the path, write a catalog (docs/howto/catalogs.md), or use "
        f"one that is installed with geomiam: {', '.join(installed_catalogs)}"
    )


def load_yaml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a YAML mapping; also return its text, for line numbers.

    Raises InputNotFound if there is no such file, and SchemaError if it is not YAML or not a mapping, is
    too large or too deeply nested, or has a key twice.
    """
    text = read_text(path, max_bytes=MOST_BYTES, error=SchemaError)
    try:
        depth = 0  # by events, since a syntax tree is built by recursion
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH or count > MOST_NODES:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise SchemaError(
                    f"line {line}: lists and mappings are nested more than {MOST_DEPTH} deep, or there are "
                    f"more than {MOST_NODES:,} of them; a catalog has 7 levels"
                )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            total = _size(root, {}, [])
            if total > MOST_NODES:
                raise SchemaError(
                    f"with its aliases (*) written out it has {total:,} keys and values, more than "
                    f"{MOST_NODES:,}; write the lists out, and name each thing once"
                )
        data = yaml.safe_load(text)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        message = reason(error)
        if isinstance(error, yaml.YAMLError):
            message = " ".join(str(error).split())
        raise SchemaError(f"{path} is not valid YAML: {message}") from None
    if not isinstance(data, dict):
        raise SchemaError(
            f"{path} holds {type(data).__name__}; a catalog is a mapping with 'modalities:'"
        )
    return data, text


def _size(node: yaml.Node, sizes: dict[int, int], above: list[int]) -> int:
    """Return the number of keys and values below a node, and check its keys; each node is visited once."""
    if id(node) in above:
        raise SchemaError(
            f"line {node.start_mark.line + 1}: an alias (*) refers to a part of itself"
        )
    if id(node) not in sizes:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            children = [part for pair in node.value for part in pair]
        inner = [*above, id(node)]
        sizes[id(node)] = 1 + sum(_size(child, sizes, inner) for child in children)
    return sizes[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse a key that occurs twice in a mapping, of which YAML silently drops the first."""
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise SchemaError(
                f"line {line}: the key '{key.value}' is already used in line "
                f"{lines[key.value]}; rename or remove one"
            )
        lines[key.value] = line
