"""The new tasks: classes that no search has seen, five images of each to fit, others held out to score.

    python -m benchmarks.new_task.draws --data-root DIR --out FOLDER --draws 10

DIR holds `cifar100` (see metadarts/tasks/README.md) and `omniglot_28_u8.npz`. A draw is named DOMAIN-WAYS-NUMBER and is
the same on every machine. FOLDER gets one .npz a draw, readable without metadarts, with the arrays of `Draw`.

| domain | classes | held out of each class |
| --- | --- | --- |
| cifar100 | the 20 test classes of CIFAR-FS, 32x32 in colour | 20 |
| omniglot | characters of one alphabet, 28x28, ink = 255, not turned | 15, by other drawers |
| glyphs | characters of one script, 28x28, ink = 255 | 15 to 18, in other fonts |

Omniglot cannot give 20: a character was drawn 20 times, and 5 of those are the support. Nor can glyphs: a class has 15
to 18 images in fonts other than those of its support. An alphabet is one of Omniglot's evaluation part with at least 12
characters, all of them test classes of the split by Vinyals et al. too, which `metadarts.tasks.sources.omniglot`
follows: 8 of the 20 alphabets of the evaluation part hold training classes of that split.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import Source, glyphs, open_source
from metadarts.tasks.glyph.scripts import SCRIPTS
from metadarts.tasks.sampler import split_by_variety
from metadarts.tasks.source import ClassEntry, Rows

DOMAINS = ("cifar100", "omniglot", "glyphs")
WAYS = (3, 5, 12)
SHOTS = 5
HELD_OUT = 20
"""Of each class, where it has as many."""

OMNIGLOT = "omniglot_28_u8.npz"
_EVALUATION, _VINYALS_TEST = 1, 2
_FEWEST_HELD_OUT = 15

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draw:
    """One task.

    Args:
        domain: one of `DOMAINS`.
        ways: how many classes.
        number: which of the draws of this domain and these ways.
        classes: their names, in the order of the labels.
        support: [n, H, W] or [n, H, W, 3], `SHOTS` of each class, class after class.
        support_labels: [n] 0 to ways - 1.
        held_out: images of the same classes, none of them in the support.
        held_out_labels: their labels.
    """

    domain: str
    ways: int
    number: int
    classes: tuple[str, ...]
    support: Images
    support_labels: Labels
    held_out: Images
    held_out_labels: Labels

    @property
    def name(self) -> str:
        """For example "cifar100-5-0"."""
        return f"{self.domain}-{self.ways}-{self.number}"


@dataclass(frozen=True, eq=False)
class _Pool:
    """What a domain draws from: groups of classes, of which a draw takes one; ``variety`` as in `Source`."""

    images: Images
    groups: tuple[tuple[ClassEntry, ...], ...]
    variety: Rows | None


def draw(domain: str, ways: int, number: int, data_root: Path | None) -> Draw:
    """Draw ``number`` of ``domain`` with ``ways`` classes; ``data_root`` may be None for glyphs, which need no files.

    Raises DataError for a domain or ways that there are not, or when its files are missing.
    """
    pool = _pool(domain, data_root)
    if not 2 <= ways <= max(WAYS):
        raise DataError(f"ways: expected 2 to {max(WAYS)}, given {ways}")
    key = Key.from_seed(0).child("new task", domain, ways, number)
    group = pool.groups[int(key.child("group").choose(len(pool.groups), 1)[0])]
    entries = [group[place] for place in key.child("classes").choose(len(group), ways)]
    halves = [_split(entry, pool.variety, key.child("images", label)) for label, entry in enumerate(entries)]
    support, support_labels = _stack(pool.images, [rows for rows, _ in halves])
    held_out, held_out_labels = _stack(pool.images, [rows for _, rows in halves])
    names = tuple(entry.name for entry in entries)
    return Draw(domain, ways, number, names, support, support_labels, held_out, held_out_labels)


def _split(entry: ClassEntry, variety: Rows | None, key: Key) -> tuple[Rows, Rows]:
    """Rows of the support and of the held-out images of a class."""
    rows = entry.rows[key.permutation(len(entry.rows))]
    if variety is None:
        return rows[:SHOTS], rows[SHOTS : SHOTS + HELD_OUT]
    support, _ = split_by_variety(rows, variety[rows], SHOTS, _FEWEST_HELD_OUT)
    others = rows[~np.isin(variety[rows], variety[support])]
    return support, others[:HELD_OUT]


def _stack(images: Images, rows: list[Rows]) -> tuple[Images, Labels]:
    labels = np.repeat(np.arange(len(rows), dtype=np.int64), [len(of_class) for of_class in rows])
    return np.ascontiguousarray(images[np.concatenate(rows)]), labels


# -------------------------------------------------------------------------------------------------------------- pools


@cache
def _pool(domain: str, data_root: Path | None) -> _Pool:
    if domain == "glyphs":
        return _glyphs()
    if domain not in DOMAINS:
        raise DataError(f"unknown domain {domain!r}: expected one of {', '.join(DOMAINS)}")
    if data_root is None:
        raise DataError(f"{domain} needs its files: name the folder that holds them (--data-root)")
    return _cifar100(data_root) if domain == "cifar100" else _omniglot(data_root / OMNIGLOT)


def _cifar100(data_root: Path) -> _Pool:
    source = open_source("cifar-fs", data_root / "cifar100")
    return _Pool(source.images.transpose(0, 2, 3, 1), (_test_classes(source),), None)


def _test_classes(source: Source) -> tuple[ClassEntry, ...]:
    return tuple(source.classes[number] for number in source.class_numbers("test"))


def _glyphs() -> _Pool:
    source = glyphs()
    of_script: dict[str, list[ClassEntry]] = defaultdict(list)
    for entry in _test_classes(source):
        of_script[_script(entry.name)].append(entry)
    return _Pool(source.images[:, 0], _large(of_script), source.variety)


def _script(name: str) -> str:
    """The script of a class named as `glyphs` names them, "GEORGIAN LETTER AN U+10D0"."""
    code = int(name.rsplit("U+", 1)[1], 16)
    return next(
        script for script, ranges in SCRIPTS["test"].items() if any(first <= code <= last for first, last in ranges)
    )


def _omniglot(file: Path) -> _Pool:
    if not file.is_file():
        raise DataError(f"expected Omniglot at {file}, found nothing there; see metadarts/tasks/README.md for the form")
    with np.load(file, allow_pickle=False) as arrays:
        images, character = arrays["images"], arrays["character"].astype(np.int64)
        names, alphabets = arrays["character_names"].tolist(), arrays["character_alphabet"].tolist()
        evaluation = arrays["character_split"] == _EVALUATION
        usable = evaluation & (arrays["character_vinyals"] == _VINYALS_TEST)
    seen = {alphabet for alphabet, new in zip(alphabets, usable.tolist(), strict=True) if not new}
    of_alphabet: dict[str, list[ClassEntry]] = defaultdict(list)
    for number, (name, alphabet) in enumerate(zip(names, alphabets, strict=True)):
        if alphabet not in seen:
            of_alphabet[alphabet].append(ClassEntry(name, np.flatnonzero(character == number)))
    return _Pool(images, _large(of_alphabet), None)


def _large(groups: dict[Any, list[ClassEntry]]) -> tuple[tuple[ClassEntry, ...], ...]:
    """Those groups that have a class for each of the most ways."""
    return tuple(tuple(entries) for entries in groups.values() if len(entries) >= max(WAYS))


# ------------------------------------------------------------------------------------------------------------ writing


def write_draws(folder: Path, data_root: Path | None, draws: int, domains: Iterable[str] = DOMAINS) -> int:
    """Write draws 0 to ``draws`` - 1 of every domain and ways to DOMAIN-WAYS-NUMBER.npz; how many files."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for domain, ways, number in product(domains, WAYS, range(draws)):
        _write(draw(domain, ways, number, data_root), folder)
        count += 1
    return count


def _write(task: Draw, folder: Path) -> None:
    np.savez_compressed(
        folder / f"{task.name}.npz",
        support=task.support,
        support_labels=task.support_labels,
        held_out=task.held_out,
        held_out_labels=task.held_out_labels,
        classes=np.array(task.classes),
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the draws."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.new_task.draws", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="holds cifar100 and omniglot_28_u8.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--draws", type=int, default=10, help="of every domain and number of classes")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=DOMAINS)
    options = parser.parse_args(arguments)
    count = write_draws(options.out, options.data_root, options.draws, options.domains)
    print(f"{count} draws written to {options.out}")


if __name__ == "__main__":
    main()
