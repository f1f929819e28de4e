"""The whole meta-step recorded once and replayed: inner steps, query pass, outer gradient and outer update.

At few-shot sizes a GPU waits for Python between thousands of small kernels. Episodes of one run have one shape, so
their step can be recorded as a CUDA graph: new episodes are copied into the memory of the recorded ones, the rates
likewise, and one call replays everything. The recorded step must not read a number from the device or transfer one from
the host.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from metadarts.core.recording import recording
from metadarts.core.types import TaskBatch
from metadarts.inner import InnerLoop

from .gradient import MetaGradient, mean_gradient, require_finite
from .rules import DEFAULT_RULE, MetaRule, Objective
from .state import MetaState, meta_step

logger = logging.getLogger("metadarts.capture")


class Recorder(Protocol):
    """How device work is recorded; `CudaGraphs` is one."""

    def warm(self, run: Callable[[], Any]) -> Any:
        """Execute ``run`` as it will be recorded, so that kernels are compiled and libraries initialised. Returns its
        result."""
        ...

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record ``run`` without executing it. Each call of the result executes it on the same memory."""
        ...


class CudaGraphs:
    """Records as a CUDA graph."""

    def warm(self, run: Callable[[], Any]) -> Any:
        """On a separate stream, as for recording a graph."""
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = run()
        current.wait_stream(side)
        return result

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Raises RuntimeError if something in ``run`` cannot be recorded, or memory runs out."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay


@dataclass
class _Recording:
    """A recorded step and the memory it works on.

    Args:
        shape: of the episodes, and the tasks per pass.
        batch: where episodes are copied to.
        layout: name and shape of each figure in the report, in order.
        report: figures of the step that was replayed last.
        replay: does the step.
    """

    shape: object
    batch: TaskBatch
    layout: list[tuple[str, tuple[int, ...]]]
    report: Tensor
    replay: Callable[[], None]


