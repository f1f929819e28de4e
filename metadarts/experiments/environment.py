"""What a result was obtained on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from metadarts import __version__
from metadarts.core.errors import ConfigError

PACKAGES = ("torch", "torchvision", "higher", "learn2learn", "triton", "numpy", "numba", "matplotlib")


def choose_device(name: str) -> str:
    """ "auto" is CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}: valid names: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device cuda: torch {torch.__version__} sees no CUDA device; use --device cpu or auto")
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products on a GPU may be TensorFloat-32's, in torch's libraries and in our kernels alike.

    torch's own default allows it in convolutions and not in products of matrices; here one word holds for both.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def describe(device: str) -> dict[str, Any]:
    """Versions, device, threads and commit."""
    return {
        "metadarts": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"tf32": torch.backends.cuda.matmul.allow_tf32} if device == "cuda" else {}),
    }


def device_name(device: str) -> str:
    """The card's or the processor's own name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with a plus sign when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
