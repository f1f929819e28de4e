"""Which implementation of an operator runs: the caller's choice, or the fastest that can.

- ``reference``: the definition that the others are tested against, plain torch. Readable and slow.
- ``folded``: torch's own operators on tensors with tasks and edges folded into channels, with our own derivatives;
  runs wherever torch does.
- ``cpu``: our kernels, in float32 and float64.
- ``triton``: our kernels for a GPU, in float32, float64 and bfloat16; on the CPU under Triton's interpreter only.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.ops.gpu.launch import interpreting

AUTO = "auto"
NAMES = ("reference", "folded", "cpu", "triton")
TRITON_TYPES = (torch.float32, torch.float64, torch.bfloat16)

_default: ContextVar[str] = ContextVar("implementation", default=AUTO)
_seen: ContextVar[list[tuple[str, str]] | None] = ContextVar("seen", default=None)


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """Within the block, operators use implementation ``name`` unless a call selects another."""
    _check(name)
    token = _default.set(name)
    try:
        yield
    finally:
        _default.reset(token)


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Within the block, every choice is recorded as (operator, implementation), in order."""
    seen: list[tuple[str, str]] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def choose(op: str, asked: str, offered: tuple[str, ...], *tensors: Tensor) -> str:
    """The implementation of ``op`` to run.

    Args:
        op: its name.
        asked: what the caller asked for; "auto" is the surrounding `implementation`, and outside of one the first of
            ``offered`` that can run.
        offered: the operator's implementations, fastest first.
        tensors: what it is to run on.

    Raises:
        ConfigError: when the implementation asked for cannot run on these tensors; says why.
    """
    _check(asked)
    asked = _default.get() if asked == AUTO else asked
    if asked == AUTO:
        asked = next(name for name in offered if why_not(op, name, offered, tensors) is None)
    elif reason := why_not(op, asked, offered, tensors):
        raise ConfigError(f"{op}: implementation {asked!r} cannot run: {reason}")
    if (seen := _seen.get()) is not None:
        seen.append((op, asked))
    return asked


def why_not(op: str, name: str, offered: tuple[str, ...], tensors: tuple[Tensor, ...]) -> str | None:
    """Why implementation ``name`` cannot run on ``tensors``; None when it can."""
    if name not in offered:
        return f"{op} has {', '.join(offered)}"
    obstacles = {"cpu": _why_not_cpu, "triton": _why_not_triton}
    return obstacles[name](tensors) if name in obstacles else None


def _why_not_cpu(tensors: tuple[Tensor, ...]) -> str | None:
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return f"expected tensors on the CPU, got {', '.join(sorted({str(t.device) for t in tensors}))}"
    if any(tensor.dtype not in (torch.float32, torch.float64) for tensor in tensors):
        return f"expected float32 or float64, got {', '.join(sorted({str(t.dtype) for t in tensors}))}"
    if len({tensor.dtype for tensor in tensors}) > 1:
        return f"expected tensors of one type, got {', '.join(sorted({str(t.dtype) for t in tensors}))}"
    return no_compiler()


def _why_not_triton(tensors: tuple[Tensor, ...]) -> str | None:
    homes = ("cpu", "meta") if interpreting() else ("cuda", "meta")
    if any(tensor.device.type not in homes for tensor in tensors) or len({tensor.device for tensor in tensors}) > 1:
        found = ", ".join(sorted({str(tensor.device) for tensor in tensors}))
        hint = "" if interpreting() else " (or on the CPU, with TRITON_INTERPRET=1 set before Python starts)"
        return f"expected tensors on one CUDA device{hint}, got {found}"
    if any(tensor.dtype not in TRITON_TYPES for tensor in tensors):
        return f"expected float32, float64 or bfloat16, got {', '.join(sorted({str(t.dtype) for t in tensors}))}"
    return no_triton()


@functools.cache
def no_triton() -> str | None:
    """Why Triton cannot be used here, said once aloud; None when it can."""
    try:
        import triton  # noqa: F401
    except Exception as error:
        reason = f"Triton is not usable here ({error}); pip install triton"
        logging.getLogger("metadarts.kernels").warning("GPU kernels are off, which is several times slower: %s", reason)
        return reason
    return None


@functools.cache
def no_compiler() -> str | None:
    """Why CPU kernels cannot be compiled here, said once aloud; None when they can."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # numba refuses a numpy it does not know with ImportError, and other things otherwise
        reason = f"Numba is not usable here ({error}); pip install numba"
        logging.getLogger("metadarts.kernels").warning("CPU kernels are off, which is several times slower: %s", reason)
        return reason
    return None


def _check(name: str) -> None:
    if name != AUTO and name not in NAMES:
        raise ConfigError(f"unknown implementation {name!r}: {nearest(name, (AUTO, *NAMES))}")


def available(offered: tuple[str, ...], device: str = "cpu") -> tuple[str, ...]:
    """Those of ``offered`` that can run on this machine's ``device``, "cpu" or "cuda"; Triton's interpreter aside."""
    obstacles = {"cpu": no_compiler} if device == "cpu" else {"triton": no_triton}
    missing = {"cpu": ("triton",), "cuda": ("cpu",)}[device]
    return tuple(
        name for name in offered if name not in missing and (name not in obstacles or obstacles[name]() is None)
    )
