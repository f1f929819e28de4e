"""The tasks: random images, and a teacher of one operation with random weights that tells two classes of them apart.

An image is white noise, channel by channel passed through a random filter of a few taps, so that images differ in which
distances their pixels are correlated at; each channel then has mean 0 and deviation 1, or its mean would tell all. The
teacher's score is one channel of the average of relu(operation(image)); the highest and lowest scores are the classes.
Depthwise filters of a teacher have two taps that are as far apart as only its kernel size allows, so that a larger
operation cannot be replaced by a smaller one. The reverse is possible: a 5x5 kernel contains every 3x3 one, and only
what it makes of noise in the labels (some support labels are turned round) tells that it is larger than it need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.predictor.task_record import TEACHER, Origin
from metadarts.spaces import SearchSpace, darts
from metadarts.store.schema import Schema

from .edge import MIXING, channels_last, edge_shapes, output, pooled

OPERATIONS = tuple(name for name in darts().operations if name != "sep_conv_5x5")
"""Those of DARTS but for ``none`` and one. Two separable 5x5 convolutions have so many weights that, of 512 images, a
student of theirs does not learn them better than smaller ones do; benchmarks/one_edge.py can be asked to take them in.
"""
WAYS = 2
APART = {3: 2, 5: 3}
"""Kernel size -> how many cells apart, at least, the two taps of a teacher's filter are along one axis."""


@dataclass(frozen=True)
class Family:
    """Settings of the tasks.

    Args:
        channels: C of an image.
        side: H = W.
        support: number of support images.
        query: number of query images.
        kept: share of the images drawn that are kept: those of the highest and lowest scores, half each.
        taps: random taps of an image's own filter.
        reach: how far from its centre they are at most.
        noise: share of the support labels that are flipped at random. Query labels are the teacher's.
        operations: operations of a teacher, with equal probability.

    Raises:
        ConfigError: for a number out of range.
    """

    channels: int = 2
    side: int = 10
    support: int = 512
    query: int = 1024
    kept: float = 0.5
    taps: int = 3
    reach: int = 4
    noise: float = 0.05
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
        counts = {"channels": 1, "side": 2, "support": 2, "query": 2, "taps": 0, "reach": 0}
        faults = [
            f"{name}: expected at least {least}, got {getattr(self, name)}"
            for name, least in counts.items()
            if getattr(self, name) < least
        ]
        if not 0 < self.kept <= 1:
            faults.append(f"kept: expected a share above 0 and up to 1, got {self.kept}")
        if not 0 <= self.noise < 0.5:
            faults.append(f"noise: expected a share from 0 on and below a half, got {self.noise}")
        if odd := [name for name in self.operations if name not in darts().operations]:
            faults.append(f"operations: {odd[0]!r} is none; {nearest(str(odd[0]), darts().operations)}")
        if (self.support + self.query) % WAYS:
            faults.append("support and query: expected an even number together, for two classes of one size")
        if faults:
            raise ConfigError("teacher family: " + "; ".join(faults))

    @property
    def space(self) -> SearchSpace:
        """One edge that may carry any of the operations."""
        return SearchSpace("one edge", self.operations, 1, 1, cell_types=("normal",), edges_per_node=1)

    @property
    def drawn(self) -> int:
        """Number of images to draw for one task."""
        return round((self.support + self.query) / self.kept)


@dataclass(frozen=True, eq=False)
class SyntheticTasks:
    """T tasks of the family.

    Args:
        batch: their images and labels.
        origins: origins from which `rebuild` creates the same tasks.
        truth: [T], the number in ``family.operations`` of each teacher's operation, only for evaluation.
        family: their settings.
    """

    batch: TaskBatch
    origins: tuple[Origin, ...]
    truth: Tensor
    family: Family


@dataclass(frozen=True)
class SyntheticFacts:
    """The facts of an origin of kind `TEACHER`: a task's number under a seed, and its family."""

    seed: int
    number: int
    family: Family


FACTS = Schema(SyntheticFacts, DataError)


def synthetic_tasks(seed: int, first: int, count: int, family: Family | None = None) -> SyntheticTasks:
    """Tasks ``first`` to ``first + count`` (exclusive) of ``seed``. Each depends only on its number."""
    if count < 1 or first < 0:
        raise ConfigError(f"expected at least one task, from number 0 on, got {count} from {first}")
    family = family or Family()
    facts = [{"seed": int(seed), "number": first + step, "family": _listed(family)} for step in range(count)]
    return _tasks([Origin(TEACHER, fact) for fact in facts], family)


