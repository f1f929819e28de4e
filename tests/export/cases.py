"""Small networks with a task's head, their own answers, and the models made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.export import ShippedModel, freeze, make_model
from metadarts.networks import Learner, Network, NetworkSpec

KEY = Key.from_seed(0)
CLASSES = ["a", 'Größe "7"\n\\', "猫's", "\u2028;import os"]
"""Names that a careless writer would let out of a comment or a string."""


def spec(**changes: object) -> NetworkSpec:
    return NetworkSpec(**({"in_channels": 1, "stem": (4, 6), "channels": 4, "head": "prototype"} | changes))


class Case(NamedTuple):
    """A network, its parameters for a task, and the task; `source` are the network's own answers.

    Args:
        images: uint8 support images [S, C, H, W].
        normalise: uint8 images -> what the network takes.
    """

    network: Network
    params: Params
    images: Tensor
    normalise: Callable[[Tensor], Tensor]
    weights: Mapping[str, Tensor] | None = None

    def source(self, pixels: Tensor) -> Tensor:
        """The network's logits [N, 4] of uint8 pixels, batch norm by the support set."""
        learner = Learner(self.network, bn="support", weights=self.weights)
        params = {name: tensor.unsqueeze(0) for name, tensor in self.params.items()}
        with torch.no_grad():
            return learner.query_logits(params, task(self.normalise(self.images), self.normalise(pixels)))[0]


def task(support: Tensor, query: Tensor) -> TaskBatch:
    labels = torch.arange(len(support)).unsqueeze(0) % len(CLASSES)
    blank = torch.zeros((1, len(query)), dtype=torch.long)
    masks = torch.ones_like(labels, dtype=torch.bool), torch.ones_like(blank, dtype=torch.bool)
    return TaskBatch(support.unsqueeze(0), labels, masks[0], query.unsqueeze(0), blank, masks[1], len(CLASSES))


def make_case(
    network: Network,
    size: int | tuple[int, int] = 28,
    weights: Mapping[str, Tensor] | None = None,
    invert: bool = False,
    mean: float = 0.0,
    std: float = 1.0,
    head: float = 0.0,
) -> Case:
    """A case whose norms, alphas and head all differ from what they start as.

    Args:
        head: the standard deviation of what is added to the head. Mean features of noise hardly differ between classes,
            so the logits of a prototype head alone are small differences of large numbers, whose rounding varies.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shape = (8, network.spec.in_channels, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=KEY.child("images").torch())

    def normalise(pixels: Tensor) -> Tensor:
        return ((255 - pixels if invert else pixels).float() / 255.0 - mean) / std

    shared = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=KEY.child("moved", name).torch())
        if name.startswith("alphas.") or ".norm" in name
        else tensor
        for name, tensor in network.init(KEY).items()
    }
    learner = Learner(network, bn="support", weights=weights)
    batched = {name: tensor.unsqueeze(0) for name, tensor in shared.items()}
    with torch.no_grad():
        params = learner.start(batched, task(normalise(images), normalise(images)))
    params = {
        name: tensor[0] + head * torch.randn(tensor[0].shape, generator=KEY.child("head", name).torch())
        if head and name.startswith("head.")
        else tensor[0]
        for name, tensor in params.items()
    }
    return Case(network, params, images, normalise, weights)


def ship(case: Case, invert: bool = False, mean: float = 0.0, std: float = 1.0) -> ShippedModel:
    """The model of ``case``."""
    structure, tensors = freeze(case.network, case.params, case.normalise(case.images), case.weights)
    channels, height, width = case.images.shape[1:]
    image = {"channels": channels, "height": height, "width": width, "invert": invert}
    tensors |= {name: torch.full((channels, 1, 1), value) for name, value in (("mean", mean), ("std", std))}
    return make_model(structure, tensors, {"classes": CLASSES, "image": image, "genotype": "one\ntwo"})


def noise(case: Case, count: int) -> Tensor:
    shape = (count, *case.images.shape[1:])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=KEY.child("noise").torch())
