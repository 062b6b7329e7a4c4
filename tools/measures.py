"""Measure Python packages: sizes, complexity, names, prose, comments and examples, one row per package.

``python -m tools.measures geomiam packages/geomiam-bench/geomiam_bench OTHER/PACKAGE …`` prints a Markdown table,
so that the code can be compared with other packages by the same measures.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from pathlib import Path
from typing import Any

from tools.language import WORDS, is_bare, local_names

BRANCHES = (
    ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.With, ast.AsyncWith,
    ast.Assert, ast.comprehension, ast.match_case,
)  # fmt: skip
PHRASES = {"banned words": rf"\b({'|'.join(WORDS)})\b", "what": r"\bwhat\b"}


def quantile(values: list[int], share: float) -> int:
    """Return the value below which a share of the values lie."""
    sorted_values = sorted(values)
    return (
        sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]
        if sorted_values
        else 0
    )


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return all functions and methods of a module."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    first = function.body[0]
    doc = isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)
    skip = (first.end_lineno or first.lineno) - first.lineno + 1 if doc else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - skip


def complexity(function: ast.AST) -> int:
    """Return McCabe's count: one, and one more for each branch."""
    branches = sum(isinstance(n, BRANCHES) for n in ast.walk(function))
    return (
        1
        + branches
        + sum(len(n.values) - 1 for n in ast.walk(function) if isinstance(n, ast.BoolOp))
    )


def prose(tree: ast.AST, source: str) -> tuple[str, int]:
    """Return docstrings and comments as one text, and the number of comment lines."""
    texts = [
        ast.get_docstring(n) or ""
        for n in ast.walk(tree)
        if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    comments = [
        t.string
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT
    ]
    return "\n".join(texts + comments), len(comments)


def measure(package: Path) -> dict[str, Any]:
    """Return the measures of one package, a folder or a single file."""
    lines: list[int] = []
    lengths: list[int] = []
    branches: list[int] = []
    parameters: list[int] = []
    names = bare = comments = public = examples = 0
    text = ""
    for path in [package] if package.is_file() else sorted(package.rglob("*.py")):
        if {"tests", "test"} & set(path.relative_to(package).parts):
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(source)
        except SyntaxError:  # written for a newer Python than this one
            continue
        lines.append(source.count("\n"))
        for function in functions(tree):
            lengths.append(body_lines(function))
            branches.append(complexity(function))
            arguments = function.args
            parameters.append(len(arguments.args) + len(arguments.kwonlyargs))
            if not function.name.startswith("_"):
                public += 1
                examples += ">>>" in (ast.get_docstring(function) or "")
        unique = [name for _, name in local_names(tree)]
        names += len(unique)
        bare += sum(map(is_bare, unique))
        words, count = prose(tree, source)
        text += words
        comments += count
    total = max(len(text.split()), 1)
    return {
        "package": package.name,
        "files": len(lines),
        "lines": sum(lines),
        "file: median": int(statistics.median(lines)),
        "file: longest": max(lines),
        "files > 300": sum(n > 300 for n in lines),
        "function: median": int(statistics.median(lengths)),
        "function: 90 %": quantile(lengths, 0.9),
        "function: longest": max(lengths),
        "complexity: mean": round(statistics.mean(branches), 1),
        "complexity: most": max(branches),
        "parameters: most": max(parameters),
        "bare names, %": round(100 * bare / max(names, 1), 1),
        "comment lines, %": round(100 * comments / sum(lines), 1),
        **{
            f"{label}, per 10,000 words": round(1e4 * len(re.findall(p, text, re.I)) / total, 1)
            for label, p in PHRASES.items()
        },
        "functions without underscore": public,
        "of them with an example": examples,
    }


def main() -> None:
    """Print the measures of the packages named as arguments, one column each."""
    rows = [measure(Path(p)) for p in sys.argv[1:] or ["geomiam"]]
    print("| measure | " + " | ".join(r["package"] for r in rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    for key in list(rows[0])[1:]:
        print(f"| {key} | " + " | ".join(f"{r[key]:,}" for r in rows) + " |")


if __name__ == "__main__":
    main()
