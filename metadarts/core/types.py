"""Types shared by all packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError

Params = dict[str, Tensor]
"""Parameters by dotted name. Task parameters have a leading task axis [T, ...], shared ones have not."""

HALF_WIDTH = (torch.bfloat16, torch.float16)
"""Types too narrow for batch statistics and for telling near-equal mixing weights apart."""

ALPHA_PREFIX = "alphas."
"""Parameters under this prefix are architecture parameters (alphas); all others are weights."""

HEAD_PREFIX = "head."
"""Weights under this prefix are the classifier's; all others are the body's."""

START_PREFIX = "start."
"""Parameters under this prefix compute the alphas that a task starts from; only the outer loop moves them."""

FIXED = "fixed."
"""After `START_PREFIX`: parameters that no loop moves."""

SIDES = ("support", "query")

NO_HALVES = "two halves of a support set: expected at least two support images per class"
HALVES_ADVICE = "give more shots, or set inner.alpha_images to all"


def group_of(name: str) -> str:
    """The group of the parameter ``name``: "alphas", "start", "head" or "body"."""
    if name.startswith(ALPHA_PREFIX):
        return "alphas"
    if name.startswith(START_PREFIX):
        return "start"
    return "head" if name.startswith(HEAD_PREFIX) else "body"


def is_alpha(name: str) -> bool:
    """Whether the parameter ``name`` is an architecture parameter."""
    return group_of(name) == "alphas"


def alphas_of(params: Mapping[str, Tensor]) -> Params:
    """decision -> its alphas, from parameters by name."""
    return {name[len(ALPHA_PREFIX) :]: tensor for name, tensor in params.items() if is_alpha(name)}


def with_alphas(params: Mapping[str, Tensor], alphas: Mapping[str, Tensor]) -> Params:
    """``params`` with the tables of ``alphas`` (decision -> alphas) instead of their own, for tasks to start from."""
    kept = {name: tensor for name, tensor in params.items() if group_of(name) != "start"}
    return {**kept, **{ALPHA_PREFIX + name: table for name, table in alphas.items()}}


def batched(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters on the task axis: views [T, ...] of one copy. For what is not differentiated."""
    return {name: tensor.expand(tasks, *tensor.shape) for name, tensor in params.items()}


