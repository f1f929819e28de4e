"""Hyper-parameters of the meta-model by cross-validation over training tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key

from .lessons import Lessons
from .model import MetaModel, Spec

FOLDS = 3
GRID = tuple(
    {"width": width, "embedding": width // 2, "rate": rate, "decay": decay}
    for width in (32, 128)
    for rate in (3e-4, 2e-3)
    for decay in (1e-2, 1.0)
)
"""Settings that are tried; the number of epochs is chosen besides, along each."""


@dataclass(frozen=True)
class Tried:
    """One setting and its held-out loss, mean over folds, after the best number of epochs."""

    spec: Spec
    loss: float


def tune(
    model: MetaModel,
    lessons: Sequence[Lessons],
    folds: int = FOLDS,
    progress: Callable[[int, int, float], None] | None = None,
) -> list[Tried]:
    """All settings of `GRID` around ``model.spec`` by cross-validation, the best first.

    A task is wholly in one fold, so that no architecture of a held-out task is learnt from. The loss is that of
    ``model.spec``, whose weights and number of epochs (here the most) stay; what the frozen stem was trained on is not
    held out.

    Args:
        model: of which fresh ones are made.
        progress: told of (fits done, fits in all, best loss so far).

    Raises:
        ConfigError: with fewer tasks than folds.
    """
    parts = _folds(lessons, folds, Key.from_seed(model.spec.seed).child("metamodel", "folds"))
    found: list[Tried] = []
    for number, setting in enumerate(GRID):
        curves = []
        for at, (train, held) in enumerate(parts):
            fresh = model.with_spec(**setting)
            curves.append([fresh.scores(held).loss for _ in fresh.epochs(train)])
            if progress:
                best = min((each.loss for each in found), default=float("nan"))
                progress(number * folds + at + 1, len(GRID) * folds, best)
        curve = np.mean(curves, axis=0)
        epochs = int(curve.argmin()) + 1
        spec = replace(model.spec, **setting, epochs=epochs)  # type: ignore[arg-type]
        found.append(Tried(spec, float(curve[epochs - 1])))
    return sorted(found, key=lambda each: each.loss)


def _folds(lessons: Sequence[Lessons], folds: int, key: Key) -> list[tuple[list[Lessons], list[Lessons]]]:
    count = sum(map(len, lessons))
    if not 2 <= folds <= count:
        raise ConfigError(f"folds: expected 2 to {count}, one task each, got {folds}")
    parts = []
    for fold in range(folds):
        train: list[Lessons] = []
        held: list[Lessons] = []
        for number, each in enumerate(lessons):
            order = torch.from_numpy(key.child(number).permutation(len(each)))
            out = torch.arange(len(order)) % folds == fold
            for side, rows in ((train, order[~out]), (held, order[out])):
                if len(rows):
                    side.append(each.take(rows))
        parts.append((train, held))
    return parts


def as_row(tried: Tried) -> dict[str, float]:
    """Settings and loss in one flat dictionary."""
    return asdict(tried.spec) | {"held_out_loss": tried.loss}
