"""Open a source by name, or find the source that reads a given path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.core.progress import Watch
from metadarts.core.variants import Variants
from metadarts.store.files import is_there
from metadarts.tasks.mixture import Part, mixture
from metadarts.tasks.npz_headers import npz_headers
from metadarts.tasks.source import Source
from metadarts.tasks.sources import SOURCES
from metadarts.tasks.sources.cifar import is_cifar
from metadarts.tasks.sources.imagenet import PICKLES
from metadarts.tasks.sources.npz import FORM, NAMES
from metadarts.tasks.sources.omniglot import ARRAYS, is_place

MIXTURE = "mixture"
"""``mixture:A,B,...`` is a source of several, see `open_source`."""
UNSEEN = "-"
"""Before the name of a mixture's source: its test classes only."""
LARGEST = 1024
"""The largest side of images in pixels; few-shot benchmarks have 28 to 84."""


def open_source(
    name: str,
    place: Path | None = None,
    *,
    size: int = 0,
    channels: int = 0,
    progress: Watch | None = None,
    sources: Variants[Callable[..., Source]] = SOURCES,
) -> Source:
    """Open a source by name.

    Args:
        name: a key of ``sources``; or ``mixture:A,B=PLACE,PATH,-C``, a `mixture` of sources by name or by path.
            ``=PLACE`` is the place of that source's data, relative to ``place``, as a path is; ``-`` leaves only its
            test classes. Without a size or
            channels, its images have the largest side and the most channels of its sources'.
        place: its file or folder. None: glyphs need no place; Omniglot, CIFAR-FS and FC100 are downloaded into the
            cache folder; the ImageNets must be there; 'folder' and 'npz' require a place.
        size: side of the images in pixels, at most `LARGEST`; 0 for that of the source ('npz': as found).
        channels: 1 grey, 3 colour; 0 for those of the source ('folder' and 'npz' as found).
        progress: reports the images built that are not in the cache yet.
        sources: the table of sources, e.g. with a user's entries.

    Raises ConfigError for an unknown name, size or number of channels, DataError when its data are missing or
    unsuitable.
    """
    if name.startswith(f"{MIXTURE}:"):
        return _open_mixture(name, place, size, channels, progress, sources)
    if name not in sources:
        raise ConfigError(f"unknown source {name!r}; {nearest(name, sources)}")
    if not 0 <= size <= LARGEST or channels not in (0, 1, 3):
        raise ConfigError(
            f"tasks.size must lie in 0 (the source's own) to {LARGEST} and tasks.channels be 0, 1 or 3, "
            f"given {size} and {channels}"
        )
    asked = {"size": size, "channels": channels, "progress": progress}
    with _readable(place):
        if place is not None:
            _refuse_pickle(place)
        return sources[name](place, **{field: value for field, value in asked.items() if value})


def is_source_name(name: str, sources: Variants[Callable[..., Source]] = SOURCES) -> bool:
    """Whether `open_source` takes ``name`` for a source's or a mixture's, and not a path."""
    return name in sources or name.startswith(f"{MIXTURE}:")


def _open_mixture(
    name: str,
    place: Path | None,
    size: int,
    channels: int,
    progress: Watch | None,
    sources: Variants[Callable[..., Source]],
) -> Source:
    parts = [_part(word, place, sources) for word in name.partition(":")[2].split(",")]

    def opened(size: int, channels: int) -> list[Source]:
        return [
            open_source(of, where, size=size, channels=channels, progress=progress, sources=sources)
            for _, of, where, _ in parts
        ]

    if not (size and channels):
        found = opened(size, channels)
        size = size or max(max(source.size) for source in found)
        channels = channels or max(source.channels for source in found)
    named = zip(parts, opened(size, channels), strict=True)
    return mixture([Part(domain, source, unseen) for (domain, _, _, unseen), source in named], progress)


def _part(
    word: str, place: Path | None, sources: Variants[Callable[..., Source]]
) -> tuple[str, str, Path | None, bool]:
    """(domain, source, place, whether unseen) of one part of a mixture. Raises ConfigError and DataError."""
    unseen, word = word.startswith(UNSEEN), word.removeprefix(UNSEEN)
    name, given, where = word.partition("=")
    if name and not given and name not in sources and is_there((place or Path()) / name):
        path = (place or Path()) / name
        return path.stem, recognise(path), path, unseen
    if name not in sources:
        raise ConfigError(
            f"mixture: unknown source {name!r}, expected {MIXTURE}:A,B=PLACE,-C; {nearest(name, sources)}"
        )
    if given and not where:
        raise ConfigError(f"mixture: {word!r}: expected {name}=PLACE, or {name} alone for its usual place")
    return name, name, (place or Path()) / where if given else None, unseen


def recognise(path: Path) -> str:
    """The name of the source that reads ``path``, determined only from names of files and arrays.

    Raises ConfigError when two sources read it and one must be named, DataError when none does.
    """
    with _readable(path):
        if not path.exists():
            raise DataError(f"there is no file or folder {path}; name another place")
        return _recognise_folder(path) if path.is_dir() else _recognise_file(path)


@contextmanager
def _readable(place: Path | None) -> Iterator[None]:
    """Turn what the file system refuses (a name too long, a folder that may not be entered) into a DataError."""
    try:
        yield
    except OSError as error:
        where = error.filename or place or "the data"
        raise DataError(f"cannot read {where} ({error.strerror or error}); check its name and its rights") from error


def _recognise_file(path: Path) -> str:
    _refuse_pickle(path)
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: expected an .npz file or a folder of images; convert it to one of the two")
    names = set(npz_headers(path))
    if names >= ARRAYS:
        return "omniglot"
    if names >= NAMES:
        return "npz"
    raise DataError(f"{path} holds the arrays {', '.join(sorted(names)) or 'none'}; expected {FORM}")


def _recognise_folder(path: Path) -> str:
    if is_place(path):
        return "omniglot"
    if is_cifar(path):
        raise ConfigError(
            f"{path} holds CIFAR-100, which has two few-shot splits: name one, "
            f"--data cifar-fs --data-root {path} or --data fc100 --data-root {path}"
        )
    return "mini-imagenet" if (path / "train.csv").is_file() else "folder"


def _refuse_pickle(place: Path) -> None:
    if place.suffix.lower() in PICKLES and not place.is_dir():
        raise DataError(
            f"{place} is a pickle, and unpickling a file from elsewhere could run code; "
            f"give a folder of class folders with images, or an .npz file of {FORM}"
        )
