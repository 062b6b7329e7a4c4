"""HTML of a report: elements with escaped text, embedded pictures, and the style of the page."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geomiam._version import __version__
from geomiam.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: no script runs but those whose digest is added, and nothing is loaded from the web."""
STYLE = """
:root { --ink: #1f2a30; --line: #d5dde2; --blue: #2b6cb0; --gap: #fff3d6; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main, header { max-width: 62rem; margin: 0 auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
header { padding-top: 2rem; border-bottom: 3px solid var(--blue); }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.4rem 0 .6rem; padding-top: .4rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
.note { color: #54626b; font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: .6rem 0 .8rem; font-size: .95rem; }
nav a { color: var(--blue); text-decoration: none; padding: .25rem 0; }
figure { margin: 1rem 0; } figcaption { color: #54626b; font-size: .9rem; }
img { max-width: 100%; height: auto; display: block; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .6rem 1rem; }
.grid figure { margin: 0; }
.wide { overflow-x: auto; } .wide th, .wide td { overflow-wrap: normal; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: .4rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal; }
table.fields { table-layout: fixed; }
table.fields th { width: 28%; font-weight: 600; }
.gap { background: var(--gap); font-style: italic; }
li { margin: .35rem 0; }
.values .controls { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin-bottom: .5rem; }
.values select { font: inherit; max-width: 100%; }
.values .pair { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1rem; align-items: start; }
.values .map { position: relative; max-height: 80vh; max-width: 100%; }
.values canvas, .values .map img { width: 100%; height: 100%; display: block; image-rendering: pixelated; }
.values canvas { cursor: crosshair; }
.values .mark { position: absolute; width: 14px; height: 14px; margin: -7px 0 0 -7px; border: 2px solid #fff;
  border-radius: 50%; outline: 1.5px solid var(--ink); pointer-events: none; }
.values .legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: center; margin-top: .4rem; font-size: .85rem; }
.values .legend .ramp { width: 12rem; height: .8rem; border: 1px solid var(--line); }
.values .legend i { display: inline-block; width: .8rem; height: .8rem; border: 1px solid var(--line); }
.values td { text-align: right; font-variant-numeric: tabular-nums; } .values th { font-weight: 400; }
footer { overflow-wrap: anywhere; max-width: 62rem; margin: 2.5rem auto; padding: .8rem 1.2rem; border-top: 1px solid var(--line); }
@media (max-width: 36rem) {
  body { font-size: 15px; } h1 { font-size: 1.5rem; } .values .pair { grid-template-columns: minmax(0, 1fr); }
  table.fields, table.fields tbody, table.fields tr, table.fields th, table.fields td { display: block; width: 100%; }
  table.fields th { border-bottom: 0; padding-bottom: 0; }
}
@media print {
  @page { margin: 16mm; }
  body { font-size: 10.5pt; } nav { display: none; } header, main, footer { max-width: none; padding: 0; }
  figure, tr, li { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .gap { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  .wide { overflow: visible; } .values .controls { display: none; }
}
"""


@dataclass
class Section:
    """One section of the page."""

    anchor: str
    title: str
    parts: list[str] = field(default_factory=list)
    script: str = ""
    """Script of the section; its text is fixed and has no name from a file."""

    def html(self) -> str:
        """Return the section as HTML."""
        return f'<section id="{self.anchor}"><h2>{escaped(self.title)}</h2>{"".join(self.parts)}</section>'


def escaped(value: object) -> str:
    """Return a text in which no character is HTML, also inside quoted attributes."""
    return html.escape(printable(str(value)), quote=True).replace("\n", "<br>")


def decimals(value: Any) -> str:
    """Return a number with three decimals, or a text for NaN."""
    number = float(value)
    return f"{number:.3f}" if math.isfinite(number) else "no value"


def paragraph(text: str, *, note: bool = False) -> str:
    """Return a paragraph."""
    return f"<p{' class=note' if note else ''}>{escaped(text)}</p>"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escaped(text)}</h3>"


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>"


def number_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table whose first column is text and whose other columns are numbers."""
    marks = ["", *[' class="number"'] * (len(head) - 1)]
    top = "".join(f"<th{m}>{escaped(h)}</th>" for m, h in zip(marks, head))
    body = "".join(
        f"<tr>{''.join(f'<td{m}>{escaped(v)}</td>' for m, v in zip(marks, row))}</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def field_table(rows: Iterable[tuple[str, str, bool]]) -> str:
    """Return a table of names and texts; incomplete ones are marked."""
    body = "".join(
        f"<tr><th>{escaped(name)}</th><td{'' if complete else ' class=gap'}>{escaped(text)}</td></tr>"
        for name, text, complete in rows
    )
    return f'<table class="fields"><tbody>{body}</tbody></table>'


def picture(figure: Figure | SubFigure, caption: str) -> str:
    """Return a matplotlib figure as an embedded PNG, and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    root: Any = figure
    root.savefig(buffer, format="png", dpi=110)
    plt.close(root)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escaped(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def grid(pictures: Sequence[str]) -> str:
    """Return pictures side by side, as many as the width holds."""
    return f'<div class="grid">{"".join(pictures)}</div>'


def document(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """Return the page."""
    links = "".join(f'<a href="#{s.anchor}">{escaped(s.title)}</a>' for s in sections)
    body = "\n".join(s.html() for s in sections)
    scripts = list(dict.fromkeys(s.script for s in sections if s.script))
    code = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="generator" content="geomiam {__version__}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><header><h1>{escaped(title)}</h1>{paragraph(subtitle, note=True)}<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n<footer>{paragraph(footer, note=True)}</footer>\n{code}</body></html>\n"
    )


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy of a page with these scripts: any other script does not run."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    sources = "".join(f" 'sha256-{digest}'" for digest in digests)
    return f"{POLICY}; script-src{sources}" if sources else POLICY
