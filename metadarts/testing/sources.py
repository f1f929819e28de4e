"""check_source: a source of images can be drawn from, and is the same every time it is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from metadarts.core.rng import Key

if TYPE_CHECKING:
    from metadarts.tasks import Source

WAYS, SHOTS, QUERIES = 2, 1, 1


def check_source(make: Callable[..., Source], place: Path | None = None) -> None:
    """Check a source as configurations open it: ``make(place)``.

    Raises:
        AssertionError: when opening it again gives other data, a split is missing or too small for a task of two
            classes, or the same key draws two different tasks.
        DataError: when a field of the source contradicts another.
    """
    from metadarts.tasks import EpisodeSampler  # which reads images
    from metadarts.tasks.source import SPLITS

    source = make(place)
    if make(place).content_sha256 != source.content_sha256:
        raise AssertionError(f"{source.name}: opened twice, it holds different data")
    for split in SPLITS:
        if len(source.class_numbers(split)) < WAYS:
            raise AssertionError(f"{source.name}: split {split!r} needs at least {WAYS} classes")
        sampler, key = EpisodeSampler(source, split, WAYS, SHOTS, QUERIES), Key(("check_source", split))
        first, again = (sampler.sample(key, 2) for _ in range(2))
        if not all(torch.equal(a, b) for a, b in zip(first.tensors(), again.tensors(), strict=True)):
            raise AssertionError(f"{source.name}: one key draws two different tasks of {split!r}")
