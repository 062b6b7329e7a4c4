"""Messages on the command line: flags in place of Python arguments, never a traceback."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import geomiam as gm
from geomiam.cli import app as cli
from geomiam.cli.messages import OTHER_NAMES, flags_of, verb, with_flags

ROOT = Path(gm.__file__).parent
COMMAND = typer.main.get_command(cli.app)
VERBS = [
    ["fit"],
    ["pretrain"],
    ["finetune"],
    ["predict"],
    ["explain"],
    ["build"],
    ["records"],
    ["sample"],
    ["response"],
    ["project"],
    ["change"],
    ["cross-validate"],
]


@pytest.mark.parametrize(
    ("words", "message", "expected"),
    [
        (
            ["fit"],
            "exists; pass overwrite=True to replace it",
            "exists; pass --overwrite to replace it",
        ),
        (["predict"], "or pass resume=False", "or pass --no-resume"),
        (
            ["fit"],
            "pass a smaller training=TrainingConfig(block=…)",
            "pass a smaller --block <value>",
        ),
        (["fit"], "pass keep='last', or holdout=0.15", "pass --keep last, or --holdout 0.15"),
        (["fit"], "block='100 km' is too large", "--block '100 km' is too large"),
        (["fit"], "network=gm.NetworkConfig(width=64, heads=4)", "--width 64, --heads 4"),
        (
            ["explain"],
            "join some with groups={name: [...]}",
            "join some with --group {name: [...]}",
        ),
        (["predict"], "leave them out with using=[...]", "leave them out with --using [...]"),
        (["predict"], "pass block=3", "pass block=3"),  # this verb has no such flag
    ],
)
def test_arguments_become_the_flags_of_the_verb(words, message, expected):
    text = with_flags(message, flags_of(verb(COMMAND, words)))
    assert text.replace("'{name: [...]}'", "{name: [...]}") == expected


def test_what_is_python_is_marked():
    flags = flags_of(verb(COMMAND, ["predict"]))
    assert with_flags("use ds.rename(row='y')", flags) == (
        "use ds.rename(row='y') (gm.…, ds.… and name= are Python)"
    )


@functools.cache
def messages() -> dict[str, str]:
    """Texts of all errors that the package raises, with '…' for values, and where they are."""
    flags_found = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                for part in ast.walk(node.exc):
                    if isinstance(part, ast.JoinedStr):
                        texts = [
                            v.value if isinstance(v, ast.Constant) else "…" for v in part.values
                        ]
                        flags_found["".join(map(str, texts))] = path.name
                    elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                        flags_found.setdefault(part.value, path.name)
    return flags_found


def test_other_names_of_flags_exist():
    flags = {name for words in VERBS for name in flags_of(verb(COMMAND, words))}
    assert set(OTHER_NAMES.values()) <= flags
    assert not set(OTHER_NAMES) & flags - {"groups"}


@pytest.mark.parametrize("words", VERBS, ids=lambda w: w[0])
def test_no_message_leaves_an_argument_that_the_verb_has_a_flag_for(words):
    flags = flags_of(verb(COMMAND, words))
    for text in messages():
        text_with_flags = with_flags(text, flags)
        assert (
            "TrainingConfig(" not in text_with_flags and "NetworkConfig(" not in text_with_flags
        ), text
        outside = re.sub(
            r"\b[\w.]+\([^()]*\)", "", text_with_flags
        )  # arguments of a Python call stay
        for name in re.findall(r"(?<![\w.\[(])([a-z]\w*)=(?!=)", outside):
            assert name not in flags, text


def run(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess:
    code = "import sys; from geomiam.cli import main; sys.argv[0] = 'geomiam'; main()"
    env = {"PYTHONPATH": str(ROOT.parent), "PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, env=env, check=False)


def test_names_that_a_terminal_cannot_show_are_escaped_and_end_in_a_message(tmp_path):
    catalog = tmp_path / "c.yaml"
    text = 'title: "a\\e[2Jb"\nmodalities: {m: {variables: {x→y: {}}}}\n'
    catalog.write_text(text, encoding="utf-8")
    process = run("info", str(catalog), encoding="cp1252")
    assert process.returncode == 0, process.stderr
    assert b"x\\u2192y" in process.stdout and b"\x1b" not in process.stdout
    process_refused = run("info", str(tmp_path / "é→\u202e.yaml"), encoding="cp1252")
    assert process_refused.returncode == 1
    assert (
        process_refused.stderr.startswith(b"error: ") and b"Traceback" not in process_refused.stderr
    )


def test_a_failure_of_the_system_or_of_ours_is_one_message(monkeypatch, capsys):
    from geomiam.cli.messages import run as guarded

    for cause, words in [
        (PermissionError(13, "Permission denied", "x"), "the system reports.*Permission denied"),
        (MemoryError("4 GiB"), "there is not enough memory"),
        (ImportError("no module named x"), "no module named x; install"),
        (KeyError("k"), "unexpected KeyError.*please report it"),
    ]:

        def fail(cause=cause):
            raise cause

        with pytest.raises(SystemExit) as left:
            guarded(fail, flags=dict)
        assert left.value.code == 1
        assert re.search(words, capsys.readouterr().err)


def test_warnings_are_a_line_with_flags_and_without_code():
    script = (
        "import warnings\n"
        "from geomiam.cli.messages import run\n"
        "def call():\n"
        "    warnings.warn('2 records are left; thin=False keeps all \\x1b[2J')\n"
        "    warnings.warn('of another library', RuntimeWarning)\n"
        "run(call, flags=lambda: {'thin': ('--thin', '--no-thin')})\n"
        "warnings.warn('as usual')\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    first, *other_flags = process.stderr.splitlines()
    assert first == r"warning: 2 records are left; --no-thin keeps all \x1b[2J"
    assert any("RuntimeWarning: of another library" in line for line in other_flags)
    assert any("UserWarning: as usual" in line for line in other_flags)  # Python's format is back
