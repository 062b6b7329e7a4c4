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
    assert len(source) <= 300  # full signatures: about 30 lines for each of 9 methods
    assert sum("self._obj =" in line for line in source) == 1  # no state but the object


@pytest.mark.parametrize(
    "name",
    "predict shapley novelty value_of_information write_map plan_map sample coverage saturation schema".split(),
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


MOST_PARAMETERS = 8  # that are passed by name; the data of a call stand first


def public_callables():
    """Functions and methods of every public namespace, by name; dataclasses and configs are lists of fields."""
    for name in gm.__all__:
        value = getattr(gm, name)
        if inspect.ismodule(value):
            names = getattr(value, "__all__", [n for n in vars(value) if not n.startswith("_")])
            members = {f"{name}.{n}": getattr(value, n) for n in names}
        else:
            members = {name: value}
        for path, member in members.items():
            if not getattr(member, "__module__", "").startswith("geomiam"):
                continue
            if inspect.isclass(member):
                yield from (
                    (f"{path}.{n}", getattr(member, n))
                    for n in vars(member)
                    if not n.startswith("_") and callable(getattr(member, n))
                )
                fields = hasattr(member, "__dataclass_fields__") or hasattr(member, "model_fields")
                if not fields and not issubclass(member, BaseException):
                    yield path, member
            elif callable(member):
                yield path, member


def test_public_functions_take_at_most_eight_parameters_by_name():
    from geomiam.accessor import Miam

    methods = [(f"miam.{n}", m) for n, m in vars(Miam).items() if not n.startswith("_")]
    counts = {
        name: sum(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())
        for name, function in (*public_callables(), *methods)
    }
    assert len(counts) > 100
    assert not {name: count for name, count in counts.items() if count > MOST_PARAMETERS}
