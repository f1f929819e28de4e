"""An encoder of support sets [T, S, C, H, W] to vectors [T, D].

As the encoder of `metadarts.predictor`, it is a deep set over the images of a class and over classes (Zaheer et al.,
NeurIPS 2017) of features that do not change, here moments of random filters' responses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import FIXED, Params, TaskBatch
from metadarts.operations import Shapes, uniform

from ._types import AlphaStartContext

STEADY = 1e-6
"""Added to a variance before its root, whose slope is infinite at 0."""
FLOOR = 0.1
"""Of the deviation within classes, as a share of the feature: with one image of a class it is not known."""
LEAST_SPREAD = 1e-3
"""Of a feature, as a share of its mean: one that varies less is the same for all tasks."""
UNKNOWN = 1e9
"""The scale of a feature that is the same for all training tasks: it is 0 then, whatever a later task has."""
MOST = 5.0
"""Where standardised features end, in deviations: a task unlike those of the training may not drive the alphas away."""
FILTERS = f"{FIXED}filters"
GAIN = 4.0
"""Of a vector: its numbers are below 1 in the mean, and not all of them agree."""


class _Parts(NamedTuple):
    """What is known of the classes of T tasks.

    Args:
        means: [T, W, F] of each class's images.
        deviations: [T, W, F].
        contrasts: [T, F], log(1 + root of the F ratio) of the variance between class means to that within classes.
    """

    means: Tensor
    deviations: Tensor
    contrasts: Tensor


@dataclass(frozen=True)
class Encoder:
    """A vector for each support set: its standardised features, and the output of a deep set of two hidden layers.

    An image is the mean and the deviation, over positions, of the rectified responses of ``filters`` random 3x3
    filters, at ``scales`` sizes of the image, each half of the one before: a pattern may be far wider than a filter.
    A class is the mean and the deviation of its images; a task the mean and the deviation of its classes, and the
    contrast of every feature. All three are standardised by their means and deviations over training tasks, taken once
    before the first step.

    Args:
        width: of the two hidden layers.
        scales: sizes at which an image is looked at.
        filters: number of random filters.

    Raises:
        ConfigError: for numbers below 1.
    """

    width: int = 64
    scales: int = 3
    filters: int = 16

    def __post_init__(self) -> None:
        for name in ("width", "scales", "filters"):
            if getattr(self, name) < 1:
                raise ConfigError(f"alphas.{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def features(self) -> int:
        """F, numbers per image."""
        return 2 * self.filters * self.scales

    def encoder_shapes(self, channels: int) -> Shapes:
        """Of its parameters, for images of so many channels."""
        fixed = {f"{FIXED}{part}.{name}": (self.features,) for part in _Parts._fields for name in ("shift", "scale")}
        return {
            FILTERS: (self.filters, channels, 3, 3),
            **fixed,
            "class.weight": (self.width, 2 * self.features),
            "class.bias": (self.width,),
            "task.weight": (self.width, 2 * self.width + self.features),
            "task.bias": (self.width,),
        }

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if name == FILTERS:
            return torch.randn(shape, generator=key.torch()) / math.sqrt(9 * shape[1])
        if name.endswith(".scale"):
            return torch.ones(shape)
        if name.endswith((".bias", ".shift")):
            return torch.zeros(shape)
        return uniform(shape, shape[1], key)

    def prepare(self, own: Params, batches: Iterable[TaskBatch]) -> Params:
        found: dict[str, list[Tensor]] = {part: [] for part in _Parts._fields}
        for batch in batches:
            filters = own[FILTERS].expand(batch.tasks, *own[FILTERS].shape)
            for part, values in self._parts(filters, batch)._asdict().items():
                found[part].append(values.flatten(0, -2))
        fixed = {}
        for part, rows in found.items():
            seen = torch.cat(rows)
            shift, scale = seen.mean(0), seen.std(0, unbiased=False)
            fixed[f"{FIXED}{part}.shift"] = shift
            same = scale <= LEAST_SPREAD * shift.abs() + STEADY
            fixed[f"{FIXED}{part}.scale"] = torch.where(same, UNKNOWN, scale)
        return fixed

    @property
    def size(self) -> int:
        """D, of a vector."""
        return 3 * self.features + self.width

    def vector(self, seen: AlphaStartContext) -> Tensor:
        """[T, D] of the support sets, times `GAIN` / D: where the entries of a table [..., D] move by r, its product
        with this moves by at most r times `GAIN` times the mean size of D numbers, which is about 1 and below `MOST`.

        Raises NumericsError for images too small to be halved ``scales`` - 1 times.
        """
        own, parts = seen.own, self._parts(seen.own[FILTERS], seen.batch)
        standard = self._standard(parts, own)
        plain = [standard["means"].mean(1), standard["deviations"].mean(1), standard["contrasts"]]
        hidden = _layer(torch.cat([standard["means"], standard["deviations"]], dim=-1), own, "class")
        deviation = (hidden.var(1, unbiased=False) + STEADY).sqrt()
        task = torch.cat([hidden.mean(1), deviation, standard["contrasts"]], dim=-1)
        found = torch.cat([*plain, _layer(task.unsqueeze(1), own, "task").squeeze(1)], dim=-1)
        return found * (GAIN / self.size)

    @staticmethod
    def _standard(parts: _Parts, own: Params) -> dict[str, Tensor]:
        """The parts by name, standardised and limited to `MOST`."""
        standard = {}
        for part, values in parts._asdict().items():
            shift, scale = (own[f"{FIXED}{part}.{name}"].detach() for name in ("shift", "scale"))
            if values.dim() == 3:
                shift, scale = shift.unsqueeze(1), scale.unsqueeze(1)
            standard[part] = ((values - shift) / scale).clamp(-MOST, MOST)
        return standard

    def _parts(self, filters: Tensor, batch: TaskBatch) -> _Parts:
        """Of the support sets; constants, because neither filters [T, K, C, 3, 3] nor images are learnt."""
        with torch.no_grad():
            images = torch.cat(list(self._moments(filters, batch.support_images)), dim=-1)
            classes = torch.arange(batch.ways, device=images.device)
            members = (batch.support_labels.unsqueeze(-1) == classes) & batch.support_mask.unsqueeze(-1)
            shares = members.to(images.dtype)
            counts = shares.sum(1).clamp(min=1.0).unsqueeze(-1)  # [T, W, 1]
            means = shares.mT @ images / counts
            variances = shares.mT @ (images - shares @ means).square() / counts
            within = variances.mean(1) + FLOOR**2 * means.square().mean(1) + STEADY
            ratio = means.var(1, unbiased=False) * counts.mean(1) / within
            return _Parts(means, (variances + STEADY).sqrt(), ratio.sqrt().log1p())

    def _moments(self, filters: Tensor, images: Tensor) -> Iterator[Tensor]:
        """Mean and deviation of every rectified response, each [T, S, K], scale by scale."""
        tasks, count = images.shape[:2]
        for scale in range(self.scales):
            if scale:
                if min(images.shape[-2:]) < 4:
                    raise NumericsError(
                        f"alphas: images too small to be halved {self.scales - 1} times: set alphas.scales lower"
                    )
                images = F.avg_pool2d(images.flatten(0, 1), 2).unflatten(0, (tasks, count))
            # All tasks have the same filters, but each its own copy of them.
            flat = images.transpose(0, 1).flatten(1, 2)
            found = F.conv2d(flat, filters.flatten(0, 1), groups=tasks)
            found = F.relu(found).unflatten(1, (tasks, self.filters)).flatten(3).transpose(0, 1)
            yield found.mean(-1)
            yield (found.var(-1, unbiased=False) + STEADY).sqrt()


def _layer(inputs: Tensor, own: Params, name: str) -> Tensor:
    """ReLU of the linear layer ``name`` of inputs [T, N, before]."""
    return F.relu(inputs @ own[f"{name}.weight"].mT + own[f"{name}.bias"].unsqueeze(1))
