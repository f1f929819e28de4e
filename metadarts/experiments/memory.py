"""When memory runs out: say what to lower, or go on with smaller parts where that was allowed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from metadarts.core.errors import ResourceError

ADVICE = "lower training.tasks, model.channels or tasks.queries"
"""What to lower where no part of the work can be made smaller."""
Result = TypeVar("Result")
SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad allocation")
"""How torch and the libraries below it put it; only CUDA has an error type of its own."""


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
        gc.collect()  # graphs of higher order hold on to themselves
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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
