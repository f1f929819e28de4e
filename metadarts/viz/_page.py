"""One HTML file with everything inside: no script, nothing fetched, every text from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from ._canvas import Picture

MEDIA = {".png": "image/png", ".svg": "image/svg+xml"}
STYLE = """
:root { color-scheme: light dark; --ink: #23272e; --soft: #5b6370; --line: #dfe3e8; --paper: #f6f7f9; --card: #fff;
  --accent: #1f5fa8; --mark: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a2abb8; --line: #343a44; --paper: #14171c;
  --card: #1d2128; --accent: #8fbdf0; --mark: #4a3b12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p, ul { max-width: 92ch; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; }
.where { max-width: none; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.12rem; max-width: none; border-left: 4px solid var(--accent); padding: .1rem 0 .1rem .9rem;
  margin: 1.1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.25;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .84rem; line-height: 1.35; display: block; }
.note { background: var(--mark); border-radius: 8px; padding: .55rem .9rem; max-width: none; }
figure { margin: 1.1rem 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden; break-inside: avoid; }
figure .sheet { background: #fff; padding: .7rem; text-align: center; }
figure img { max-width: 100%; height: auto; vertical-align: middle; }
figcaption { padding: .6rem .9rem .8rem; font-size: .92rem; color: var(--soft); border-top: 1px solid var(--line); }
figcaption b { color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; background: var(--card); }
th, td { text-align: left; padding: .32rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
tr.marked td { background: var(--mark); }
code { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media print { body { background: #fff; } main { max-width: none; padding: 0; } figure, .tile { border-color: #ccc; } }
"""


class Plate(NamedTuple):
    """A picture with its name and, in plain words, how to read it."""

    picture: Picture
    name: str
    caption: str


class Page:
    """An HTML page that is added to from top to bottom; every argument is plain text and is escaped here."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f'<p class="where">{escape(subtitle)}</p>']

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph; ``kind`` is "verdict" or "note", or empty for a plain one."""
        look = f' class="{escape(kind)}"' if kind else ""
        self._parts.append(f"<p{look}>{escape(text)}</p>")

    def points(self, texts: Iterable[str]) -> None:
        """Sentences that stand beside one another, as a list; nothing where there are none."""
        if items := "".join(f"<li>{escape(text)}</li>" for text in texts):
            self._parts.append(f"<ul>{items}</ul>")

    def code(self, text: str) -> None:
        """A line in type of one width."""
        self._parts.append(f"<p><code>{escape(text)}</code></p>")

    def tiles(self, tiles: Iterable[tuple[str, str]]) -> None:
        """(figure, what it is) pairs as a row of cards."""
        cards = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles)
        self._parts.append(f'<div class="tiles">{"".join(cards)}</div>')

    def plate(self, plate: Plate) -> None:
        """A picture, and below it its name and how to read it."""
        picture, name, caption = plate
        content = base64.b64encode(picture.getvalue()).decode()
        source = f"data:{MEDIA[picture.suffix]};base64,{content}"
        self._parts.append(
            f'<figure><div class="sheet"><img alt="{escape(name)}" src="{source}"></div>'
            f"<figcaption><b>{escape(name)}.</b> {escape(caption)}</figcaption></figure>"
        )

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], marked: Sequence[bool] = ()) -> None:
        """A table; ``marked`` says row by row which ones to highlight."""
        marks = [*marked]
        body = []
        for index, row in enumerate(rows):
            look = ' class="marked"' if index < len(marks) and marks[index] else ""
            body.append(f"<tr{look}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        self._parts.append(f'<div class="scroll"><table><thead><tr>{top}</tr></thead>{"".join(body)}</table></div>')

    def html(self) -> str:
        """The whole page. Its policy lets a browser load what is inlined: pictures and this one style sheet."""
        digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        head = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(self._title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n'
        )
        return f"{head}<body>\n<main>\n{chr(10).join(self._parts)}\n</main>\n</body>\n</html>\n"