def rebuild(origins: Sequence[Origin]) -> TaskBatch:
    """The tasks of ``origins``, rebuilt without their truth.

    Raises:
        DataError: for an origin that is not of this family, or of other numbers than the first one's.
    """
    if not origins:
        raise DataError("expected at least one origin to build a task from, got none")
    families = [_family(origin) for origin in origins]
    if any(family != families[0] for family in families):
        raise DataError("expected teacher tasks of one family at once, got several: give those of one family")
    return _tasks(list(origins), families[0]).batch


def _listed(family: Family) -> dict[str, Any]:
    """Its fields as JSON gives them back."""
    return asdict(family) | {"operations": list(family.operations)}


def _family(origin: Origin) -> Family:
    if origin.kind != TEACHER:
        raise DataError(f"expected the origin of a {TEACHER}, got one of kind {origin.kind!r}")
    return FACTS.convert(dict(origin.facts), f"the facts of a {TEACHER}").family


def _tasks(origins: list[Origin], family: Family) -> SyntheticTasks:
    keys = [Key.from_seed(origin.facts["seed"]).child("teacher", origin.facts["number"]) for origin in origins]
    truth = torch.tensor([int(key.child("operation").choose(len(family.operations), 1)[0]) for key in keys])
    made = [_task(key, family.operations[op], family) for key, op in zip(keys, truth.tolist(), strict=True)]
    images, labels = torch.stack([task[0] for task in made]), torch.stack([task[1] for task in made])
    known, every = family.support, torch.ones_like(labels, dtype=torch.bool)
    batch = TaskBatch(
        images[:, :known], labels[:, :known], every[:, :known],
        images[:, known:], labels[:, known:], every[:, known:], WAYS, known_ragged=False,
    )  # fmt: skip
    return SyntheticTasks(batch, tuple(origins), truth, family)


def _task(key: Key, operation: str, family: Family) -> tuple[Tensor, Tensor]:
    """Images [N, C, H, W] and labels [N] of one task, in random order."""
    images = _images(key.child("images"), family)
    weights = _teacher(operation, family.channels, key.child("weights"))
    with torch.no_grad():
        features = pooled(output(operation, weights, channels_last(images.unsqueeze(0))))[0]
    asked = int(key.child("channel").choose(family.channels, 1)[0])
    order = features[:, asked].argsort(stable=True)
    half = (family.support + family.query) // WAYS
    chosen = torch.cat([order[:half], order[-half:]])
    labels = torch.arange(WAYS).repeat_interleave(half)
    if int(key.child("sign").choose(2, 1)[0]):
        labels = 1 - labels
    mixed = torch.from_numpy(key.child("order").permutation(len(chosen)))
    labels = labels[mixed]
    turned = torch.rand(family.support, generator=key.child("noise").torch()) < family.noise
    labels[: family.support] = torch.where(turned, 1 - labels[: family.support], labels[: family.support])
    return images[chosen[mixed]], labels


def _images(key: Key, family: Family) -> Tensor:
    """[M, C, H, W]."""
    channels, width, side = family.channels, 2 * family.reach + 1, family.side + 2 * family.reach
    rows, generator = family.drawn * channels, key.torch()
    filters = torch.zeros(rows, width * width)
    filters[:, width * width // 2] = 1.0
    for _ in range(family.taps):
        places = torch.randint(0, width * width, (rows, 1), generator=generator)
        filters.scatter_add_(1, places, 0.7 * torch.randn(rows, 1, generator=generator))
    noise = torch.randn(1, rows, side, side, generator=generator)
    images = F.conv2d(noise, filters.view(rows, 1, width, width), groups=rows)
    images = images.view(family.drawn, channels, family.side, family.side)
    return (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)


def _teacher(operation: str, channels: int, key: Key) -> Params:
    generator, drawn = key.torch(), {}
    for name, shape in edge_shapes(operation, channels).items():
        if "depthwise" in name:
            drawn[name] = _two_taps(channels, shape[-1], generator).view(1, 1, *shape)
        else:
            drawn[name] = torch.eye(channels) + MIXING * torch.randn((1, 1, *shape), generator=generator)
    return drawn


def _two_taps(channels: int, kernel: int, generator: torch.Generator) -> Tensor:
    """[C, k, k]: two entries of 0.5 to 1.5, the second of either sign, `APART` cells from one another along an axis."""
    places = torch.stack(torch.meshgrid(torch.arange(kernel), torch.arange(kernel), indexing="ij"), -1).view(-1, 2)
    apart = (places.unsqueeze(1) - places).abs().amax(-1)
    pairs = (apart >= APART[kernel]).nonzero()
    picked = pairs[torch.randint(0, len(pairs), (channels,), generator=generator)]
    values = 0.5 + torch.rand(channels, 2, generator=generator)
    values[:, 1] *= torch.where(torch.rand(channels, generator=generator) < 0.5, -1.0, 1.0)
    return torch.zeros(channels, kernel * kernel).scatter_(1, picked, values).view(channels, kernel, kernel)
