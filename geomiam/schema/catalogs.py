"""The catalogs that are installed with geomiam."""

from __future__ import annotations

from pathlib import Path

from geomiam.errors import SchemaError
from geomiam.outputs.paths import expand

HERE = Path(__file__).parent.parent


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
    """Return the file of a catalog and the folder that its relative paths start from.

    Raises
    ------
    SchemaError
        If there is no such file and no catalog of that name. The message lists the names.
    """
    path = Path(expand(catalog))
    if path.is_file():
        return path, path.resolve().parent
    installed_catalogs = catalogs()
    if str(catalog) in installed_catalogs:
        return installed_catalogs[str(catalog)], Path.cwd()
    raise SchemaError(
        f"no catalog at {catalog}; write one (docs/howto/catalogs.md), or use one that is installed with "
        f"geomiam: {', '.join(installed_catalogs)}"
    )
