"""The environment of a result: machine and versions."""

from __future__ import annotations

from typing import Any

import torch

from metadarts.core import machine
from metadarts.core.errors import ConfigError


def choose_device(name: str) -> str:
    """ "auto" is CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}: valid names: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device cuda: torch {torch.__version__} sees no CUDA device; use --device cpu or auto")
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


def _allowed_tf32() -> bool:
    """Of products and of cuDNN's convolutions, which have a switch of their own."""
    return bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def describe(device: str) -> dict[str, Any]:
    """Versions, device, threads and commit."""
    tf32 = {"tf32": _allowed_tf32()} if device == "cuda" else {}
    return machine.describe(device, machine.PACKAGES) | tf32
