"""Which characters the built-in source is made of: explicit code point ranges, script by script and split by split.

The ranges hold no spaces, controls, combining marks or modifiers. A character that Unicode decomposes (an accented
letter, a ligature, a subscript) is left out: it would be a trivial variant of another class. Unicode promises never
to change the decomposition of a character, so the choice does not depend on Python's version; nor do the ranges.
"""

from __future__ import annotations

import unicodedata

Ranges = tuple[tuple[int, int], ...]

SCRIPTS: dict[str, dict[str, Ranges]] = {
    "train": {
        "Latin": ((0x21, 0x7E), (0xA1, 0xAC), (0xAE, 0xB7), (0xBB, 0x24F), (0x250, 0x2AF), (0x1D00, 0x1D2B))
        + ((0x1D6B, 0x1D77), (0x1D79, 0x1D9A), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA722, 0xA787), (0xA78B, 0xA7FF)),
        "Greek": ((0x370, 0x3FF),),
        "Cyrillic": ((0x400, 0x481), (0x48A, 0x52F), (0xA640, 0xA66E), (0xA680, 0xA697)),
        "letterlike": ((0x2020, 0x2023), (0x203B, 0x203D), (0x2042, 0x2053), (0x20A0, 0x20BF), (0x2100, 0x2188)),
        "arrows": ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F), (0x2B00, 0x2B4F)),
        "mathematics": ((0x2200, 0x22FF), (0x27C0, 0x27EF), (0x2980, 0x2AFF)),
        "technical": ((0x2300, 0x23FF),),
        "shapes": ((0x25A0, 0x25FF), (0x2600, 0x26FF), (0x2700, 0x27BF)),
    },
    "val": {
        "Canadian syllabics": ((0x1401, 0x166C), (0x166F, 0x1676)),
        "Coptic": ((0x3E2, 0x3EF),),
        "Lisu": ((0xA4D0, 0xA4F7),),
        "Old Italic": ((0x10300, 0x10323),),
    },
    "test": {
        "Arabic": ((0x621, 0x63A), (0x641, 0x64A), (0x660, 0x669), (0x66E, 0x66F), (0x671, 0x6D3), (0x6F0, 0x6F9)),
        "Armenian": ((0x531, 0x556), (0x561, 0x587)),
        "Georgian": ((0x10A0, 0x10FF), (0x2D00, 0x2D2D)),
        "Hebrew": ((0x5D0, 0x5EA),),
        "Lao": ((0xE81, 0xEB0), (0xEB2, 0xEB2), (0xEBD, 0xEC4), (0xED0, 0xED9)),
        "N'Ko": ((0x7C0, 0x7EA),),
        "Ogham": ((0x1681, 0x169A),),
        "Tifinagh": ((0x2D30, 0x2D65),),
    },
}
"""Split -> script -> first and last code points. No script is in two splits; Greek's block holds Coptic letters,
which `characters` gives to Coptic only."""


def characters(split: str) -> list[tuple[str, int]]:
    """(script, code point) of every candidate of ``split``, in order, decomposable characters left out."""
    claimed = _ranges_of("val") if split == "train" else ()
    found = []
    for script, ranges in SCRIPTS[split].items():
        for first, last in ranges:
            for code in range(first, last + 1):
                if not unicodedata.decomposition(chr(code)) and not any(low <= code <= high for low, high in claimed):
                    found.append((script, code))
    return found


def _ranges_of(split: str) -> Ranges:
    return tuple(pair for ranges in SCRIPTS[split].values() for pair in ranges)
