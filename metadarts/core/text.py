"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""``text`` on one line: what is not printable (control characters, line breaks, directions, bytes that are no
    UTF-8) is written as its escape, such as \x1b, so that names obey no terminal and forge no line.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
