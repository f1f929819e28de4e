"""Tensors in a .safetensors file with a description in JSON beside them: nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from .files import is_utf8
from .schema import Schema, require_file

MOST_BYTES = 2**34
SEAL = re.compile(r', "sha256": "([0-9a-f]{64})"\}\Z')
"""The last field of a sealed description: the hash of the rest of it and of what it describes."""
MARK = '{"sealed": true, '
"""Its first field, so that damage to the hash's name does not make it one of an earlier version."""


def to_described(told: Mapping[str, Any], key: str, tensors: Mapping[str, Tensor]) -> bytes:
    """A .safetensors file of ``tensors`` with ``told``, sealed, as JSON under ``key``; `read_described` reads it."""
    apart = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}  # share no memory
    return save_tensors(apart, metadata={key: sealed(json.dumps(told, allow_nan=False), digest(apart))})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The hash of tensors by name, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy lacks some types
    return found.hexdigest()


def sealed(text: str, content: str) -> str:
    """``text``, a JSON object that is not empty, with a mark before and the hash of itself and of ``content`` behind.

    Args:
        content: the hash of what ``text`` describes.
    """
    marked = MARK + text[1:]
    return f'{marked[:-1]}, "sha256": "{_seal(marked, content)}"}}'


def unsealed(text: str, content: str) -> str:
    """What `sealed` was given. A text without a seal, of an earlier version, is returned as it is.

    Raises ValueError where either is not what it was.
    """
    found = SEAL.search(text)
    if found is None and not text.startswith(MARK):
        return text
    told = "" if found is None else f"{text[: found.start()]}}}"
    if found is None or not told.startswith(MARK) or _seal(told, content) != found[1]:
        raise ValueError("it is damaged: its hash is not the one that it carries")
    return "{" + told[len(MARK) :]


def _seal(text: str, content: str) -> str:
    return hashlib.sha256(f"{content} {text}".encode()).hexdigest()


def read_described(path: Path, key: str, schema: Schema[Any], limit: int = MOST_BYTES) -> tuple[str, dict[str, Tensor]]:
    """The text in a file's metadata under ``key``, and the file's tensors. Raises as ``schema``, which reads the text.

    Args:
        limit: bytes that the file may have.
    """
    with schema.refusing(str(path)):
        require_file(path, limit)
        text, tensors = _read(path, key)
        if text is None:
            raise ValueError("it holds tensors, but no description of them")
        return unsealed(text, digest(tensors)), tensors


def _read(path: Path, key: str) -> tuple[str | None, dict[str, Tensor]]:
    from safetensors import safe_open

    try:
        with _utf8(path) as name, safe_open(name, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            return (file.metadata() or {}).get(key), tensors
    except Exception as error:  # the library's own, and those of types that torch lacks
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot be read as a .safetensors file ({first})") from error


@contextmanager
def _utf8(path: Path) -> Iterator[str]:
    """A name of the file that is UTF-8, as the library wants it: Linux has one for every open file."""
    if is_utf8(path):
        yield str(path)
    else:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"


def require_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Require finite float32 tensors of exactly these names and shapes. Raises ValueError naming the first fault."""
    if odd := sorted(tensors.keys() ^ shapes.keys()):
        raise ValueError(f"{odd[0]!r}: expected {'no such tensor' if odd[0] in tensors else 'a tensor, got none'}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name!r}: expected the shape {list(shape)}, got {list(tensor.shape)[:8]}")
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name!r}: expected finite float32 numbers, got others or {tensor.dtype}")
