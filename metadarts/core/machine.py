"""The machine at hand: its names, the versions on it, the commit, and a switch of its arithmetic."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with a plus sign when files differ from it. Outside a checkout (a copy of its files, say)
    $METADARTS_COMMIT, else None.
    """
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("METADARTS_COMMIT")


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    return subprocess.check_output(["git", *arguments], cwd=here, text=True, stderr=subprocess.DEVNULL).strip()


def device_name(device: str) -> str:
    """The card's or the processor's own name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(device: str, packages: Iterable[str]) -> dict[str, Any]:
    """What a result was computed on: versions, commit, device, cores and threads."""
    return {
        "metadarts": import_module("metadarts").__version__,  # the package above, whose names are those of packages
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products on a GPU may be TensorFloat-32's, in torch's libraries and in our kernels alike.

    torch's own default allows it in convolutions and not in products of matrices; here one word holds for both.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