def task_leaves(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters on the task axis: variables [T, ...], a copy for every task. For what is differentiated."""
    return {name: t.detach().expand(tasks, *t.shape).clone().requires_grad_() for name, t in params.items()}


class Stage(NamedTuple):
    """Where in a task and in a run a loss is computed; relaxations with a schedule read it.

    Args:
        step: inner steps taken so far: 0 to ``steps`` - 1 for a support loss, ``steps`` for the query loss.
        steps: K, the inner steps of the task.
        progress: how far the run is, 0 to 1: a 0-dim tensor on the device, so that a recorded step sees it change; or
            a number, where nothing is recorded.
    """

    step: int = 0
    steps: int = 0
    progress: Tensor | float = 1.0

    def at(self, step: int) -> Stage:
        """The same task after ``step`` inner steps."""
        return self._replace(step=step)

    @property
    def fraction(self) -> float:
        """How far the task is, 0 to 1; 1 in a task without steps."""
        return self.step / self.steps if self.steps else 1.0


FINISHED = Stage()
"""A network that is used rather than trained: after the last inner step, at the end of the run."""


def channels_last(images: Tensor) -> Tensor:
    """[..., C, H, W] images in the memory of [..., H, W, C]; those that are laid out so already are returned."""
    return images.movedim(-3, -1).contiguous().movedim(-1, -3)


@dataclass(frozen=True)
class TaskBatch:
    """T few-shot tasks, task axis first.

    Args:
        support_images: [T, S, C, H, W] float, values in [0, 1] unless the source normalises.
        support_labels: [T, S] int64 in ``range(ways)``; rows that the mask rejects hold 0.
        support_mask: [T, S] bool, False on padding rows, so that classes and tasks may have unequal counts.
        query_images: [T, Q, C, H, W].
        query_labels: [T, Q] int64.
        query_mask: [T, Q] bool.
        ways: classes per task.
        noise: decision -> [T, K + 1, rows, candidates], the draws of a relaxation for each inner step and for the query
            pass; empty if it draws nothing. They are drawn outside the step, so that a recomputed or replayed step uses
            the same numbers.
        halves: [T, 2, S] bool, the support images of each half, see `in_halves`; None without halves. With halves, a
            support loss is [T, 2], one for each half.
        domain: [T] int64, the number of each task's domain among `Source.domains`; None in a source of one domain.
        known_ragged: the value of ``ragged``, if it is known; None reads the masks, which synchronises a GPU. It is not
            stored, so that ``dataclasses.replace`` reads the masks of the new batch.
        ragged: whether any row is padding. Engines take a faster path if no row is.
    """

    support_images: Tensor
    support_labels: Tensor
    support_mask: Tensor
    query_images: Tensor
    query_labels: Tensor
    query_mask: Tensor
    ways: int
    known_ragged: InitVar[bool | None] = None
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    halves: Tensor | None = None
    domain: Tensor | None = None
    ragged: bool = field(init=False)

    def __post_init__(self, known_ragged: bool | None) -> None:
        if known_ragged is None:
            known_ragged = not (bool(self.support_mask.all()) and bool(self.query_mask.all()))
        object.__setattr__(self, "ragged", known_ragged)

    @property
    def tasks(self) -> int:
        return self.support_images.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> TaskBatch:
        names = ("images", "labels", "mask")
        tensors = {f"{side}_{name}": change(getattr(self, f"{side}_{name}")) for side in SIDES for name in names}
        noise = {name: change(tensor) for name, tensor in self.noise.items()}
        known = None if self.ragged else False  # a part may be full
        halves, domain = (None if own is None else change(own) for own in (self.halves, self.domain))
        return TaskBatch(**tensors, ways=self.ways, known_ragged=known, noise=noise, halves=halves, domain=domain)

    def tensors(self) -> tuple[Tensor, ...]:
        """Images, labels and mask of support and query, the domain if there is one, then the noise, in a fixed order.
        Halves follow from these."""
        sides = (getattr(self, f"{side}_{name}") for side in SIDES for name in ("images", "labels", "mask"))
        return (*sides, *(() if self.domain is None else (self.domain,)), *self.noise.values())

    def channels_last(self) -> TaskBatch:
        """The same tasks with images in memory layout [T, N, H, W, C], which networks compute on.

        Doing this once per batch saves a copy in every pass over it.
        """
        support, query = channels_last(self.support_images), channels_last(self.query_images)
        return replace(self, known_ragged=self.ragged, support_images=support, query_images=query)

    def with_noise(self, noise: Mapping[str, Tensor]) -> TaskBatch:
        """The same tasks with the draws of a relaxation."""
        return replace(self, known_ragged=self.ragged, noise=noise)

    def in_halves(self) -> TaskBatch:
        """The same tasks with their support images in two ``halves``.

        The first, third, ... image of each class is in half 0, the others in half 1, so half 0 has one more if their
        number is odd. The halves depend only on labels and mask, and no number is read unless ``ragged``.

        Raises:
            ConfigError: for fewer than two support images per class, or, if ``ragged``, for a task with an empty half.
        """
        images, least = self.support_labels.shape[1], 2 * self.ways
        if images < least:
            raise ConfigError(f"{NO_HALVES}, {least} for {self.ways} classes, got {images}: {HALVES_ADVICE}")
        classes = torch.arange(self.ways, device=self.support_labels.device)
        members = (self.support_labels.unsqueeze(-1) == classes) & self.support_mask.unsqueeze(-1)
        place = (members.cumsum(1) * members).sum(-1)  # from 1 on within its class; 0 for padding
        halves = torch.stack([place % 2 == 1, (place % 2 == 0) & self.support_mask], dim=1)
        if self.ragged and not bool(halves.any(-1).all()):
            raise ConfigError(f"{NO_HALVES}, got a task whose classes have one each at most: {HALVES_ADVICE}")
        return replace(self, known_ragged=self.ragged, halves=halves)

    def clone(self) -> TaskBatch:
        """A copy of the tasks in new memory."""
        return self._map(Tensor.clone)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TaskBatch:
        """The same tasks on ``device``, images in ``dtype``. Noise for alphas has the dtype of the alphas."""
        moved = self._map(lambda tensor: tensor.to(device))
        support, query = (images.to(dtype=dtype) for images in (moved.support_images, moved.query_images))
        return replace(moved, known_ragged=self.ragged, support_images=support, query_images=query)

    def slice(self, start: int, stop: int) -> TaskBatch:
        """Tasks ``start`` to ``stop`` (exclusive), the task axis kept."""
        return self._map(lambda tensor: tensor[start:stop])

    def take(self, rows: Tensor) -> TaskBatch:
        """The tasks ``rows`` [R] (int64, on the batch's device), in that order; one may be taken more than once."""
        return self._map(lambda tensor: tensor[rows])

    def task(self, index: int) -> TaskBatch:
        """Task ``index`` alone, as a batch of one."""
        return self.slice(index, index + 1)
