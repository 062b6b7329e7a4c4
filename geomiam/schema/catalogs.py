"""Catalogs that come with geomiam, by name."""

from __future__ import annotations

from pathlib import Path

from geomiam.errors import SchemaError
from geomiam.outputs.paths import expand

HERE = Path(__file__).parent.parent


def catalogs() -> dict[str, Path]:
    """Return the catalogs that come with geomiam.

    Returns
    -------
    dict
        Name to file. :func:`geomiam.build_cube` takes the name as well; relative folders in such a
        catalog are then relative to the working directory.
    """
    for folder in (HERE / "catalogs", HERE.parent / "catalogs"):  # installed, or a checkout
        if found := {p.stem: p for p in sorted(folder.glob("*.yaml"))}:
            return found
    raise FileNotFoundError(f"no catalogs beside {HERE}; install geomiam again")


def find(catalog: str | Path) -> tuple[Path, Path]:
    """Return the file of a catalog, by path or name, and the folder that its paths start from.

    Raises
    ------
    SchemaError
        When there is neither, with the names there are.
    """
    path = Path(expand(catalog))
    if path.is_file():
        return path, path.resolve().parent
    known = catalogs()
    if str(catalog) in known:
        return known[str(catalog)], Path.cwd()
    raise SchemaError(
        f"no catalog at {catalog}; write one (docs/howto/catalogs.md), or name one that comes with geomiam: "
        f"{', '.join(known)}"
    )
