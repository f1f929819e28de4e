"""The built-in source: characters of the fonts that matplotlib ships, distorted. Nothing is downloaded.

1111 training, 246 validation and 233 test classes of 20 or more images. No script is in two splits, and no class looks
like one of another split (`glyph.lookalikes`). The nearest class mean in pixel space, 5-way, 15 queries, 600 episodes:

| split | 1-shot | 5-shot |
| --- | --- | --- |
| train | 48.8 % | 71.4 % |
| val | 49.6 % | 69.1 % |
| test | 44.9 % | 63.6 % |
"""

from __future__ import annotations

import logging
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key
from metadarts.store.files import default_cache
from metadarts.tasks.cache import UnreadableFile, read_npz, write_npz
from metadarts.tasks.glyph.jitter import SIZE, Jitter, draw_copies
from metadarts.tasks.glyph.lookalikes import close_pairs, select
from metadarts.tasks.glyph.outlines import FontReader, Outline
from metadarts.tasks.glyph.scripts import characters
from metadarts.tasks.images.reform import reformed
from metadarts.tasks.source import SPLITS, ClassEntry, Rows, Source

GLYPHS_VERSION = 1
"""Goes up whenever the pixels or the classes change; it is part of the cache's file name and of the jitter's seed."""

GLYPHS_SHA256 = "11425f94ecfbfaa2a4e1fb2f4672533b61bafc4ebaed692775e7dbcacb9787fc"
"""`Source.content_sha256` of the whole source, wherever the fonts are those of `FONTS_SHA256`."""

FONTS_SHA256 = "3cd0a79bc53f6c07d09ed312f958bde083ca9d48e90ea03f744f970897158047"
"""`fonts_sha256` of matplotlib 3.11.2, whose pixels `GLYPHS_SHA256` is of (DejaVu 2.35, STIX 1.0.0)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Character:
    """One candidate: its split, its script, its code point, and the fonts (places in FONTS) that hold it."""

    split: str
    script: str
    code: int
    fonts: tuple[int, ...]
    outlines: tuple[Outline, ...]

    @property
    def name(self) -> str:
        return f"{unicodedata.name(chr(self.code), '')} U+{self.code:04X}".lstrip()


def glyphs(cache_dir: Path | None = None, progress: Watch | None = None) -> Source:
    """Few-shot classification of printed characters: 28x28 pixels, ink = 255; a class is a character.

    Args:
        cache_dir: folder of the finished images; default the environment variable METADARTS_CACHE, otherwise
            XDG_CACHE_HOME/metadarts, otherwise ~/.cache/metadarts. A missing, damaged or outdated file is rebuilt.
        progress: reports the percentage done while building.
    """
    path = (cache_dir or default_cache()) / f"glyphs-v{GLYPHS_VERSION}.npz"
    source = _load(path)
    if source is None:
        source = build(progress=progress)
        _store(path, source)
    return source


def copies_per_font(fonts: int) -> int:
    """Images drawn per font: enough for 20 per class and, with two fonts or more, for 5 shots and 15 queries from
    different fonts."""
    copies = -(-20 // fonts)
    while fonts > 1 and (fonts - -(-5 // copies)) * copies < 15:
        copies += 1
    return copies


def candidates(reader: FontReader, split: str, step: int = 1) -> list[Character]:
    """Every ``step``-th candidate of a split that two fonts or more can draw."""
    found = []
    for script, code in characters(split)[::step]:
        drawn = [(font, reader.outline(font, code)) for font in reader.fonts_of(code)]
        inked = [(font, outline) for font, outline in drawn if outline is not None]
        if len(inked) >= 2:
            found.append(Character(split, script, code, *zip(*inked, strict=True)))
    return found


def build(step: int = 1, progress: Watch | None = None, jitter: Jitter | None = None) -> Source:
    """Draw the source from the fonts; ``step`` above 1 takes every ``step``-th candidate only (for tests)."""
    reader = FontReader()
    found: list[Character] = []
    for stage, split in enumerate(SPLITS):
        tell(progress, 5 * stage, 100)
        found += candidates(reader, split, step)
    tell(progress, 15, 100)
    kept = without_lookalikes(found)
    tell(progress, 40, 100)
    images, fonts, rows = [], [], []
    key = Key.from_seed(0).child("glyphs", GLYPHS_VERSION)
    first = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter
        every = pool.map(partial(_draw, key=key, jitter=jitter or Jitter()), kept)
        for number, (drawn, font) in enumerate(every):
            images.append(drawn)
            fonts.append(font)
            rows.append(np.arange(first, first + len(drawn), dtype=np.int64))
            first += len(drawn)
            tell(progress, 40 + 60 * (number + 1) // len(kept), 100)
    names = [character.name for character in kept]
    return _source(np.concatenate(images), np.concatenate(fonts), rows, names, [c.split for c in kept])


def without_lookalikes(found: list[Character]) -> list[Character]:
    """The candidates that become classes; the rule is in `glyph.lookalikes`."""
    split = np.array([character.split for character in found])
    kept = select(close_pairs([character.outlines for character in found], split), split)
    return [character for character, keep in zip(found, kept, strict=True) if keep]


def _draw(character: Character, key: Key, jitter: Jitter) -> tuple[NDArray[np.uint8], Rows]:
    copies = copies_per_font(len(character.fonts))
    pixels, which = draw_copies(list(character.outlines), key.child(character.code), copies, jitter)
    return pixels, np.array(character.fonts, dtype=np.int64)[which]


def _source(images: NDArray[np.uint8], fonts: Rows, rows: list[Rows], names: list[str], splits: list[str]) -> Source:
    classes = tuple(ClassEntry(name, row) for name, row in zip(names, rows, strict=True))
    split = {name: tuple(number for number, of in enumerate(splits) if of == name) for name in SPLITS}
    return Source("glyphs", images.reshape(-1, 1, SIZE, SIZE), classes, split, variety=fonts)


def _store(path: Path, source: Source) -> None:
    """Write the cache file whole or not at all; a folder that cannot be written to costs only the next building."""
    split_of = {number: split for split, numbers in source.split.items() for number in numbers}
    arrays: dict[str, Any] = {
        "images": source.images,
        "font": source.variety,
        "rows_per_class": np.array([len(entry.rows) for entry in source.classes]),
        "names": np.array([entry.name for entry in source.classes]),
        "split": np.array([split_of[number] for number in range(len(source.classes))]),
        "sha256": np.array(source.content_sha256),
    }
    try:
        write_npz(path, arrays)
    except OSError as error:
        _log.info("glyphs: not cached at %s: %s", path, error)


def _load(path: Path) -> Source | None:
    """The cached source, or None when there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        source, digest = _from_arrays(read_npz(path))
        if source.content_sha256 == digest:
            return source
        reason = "its digest does not match its content"
    except (UnreadableFile, DataError, KeyError, ValueError, IndexError) as error:
        reason = str(error)
    _log.info("glyphs: %s is damaged (%s); building it anew", path, reason)
    return None


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> tuple[Source, str]:
    counts = arrays["rows_per_class"]
    rows = np.split(np.arange(counts.sum(), dtype=np.int64), np.cumsum(counts)[:-1])
    names, splits = arrays["names"].tolist(), arrays["split"].tolist()
    return _source(arrays["images"], arrays["font"], rows, names, splits), str(arrays["sha256"])


def _opened(place: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    return reformed(glyphs(place, progress), size, channels, progress)


SOURCE = _opened
