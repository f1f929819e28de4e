"""What a run remembers of its data: their hash, the classes of each split, and the form of their images.

Whoever opens the data again is told where they are no longer what they were, and refused where classes that the run was
trained on, or chosen by, would be measured on.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metadarts.core.errors import DataError, RunError
from metadarts.integrations import Tasksets
from metadarts.store.schema import fitting_file
from metadarts.tasks import ClassEntry, Source
from metadarts.tasks.images.background import background

from .records import RunFolder

FILE = "data.json"
LOOKED_AT = 256
"""Classes whose first image tells the background."""
LATER = {"train": ("val", "test"), "val": ("test",)}
"""Split -> those in which its classes must never appear."""
NAMED = 5
SKETCH, SHARED = 4, 2
"""Hashes of images that are kept of a class, and how many of them two classes share that are held to be one."""
Split = dict[str, list[tuple[str, list[str]]]]

_log = logging.getLogger("metadarts.data")


@dataclass(frozen=True)
class DataRecord:
    """What was written when the run began.

    Args:
        sha256: `Source.content_sha256`.
        split: "train", "val", "test" -> (name, `sketch`) of each class.
        form: of the images: channels, height, width, mean, std, background.
    """

    sha256: str
    split: Split
    form: dict[str, Any]


def record_of(source: Source) -> DataRecord:
    """What there is to remember of ``source``."""
    classes = {
        split: [(entry.name, sketch(source, entry)) for entry in _entries(source, split)]
        for split in sorted(source.split)
    }
    side = min(source.size)  # of other images than squares the middle is taken
    of_domains = source.domain_classes("train").values()
    first = [number for numbers in of_domains for number in numbers[: LOOKED_AT // max(len(of_domains), 1)]]
    rows = [int(source.classes[number].rows[0]) for number in first]
    mean, std = (None if own is None else [float(value) for value in own] for own in (source.mean, source.std))
    form = {
        "channels": source.channels, "height": side, "width": side, "mean": mean, "std": std,
        "background": background(source.images[rows]),
    }  # fmt: skip
    return DataRecord(source.content_sha256, classes, form)


def read_record(folder: RunFolder) -> DataRecord | None:
    """What the run remembers; None of a run that began without, or where it cannot be read."""
    return fitting_file(folder.path / FILE, DataRecord)


def remember(folder: RunFolder, source: Source | Tasksets) -> None:
    """Write down what a run's data are; of a run that began, require the same.

    Raises:
        RunError: when it cannot be written, or the run began with other data.
    """
    if not isinstance(source, Source):
        return
    known = read_record(folder)
    if known is not None and known.sha256 != source.content_sha256:
        raise RunError(
            f"{folder.path}: its data are not what they were when it began; restore them, or start a new run"
        )
    if known is None:
        found = record_of(source)
        folder.write_json(FILE, {"sha256": found.sha256, "split": found.split, "form": found.form})


def check_data(folder: RunFolder, source: Source | Tasksets) -> None:
    """Compare data with those that the run began with; where they differ without harm, a warning is logged.

    Raises:
        DataError: where images of classes that the run was trained on or chosen by are now in a later split; names the
            classes.
    """
    told = read_record(folder)
    if told is None or not isinstance(source, Source) or told.sha256 == source.content_sha256:
        return
    if leaks := list(_leaks(told.split, source)):
        more = f" and {len(leaks) - NAMED} more" if len(leaks) > NAMED else ""
        raise DataError(
            f"{folder.path}: its data are not what they were when it began: {', '.join(leaks[:NAMED])}{more}, so that "
            "measuring would be on what it has seen; restore the data, or name the old ones with --data"
        )
    _log.warning("%s: its data are not what they were when it began; none of what it has seen is measured", folder.path)


def _leaks(before: Split, source: Source) -> Iterator[str]:
    now = {split: [(entry.name, sketch(source, entry)) for entry in _entries(source, split)] for split in source.split}
    for old, later in LATER.items():
        where: dict[str, list[int]] = {}  # an image's hash -> classes that have it
        for place, (_, hashes) in enumerate(before.get(old, ())):
            for one in hashes:
                where.setdefault(one, []).append(place)
        for new in later:
            for name, hashes in now.get(new, ()):
                shared = Counter(place for one in hashes for place in where.get(one, ()))
                for place, count in shared.items():
                    known, own = before[old][place]
                    if count >= min(SHARED, len(own), len(hashes)):
                        called = f"class {name!r}" if name == known else f"class {name!r}, then {known!r},"
                        yield f"{called} was in {old} and is in {new}"


def sketch(source: Source, entry: ClassEntry) -> list[str]:
    """The `SKETCH` smallest hashes of a class's images: two classes of mostly the same images share most of them."""
    hashes = {
        hashlib.blake2b(f"{entry.quarter_turns} ".encode() + source.images[row].tobytes(), digest_size=8).hexdigest()
        for row in entry.rows.tolist()
    }
    return sorted(hashes)[:SKETCH]


def _entries(source: Source, split: str) -> list[ClassEntry]:
    return [source.classes[number] for number in source.split[split]]
