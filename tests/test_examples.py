"""The examples of public docstrings run, and the list of names without an example only becomes shorter."""

from __future__ import annotations

import doctest
import inspect
import warnings
from collections.abc import Iterator
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import train_small
from test_docs import public_names

import geomiam as gm

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PENDING: tuple[str, ...] = (
    "geomiam.sources.CubePlan",
    "geomiam.MapPlan",
    "geomiam.chips",
    "geomiam.open_sites",
)
"""Public functions and classes without an example: this list only becomes shorter."""


def has_docstring(name: str) -> bool:
    value = resolve_name(name)
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    return (inspect.isclass(value) or inspect.isfunction(value)) and not is_error


DOCUMENTED = [n for n in public_names() if has_docstring(n)]


def own_docstrings(name: str) -> str:
    """Return the docstrings of an object and of the methods that its class defines."""
    value = resolve_name(name)
    parts = [value, *vars(value).values()] if inspect.isclass(value) else [value]
    return "\n".join(inspect.getdoc(p) or "" for p in parts if p is value or callable(p))


SKIPPED = ("geomiam.demo.run",)
"""Examples that are not run: a minute and more."""
WITH_EXAMPLE = [n for n in DOCUMENTED if ">>> " in own_docstrings(n)]


@pytest.fixture(scope="module")
def namespace(cube, sites) -> dict[str, Any]:
    """The names that examples use without defining them."""
    model = train_small(sites, "group")
    schema = gm.infer_schema(cube)
    return {
        "gm": gm,
        "np": np,
        "xr": xr,
        "cube": cube,
        "sites": sites,
        "model": model,
        "schema": schema,
    }


def examples_of(name: str, names: dict[str, Any]) -> Iterator[doctest.DocTest]:
    value = resolve_name(name)
    module = inspect.getmodule(value)
    for test in doctest.DocTestFinder().find(value, name, module=module, globs=dict(names)):
        if test.examples:
            yield test


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_examples_of_the_docstring_run(name, namespace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner, report = doctest.DocTestRunner(optionflags=OPTIONS), []
    for test in examples_of(name, namespace):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    assert runner.tries > 0 or name in SKIPPED, "every line of the example is skipped"


def test_every_public_name_has_an_example_or_is_pending():
    assert not set(DOCUMENTED) - set(WITH_EXAMPLE) - set(PENDING)


@pytest.mark.parametrize("name", PENDING)
def test_a_pending_name_has_no_example_yet(name):
    assert name not in WITH_EXAMPLE, f"remove {name!r} from PENDING"
