"""The public interface: its names, their signatures, and what their docstrings state."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import geomiam as gm

ROOT = Path(gm.__file__).parent


def test_every_public_name_is_there():
    for name in gm.__all__:
        assert getattr(gm, name) is not None
    with pytest.raises(AttributeError, match="predikt"):
        _ = gm.predikt


def test_the_typed_script_of_a_user_covers_every_public_name():
    script = (Path(__file__).parent / "typed_user.py").read_text(encoding="utf-8")
    assert not [n for n in gm.__all__ if f"gm.{n}" not in script]


def test_the_accessor_has_no_state_and_one_call_per_method():
    source = (ROOT / "accessor.py").read_text(encoding="utf-8").splitlines()
    assert len(source) <= 300  # full signatures: about 30 lines for each of 8 methods
    assert sum("self._obj =" in line for line in source) == 1  # no state but the object


@pytest.mark.parametrize(
    "name", "predict shapley write_map plan_map sample coverage saturation schema".split()
)
def test_methods_of_the_accessor_have_the_signatures_of_the_functions(name):
    from geomiam.accessor import Miam

    elsewhere = {"schema": gm.infer_schema, "saturation": gm.explain.saturation}
    function = elsewhere.get(name) or getattr(gm, name)
    _, *expected = inspect.signature(function).parameters.values()
    _, *actual = inspect.signature(getattr(Miam, name)).parameters.values()
    assert actual == expected


def test_public_functions_document_parameters_returns_and_errors():
    for name in gm.__all__:
        function = getattr(gm, name)
        if inspect.isfunction(function):
            doc = inspect.getdoc(function) or ""
            assert "Returns" in doc and (
                "Parameters" in doc or len(inspect.signature(function).parameters) < 2
            ), name
