"""An operation of one's own: a dense 1x5 and a dense 5x1 convolution (MetaNAS, Elsken et al., CVPR 2020).

Any differentiable torch will do. The edges that leave one state run together: parameters are [T, E, ...].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.operations import EdgeContext, Folding, Map, Operation, Shapes, uniform


def _run(state: Tensor, context: EdgeContext) -> Tensor:
    tasks, images, height, width, channels = state.shape
    wide, tall = context.params["wide"], context.params["tall"]
    edges, stride = wide.shape[1], context.stride
    x = F.relu(state).permute(1, 0, 4, 2, 3).reshape(images, tasks * channels, height, width)
    x = F.conv2d(x, wide.flatten(0, 2), stride=(1, stride), padding=(0, 2), groups=tasks)
    x = F.conv2d(x, tall.flatten(0, 2), stride=(stride, 1), padding=(2, 0), groups=tasks * edges)
    maps = x.view(images, tasks, edges, channels, *x.shape[2:]).permute(1, 2, 0, 4, 5, 3)
    return context.batch_norm(maps, "norm")


def _fold(layers: Folding, x: Map) -> Map:
    x = layers.convolution(layers.relu(x), layers.own("wide"), stride=(1, layers.stride), padding=(0, 2))
    return layers.convolution(x, layers.own("tall"), stride=(layers.stride, 1), padding=(2, 0), norm="norm")


def _shapes(channels: int, stride: int) -> Shapes:
    return {"wide": (channels, channels, 1, 5), "tall": (channels, channels, 5, 1)}


def _init(name: str, shape: tuple[int, ...], key: Key) -> Tensor:
    return uniform(shape, 5 * shape[2], key)


def _cost(channels: int, stride: int, positions: int) -> int:
    return 5 * channels * channels * positions * (stride + 1)


OPERATION = Operation(_run, _fold, _shapes, lambda stride: ("norm",), _init, _cost, "#3f9c6c")
