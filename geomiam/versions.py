"""Versions of geomiam and of all that it runs on, for reports of faults."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from geomiam._version import __version__

LEFT_OUT = re.compile(r"extra == ['\"](test|docs|benchmark)['\"]")
"""Requirements of development, not of a user's installation."""


def show_versions() -> None:
    """Print the versions of Python, the system, geomiam and its dependencies.

    The text belongs into every report of a fault. GDAL and PROJ are those inside rasterio and
    pyproj; the device is the one that torch finds.

    Returns
    -------
    None
        The text is printed.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.show_versions()  # doctest: +ELLIPSIS
    geomiam ...
    """
    lines = {"geomiam": __version__, "python": platform.python_version()}
    lines |= {"system": platform.platform(), "machine": platform.machine()}
    lines |= {"GDAL": _gdal(), "PROJ": _proj(), "device": _device()}
    lines |= {name: _version(name) for name in _requirements()}
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {version}" for name, version in lines.items()))


def _requirements() -> list[str]:
    """Names of the dependencies, optional ones last."""
    try:
        lines = metadata.requires("geomiam") or []
    except metadata.PackageNotFoundError:  # the folder of the sources, not installed
        return []
    requirement_lines = sorted(
        (line for line in lines if not LEFT_OUT.search(line)), key=_is_optional
    )
    return list(
        dict.fromkeys(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirement_lines)
    )


def _is_optional(requirement: str) -> bool:
    return "extra ==" in requirement


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gdal() -> str:
    try:
        import rasterio
    except ImportError:
        return "not installed"
    return str(rasterio.__gdal_version__)


def _proj() -> str:
    import pyproj

    return str(pyproj.proj_version_str)


def _device() -> str:
    """The accelerator that torch finds, or the processor with its threads."""
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}, CUDA {torch.version.cuda})"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu ({torch.get_num_threads()} threads)"
