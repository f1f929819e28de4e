"""What the tests of studies share: a run that takes a second, and a relaxation that ranks otherwise than softmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.training import Config, Experiment, build, with_settings
from metadarts.training.catalogue import load_plugins
from metadarts.training.checkpoints import Checkpoint

TINY: dict[str, Any] = {
    "tasks.ways": 3,
    "macro.channels": 4,
    "space.nodes": 1,
    "macro.stem": (4, 6),
    "model.head": "prototype",
    "training.meta_steps": 1,
    "evaluate.queries": 4,
    "evaluate.batch": 2,
}
SIGMOID = '''
from dataclasses import dataclass


@dataclass(frozen=True)
class Sigmoid:
    """Each candidate by itself: an edge is worth its largest alpha, whatever the others are."""

    def noise(self, shape, key):
        return None

    def weights(self, alpha, at, noise=None):
        return alpha.sigmoid()

    def scores(self, alpha):
        return alpha.double().sigmoid()


RELAXATION = Sigmoid
'''


def tiny(**settings: Any) -> Experiment:
    """An experiment of `TINY`; "group__field" settings override."""
    return build(with_settings(Config(), TINY | _dotted(settings)).check())


def relaxed(folder: Path, **settings: Any) -> tuple[Experiment, Checkpoint]:
    """An experiment whose relaxation is `SIGMOID`, a plug-in in ``folder``, and alphas on which it matters."""
    path = folder / "logistic.py"
    path.write_text(SIGMOID, encoding="utf-8")
    own = {"relaxation.name": "logistic", "space.nodes": 3}
    experiment = build(
        with_settings(Config(catalogue=load_plugins([str(path)])), TINY | own | _dotted(settings)).check()
    )
    return experiment, scattered(experiment)


def scattered(experiment: Experiment) -> Checkpoint:
    """A checkpoint with random alphas: under those of a fresh state all candidates are alike."""
    params, draw = experiment.fresh_state().params, Key.from_seed(5).torch()
    params |= {n: 2 * torch.randn(t.shape, generator=draw) for n, t in params.items() if is_alpha(n)}
    return Checkpoint(params, {}, {"step": 0, "sha256": "c" * 64})


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in settings.items()}
