"""Image features of the meta-model: moments over positions of the map of a meta-initialised stem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, TaskBatch, batched
from metadarts.networks import Network, NetworkSpec
from metadarts.operations import Statistics
from metadarts.spaces import SearchSpace

PREFIX = "stem."
STEADY = 1e-6
"""Added to a variance before its root, whose slope is infinite at 0."""


@dataclass(frozen=True, eq=False)
class Stem:
    """A stem with its weights. It is not trained, so the same tasks have the same features for every meta-model.

    Args:
        in_channels: of an image.
        channels: of its convolutions.
        params: "stem.conv1" and so on, no task axis, as a supernet's parameters have them.

    Raises:
        ConfigError: when the parameters are not those of such a stem.
    """

    in_channels: int
    channels: tuple[int, ...]
    params: Params

    def __post_init__(self) -> None:
        expected = {name: shape for name, shape in _network(self, 1).shapes().items() if name.startswith(PREFIX)}
        given = {name: tuple(tensor.shape) for name, tensor in self.params.items()}
        if given != expected:
            odd = sorted(set(given.items()) ^ set(expected.items()))[0]
            raise ConfigError(
                f"stem: expected the parameters {sorted(expected)}, {odd[0]!r} is missing, too many or of another shape"
            )

    @staticmethod
    def of_params(params: Params) -> Stem:
        """The stem of a supernet's shared parameters. Raises ConfigError if they have none."""
        own = {name: tensor.detach().cpu() for name, tensor in params.items() if name.startswith(PREFIX)}
        kernels = [own[name] for name in sorted(own) if name.startswith(f"{PREFIX}conv") and own[name].dim() == 4]
        if not kernels:
            raise ConfigError(f"stem: expected parameters named {PREFIX}conv1 and so on, got none")
        return Stem(kernels[0].shape[1], tuple(kernel.shape[0] for kernel in kernels), own)

    @property
    def features(self) -> int:
        """F, the number of features of an image."""
        return 2 * self.channels[-1]

    def describe(self, batch: TaskBatch) -> Tensor:
        """Mean and standard deviation over positions of the rectified last map of every support image.

        Batch norm sees each task's support set, as in the inner loop. Rows that the mask rejects hold 0.

        Args:
            batch: T tasks with S support images each.

        Returns:
            [T, S, F] without graph.
        """
        height, width = (side // 2 ** len(self.channels) for side in batch.support_images.shape[-2:])
        network = _network(self, height * width)
        shared = batched(self.params, batch.tasks)
        statistics = Statistics.over(batch.support_mask) if batch.ragged else Statistics()
        with torch.no_grad():
            flat = network.embed(shared, batch.support_images, statistics)
            maps = flat.unflatten(-1, (height * width, self.channels[-1]))
            found = torch.cat([maps.mean(-2), (maps.var(-2, unbiased=False) + STEADY).sqrt()], dim=-1)
        return found.masked_fill(~batch.support_mask.unsqueeze(-1), 0.0)


def _network(stem: Stem, positions: int) -> Network:
    """The stem alone as a network, whose features are its last map, positions first."""
    spec = NetworkSpec(in_channels=stem.in_channels, stem=stem.channels, cells=(), flat=positions)
    return Network(spec, SearchSpace("stem", ("skip_connect",), nodes=1))
