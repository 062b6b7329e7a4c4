"""The examples of public docstrings run, and the list of names without an example only becomes shorter."""

from __future__ import annotations

import doctest
import inspect
import re
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


def public_object(name: str) -> Any:
    """Return an object by name, also where a module has the same one, such as ``geomiam.ranges.change``."""
    return resolve_name(name.replace(".", ":", 1))


def has_docstring(name: str) -> bool:
    value = public_object(name)
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    return (inspect.isclass(value) or inspect.isfunction(value)) and not is_error


DOCUMENTED = [n for n in public_names() if has_docstring(n)]


def own_docstrings(name: str) -> str:
    """Return the docstrings of an object and of the methods that its class defines."""
    value = public_object(name)
    parts = [value, *vars(value).values()] if inspect.isclass(value) else [value]
    return "\n".join(inspect.getdoc(p) or "" for p in parts if p is value or callable(p))


OF_SCENES = ("landsat", "plan_landsat", "sentinel1", "plan_sentinel1")
SKIPPED = (
    *("geomiam.demo.run", "geomiam.plan_sentinel2", "geomiam.sentinel2"),
    *(
        "geomiam.sources.CubePlan",
        "geomiam.sources.summary",
        *(f"geomiam.sources.{n}" for n in OF_SCENES),
    ),
)
"""Examples that are not run: a minute and more, or a server."""
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
    value = public_object(name)
    module = inspect.getmodule(value)
    for test in doctest.DocTestFinder().find(value, name, module=module, globs=dict(names)):
        if test.examples:
            yield test


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_examples_of_the_docstring_run(name, namespace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner, report = doctest.DocTestRunner(optionflags=OPTIONS), []
    tests = list(examples_of(name, namespace))
    for test in tests:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    run = [e.source for t in tests for e in t.examples if doctest.SKIP not in e.options]
    imports_only = all(source.startswith(("import ", "from ")) for source in run)
    assert imports_only == (name in SKIPPED), "every line of the example is skipped"


def test_every_public_name_has_an_example():
    assert not set(DOCUMENTED) - set(WITH_EXAMPLE)


SEE_ALSO = re.compile(r"See Also\n-{8}\n((?:\S.*(?:\n +.*)*\n?)+)")


def see_also(name: str) -> list[str]:
    """Return the entries below See Also in the docstring of an object."""
    sections = SEE_ALSO.findall(inspect.getdoc(public_object(name)) or "")
    return [line for section in sections for line in section.splitlines() if line[0] != " "]


def test_see_also_names_public_objects_with_a_reason():
    entries = {name: see_also(name) for name in DOCUMENTED}
    assert sum(map(bool, entries.values())) > 90
    for name, lines in entries.items():
        for line in lines:
            target, _, reason = line.partition(" : ")
            assert target in DOCUMENTED and target != name and reason.endswith("."), (name, line)
