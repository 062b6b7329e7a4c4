"""The house: what importing costs, and who may import whom."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import geomiam as gm

ROOT = Path(gm.__file__).parent


def test_importing_loads_neither_torch_nor_dask():
    code = "import sys, geomiam; print([m for m in ('torch', 'dask', 'rioxarray', 'matplotlib') if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_nothing_below_imports_anything_above():
    command = Path(sys.executable).with_name("lint-imports")
    process = subprocess.run(
        [command], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert process.returncode == 0, process.stdout[-2000:]


def test_each_folder_of_tests_is_a_folder_of_the_package():
    tests = Path(__file__).parent
    folders = {p.parent.relative_to(tests).as_posix() for p in tests.rglob("test_*.py")} - {"."}
    assert len(folders) > 12
    assert not [f for f in folders if not (ROOT / f).is_dir()]


def test_names_of_test_files_are_unique():
    names = [p.name for p in Path(__file__).parent.rglob("*.py")]
    names += [p.name for p in ROOT.parent.glob("packages/*/tests/**/*.py")]
    assert sorted(set(names)) == sorted(names)


NOT_STRICT = 11  # packages that compute with arrays, of which many operations have the type Any
IGNORES = 9


def test_mypy_is_strict_and_its_exceptions_only_become_fewer():
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    assert settings["strict"]
    exceptions = [o for o in settings["overrides"] if "geomiam." in str(o["module"])]
    assert [sorted(o) for o in exceptions] == [["module", "warn_return_any"]]
    assert len(exceptions[0]["module"]) <= NOT_STRICT


def test_an_ignored_error_of_mypy_has_a_code_and_a_reason():
    ignores = []
    for path in ROOT.rglob("*.py"):
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        comments = (t.string for t in tokens if t.type == tokenize.COMMENT)
        ignores += [c for c in comments if "type: ignore" in c]
    assert 0 < len(ignores) <= IGNORES
    assert not [c for c in ignores if not re.fullmatch(r"# type: ignore\[[a-z-]+\]  # .+", c)]
