"""Several sources as one: images of one form, the classes of a task from one of them (as Meta-Dataset, Triantafillou et
al., ICLR 2020). Each source is a domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.tasks.images.sources import training_scale
from metadarts.tasks.images.store import stored_images
from metadarts.tasks.source import SPLITS, ClassEntry, Source

_VERSION = 1
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Part:
    """One source of a mixture.

    Args:
        name: the domain; distinct within a mixture.
        source: its images have the form of all others.
        unseen: whether the mixture has its test classes only, so that nothing is trained on it or chosen by it.
    """

    name: str
    source: Source
    unseen: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has a part in."""
        return ("test",) if self.unseen else SPLITS


def mixture(parts: Sequence[Part], progress: Watch | None = None) -> Source:
    """The classes of all ``parts``, each in its own split, normalised by the mean and std of all training images.

    A class is named DOMAIN/CLASS. An image's variety is that of its own source; of a source without varieties, each
    image has a separate one.

    Args:
        progress: reports the images copied if they are not in the cache yet.

    Raises DataError for images of different forms, for two parts of one name, for a part without classes in a split
    that it is used in, and where an image that one part trains on or is chosen by is in a later split of another.
    """
    _check(parts)
    _check_leaks(parts)
    name = f"mixture of {', '.join(part.name for part in parts)}"
    starts = np.cumsum([0, *(len(part.source.images) for part in parts)])
    key = repr((_VERSION, [part.source.content_sha256 for part in parts]))

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for part in parts:
            images = part.source.images
            for start in range(0, len(images), _ROWS_AT_ONCE):
                yield images[start : start + _ROWS_AT_ONCE]

    stored = stored_images("mixture", hashlib.sha256(key.encode()).hexdigest(), int(starts[-1]), blocks, progress)
    classes: list[ClassEntry] = []
    split: dict[str, tuple[int, ...]] = dict.fromkeys(SPLITS, ())
    for part, start in zip(parts, starts[:-1].tolist(), strict=True):
        own = part.source
        for of in part.splits:
            split[of] += tuple(number + len(classes) for number in own.split.get(of, ()))
        classes += [
            replace(entry, name=f"{part.name}/{entry.name}", rows=entry.rows + start, domain=part.name)
            for entry in own.classes
        ]
    mean, std = training_scale(name, stored, [classes[number].rows for number in split["train"]])
    return Source(name, stored.images, tuple(classes), split, _varieties(parts), mean, std)


def _check(parts: Sequence[Part]) -> None:
    names = [part.name for part in parts]
    if len(parts) < 2 or len(set(names)) != len(names):
        raise DataError(f"a mixture has at least two sources of different names, given {', '.join(names) or 'none'}")
    forms = {part.name: (part.source.channels, *part.source.size) for part in parts}
    if len(set(forms.values())) > 1:
        raise DataError(f"a mixture's images have one form (channels, height, width), given {forms}")
    for part in parts:
        if empty := [of for of in part.splits if not part.source.split.get(of)]:
            raise DataError(f"{part.name} has no {empty[0]} classes, which a mixture needs of it; leave it out")
    if inner := [part.name for part in parts if len(part.source.domains) > 1]:
        raise DataError(f"{inner[0]} has several domains itself: a part of a mixture is one")


def _check_leaks(parts: Sequence[Part]) -> None:
    """Two parts may be splits of one data set. Images are compared in the form that they have here."""
    seen = {(part.name, of): _digests(part.source, of) for part in parts for of in part.splits}
    for (name, of), images in seen.items():
        for (other, later), others in seen.items():
            if name != other and SPLITS.index(of) < SPLITS.index(later) and (shared := images & others):
                raise DataError(
                    f"{len(shared)} {later} images of {other} are among the {of} images of {name}: a mixture may not "
                    "measure on what it has seen; leave one of the two out"
                )


def _digests(source: Source, split: str) -> set[bytes]:
    """Hashes of all images of a split, however they are turned."""
    rows = np.unique(np.concatenate([source.classes[number].rows for number in source.split[split]]))
    return {hashlib.blake2b(np.ascontiguousarray(source.images[row]).data, digest_size=8).digest() for row in rows}


def _varieties(parts: Sequence[Part]) -> NDArray[np.int64] | None:
    """A number for each image's variety, no two sources sharing one; None where no source has any."""
    if all(part.source.variety is None for part in parts):
        return None
    found, first = [], 0
    for part in parts:
        own = part.source.variety
        kinds = np.arange(len(part.source.images)) if own is None else np.unique(own, return_inverse=True)[1]
        found.append(kinds.astype(np.int64) + first)
        first += int(kinds.max(initial=-1)) + 1
    return np.concatenate(found)
