"""The language of code and documentation: plain words, and names that state what they hold."""

from __future__ import annotations

import ast

import pytest

from tools.language import all_places, banned_words, definitions, is_bare, local_names


def test_no_banned_word_and_no_bare_name():
    places = [str(p) for p in all_places()]
    assert not places, "\n".join(places)


def test_words_are_found_in_prose_and_not_in_identifiers_or_paths():
    assert [w for _, w in banned_words("What a model says. `said` x.told")] == ["says"]
    assert [w for _, w in banned_words("it was told\nand Asked")] == ["told", "Asked"]
    assert [w for _, w in banned_words("a file of its own, on its own grid")] == ["of its own"]
    assert [w for _, w in banned_words("a step of its own because")] == ["of its own"]
    assert [w for _, w in banned_words("they raise errors of their own")] == ["of their own"]
    assert [w for _, w in banned_words("code of our own, your own grid")] == ["of our own"]
    assert [w for _, w in banned_words("errors as of :func:`f`")] == ["errors as of"]
    assert [w for _, w in banned_words("a file as of ``f``, as of today")] == ["as of"]
    assert [w for _, w in banned_words(r"{n}\nAnswered: 3")] == ["Answered"]


@pytest.mark.parametrize("name", ["found", "made", "_own", "joined", "what", "rest"])
def test_bare_names(name):
    assert is_bare(name)


@pytest.mark.parametrize(
    "name", ["seed", "observed", "read_bytes", "joined_table", "scores", "one_hot"]
)
def test_names_that_state_what_they_hold(name):
    assert not is_bare(name)


def test_local_names_are_those_of_functions_only():
    code = "made = 1\ndef f(told):\n    found = 1\n    return lambda said: said\n"
    assert {name for _, name in local_names(ast.parse(code))} == {"told", "found", "said"}


def test_names_of_functions_and_classes_have_no_banned_word():
    code = "def test_it_is_told(): pass\nclass RivalTable:\n    def meeting(self): pass\n"
    assert list(definitions(ast.parse(code))) == [(1, "told"), (2, "rival")]
