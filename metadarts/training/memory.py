"""Available memory, and its exhaustion: say what to lower, or continue with smaller parts if allowed."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from metadarts.core.errors import ResourceError

ADVICE = "lower training.tasks, macro.channels or tasks.queries"
"""What to lower where no part of the work can be made smaller."""
Result = TypeVar("Result")
SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad allocation")
"""How torch and the libraries below it put it; only CUDA has an error type of its own."""


ROOT = Path("/")


def resident_bytes(device: torch.device, root: Path = ROOT) -> int:
    """What this process holds: resident on a CPU (0 where the system does not say), what torch took on a card."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return 1024 * (_table(root / "proc/self/status").get("VmRSS") or 0)


def usable_bytes(device: torch.device, root: Path = ROOT) -> int | None:
    """The most this process can hold: what it holds and what is free, within its control group; None when unknown.

    Args:
        root: where proc and sys/fs/cgroup are found.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + resident_bytes(device)
    free = _table(root / "proc/meminfo").get("MemAvailable")
    if free is None:
        return None
    return min([1024 * free + resident_bytes(device, root), *_group_limits(root)])


def _table(path: Path) -> dict[str, int]:
    """name -> number of a file of lines "Name: number unit"; empty if there is none."""
    try:
        lines = [line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return {}
    words = {name: rest.split() for name, _, rest in lines}
    return {name: int(rest[0]) for name, rest in words.items() if rest and rest[0].isdigit()}


def _group_limits(root: Path) -> Iterator[int]:
    """Limits of the control groups (version 1 and 2) that this process is in, the groups around them included."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inside = top / group.lstrip("/")  # within a container the name is the host's, and only the top is there
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(top):
                break
            for name in ("memory.max", "memory.limit_in_bytes"):
                yield from _limit(folder / name)


def _limit(path: Path) -> Iterator[int]:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return
    if text.isdigit():  # else "max"
        yield int(text)


def return_freed_memory() -> None:
    """Hand back to the system what was freed and kept for the next step, where it can be asked to."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on a CPU or a CUDA device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def fitted(work: Callable[[int], Result], size: int, may_shrink: bool, advice: str) -> tuple[Result, int]:
    """``work(size)``, with ``size`` halved until it fits where that is allowed; the result and the size that fitted.

    Args:
        work: a computation in parts of so many tasks; its result must not depend on the size but for rounding.
        size: tasks at once.
        may_shrink: whether a smaller size may be tried.
        advice: what to lower, for the message.

    Raises:
        ResourceError: when memory ran out and no smaller size may be tried.
    """
    while True:
        fault = _attempt(work, size)
        if not isinstance(fault, _Fault):
            return fault, size
        if not may_shrink or size == 1:
            raise ResourceError(f"memory ran out with {size} tasks at once ({fault.text}); {advice}")
        size = (size + 1) // 2
        return_freed_memory()


class _Fault:
    """What the failed attempt said. The error itself is let go: its traceback holds on to the tensors."""

    def __init__(self, error: BaseException) -> None:
        self.text = (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _attempt(work: Callable[[int], Result], size: int) -> Result | _Fault:
    try:
        return work(size)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _Fault(error)
