"""The formats of exported models: how each is written, and how each is opened without executing its content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metadarts.core.errors import ModelError, nearest
from metadarts.core.modes import plain_torch
from metadarts.export.model import MOST_BYTES, ShippedModel, first_line

from . import onnx_file, python_file, safetensors_file, torch_export
from .opened import Logits as Logits
from .opened import Opened as Opened
from .opened import example
from .python_file import check_no_python_file as check_no_python_file
from .python_file import check_weights_place as check_weights_place
from .python_file import names_weights as names_weights
from .python_file import run_python_file as run_python_file

SUFFIXES = {"safetensors": ".safetensors", "python": ".py", "torch-export": ".pt2", "onnx": ".onnx"}
"""Format -> what its files are called."""

WRITERS: dict[str, Callable[[ShippedModel, Path], None]] = {
    "safetensors": safetensors_file.write,
    "python": python_file.write,
    "torch-export": torch_export.write,
    "onnx": onnx_file.write,
}

OPENERS: dict[str, Callable[[Path], Opened]] = {
    "safetensors": safetensors_file.open_file,
    "python": python_file.open_file,
    "torch-export": torch_export.open_file,
    "onnx": onnx_file.open_file,
}


def format_of(path: Path) -> str:
    """The format of a file name. Raises ModelError."""
    for name, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return name
    raise ModelError(f"{path}: expected a name ending in one of {', '.join(SUFFIXES.values())}")


def check_name(path: Path, format: str) -> None:
    """Require that ``path`` has the suffix of ``format``. Raises ModelError."""
    if format not in SUFFIXES:
        raise ModelError(f"unknown format {format!r}: {nearest(format, SUFFIXES)}")
    if path.suffix != SUFFIXES[format]:
        raise ModelError(f"{path}: a {format} file's name ends in {SUFFIXES[format]}")


def companions(path: Path) -> list[Path]:
    """The files of the model at ``path``: a python file has its weights next to it."""
    return [path, path.with_suffix(".safetensors")] if format_of(path) == "python" else [path]


def write(model: ShippedModel, path: Path) -> None:
    """Write ``model`` in the format of ``path``'s name; the caller moves it into place. Raises ModelError."""
    WRITERS[format_of(path)](model, path)


@plain_torch()
def open_model(path: Path) -> Opened:
    """Open an exported model and run it on one image. No code in it is executed. Raises ModelError."""
    try:
        there = path.is_file()
        size = path.stat().st_size if there else 0
    except OSError as error:
        raise ModelError(f"cannot open {path}: {error.strerror or error}") from error
    if not there:
        raise ModelError(f"there is no file {path}; give a file that `export` wrote, or a task folder")
    if size > MOST_BYTES:
        raise ModelError(f"{path}: larger than {MOST_BYTES} bytes, which is no model of ours")
    opened = OPENERS[format_of(path)](path)
    try:
        found = opened.logits(example(opened.facts["image"], 1))
    except Exception as error:  # each runtime has its own
        raise ModelError(f"{path} is damaged: it cannot be run ({first_line(error)}); export it anew") from error
    if found.shape != (1, len(opened.facts["classes"])) or not found.dtype.is_floating_point:
        raise ModelError(f"{path} is damaged: it answers an image with {found.dtype} {list(found.shape)[:8]}")
    return opened
