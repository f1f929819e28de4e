"""From a support set to one vector: deep sets over the images of a class, then over classes (Zaheer et al., 2017).

The order of images within a class and the order (i.e. the labels) of classes do not matter: the encoder averages over
both. Learning starts at the class level: an image has fixed features, and a class is represented by their mean and
deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from metadarts.core.rng import Key

STEADY = 1e-6
"""Added to a variance before its root, whose slope is infinite at 0."""
LEAST_SCALE = 1e-3
"""Of a feature that is the same for all classes."""
FLOOR = 0.1
"""Of the deviation within classes, in units of a feature's spread: with one image of a class it is not known."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of N tasks before anything is adapted: their classes' features.

    Args:
        means: [N, W, F] over the support images of each class.
        deviations: [N, W, F] over the same images, 0 for a class of one.
        counts: [N, W] how many images there were.
    """

    means: Tensor
    deviations: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.means)

    def take(self, rows: Tensor) -> Seen:
        """The tasks ``rows``."""
        return Seen(self.means[rows], self.deviations[rows], self.counts[rows])

    @staticmethod
    def joined(parts: Sequence[Seen]) -> Seen:
        """All tasks of parts with equally many classes."""
        return Seen(*(torch.cat([getattr(part, name) for part in parts]) for name in ("means", "deviations", "counts")))


def class_moments(features: Tensor, labels: Tensor, mask: Tensor, ways: int) -> Seen:
    """Images [T, S, F] with labels [T, S] in ``range(ways)`` by class; rows that ``mask`` [T, S] rejects do not count.

    The deviation is taken about the mean, in a second pass, so that it keeps its digits.
    """
    of_class = (labels.unsqueeze(-1) == torch.arange(ways, device=labels.device)) & mask.unsqueeze(-1)
    members = of_class.to(features.dtype)
    counts = members.sum(1)
    shares = members.mT / counts.clamp(min=1.0).unsqueeze(-1)
    means = shares @ features
    off = (features - (members @ means)).square()
    return Seen(means, (shares @ off).sqrt(), counts)


class TaskEncoder(nn.Module):
    """z = h(mean and deviation over classes of g(class), contrasts); g and h are perceptrons.

    A class is its features' means and deviations. The contrast of a feature is by how much its class means differ, in
    units of what they would differ by if the classes were alike: sqrt of the F of an analysis of variance, as
    log(1 + .). What tells a task's classes apart is what its architecture has to see.

    Args:
        features: F, numbers per image.
        width: of the hidden layers.
        embedding: D, of the result.
        key: of the first weights.
    """

    def __init__(self, features: int, width: int, embedding: int, key: Key) -> None:
        super().__init__()
        for name in ("mean", "deviation", "contrast"):
            self.register_buffer(f"shift_{name}", torch.zeros(features))
            self.register_buffer(f"scale_{name}", torch.ones(features))
        self.of_class = perceptron((2 * features, width, width), key.child("class"))
        self.of_task = perceptron((2 * width + features, width, embedding), key.child("task"))

    def standardise(self, parts: Sequence[Seen]) -> None:
        """Have inputs brought to mean 0 and deviation 1 over the classes and tasks of ``parts``; before training."""
        self._measure("mean", torch.cat([part.means.flatten(0, 1) for part in parts]))
        self._measure("deviation", torch.cat([part.deviations.flatten(0, 1) for part in parts]))
        self._measure("contrast", torch.cat([self._contrasts(part) for part in parts]))

    def _measure(self, name: str, rows: Tensor) -> None:
        self.get_buffer(f"shift_{name}").copy_(rows.mean(0))
        self.get_buffer(f"scale_{name}").copy_(rows.std(0, unbiased=False).clamp(min=LEAST_SCALE))

    def _standard(self, name: str, values: Tensor) -> Tensor:
        return (values - self.get_buffer(f"shift_{name}")) / self.get_buffer(f"scale_{name}")

    def _contrasts(self, seen: Seen) -> Tensor:
        """[N, F]."""
        floor = FLOOR * self.get_buffer("scale_mean")
        within = seen.deviations.square().mean(1) + floor.square()
        error = within / seen.counts.mean(1, keepdim=True).clamp(min=1.0)
        return (seen.means.var(1) / error).sqrt().log1p()

    def forward(self, seen: Seen) -> Tensor:
        """N tasks -> [N, D]."""
        values = torch.cat([self._standard("mean", seen.means), self._standard("deviation", seen.deviations)], dim=-1)
        classes = self.of_class(values)
        deviation = (classes.var(1, unbiased=False) + STEADY).sqrt()
        contrasts = self._standard("contrast", self._contrasts(seen))
        vectors: Tensor = self.of_task(torch.cat([classes.mean(1), deviation, contrasts], dim=-1))
        return vectors


def perceptron(sizes: Sequence[int], key: Key) -> nn.Sequential:
    """Linear layers of ``sizes`` with ReLU between them; weights drawn from ``key`` alone."""
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(sizes)):
        if number:
            layers.append(nn.ReLU())
        layers.append(linear(before, after, key.child(number)))
    return nn.Sequential(*layers)


def linear(before: int, after: int, key: Key) -> nn.Linear:
    """A linear layer as torch begins one, uniform within 1/sqrt(``before``), from a generator of its own."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, before, after)
    bound = before**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=key.child("weight").torch())
        layer.bias.uniform_(-bound, bound, generator=key.child("bias").torch())
    return layer
