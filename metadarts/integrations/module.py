"""A network of ours as torch modules, for loops that adapt a module's parameters, such as learn2learn's MAML.

`SupernetModule` has the shared parameters as leaves, for an outer optimiser. The inner loop changes task parameters,
which are computed from the shared ones for every task (`Learner.start`): the head's class vector becomes one row per
class, or the class prototypes become the head. `SupernetModule.start` returns a `TaskModule` with them. Its parameters
are not leaves, so a backward pass from a query loss reaches the shared leaves through the inner loop.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, TaskBatch
from metadarts.networks import Learner


class ParameterTree(nn.Module):
    """Tensors by dotted name, as a tree of modules whose ``named_parameters()`` has those very names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self._place(name, tensor)

    def _place(self, name: str, tensor: Tensor) -> None:
        first, _, rest = name.partition(".")
        if rest:
            branch = self._modules.setdefault(first, ParameterTree({}))
            assert isinstance(branch, ParameterTree)
            branch._place(rest, tensor)
        else:
            # register_parameter takes leaves only; the modules that learn2learn clones and updates are written so too.
            self._parameters[first] = tensor  # type: ignore[assignment]

    def tensors(self) -> Params:
        """The tensors by dotted name, as they are now."""
        return dict(self.named_parameters())


class SupernetModule(ParameterTree):
    """The shared parameters of a learner as leaves of a module; its parameter names are the learner's.

    Args:
        learner: network, precision and fixed weights. Its batch-norm policy must be "transductive", because
            `TaskModule` sees one set of images at a time.
        params: shared parameters (no task axis), copied.

    Raises:
        ConfigError: on another batch-norm policy.
    """

    def __init__(self, learner: Learner, params: Params) -> None:
        if learner.bn != "transductive":
            raise ConfigError(
                f"expected a learner with batch-norm policy 'transductive', given {learner.bn!r}: a module that is "
                "called on images alone cannot know the support set; use metadarts.meta for that policy"
            )
        super().__init__({name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()})
        self.learner = learner

    def start(self, batch: TaskBatch) -> TaskModule:
        """The task parameters of the one task in ``batch`` before the first step, connected to the shared ones.

        Raises:
            ConfigError: when the batch holds more than one task, or padding rows.
        """
        if batch.tasks != 1 or batch.ragged:
            raise ConfigError(
                f"expected one task without padding rows, given {batch.tasks} task(s)"
                f"{' with padding' if batch.ragged else ''}; take batch.task(i) of tasks with equal counts"
            )
        shared = {name: tensor.unsqueeze(0) for name, tensor in self.tensors().items()}
        start = self.learner.start(shared, batch)
        own = {name: tensor[0] for name, tensor in start.items()}  # new variables: a prototype head came from `shared`
        return TaskModule(self.learner, own, batch.ways)


class TaskModule(ParameterTree):
    """One task's own parameters, to be adapted; images in, class scores out. Made by `SupernetModule.start`.

    Every tensor is a separate variable, although it was computed from the shared parameters: a gradient with respect to
    one is partial, as in our inner loop, even if a prototype head was computed from the same weights.
    """

    def __init__(self, learner: Learner, params: Params, ways: int) -> None:
        super().__init__(params)
        self.learner = learner
        self.ways = ways

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, ways] of ``images`` [N, C, H, W]; batch norms take the statistics of these images."""
        lifted = {name: tensor.unsqueeze(0) for name, tensor in self.tensors().items()}
        return self.learner.support_logits(lifted, _unlabelled(images, self.ways))[0]


def _unlabelled(images: Tensor, ways: int) -> TaskBatch:
    """One task whose support and query images are ``images``; its labels mean nothing."""
    rows = images.unsqueeze(0)
    labels = torch.zeros(rows.shape[:2], dtype=torch.int64, device=images.device)
    mask = torch.ones_like(labels, dtype=torch.bool)
    return TaskBatch(rows, labels, mask, rows, labels, mask, ways)
