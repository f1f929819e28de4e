"""What a result was obtained on."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from typing import Any

import torch

from metadarts.core.errors import ConfigError
from metadarts.core.machine import commit, device_name, version

PACKAGES = ("torch", "torchvision", "higher", "learn2learn", "triton", "numpy", "numba", "matplotlib")


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
    return {
        "metadarts": import_module(
            "metadarts"
        ).__version__,  # not from above: the door names the packages over this one
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"tf32": _allowed_tf32()} if device == "cuda" else {}),
    }
