"""A peer's meta-step as a workload for `benchmarks.peers.process.run_isolated`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.peers.loops import LOOPS
from benchmarks.peers.network import SearchNetwork
from metadarts.core.types import TaskBatch


@dataclass(frozen=True)
class Episode:
    """The sizes of a meta-batch of square images; the defaults are workload W1."""

    tasks: int = 4
    ways: int = 5
    shots: int = 5
    queries: int = 15
    channels: int = 3
    size: int = 32


def random_batch(episode: Episode, seed: int = 0) -> TaskBatch:
    """Tasks of Gaussian images, one mean image per class so that there is something to adapt to; labels in order."""
    generator = torch.Generator().manual_seed(seed)
    image = (episode.channels, episode.size, episode.size)
    means = torch.randn(episode.tasks, episode.ways, 1, *image, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        noise = torch.randn(episode.tasks, episode.ways, count, *image, generator=generator)
        labels = torch.arange(episode.ways).repeat_interleave(count).expand(episode.tasks, -1).contiguous()
        return (means + noise).flatten(1, 2), labels, torch.ones_like(labels, dtype=torch.bool)

    return TaskBatch(*draw(episode.shots), *draw(episode.queries), ways=episode.ways)


def peer_meta_step(
    loop: str,
    exact: bool,
    episode: dict[str, int] | None = None,
    steps: int = 5,
    weight_rate: float = 0.01,
    alpha_rate: float = 30.0,
    seed: int = 0,
) -> Callable[[], float]:
    """Prepare network and tasks; the returned function runs one meta-step and returns its loss.

    Args:
        loop: a name in `LOOPS`.
        exact: second order.
        episode: fields of `Episode` that differ from workload W1.
    """
    sizes = Episode(**(episode or {}))
    torch.manual_seed(seed)
    network = SearchNetwork(sizes.channels, sizes.ways)
    batch = random_batch(sizes, seed)

    def run() -> float:
        step = LOOPS[loop](network, batch, steps=steps, weight_rate=weight_rate, alpha_rate=alpha_rate, exact=exact)
        return step.loss

    return run
