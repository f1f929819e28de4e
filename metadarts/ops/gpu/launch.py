"""Launching a Triton kernel: on a GPU, under Triton's interpreter, or, for meta tensors, only in writing.

A meta tensor has a shape and no numbers. A step that runs on meta tensors launches nothing, and `launches` then tells
what it would have launched: kernels, grids, the bytes they are given, and what to compile.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_log: ContextVar[list[Launch] | None] = ContextVar("launches", default=None)


def interpreting() -> bool:
    """Whether Triton kernels are interpreted, on CPU tensors; fixed when Triton is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Args:
        kernel: which.
        grid: programs along up to three axes.
        arguments: tensors, tuples of them, numbers and None, in the order of the kernel's parameters.
        constants: its compile-time constants, ``num_warps`` and ``num_stages``.
    """

    kernel: Kernel
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Size of all its tensors: what a launch that touches each number once moves."""
        tensors = {id(tensor): tensor for tensor in tensors_in(self.arguments)}
        return sum(t.numel() * t.element_size() for t in tensors.values())


def tensors_in(items: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among ``items`` and in the tuples and lists among them."""
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, tuple | list):
            yield from tensors_in(item)


@contextmanager
def launches() -> Iterator[list[Launch]]:
    """Within the block, every launch is written down, in order."""
    log: list[Launch] = []
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


class Kernel:
    """A function compiled by Triton, under a name.

    Args:
        function: what ``triton.jit`` returned.
        name: "operator.stage", as it stands in accounts and tests.
    """

    def __init__(self, function: Any, name: str) -> None:
        self.function, self.name = function, name

    def __call__(
        self, grid: tuple[int, ...], *arguments: Any, num_warps: int = 4, num_stages: int = 2, **constants: Any
    ) -> None:
        """Launch it with as many programs as ``grid`` says; nothing happens where that is none."""
        options = constants | {"num_warps": num_warps, "num_stages": num_stages}
        if (log := _log.get()) is not None:
            log.append(Launch(self, grid, arguments, options))
        tensors = list(tensors_in(arguments))
        if math.prod(grid) == 0 or any(tensor.is_meta for tensor in tensors):
            return
        if tensors[0].is_cuda:
            with torch.cuda.device(tensors[0].device):
                self.function[grid](*arguments, **options)
        else:
            self.function[grid](*arguments, **options)
