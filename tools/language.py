"""Check the language of code and documentation: banned words, and local names that are bare participles.

``python -m tools.language`` lists every place; ``tests/test_language.py`` fails on each of them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = ("geomiam", "packages", "tools", "tests")
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "packages", "notebooks")

WORDS = {
    "told": "reported, distinguished, passed",
    "tell": "report, distinguish",
    "tells": "reports, distinguishes",
    "telling": "reporting",
    "says": "states, reports",
    "said": "stated",
    "saying": "stating",
    "knows": "has, contains, supports",
    "meets": "attends to, reaches",
    "meet": "attend to, reach",
    "asks": "requests, requires",
    "asked": "requested",
    "answers": "predicts, returns",
    "answered": "predicted, returned",
    "rival": "baseline",
    "rivals": "baselines",
    "shelf": "catalogs",
    "catalogue": "STAC catalog, collection",
    "catalogues": "STAC catalogs, collections",
}
"""Banned words with plain replacements."""

BARE = frozenset(
    "made found own told known told said some what how given gone seen done there here taken kept held "
    "shown drawn sent brought begun chosen broken lost meant grown worn other others both each every all_ "
    "many few much more less most least which who where when why these those them whole mine ours theirs "
    "nothing anything everything something then facts rest now one".split()
)
"""Pronouns, adverbs and irregular participles that do not state what a variable holds."""

NOUNS = frozenset(
    "seed need speed feed embed shed bed observed unobserved shared fixed expected nested mixed".split()
)
"""Names that end in ``ed`` and still state what they hold, or are a term of the design."""


EXAMPLES = ("language.py", "test_language.py")
"""Files that contain the banned words as examples."""


class Place(NamedTuple):
    """One place that breaks a rule."""

    file: str
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}: {self.advice}"


_WORD = re.compile(rf"(?<![\w`./-])({'|'.join(WORDS)})(?![\w`/]|\.\w)", re.IGNORECASE)
_OWN = re.compile(
    r"\b(?:of (?:your|our|my) own\b|(?:of|on) (?:its|their|your|our|my) own"
    r"(?= *(?:$|[^\w\s]|(?:for|that|in|with|by|is|are|or|and|as|because|since|which|where|when)\b)))"
)
"""A phrase without a noun behind it: "a file of its own", but not "on its own grid"."""
_AS_OF = re.compile(
    r"\b(?:errors as of|as of(?= +(?::\w|`))|raises as(?= +(?::\w|`)))", re.IGNORECASE
)
"""A comparison without a verb: "errors as of ``f``", "a file as of :func:`f`"."""


def banned_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line (from 0) and each banned word of a text."""
    for number, line in enumerate(text.splitlines()):
        line = line.replace("\\n", "  ")  # of a string with line breaks
        for pattern in (_WORD, _OWN, _AS_OF):
            yield from ((number, match.group()) for match in pattern.finditer(line))


def advice(text: str) -> str:
    """Return the plain replacement of a banned word or phrase."""
    if _AS_OF.match(text + " `"):
        return "raises the same errors as, as written by"
    return WORDS.get(text.lower(), "separate, independent")


def is_bare(name: str) -> bool:
    """Return whether a local name is a bare participle or pronoun."""
    word = name.strip("_").lower()
    return word in BARE or (word.endswith("ed") and "_" not in word and word not in NOUNS)


def words_of(name: str) -> list[str]:
    """Split the name of a function or class into its words in lower case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")


def definitions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and each banned word in the name of every function and class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = words_of(node.name) if node.name != "tell" else []  # a method of files
            yield from ((node.lineno, word) for word in words if word in WORDS)


def local_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every parameter and local variable of every function, once each."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        seen: set[str] = set()
        for node in ast.walk(function):
            name = ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.arg):
                name = node.arg
            if name and name not in seen:
                seen.add(name)
                yield getattr(node, "lineno", 0), name


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of every string and comment of Python code."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT, _FSTRING):
            yield token.start[0], token.string


_FSTRING = getattr(tokenize, "FSTRING_MIDDLE", -1)


def check_code(path: Path) -> list[Place]:
    """Return the places of a Python file that break a rule."""
    file = path.relative_to(ROOT).as_posix()
    source = path.read_text(encoding="utf-8")
    places = []
    if any(banned_words(source)):  # most files have none, and to split a file into tokens is slow
        places = [
            Place(file, first + offset, word, f"write {advice(word)}")
            for first, text in prose_of(source)
            for offset, word in banned_words(text)
        ]
    tree = ast.parse(source)
    places += [Place(file, line, word, f"write {WORDS[word]}") for line, word in definitions(tree)]
    names = {(line, name) for line, name in local_names(tree) if is_bare(name)}
    places += [Place(file, line, name, "name what the variable holds") for line, name in names]
    return sorted(places)


def check_prose(path: Path) -> list[Place]:
    """Return the places of a Markdown file or notebook that break a rule."""
    file = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    return [
        Place(file, line + 1, word, f"write {advice(word)}") for line, word in banned_words(text)
    ]


def files(folders: tuple[str, ...], suffixes: set[str]) -> list[Path]:
    """Return the files of some folders, without environments and build output."""
    paths: list[Path] = []
    for folder in folders:
        start = ROOT / folder
        candidates = [start] if start.is_file() else start.rglob("*")
        paths += [
            p
            for p in candidates
            if p.suffix in suffixes and not {"_build", "build", ".venv"} & set(p.parts)
        ]
    return sorted(paths)


def all_places() -> list[Place]:
    """Return every place of the repository that breaks a rule."""
    code = [p for p in files(CODE, {".py", ".pyi"}) if p.name not in EXAMPLES]
    places = [place for path in code for place in check_code(path)]
    return places + [
        place for path in files(PROSE, {".md", ".ipynb"}) for place in check_prose(path)
    ]


def main() -> int:
    """Print every place, or of the files whose paths start with the arguments."""
    starts = tuple(sys.argv[1:]) or ("",)
    places = [p for p in all_places() if p.file.startswith(starts)]
    for place in places:
        print(place)
    print(f"{len(places)} places")
    return int(bool(places))


if __name__ == "__main__":
    raise SystemExit(main())
