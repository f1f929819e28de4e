"""How a measurement waits for a GPU and records on one.

A GPU works behind Python's back: a time is taken only when it has done what it was given (`wait`). Its step can be
recorded and replayed (`recorder`); on a CPU a stand-in takes the recorder's place, so that the same code runs there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metadarts import ops
from metadarts.core.recording import recording
from metadarts.meta import CudaGraphs, Recorder
from metadarts.ops import implementation
from metadarts.ops.gpu.launch import interpreting

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select")
"""What makes a GPU wait for the host: it cannot be recorded."""


# ------------------------------------------------------------------------------------------------------------- timing


def wait(device: str) -> None:
    """Until the card has done what it was given; nothing on a CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], device: str, repetitions: int, warmups: int = 1, batch: int = 1) -> list[float]:
    """Seconds of a call, for each of ``repetitions``; ``batch`` calls in a row are timed as one, so that the waiting
    for the card does not count.
    """
    for _ in range(warmups):
        call()
    seconds = []
    for _ in range(repetitions):
        wait(device)
        start = time.perf_counter()
        for _ in range(batch):
            call()
        wait(device)
        seconds.append((time.perf_counter() - start) / batch)
    return seconds


# ---------------------------------------------------------------------------------------------------------- recording


class StandIn:
    """A `Recorder` for where there is nothing to record with: a replay does the work itself, and the first one is
    written down: ``operations`` of torch that were recorded, and those of them that no GPU could (``host``).
    """

    def __init__(self) -> None:
        self.operations: list[str] = []

    @property
    def host(self) -> list[str]:
        """Recorded operations that wait for the host."""
        return [name for name in self.operations if name.startswith(HOST)]

    def warm(self, run: Callable[[], Any]) -> Any:
        return run()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            with recording():  # a replay runs no Python that could look at a number
                if self.operations:
                    run()
                    return
                with _Written(self.operations):
                    run()

        return replay


class _Written(TorchDispatchMode):
    def __init__(self, names: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def recorder(device: str) -> Recorder:
    """CUDA graphs on a card, else a `StandIn`."""
    return CudaGraphs() if device == "cuda" else StandIn()


def recorded(run: Callable[[], Any], device: str) -> Callable[[], None]:
    """``run`` as a replay, after two runs to warm up. What it returns stays where it is, in the recorded memory."""
    how = recorder(device)
    kept: list[Any] = []

    def keep() -> None:
        kept[:] = [run()]

    for _ in range(2):
        how.warm(run)
    return how.record(keep)


@contextmanager
def rehearsed_kernels() -> Iterator[str]:
    """Within the block operators run by Triton where it is interpreted and they all have it. Gives the name chosen."""
    name = "triton" if interpreting() and all_offer_triton() else "auto"
    with implementation(name):
        yield name


def all_offer_triton() -> bool:
    """Whether every operator of the network has a Triton kernel."""
    return all("triton" in names for names in ops.implementations("cuda").values())
