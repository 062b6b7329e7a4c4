"""Versions: in Python, on the command line, and through ``python -m geomiam``."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import rasterio
import torch

import geomiam as gm
from geomiam import versions


def test_show_versions_prints_python_geomiam_gdal_proj_the_device_and_dependencies(capsys):
    assert gm.show_versions() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["geomiam"] == gm.__version__
    assert lines["python"] == platform.python_version()
    assert lines["numpy"] == np.__version__
    assert lines["torch"] == metadata.version("torch")
    assert lines["GDAL"] == rasterio.__gdal_version__
    assert lines["PROJ"][0].isdigit()
    assert lines["device"].startswith("cuda" if torch.cuda.is_available() else ("cpu", "mps"))
    assert "pystac-client" in lines  # an optional one
    assert "pytest" not in lines  # not of a user's installation


def test_what_is_not_installed_is_named_as_such(capsys, monkeypatch):
    requirements = ["numpy>=2", 'absent-package[all]>=1; extra == "stac"']
    monkeypatch.setattr(versions.metadata, "requires", lambda name: requirements)
    gm.show_versions()
    assert "absent-package  not installed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--version", "-h", "--show-completion"])
def test_python_dash_m_geomiam_is_the_command_line(flag):
    command = [sys.executable, "-m", "geomiam", flag]
    shell = ["bash"] if flag == "--show-completion" else []
    process = subprocess.run([*command, *shell], capture_output=True, text=True, check=True)
    expected = {"--version": f"geomiam {gm.__version__}\n", "-h": "Usage:"}
    assert process.stdout.startswith(expected.get(flag, "_"))


def test_every_verb_takes_the_short_flag_of_help():
    from typer.testing import CliRunner

    from geomiam.cli.app import app

    assert "--schema" in CliRunner().invoke(app, ["fit", "-h"]).output
