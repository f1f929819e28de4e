"""Tasks start from alphas that an encoder M reads off their support sets S_i.

theta <- theta - lr grad sum_i L_i(M_theta(S_i)): the encoder is trained in the meta-gradient, jointly with the weights,
exactly through the inner loop. It is a deep set over the images of a class and over classes (Zaheer et al., NeurIPS
2017), as the encoder of `metadarts.predictor` is, but without a fixed feature extractor: it reads the map of the
network's own first block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.operations import Shapes, uniform
from metadarts.spaces import Decision

from ._types import Context

STEADY = 1e-5
"""Added to a variance before its root, whose slope is infinite at 0."""
FLOOR = 0.1
"""Of the deviation within classes: with one image of a class it is not known."""
TABLE = "table."


@dataclass(frozen=True)
class Amortised:
    """alphas = shared alphas + what the encoder says of the support set; at first it says nothing.

    An image is the mean and the deviation, over positions, of the rectified map of the first block, at ``scales``
    sizes of the image, each half of the one before: a map's pattern may be far wider than the block's filters. A class
    is the mean and the deviation of its images. A task is the mean and the deviation of its classes, and the contrast
    of every feature: log(1 + F ratio) of the variance between classes to that within them.

    Args:
        width: of the two hidden layers.
        scales: sizes at which an image is looked at.

    Raises:
        ConfigError: for numbers below 1.
    """

    width: int = 64
    scales: int = 3

    def __post_init__(self) -> None:
        for name in ("width", "scales"):
            if getattr(self, name) < 1:
                raise ConfigError(f"alphas.{name}: expected at least 1, got {getattr(self, name)}")

    def shapes(self, decisions: tuple[Decision, ...], features: int) -> Shapes:
        seen = 2 * features * self.scales
        return {
            "class.weight": (self.width, 2 * seen),
            "class.bias": (self.width,),
            "task.weight": (self.width, 2 * self.width + seen),
            "task.bias": (self.width,),
            **{f"{TABLE}{d.name}": (*d.shape, self.width) for d in decisions},
        }

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if name.startswith(TABLE) or name.endswith(".bias"):
            return torch.zeros(shape)
        return uniform(shape, shape[1], key)

    def alphas(self, seen: Context) -> Params:
        vector = self.vector(seen)
        return {
            name: table + torch.einsum("trch,th->trc", seen.own[TABLE + name], vector)
            for name, table in seen.shared.items()
        }

    def vector(self, seen: Context) -> Tensor:
        """[T, width] of the support sets."""
        batch = seen.batch
        images = self._described(seen)
        classes = torch.arange(batch.ways, device=images.device)
        members = (batch.support_labels.unsqueeze(-1) == classes) & batch.support_mask.unsqueeze(-1)
        shares = members.to(images.dtype)
        counts = shares.sum(1).clamp(min=1.0)  # [T, W]
        means = shares.mT @ images / counts.unsqueeze(-1)
        variances = shares.mT @ (images - shares @ means).square() / counts.unsqueeze(-1)
        within = variances.mean(1)
        ratio = means.var(1, unbiased=False) * counts.mean(1, keepdim=True) / (within + FLOOR**2)
        known = torch.cat([means, (variances + STEADY).sqrt()], dim=-1)
        hidden = _layer(known, seen.own, "class")
        deviation = (hidden.var(1, unbiased=False) + STEADY).sqrt()
        task = torch.cat([hidden.mean(1), deviation, (ratio + STEADY).sqrt().log1p()], dim=-1)
        return _layer(task.unsqueeze(1), seen.own, "task").squeeze(1)

    def _described(self, seen: Context) -> Tensor:
        """[T, S, 2 F scales], each half of a scale with mean 0 and variance 1 over its features."""
        return torch.cat([_standard(part) for image in self._pyramid(seen) for part in _moments(seen, image)], dim=-1)

    def _pyramid(self, seen: Context) -> Iterable[Tensor]:
        """The support images in `scales` sizes, the largest first."""
        image = seen.batch.support_images
        for scale in range(self.scales):
            if scale:
                flat = image.flatten(0, 1)
                if min(flat.shape[-2:]) < 2:
                    raise NumericsError(
                        f"alphas amortised: images of {tuple(seen.batch.support_images.shape[-2:])} pixels cannot be "
                        f"halved {self.scales - 1} times: set alphas.scales lower"
                    )
                image = F.avg_pool2d(flat, 2).unflatten(0, image.shape[:2])
            yield image


def _moments(seen: Context, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over positions of the rectified map, each [T, S, F]."""
    positions = F.relu(seen.stem(image)).flatten(2, 3)
    return positions.mean(2), (positions.var(2, unbiased=False) + STEADY).sqrt()


def _standard(values: Tensor) -> Tensor:
    return F.layer_norm(values, values.shape[-1:])


def _layer(inputs: Tensor, own: Params, name: str) -> Tensor:
    """ReLU of the linear layer ``name`` of inputs [T, N, before]."""
    return F.relu(inputs @ own[f"{name}.weight"].mT + own[f"{name}.bias"].unsqueeze(1))


ALPHAS = Amortised
