"""Which classes are for training, validation and test, where the data do not say it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks.source import SPLITS

LEAST_CLASSES = len(SPLITS)


def split_classes(names: Sequence[str], where: str) -> dict[str, tuple[int, ...]]:
    """Split classes 60 / 20 / 20 per cent by one fixed permutation of their sorted names.

    Validation and test get a fifth of the classes each, rounded to the nearest number and at least one; training gets
    the rest. The order of ``names`` does not matter, and adding a class may move others.

    Args:
        names: the K distinct names of the classes.
        where: the start of an error message: the data at hand.

    Returns split -> places in ``names``. Raises DataError below three classes.
    """
    if len(names) < LEAST_CLASSES:
        raise DataError(
            f"{where}: expected at least {LEAST_CLASSES} classes, one for each of train, val and test; found "
            f"{', '.join(map(repr, names)) or 'none'}; give a folder with one folder per class, or more classes"
        )
    order = sorted(range(len(names)), key=names.__getitem__)
    shuffled = [order[place] for place in Key.from_seed(0).child("class split").permutation(len(names)).tolist()]
    held_out = max(1, (len(names) + 2) // 5)
    parts = (shuffled[2 * held_out :], shuffled[held_out : 2 * held_out], shuffled[:held_out])
    return {split: tuple(sorted(part)) for split, part in zip(SPLITS, parts, strict=True)}


def published_split(file: str, name: str) -> dict[str, tuple[str, ...]]:
    """Split -> class names of a published data set, from a JSON file of this package."""
    text = files("metadarts.tasks").joinpath(file).read_text(encoding="utf-8")
    lists = json.loads(text)[name]
    return {split: tuple(lists[split]) for split in SPLITS}
