"""The model as it is: a description and tensors, for `plain.load` or `read_model`."""

from __future__ import annotations

from pathlib import Path

from metadarts.export.model import ShippedModel, read_model

from .opened import Opened, without_grad


def write(model: ShippedModel, path: Path) -> None:
    """Write the file."""
    path.write_bytes(model.to_bytes())


def open_file(path: Path) -> Opened:
    """Open it. Raises ModelError."""
    model = read_model(path)
    return Opened("safetensors", model.facts, without_grad(model.module()))