class CapturedStep:
    """`meta_step` for a run: the first step of a shape runs unrecorded, the next is recorded, and later ones are
    replayed.

    Steps that cannot be recorded run unrecorded, and this is logged once: ragged episodes, whose statistics depend on
    counts, and steps for which recording failed. Episodes of another shape are recorded again.

    Args:
        objective: start, support loss and query loss.
        state: the state to update, in place; it must be ``on_device``.
        inner: the inner loop.
        micro_batch: tasks per pass; None for all at once. May be changed between steps.
        recorder: how to record.
        rule: computes a task's meta-gradient.
    """

    def __init__(
        self,
        objective: Objective,
        state: MetaState,
        inner: InnerLoop,
        *,
        micro_batch: int | None = None,
        recorder: Recorder | None = None,
        rule: MetaRule = DEFAULT_RULE,
    ) -> None:
        if not state.on_device:
            raise ValueError("CapturedStep: expected a state that is on_device")
        self.objective, self.state, self.inner, self.micro_batch = objective, state, inner, micro_batch
        self.recorder: Recorder = recorder or CudaGraphs()
        self.rule = rule
        self._recording: _Recording | None = None
        self._warmed: object = None
        self._losses: tuple[int, ...] = ()
        self._said: set[str] = set()
        self._refused: set[object] = set()

    def __call__(self, batch: TaskBatch, progress: float = 0.0) -> tuple[MetaGradient, dict[str, float]]:
        """One meta-gradient and one update. The result holds no gradients: they stay in the recorded memory.

        Raises:
            NumericsError: when no task stayed finite; the state is as before.
        """
        if self._is_ragged(batch):
            return self._step_by_step(batch, progress)
        shape = (self.micro_batch, batch.ways, *((t.shape, t.dtype, t.device) for t in batch.tensors()))
        if shape in self._refused:
            return self._step_by_step(batch, progress)
        if self._recording is None or self._recording.shape != shape:
            if self._warmed != shape:
                self._forget("episodes changed their shape: the meta-step is recorded anew")
                return self._warm(batch, progress, shape)
            self._recording = self._record(batch, shape)
            if self._recording is None:
                return self._step_by_step(batch, progress)
        for held, given in zip(self._recording.batch.tensors(), batch.tensors(), strict=True):
            held.copy_(given, non_blocking=True)
        self.state.schedule(progress)
        self._recording.replay()
        return self._read(self._recording)

    @property
    def is_recorded(self) -> bool:
        """Whether the last shape is replayed."""
        return self._recording is not None

    def _warm(self, batch: TaskBatch, progress: float, shape: object) -> tuple[MetaGradient, dict[str, float]]:
        """A step as it is. Only one that came to its end has warmed up all that a recording will run."""
        with recording():
            found: tuple[MetaGradient, dict[str, float]] = self.recorder.warm(
                lambda: self._step_by_step(batch, progress)
            )
        self._warmed, self._losses = shape, tuple(found[0].support_losses.shape)
        return found

    def _step_by_step(self, batch: TaskBatch, progress: float) -> tuple[MetaGradient, dict[str, float]]:
        size = self.micro_batch
        return meta_step(
            self.objective, self.state, batch, self.inner, progress=progress, micro_batch=size, rule=self.rule
        )

    def _is_ragged(self, batch: TaskBatch) -> bool:
        if batch.ragged:
            self._say("episodes are ragged: their batch statistics depend on counts, so steps are not recorded")
        return batch.ragged

    def _record(self, batch: TaskBatch, shape: object) -> _Recording | None:
        """The step on memory like ``batch``'s; None where it cannot be recorded."""
        batch = batch.channels_last()  # the recorded step finds its images as it computes on them
        held, groups = batch.clone(), self.state.groups
        layout: list[tuple[str, tuple[int, ...]]] = [
            *((name, (batch.tasks,)) for name in ("losses", "accuracies", "finite")),
            ("support_losses", self._losses),
            ("norms", (len(groups),)),
        ]
        like = next(iter(self.state.params.values()))
        report = like.new_zeros(sum(math.prod(shape) for _, shape in layout))
        try:
            with recording():
                replay = self.recorder.record(lambda: self._run(held, report))
        except RuntimeError as error:
            self._forget()
            self.state.updating = False  # what failed was written down, not done
            self._refused.add(shape)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"the meta-step could not be recorded, steps are taken one kernel at a time: {reason}")
            return None
        return _Recording(shape, held, layout, report, replay)

    def _run(self, batch: TaskBatch, report: Tensor) -> None:
        """What is recorded."""
        state, size = self.state, self.micro_batch
        found = mean_gradient(
            self.objective, state.params, batch, self.inner, rates=state.rates, micro_batch=size, rule=self.rule,
            progress=state.progress,
        )  # fmt: skip
        norms = state.update(found.gradients, (~found.finite.any()).to(torch.float32))
        parts = [found.losses, found.accuracies, found.finite, found.support_losses, torch.stack(list(norms.values()))]
        report.copy_(torch.cat([part.flatten().to(report.dtype) for part in parts]))

    def _read(self, recording: _Recording) -> tuple[MetaGradient, dict[str, float]]:
        """What the replayed step reported, brought to the host in one copy."""
        parts = recording.report.cpu().split([math.prod(shape) for _, shape in recording.layout])
        named = {name: part.view(shape) for (name, shape), part in zip(recording.layout, parts, strict=True)}
        norms = named.pop("norms").tolist()
        found = MetaGradient({}, **named | {"finite": named["finite"] != 0})
        require_finite(found)
        self.state.step += 1
        return found, dict(zip((group.name for group in self.state.groups), norms, strict=True))

    def _forget(self, why: str = "") -> None:
        """Drop what is recorded, and its memory."""
        if why and self._recording is not None:
            self._say(why)
        self._recording = None

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.warning(line)
