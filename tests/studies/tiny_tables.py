"""A table of a paper in a few seconds: patterns of 16x16, networks of a few weights, two updates, three test tasks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.experiments import search as search_door
from metadarts.spaces import darts, random_genotype
from metadarts.studies.reproduction import Job, Spec
from metadarts.studies.reproduction.recipes import CONV4, Recipe
from metadarts.tasks import ClassEntry, Source

SPLITS, PER_SPLIT, IMAGES, SIZE = ("train", "val", "test"), 6, 8, 16
NODES, TASKS, QUERIES, UPDATES = 2, 3, 2, 2
PAPER = {"T-NAS": {1: (0.99, 0.01), 5: (0.1, None)}, "MAML": {1: (0.9, None), 5: (0.2, 0.05)}}
TINY: dict[str, Any] = {
    "model.nodes": NODES,
    "model.channels": 2,
    "model.stem": (2, 4),
    "model.head": "prototype",
    "training.tasks": 1,
    "tasks.queries": 1,
    "inner.steps": 1,
    "inner.alpha_rate": 30.0,
    "evaluate.steps": 1,
    "evaluate.queries": 2,
}
ALL = ("headline", "headline-10", "maml", "maml-first", "maml-equal", "maml-ours", "protonet", "cells")
FEW = ("headline", "maml", "cells")


def auto_maml() -> dict[int, Any]:
    """Two cells of two nodes in place of the published ones of four."""
    return {
        shots: random_genotype(darts(NODES), Key.from_seed(shots).child("auto-maml")).canonical() for shots in (1, 5)
    }


def source(changed: int = 0) -> Source:
    """Six classes a split, eight images each: a pattern of the class under noise; ``changed`` is added to a pixel."""
    classes = len(SPLITS) * PER_SPLIT
    draw = Key(("tests", "tables")).numpy()
    images = draw.integers(0, 160, (classes, 1, 1, SIZE, SIZE)) + draw.integers(0, 96, (classes, IMAGES, 1, SIZE, SIZE))
    images[0, 0, 0, 0, 0] += changed
    rows = np.arange(classes * IMAGES).reshape(classes, IMAGES)
    split = {name: tuple(range(i * PER_SPLIT, (i + 1) * PER_SPLIT)) for i, name in enumerate(SPLITS)}
    entries = tuple(ClassEntry(f"class {number}", own) for number, own in enumerate(rows))
    return Source("patterns", images.reshape(-1, 1, SIZE, SIZE).astype(np.uint8), entries, split)


def spec(trainings: tuple[str, ...] = ALL, ours: dict[str, Any] | None = None, updates: int = UPDATES) -> Spec:
    """A table whose splits are two names of one source. Args: ``ours``: settings that differ."""
    mine = TINY | (ours or {})
    recipe = Recipe(
        ours=mine,
        maml=mine | CONV4 | {"model.channels": 2, "model.head": "shared", "inner.weight_rate": 0.4},
        protonet={"model.network": "conv4", "inner.steps": 0, "evaluate.steps": 0},
        steps={budget: dict.fromkeys(trainings, updates) for budget in ("smoke", "hour", "full")},
    )
    return Spec(
        name="tiny",
        title="Tiny, 5-way",
        sources={"built-in": "glyphs", "other": "glyphs"},
        splits={"built-in": "of patterns.", "other": "of patterns too."},
        recipe=recipe,
        printed=PAPER,
        shots=(1, 5),
        small_shots=(1, 5),
        trained_shots=1,
        citation="A. Author et al., A Title, 2020",
    )


def job(out: Path, table: Spec | None = None, data: Source | None = None, **changes: Any) -> Job:
    """The work of 1-shot tasks, never stopped, unless ``changes`` say otherwise."""
    given: dict[str, Any] = {
        "spec": table or spec(FEW),
        "budget": "smoke",
        "split": "built-in",
        "source": data or source(),
        "place": "",
        "out": out,
        "seeds": (0,),
        "shots": (1,),
        "device": "cpu",
        "tell": lambda title, fraction, figures: None,
        "stop": lambda: False,
    }
    return Job(**(given | changes))


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller test tasks, cells of two nodes; no plan of the memory and no pictures for TensorBoard.

    The two last take most of the time of so small a search; tests/experiments has tests of theirs.
    """
    rooms = "metadarts.studies.reproduction"
    modules = {name: _module(f"{rooms}.{name}") for name in ("tables", "runner", "recipes", "trainings")}
    patch.setattr(modules["tables"], "SMOKE_TASKS", TASKS)
    patch.setattr(modules["tables"], "TASKS", TASKS)
    patch.setattr(modules["runner"], "QUERIES", QUERIES)
    patch.setattr(modules["runner"], "NODES", NODES)
    patch.setattr(modules["runner"], "AUTO_MAML", auto_maml())
    looks = {"training.validations": 1, "training.validation_tasks": 2}
    patch.setattr(modules["recipes"], "SMOKE_LOOKS", looks)
    patch.setattr(modules["recipes"], "CONV4", CONV4 | {"model.channels": 2})
    plan = SimpleNamespace(facts=dict, apply=lambda config: config)
    patch.setattr(modules["trainings"], "plan_search", lambda *_: plan)
    board = SimpleNamespace(add=lambda record: None, close=lambda: None)
    patch.setattr(sys.modules[search_door.__module__], "Board", lambda *_: board)


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


def killed_at(moments: list[int], out: Path) -> None:
    """Work on the table in ``out`` in one process after another, each killed by SIGKILL at its own moment.

    Args:
        moments: how many files a process has moved into place before it dies, its last one left beside its place.
    """
    shrink(pytest.MonkeyPatch())
    for moment in moments:
        child = os.fork()
        if child == 0:
            _work_until(moment, out)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            raise SystemExit(f"the process of moment {moment} ended by itself: {status}")


def _work_until(moment: int, out: Path) -> None:
    """Never returns."""
    from metadarts.studies.reproduction import carry_out

    move: Callable[..., Path] = Path.replace
    moved: list[Path] = []

    def replace(self: Path, target: Path) -> Path:
        if len(moved) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        moved.append(self)
        return move(self, target)

    Path.replace = replace  # type: ignore[method-assign, assignment]  # of a process that dies of it
    carry_out(job(out))
    os._exit(1)


if __name__ == "__main__":
    killed_at([int(word) for word in sys.argv[2:]], Path(sys.argv[1]))
