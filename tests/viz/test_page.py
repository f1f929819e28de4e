"""A page holds what it is given as text, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from metadarts.viz import Page, Picture, Plate, draw_curve

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """The tags and the attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.said += data


def evil_page() -> str:
    page, picture = Page(EVIL, EVIL), Picture(".svg")
    draw_curve({"a": [1.0, 2.0]}, picture)
    page.heading(EVIL)
    page.text(EVIL, "note")
    page.points([EVIL])
    page.code(EVIL)
    page.tiles([(EVIL, EVIL)])
    page.plate(Plate(picture, EVIL, EVIL))
    page.table((EVIL,), [(EVIL,), ("plain",)], [False, True])
    return page.html()


def test_no_text_becomes_markup():
    reader = Reader()
    reader.feed(evil_page())
    assert "script" not in reader.tags
    assert reader.tags.count("img") == 1
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "style"]
    assert reader.said.count(EVIL) == 13  # title, heading, subtitle and the ten places above


def test_nothing_is_fetched_and_the_policy_allows_this_style_only():
    html = evil_page()
    reader = Reader()
    reader.feed(html)
    linked = [value or "" for name, value in reader.attributes if name in ("src", "href")]
    assert len(linked) == 2
    assert all(value.startswith("data:") for value in linked)
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', html)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_pictures_are_inlined_whole():
    picture = Picture()
    draw_curve({"a": [1.0]}, picture)
    page = Page("a")
    page.plate(Plate(picture, "a curve", "how to read it"))
    (content,) = re.findall(r"data:image/png;base64,([^\"]*)", page.html())
    assert base64.b64decode(content) == picture.getvalue()


def test_marked_rows_are_marked():
    page = Page("a")
    page.table(("x",), [("1",), ("2",), ("3",)], [False, True])
    assert re.findall('<tr( class="marked")?><td>(.)', page.html()) == [
        ("", "1"),
        (' class="marked"', "2"),
        ("", "3"),
    ]
