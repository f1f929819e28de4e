"""How a kernel's work is cut: a plain function of shape and device, so that importing needs no driver."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .launch import interpreting

MOST_PROGRAMS = 32
"""Programs that share one group's pixels; whoever joins their sums reads them all at once."""
WAVES = 4
MULTIPROCESSORS = 132
"""Of an H100; assumed where there is no device to ask."""


class Tiling(NamedTuple):
    """A group (a task, or a task's edge) has ``programs`` programs; program p takes tiles p, p + programs, ...

    Args:
        pixels: rows of a tile, a power of two, at least 16.
        programs: per group, at most `MOST_PROGRAMS`.
        padded: ``programs`` up to a power of two, as the tiles that join their sums are wide.
        warps: per program.
    """

    pixels: int
    programs: int
    padded: int
    warps: int


def tiling(groups: int, pixels: int, channels: int, device: torch.device) -> Tiling:
    """Tiles for ``groups`` groups of ``pixels`` pixels (those of all images) of ``channels`` channels.

    Under the interpreter tiles are as small as a product may be, and two programs share a group, so that tiny tensors
    take every path.
    """
    if interpreting():
        programs = max(1, min(2, -(-pixels // 16)))
        return Tiling(16, programs, power_of_two(programs), 1)
    tile = 64 if channels <= 64 else 32
    wanted = -(-WAVES * multiprocessors(device) // max(groups, 1))
    programs = max(1, min(-(-pixels // tile), wanted, MOST_PROGRAMS))
    return Tiling(tile, programs, power_of_two(programs), 4)


def multiprocessors(device: torch.device) -> int:
    """Of a CUDA device; else an H100's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return MULTIPROCESSORS


def power_of_two(number: int, least: int = 1) -> int:
    """The smallest power of two that is at least ``number`` and ``least``."""
    return int(1 << (max(number, least, 1) - 1).bit_length())


def types(dtype: torch.dtype) -> dict[str, Any]:
    """The constants ACC, DOT and PRECISION of a kernel on tensors of ``dtype``.

    ACC is what sums are kept in; DOT what goes into products of matrices; PRECISION how these multiply: "ieee", or
    "tf32" where torch may use it for float32 products too (``torch.backends.cuda.matmul.allow_tf32``). Under the
    interpreter, whose half-precision products are wrong, DOT is ACC.
    """
    import triton.language as tl

    if dtype == torch.float64:
        return {"ACC": tl.float64, "DOT": tl.float64, "PRECISION": "ieee"}
    fast = dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    half = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    dot = tl.float32 if interpreting() else half.get(dtype, tl.float32)
    return {"ACC": tl.float32, "DOT": dot, "PRECISION": "tf32" if fast else "ieee"}


def wide(dtype: torch.dtype) -> torch.dtype:
    """In what sums over programs are handed from kernel to kernel: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def wide_memory(like: Tensor, *shape: int) -> Tensor:
    """Memory for sums over tensors like ``like``."""
    return like.new_empty(shape, dtype=wide(like.dtype))
