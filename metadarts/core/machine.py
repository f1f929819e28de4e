"""The current machine: its names, installed versions, the commit, and a switch of its arithmetic.

Torch is imported only by functions that need it, so that the others return at once.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "higher", "learn2learn", "triton", "numpy", "numba", "matplotlib")
"""Whose versions belong to a result."""


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
        import torch

        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cards() -> list[str]:
    """Names of the CUDA devices that the driver knows, without loading torch: none where torch was built without CUDA.

    Torch itself may still refuse one, for an old driver say.
    """
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if file is None or not file.is_file() or re.search(r"^cuda\b.*= None$", file.read_text(encoding="utf-8"), re.M):
        return []
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, card, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = []
    for number in range(count.value):
        if not driver.cuDeviceGet(ctypes.byref(card), number) and not driver.cuDeviceGetName(name, len(name), card):
            found.append(name.value.decode(errors="replace"))
    return found


def describe_installation(device: str, packages: Iterable[str]) -> dict[str, Any]:
    """Versions, commit, device and cores, without loading torch.

    Args:
        device: "cpu", or "cuda" for the first of `cards`.
        packages: whose versions to say.
    """
    return {
        "metadarts": import_module("metadarts").__version__,  # the package above, whose names are those of packages
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": cards()[0] if device == "cuda" else device_name("cpu"),
        "cores": os.cpu_count(),
    }


def describe(device: str, packages: Iterable[str]) -> dict[str, Any]:
    """What a result was computed on: `describe_installation` and the number of threads."""
    import torch

    own = {"device": device_name(device), "threads": torch.get_num_threads()}
    return describe_installation("cpu", packages) | own


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products on a GPU may be TensorFloat-32's, in torch's libraries and in our kernels alike.

    torch's own default allows it in convolutions and not in products of matrices; here one word holds for both.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
