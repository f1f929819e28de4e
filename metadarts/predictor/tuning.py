"""Hyper-parameters of the meta-model by cross-validation over training tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key

from .meta_dataset import MetaDataset
from .model import MetaModel, PredictorSpec

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

    spec: PredictorSpec
    loss: float


def tune(
    model: MetaModel,
    datasets: Sequence[MetaDataset],
    folds: int = FOLDS,
    progress: Watch | None = None,
) -> list[Tried]:
    """All settings of `GRID` around ``model.spec`` by cross-validation, the best first.

    Each task is in one fold, so that training never uses an architecture of a held-out task; its classes are also in
    other folds, and the frozen stem was trained on them. The loss is that of ``model.spec``, with its weights and its
    rate schedule; the number of epochs is also chosen. A setting with a non-finite loss comes last.

    Args:
        model: template of the models to fit.
        progress: reports the fits done and the best loss so far.

    Raises:
        ConfigError: with fewer tasks than folds.
    """
    parts = _folds(datasets, folds, Key.from_seed(model.spec.seed).child("metamodel", "folds"))
    found: list[Tried] = []
    for number, setting in enumerate(GRID):
        curves = []
        for at, (train, held) in enumerate(parts):
            curves.append(_curve(model.with_spec(**setting), train, held))
            _tell(progress, number * folds + at + 1, len(GRID) * folds, found)
        curve = np.mean(curves, axis=0)
        stop = int(curve.argmin()) + 1
        spec = replace(model.spec, **setting, stop=stop)  # type: ignore[arg-type]
        found.append(Tried(spec, float(curve[stop - 1])))
    return sorted(found, key=lambda each: each.loss)


def _tell(progress: Watch | None, done: int, total: int, found: Sequence[Tried]) -> None:
    best = min((each.loss for each in found), default=math.nan)
    loss = f"  best loss {best:.4f}" if found else ""  # until one setting has all its folds
    tell(progress, done, total, best, f"{done}/{total} fits{loss}")


def _curve(fresh: MetaModel, train: list[MetaDataset], held: list[MetaDataset]) -> list[float]:
    """The held-out loss after every epoch; infinite from the first non-finite value."""
    losses: list[float] = []
    with suppress(NumericsError):
        for _ in fresh.epochs(train):
            loss = fresh.scores(held).loss
            losses.append(loss if math.isfinite(loss) else math.inf)
    return losses + [math.inf] * (fresh.spec.length - len(losses))


def _folds(datasets: Sequence[MetaDataset], folds: int, key: Key) -> list[tuple[list[MetaDataset], list[MetaDataset]]]:
    """(datasets to learn from, datasets held out) of each fold; a fold has tasks of any size."""
    sizes = list(map(len, datasets))
    if not 2 <= folds <= sum(sizes):
        raise ConfigError(f"folds: expected 2 to {sum(sizes)}, one task each, got {folds}")
    fold_of = torch.empty(sum(sizes), dtype=torch.int64)
    fold_of[torch.from_numpy(key.permutation(sum(sizes)))] = torch.arange(sum(sizes)) % folds
    by_part = torch.split(fold_of, sizes)
    found = []
    for fold in range(folds):
        inside = [(of == fold).nonzero().flatten() for of in by_part]
        outside = [(of != fold).nonzero().flatten() for of in by_part]
        found.append((_some(datasets, outside), _some(datasets, inside)))
    return found


def _some(datasets: Sequence[MetaDataset], rows: Sequence[Tensor]) -> list[MetaDataset]:
    """Of each of ``datasets`` the tasks that are named; those of which none are, left out."""
    return [each.take(chosen) for each, chosen in zip(datasets, rows, strict=True) if len(chosen)]


def as_row(tried: Tried) -> dict[str, float]:
    """Settings and loss in one flat dictionary."""
    return asdict(tried.spec) | {"held_out_loss": tried.loss}
