"""What an .npz file says it holds, read without making an array of it."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from metadarts.core.errors import DataError
from metadarts.tasks import cache

BLOWN_UP = 2**30
"""Bytes that a file's arrays may have in any case; above that, at most `RATIO` times the file's own bytes."""

RATIO = 100


@dataclass(frozen=True)
class Header:
    """The shape and the type of one array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def npz_headers(path: Path) -> dict[str, Header]:
    """The name, shape and type of every array in a file.

    Raises DataError when there is no such file, it is damaged or no .npz file, it holds Python objects (which numpy
    stores as pickles), or it would unpack to absurdly more bytes than it has.
    """
    if not path.is_file():
        raise DataError(f"expected the file {path}, there is none; name another place")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            headers = {}
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise ValueError(f"its member {member.filename!r} is no .npy file")
                with archive.open(member) as stream:
                    header = _header(stream)
                if header.nbytes > member.file_size:
                    raise ValueError(f"{member.filename} is cut short")
                headers[member.filename.removesuffix(".npy")] = header
    except cache.DAMAGE as error:
        raise DataError(f"cannot read {path} as an .npz file ({error}); fetch it again") from error
    for name, header in headers.items():
        if header.dtype.hasobject:
            raise DataError(
                f"{path}: array {name!r} holds Python objects, that is pickles, which could run code; "
                "save it as numbers or text and never with allow_pickle"
            )
    if unpacked > max(BLOWN_UP, RATIO * path.stat().st_size):
        raise DataError(
            f"{path} would unpack to {unpacked / 2**30:.0f} GiB, over {RATIO} times its size; fetch it again"
        )
    return headers


def _header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return Header(shape, dtype)
