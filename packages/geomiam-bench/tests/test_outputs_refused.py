"""Results are never written over a model or into sites."""

from __future__ import annotations

import pytest
from helpers_small import tiny_sites
from typer.testing import CliRunner

import geomiam as gm
from geomiam.errors import OutputExists, OutputRefused
from geomiam_bench.cli import app


@pytest.mark.parametrize("verb", ["missingness", "systems"])
@pytest.mark.parametrize(
    "place", ["model/config.json", "sites.zarr/zarr.json", "sites.zarr/out.json"]
)
def test_results_over_other_files_are_refused_and_nothing_changes(tmp_path, verb, place):
    gm.write_sites(tiny_sites(20), tmp_path / "sites.zarr")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"format": 1}')
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    command = [verb, tmp_path / "sites.zarr", "--json", tmp_path / place, "--overwrite"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert isinstance(result.exception, (OutputExists, OutputRefused)), result.output
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
