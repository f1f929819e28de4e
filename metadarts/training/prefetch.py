"""Meta-batches brought to the device ahead of their step, so that a GPU finds them there.

A thread makes raw batches (`RawBatch`: bytes, as the source stores them) into pinned memory. While a step computes, the
next one's batch is copied on a stream of its own into one of two buffers; turning and scaling are the GPU's work. The
thread never speaks to the device: whatever records a CUDA graph meanwhile would find its recording spoilt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from metadarts.core.types import TaskBatch
from metadarts.tasks import RawBatch, finish

JOIN_SECONDS = 5.0
"""How long `Prefetcher.close` waits for a batch that is being made; the thread ends after it, or with the process."""

WAKE_SECONDS = 0.5
"""How often a caller that waits for a batch looks up: a signal that another thread caught would else go unheeded."""


class Lane(Protocol):
    """The way from host to device, for one calling thread; `CudaLane` is one. Events are its own business."""

    def host(self, like: Tensor) -> Tensor:
        """Memory of ``like``'s shape on the host, from which it can be copied without waiting."""
        ...

    def device(self, like: Tensor) -> Tensor:
        """Memory of ``like``'s shape on the device."""
        ...

    def send(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Any) -> Any:
        """Begin to copy (from, to) once ``after`` has passed. The event passes when all is there."""
        ...

    def receive(self, sent: Any) -> None:
        """Let what the device computes from now on wait for ``sent``; the host does not wait."""
        ...

    def mark(self) -> Any:
        """An event that passes when the device has done what it was told to compute until now."""
        ...

    def settle(self, sent: Any) -> None:
        """Let the host wait for ``sent``."""
        ...


class CudaLane:
    """Pinned memory, and a stream of its own beside the current one."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def host(self, like: Tensor) -> Tensor:
        """Pinned."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def device(self, like: Tensor) -> Tensor:
        """Not given to others, once freed, before the copying is over."""
        memory = torch.empty(like.shape, dtype=like.dtype, device=self._device)
        memory.record_stream(self._stream)
        return memory

    def send(self, pairs: Sequence[tuple[Tensor, Tensor]], after: torch.cuda.Event) -> torch.cuda.Event:
        """On the stream of its own."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(after)
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
        return _event(self._stream)

    def receive(self, sent: torch.cuda.Event) -> None:
        """The current stream waits."""
        torch.cuda.current_stream(self._device).wait_event(sent)

    def mark(self) -> torch.cuda.Event:
        """Where the current stream stands."""
        return _event(torch.cuda.current_stream(self._device))

    def settle(self, sent: torch.cuda.Event) -> None:
        """The host waits."""
        sent.synchronize()


def _event(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Where ``stream`` stands."""
    event = torch.cuda.Event()
    event.record(stream)
    return event


Layout = dict[str, tuple[torch.Size, torch.dtype]]


def _layout(raw: RawBatch) -> Layout:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in raw.tensors().items()}


def _fill(memory: RawBatch, raw: RawBatch) -> RawBatch:
    """``raw`` in the memory of another batch of its layout."""
    places = memory.tensors()
    for name, tensor in raw.tensors().items():
        places[name].copy_(tensor)
    return raw.over(places)


@dataclass
class _Made:
    """A raw batch on the host; ``ready`` if in memory of the lane's."""

    raw: RawBatch
    ready: bool


@dataclass
class _Buffer:
    """A raw batch's memory on the device; once ``passed``, it may be overwritten."""

    raw: RawBatch
    passed: Any


@dataclass
class _Sent:
    """A batch on its way into a buffer."""

    step: int
    raw: RawBatch
    buffer: _Buffer
    event: Any


