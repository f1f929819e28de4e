"""The fonts that labels are drawn with, and the letters that they have."""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

SHIPPED = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic letters and many signs."""
WIDE = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "Source Han Sans JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "IPAexGothic", "IPAGothic", "TakaoGothic", "NanumGothic", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC",
    "Yu Gothic", "MS Gothic", "Microsoft YaHei", "SimHei", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai",
    "Noto Sans", "Noto Sans Symbols", "Noto Sans Symbols 2", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""What a machine may have besides, for other scripts."""


@functools.cache
def families() -> tuple[str, ...]:
    """The shipped font, then those of this machine that have other scripts; a letter is drawn by the first that can."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return (SHIPPED, *(name for name in WIDE if name in known))


@functools.cache
def _fonts() -> tuple[FT2Font, ...]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return tuple(get_font(findfont(FontProperties(family=name))) for name in families())


def drawable(text: str) -> str:
    r"""``text`` with every letter that no font has written as its code, such as \u65e5, so that labels stay apart."""
    return "".join(_shown(letter) for letter in unicodedata.normalize("NFC", text))


@functools.cache
def _shown(letter: str) -> str:
    if letter.isprintable() and any(font.get_char_index(ord(letter)) for font in _fonts()):
        return letter
    return letter.encode("ascii", "backslashreplace").decode() if ord(letter) > 127 else "?"
