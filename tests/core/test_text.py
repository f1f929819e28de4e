"""What reaches a terminal obeys no one but us."""

from __future__ import annotations

import pytest

from metadarts.core.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straße 日本 é", "Straße 日本 é"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        ("t\udce9", r"t\udce9"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_one_line_that_obeys_no_name(text, shown):
    assert visible(text) == shown


def test_every_letter_is_printable_and_can_be_encoded():
    letters = visible("".join(map(chr, range(0x110000))))
    assert letters.isprintable()
    letters.encode()
