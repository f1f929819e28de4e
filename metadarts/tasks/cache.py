"""The cache folder, and .npz files that are written atomically and read without trust."""

from __future__ import annotations

import lzma
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from metadarts.store.files import sync_folder

DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, TokenError),
)
"""What reading a damaged .npz file can raise."""


class UnreadableFile(Exception):
    """An .npz file that is missing or damaged; callers turn it into a message or rebuild the file."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes ``path`` when the block ends well; two writers, a full disk or a power cut never
    leave half a file. It has the rights that the umask grants. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f"{secrets.token_hex(8)}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut could leave zeros behind the right name
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` compressed, whole or not at all. Raises OSError."""
    with whole_file(path) as stream:
        np.savez_compressed(stream, **arrays)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, without unpickling. Raises UnreadableFile."""
    try:
        # np.load leaves a damaged file open when it is given a path
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise UnreadableFile(str(error) or type(error).__name__) from error
    except (AttributeError, TypeError) as error:  # np.load hands back a bare array for a .npy file
        raise UnreadableFile("it is not an .npz file") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # np.load hands back the bytes of a member that is no .npy file
            raise UnreadableFile(f"its member {name!r} is no array")
    return arrays
