"""What a run remembers of its data: their hash, the classes of each split, and the form of their images.

Whoever opens the data again is told where they are no longer what they were, and refused where classes that the run was
trained on, or chosen by, would be measured on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metadarts.core.errors import DataError
from metadarts.integrations import Tasksets
from metadarts.store.schema import fitting_file
from metadarts.tasks import Source
from metadarts.tasks.images.background import background

from .records import RunFolder

FILE = "data.json"
LOOKED_AT = 256
"""Classes whose first image tells the background."""
LATER = {"train": ("val", "test"), "val": ("test",)}
"""Split -> those in which its classes must never appear."""
NAMED = 5

_log = logging.getLogger("metadarts.data")


@dataclass(frozen=True)
class DataRecord:
    """What was written when the run began.

    Args:
        sha256: `Source.content_sha256`.
        split: "train", "val", "test" -> names of their classes.
        form: of the images: channels, height, width, mean, std, background.
    """

    sha256: str
    split: dict[str, list[str]]
    form: dict[str, Any]


def record_of(source: Source) -> DataRecord:
    """What there is to remember of ``source``."""
    names = {split: [source.classes[number].name for number in source.split[split]] for split in sorted(source.split)}
    side = min(source.size)  # of other images than squares the middle is taken
    rows = [int(source.classes[number].rows[0]) for number in source.class_numbers("train")[:LOOKED_AT]]
    form = {
        "channels": source.channels, "height": side, "width": side, "mean": source.mean, "std": source.std,
        "background": background(source.images[rows]),
    }  # fmt: skip
    return DataRecord(source.content_sha256, names, form)


def read_record(folder: RunFolder) -> DataRecord | None:
    """What the run remembers; None of a run that began without, or where it cannot be read."""
    return fitting_file(folder.path / FILE, DataRecord)


def remember(folder: RunFolder, source: Source | Tasksets) -> None:
    """Write down what a run's data are, once. Raises RunError."""
    if isinstance(source, Source) and not (folder.path / FILE).exists():
        found = record_of(source)
        folder.write_json(FILE, {"sha256": found.sha256, "split": found.split, "form": found.form})


def check_data(folder: RunFolder, source: Source | Tasksets) -> None:
    """Compare data with those that the run began with; where they differ without harm, a warning is logged.

    Raises:
        DataError: where classes that the run was trained on or chosen by are now in a later split; names them.
    """
    told = read_record(folder)
    if told is None or not isinstance(source, Source) or told.sha256 == source.content_sha256:
        return
    advice = "restore the data, or name the old ones with --data"
    if leaks := list(_leaks(told.split, source)):
        more = f" and {len(leaks) - NAMED} more" if len(leaks) > NAMED else ""
        raise DataError(
            f"{folder.path}: its data are not what they were when it began: {', '.join(leaks[:NAMED])}{more}, so that "
            f"measuring would be on what it has seen; {advice}"
        )
    _log.warning("%s: its data are not what they were when it began (no class has changed its split)", folder.path)


def _leaks(before: Mapping[str, list[str]], source: Source) -> list[str]:
    now = {split: {source.classes[number].name for number in source.split[split]} for split in source.split}
    return [
        f"class {name!r} was in {old} and is in {new}"
        for old, later in LATER.items()
        for new in later
        for name in sorted(now.get(new, set()) & set(before.get(old, ())))
    ]
