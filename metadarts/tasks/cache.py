"""The cache folder, and .npz files written whole or not at all and read without trust."""

from __future__ import annotations

import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading a damaged .npz file can raise."""


class UnreadableFile(Exception):
    """An .npz file that is missing or damaged; callers turn it into a message or build the file anew."""


def default_cache() -> Path:
    """The environment variable METADARTS_CACHE, else XDG_CACHE_HOME/metadarts, else ~/.cache/metadarts."""
    if chosen := os.environ.get("METADARTS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metadarts"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes ``path`` when the block ends well; two writers or a full disk never leave half a
    file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False)  # noqa: SIM115 - closed below
    try:
        with part:
            yield part
        os.replace(part.name, path)
    except BaseException:
        Path(part.name).unlink(missing_ok=True)
        raise


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` compressed, whole or not at all. Raises OSError."""
    with whole_file(path) as stream:
        np.savez_compressed(stream, **arrays)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, without unpickling. Raises UnreadableFile."""
    try:
        # np.load leaves a damaged file open when it is given a path
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise UnreadableFile(str(error) or type(error).__name__) from error
    except AttributeError as error:  # np.load hands back a bare array for a .npy file
        raise UnreadableFile("it is not an .npz file") from error
