"""An inner step that stores only its input and is recomputed in the outer backward (Chen et al., 2016).

A general checkpoint cannot know that a step differentiates its own loss immediately: this would require the whole graph
in the forward pass, and the loss would run twice there. Here the forward pass takes the step in first order, which
leaves no graph. The graph exists only while the outer backward passes the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metadarts.core.types import Params
from metadarts.optim import State

Loss = Callable[[Params, Any], Tensor]
Step = Callable[[Loss, Params, State, Params, bool], tuple[Params, State, Tensor]]
"""(loss, params, state, rates, keep_graph) -> (params, state, detached losses).

The parameters that have a rate move, the others stay; the state keeps its names. A step comes out the same each time,
and all that it may be differentiated by is in its arguments.
"""
Names = tuple[tuple[str, ...], ...]


def recomputed(step: Step, loss: Loss, params: Params, state: State, rates: Params) -> tuple[Params, State, Tensor]:
    """``step``, to the bit, but with a graph only while the outer backward passes: one more loss and gradient.

    It is taken again under the context variables of now (which implementation of an operator runs). Autocast and random
    generators are not remembered.

    Raises:
        RuntimeError: when the loss depends on something that requires grad and is not in ``params``. In the outer
            backward: when that is to be differentiated itself.
    """
    # Where one tensor is the rate of many, its gradients are added up in this order: that of a stored step's backward.
    backwards = dict(reversed(rates.items()))
    job = _Job(step, loss, copy_context(), _names([params, backwards, *state.values()]), tuple(state))
    *ends, losses = _Recomputed.apply(job, *_row([params, backwards, *state.values()]))
    moved, *slots = _named(job.ends, ends)
    return params | moved, dict(zip(job.slots, slots, strict=True)), losses


@dataclass(frozen=True)
class _Job:
    """A step as a function of tensors in a row. It holds no tensor itself.

    Args:
        context: the variables to run it under.
        starts: names of the parameters, of the rates, and of each slot of the state.
        slots: names of the slots.
    """

    step: Step
    loss: Loss
    context: Context
    starts: Names
    slots: tuple[str, ...]

    @property
    def ends(self) -> Names:
        """Names of the parameters that move, and of each slot of the state."""
        return self.starts[1:]

    def first(self, starts: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Without a graph; the losses come last."""
        return self._run(closed(self.loss), [start.detach() for start in starts], False)

    def again(self, starts: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """With a graph that begins at ``starts``."""
        with torch.enable_grad():
            return self.context.run(self._run, self.loss, starts, True)

    def _run(self, loss: Loss, starts: Iterable[Tensor], keep_graph: bool) -> tuple[Tensor, ...]:
        params, rates, *slots = _named(self.starts, starts)
        state = dict(zip(self.slots, slots, strict=True))
        params, state, losses = self.step(loss, params, state, rates, keep_graph)
        groups = [params, *(state[slot] for slot in self.slots)]
        return *(group[name] for names, group in zip(self.ends, groups, strict=True) for name in names), losses


class _Recomputed(Function):
    """(job, starts) -> (ends, losses). Only the starts are kept; the backward takes the step again and goes back."""

    @staticmethod
    def forward(job: _Job, *starts: Tensor) -> tuple[Tensor, ...]:
        return job.first(starts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[-1])
        ctx.job = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a recomputed inner step has no third derivative: "
                "set inner.checkpoint to 0, or differentiate the meta-gradient no further"
            )
        asked = ctx.needs_input_grad[1:]
        if all(gradient is None for gradient in upstream):
            return None, *(None for _ in asked)
        starts = [start.detach().requires_grad_(start.requires_grad) for start in ctx.saved_tensors]
        wanted = [start for start, needed in zip(starts, asked, strict=True) if needed]
        found = iter(_gradients(ctx.job, starts, wanted, upstream))
        return None, *(next(found) if needed else None for needed in asked)


def _gradients(
    job: _Job, starts: list[Tensor], wanted: list[Tensor], upstream: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Those of ``wanted``, some of the starts. Nothing of the graph outlives the call."""
    ends = job.again(starts)
    reached = [(end, gradient) for end, gradient in zip(ends, upstream, strict=True) if gradient is not None]
    outputs, along = zip(*reached, strict=True)
    return torch.autograd.grad(outputs, wanted, along, allow_unused=True)


def closed(loss: Loss) -> Loss:
    """``loss``, refusing to depend on anything that requires grad beside its parameters."""

    def checked(params: Params, batch: Any) -> Tensor:
        losses = loss(params, batch)
        own = {id(tensor) for tensor in params.values()}
        foreign = [leaf for leaf in _leaves(losses) if id(leaf) not in own]
        if foreign:
            shapes = ", ".join(str(list(leaf.shape)) for leaf in foreign)
            raise RuntimeError(
                "inner.checkpoint: expected a loss that depends on its parameters alone, but it also depends on what "
                f"requires grad elsewhere (leaves of shape {shapes}), whose gradient a recomputed step would lose: "
                "make it a parameter with rate 0, detach it, or set inner.checkpoint to 0"
            )
        return losses

    return checked


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The variables in which the graph of ``tensor`` ends."""
    waiting, seen, leaves = [tensor.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [node for node, _ in node.next_functions]
        if not following and hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += following
    return leaves


def _names(groups: list[Params]) -> Names:
    return tuple(tuple(group) for group in groups)


def _row(groups: list[Params]) -> list[Tensor]:
    return [tensor for group in groups for tensor in group.values()]


def _named(names: Names, row: Iterable[Tensor]) -> list[Params]:
    """A row of tensors as the dictionaries that it stands for."""
    rest = iter(row)
    return [{name: next(rest) for name in group} for group in names]
