"""The pages of the documentation that are generated from stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geomiam.errors import SettingError
from geomiam_bench.pages.benchmarks import write_pages
from geomiam_bench.pages.performance import write_page


def main(
    results: Annotated[Path, typer.Option(help="Folder with the JSON of the commands.")] = Path(
        "packages/geomiam-bench/results"
    ),
    docs: Annotated[Path, typer.Option(help="Folder of the pages to write.")] = Path("docs"),
) -> None:
    """Write the pages of the documentation from stored results."""
    if not results.is_dir():
        raise SettingError(f"no folder {results}; pass --results with the folder of the JSON files")
    write_pages(results, docs)
    write_page(results, docs)
