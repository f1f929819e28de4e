"""Generated cases over all verbs, formats and entry points, drawn from a seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from metadarts.core.rng import Key

from . import forms, places
from .forms import Draw
from .stage import Fault, Stage

KINDS: dict[str, tuple[Callable[[Draw, Stage], None], int]] = {
    "arrays": (forms.arrays, 6),
    "files": (forms.files, 4),
    "tables": (forms.tables, 3),
    "shapes": (forms.shapes, 6),
    "folders": (places.folders, 8),
    "copies": (places.copies, 2),
    "splits": (places.splits, 1),
    "destinations": (places.destinations, 8),
    "names": (places.names, 2),
    "labels": (places.labels, 3),
    "wrong words": (places.wrong_words, 5),
    "damaged": (places.damaged, 5),
    "archives": (places.archives, 3),
}
"""Name -> what a case does, and how many of the cases are of its kind, relative to the others."""


def run_case(name: str, number: int, seed: int, shared: Path, place: Path) -> None:
    """One case in an empty ``place``, which is removed. Raises Fault; whatever else is raised is one."""
    place.mkdir(parents=True)
    draw = Key.from_seed(seed).child("campaign", name, number).numpy()
    try:
        KINDS[name][0](draw, Stage(shared, place))
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(place)