class Prefetcher:
    """``batch(step)`` is ``finish(make(step))`` on the device, whatever was asked before; ask in turn for speed.

    On the CPU the batch is made when it is asked for, in the calling thread. A context manager; one thread may use it.

    Args:
        make: step -> its raw batch, on the CPU: a function of the step alone. On a GPU it is called in another thread.
        device: where batches go.
        ahead: how many raw batches are made before their step, besides the one on its way.
        lane: how they get there; None to choose by ``device``.
    """

    def __init__(
        self,
        make: Callable[[int], RawBatch],
        device: torch.device | str,
        ahead: int = 2,
        *,
        lane: Lane | None = None,
    ) -> None:
        if ahead < 1:
            raise ValueError(f"Prefetcher: expected ahead of at least 1, given {ahead}")
        self._make, self._device, self._closed = make, torch.device(device), False
        self._lane = CudaLane(self._device) if lane is None and self._device.type == "cuda" else lane
        self._maker = _Maker(make, ahead)
        self._buffers: list[_Buffer] = []
        self._sent: _Sent | None = None

    def batch(self, step: int) -> TaskBatch:
        """The tasks of ``step``, in memory of their own; on a GPU, its current stream is what waits for them.

        Raises:
            RuntimeError: when it is closed.
            Exception: whatever ``make`` raised for this step, with the traceback of where.
        """
        if self._closed:
            raise RuntimeError("Prefetcher: it is closed; make another")
        if self._lane is None:
            return finish(self._make(step).to(self._device))
        sent, self._sent = self._sent, None
        if sent is None or sent.step != step:
            if sent is not None:
                self._settle(self._lane, sent)
            sent = self._send(self._lane, step, self._maker.take(step))
        self._lane.receive(sent.event)
        batch = finish(sent.raw.over(sent.buffer.raw.tensors()))
        sent.buffer.passed = self._lane.mark()
        following = self._maker.take_if_made(step + 1)
        if following is not None:
            self._sent = self._send(self._lane, step + 1, following)
        self._settle(self._lane, sent)
        return batch

    def close(self) -> None:
        """End the thread and let the memory go. Harmless when done twice."""
        self._closed = True
        self._maker.close()
        self._sent, self._buffers = None, []

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, lane: Lane, step: int, made: _Made) -> _Sent:
        """Begin to copy into the buffer whose turn it is."""
        raw = made.raw
        if not made.ready:
            raw = _fill(raw.over({name: lane.host(tensor) for name, tensor in raw.tensors().items()}), raw)
        buffer = self._next_buffer(lane, raw)
        targets = buffer.raw.tensors()
        pairs = [(tensor, targets[name]) for name, tensor in raw.tensors().items()]
        return _Sent(step, raw, buffer, lane.send(pairs, buffer.passed))

    def _next_buffer(self, lane: Lane, raw: RawBatch) -> _Buffer:
        """The one of the two that was filled longer ago; a new one while there are fewer, or for another layout."""
        if len(self._buffers) == 2:
            oldest = self._buffers.pop(0)
            if _layout(oldest.raw) == _layout(raw):
                self._buffers.append(oldest)
                return oldest
        memory = raw.over({name: lane.device(tensor) for name, tensor in raw.tensors().items()})
        self._buffers.append(_Buffer(memory, lane.mark()))  # its memory may be what a computation still under way freed
        return self._buffers[-1]

    def _settle(self, lane: Lane, sent: _Sent) -> None:
        """Give the host memory of a copied batch to the thread."""
        lane.settle(sent.event)
        self._maker.give(sent.raw)


class _Maker:
    """Makes the batches of the steps from one on, in a thread that starts when first needed."""

    def __init__(self, make: Callable[[int], RawBatch], ahead: int) -> None:
        self._make, self._ahead = make, ahead
        self._changed = threading.Condition()  # guards all of the following
        self._first = 0
        self._made: dict[int, _Made | BaseException] = {}
        self._memory: list[RawBatch] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self, step: int) -> _Made:
        """The batch of ``step``, waited for; those after it come next."""
        with self._changed:
            self._aim(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="metadarts prefetcher", daemon=True)
                self._thread.start()
            while step not in self._made:
                self._changed.wait(WAKE_SECONDS)
            found = self._made.pop(step)
            self._aim(step + 1)
        if isinstance(found, BaseException):
            raise found
        return found

    def take_if_made(self, step: int) -> _Made | None:
        """The batch of ``step``, or None when it is not ready or failed, which is `take`'s to say."""
        with self._changed:
            found = self._made.get(step)
            if not isinstance(found, _Made):
                return None
            del self._made[step]
            self._aim(step + 1)
            return found

    def give(self, memory: RawBatch) -> None:
        """Memory to make batches in."""
        with self._changed:
            if len(self._memory) <= self._ahead:
                self._memory.append(memory)

    def close(self) -> None:
        """End the thread, after the batch that it may be making."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
        with self._changed:
            self._made.clear()
            self._memory.clear()

    def _aim(self, first: int) -> None:
        """From now on the steps from ``first`` on are wanted."""
        self._first = first
        for step in self._made.keys() - set(self._wanted()):
            found = self._made.pop(step)
            if isinstance(found, _Made) and found.ready:
                self._memory.append(found.raw)
        self._changed.notify_all()

    def _wanted(self) -> range:
        return range(self._first, self._first + self._ahead)

    def _next(self) -> int | None:
        """The first wanted step that is not made."""
        return next((step for step in self._wanted() if step not in self._made), None)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._next() is None:
                    self._changed.wait()
                step = self._next()
                if self._closed or step is None:
                    return
            found = self._attempt(step)
            with self._changed:
                self._made[step] = found  # should it no longer be wanted, the next `_aim` takes its memory back
                self._changed.notify_all()

    def _attempt(self, step: int) -> _Made | BaseException:
        try:
            raw = self._make(step)
            memory = self._fitting(_layout(raw))
            return _Made(raw, ready=False) if memory is None else _Made(_fill(memory, raw), ready=True)
        except BaseException as error:  # it is the caller's
            return error

    def _fitting(self, layout: Layout) -> RawBatch | None:
        with self._changed:
            for number, memory in enumerate(self._memory):
                if _layout(memory) == layout:
                    return self._memory.pop(number)
        return None
