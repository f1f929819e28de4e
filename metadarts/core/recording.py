"""Whether a step is being recorded: a recording must not read numbers, because a replay would keep the values read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_RECORDING: ContextVar[bool] = ContextVar("metadarts_recording", default=False)


@contextmanager
def recording() -> Iterator[None]:
    """Within the block nothing may decide by numbers what is computed."""
    token = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(token)


def may_look(tensor: Tensor) -> bool:
    """Whether to look at the numbers of ``tensor`` is cheap (a GPU would wait) and not part of a recording."""
    return tensor.device.type == "cpu" and not _RECORDING.get()
