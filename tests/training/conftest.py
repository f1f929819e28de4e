"""What the experiments' tests share: one thread, a source of noisy patterns, and one run of four meta-steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.meta import MetaState
from metadarts.tasks import ClassEntry, Source
from metadarts.training import Config, Experiment, RunFolder, build, search, with_settings
from metadarts.training.catalogue import load_plugins

TINY = {
    "tasks.ways": 3,
    "tasks.queries": 2,
    "macro.channels": 4,
    "space.nodes": 2,
    "model.stem": (4, 6),
    "inner.steps": 1,
    "inner.alpha_rate": 2.0,
    "training.meta_steps": 4,
    "training.tasks": 2,
    "training.validations": 2,
    "training.validation_tasks": 4,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
    "evaluate.batch": 4,
}
SPLITS, PER_SPLIT, IMAGES, SIZE = ("train", "val", "test"), 5, 6, 12


class Finished(NamedTuple):
    experiment: Experiment
    run: RunFolder
    state: MetaState


@pytest.fixture(scope="session")
def source() -> Source:
    """Five classes a split, six 12x12 images each: a pattern of the class under noise."""
    classes = len(SPLITS) * PER_SPLIT
    draw = Key(("tests", "experiments")).numpy()
    patterns = draw.integers(0, 160, (classes, 1, 1, SIZE, SIZE))
    images = patterns + draw.integers(0, 96, (classes, IMAGES, 1, SIZE, SIZE))
    rows = np.arange(classes * IMAGES).reshape(classes, IMAGES)
    split = {name: tuple(range(i * PER_SPLIT, (i + 1) * PER_SPLIT)) for i, name in enumerate(SPLITS)}
    entries = tuple(ClassEntry(f"class {number}", own) for number, own in enumerate(rows))
    return Source("patterns", images.reshape(-1, 1, SIZE, SIZE).astype(np.uint8), entries, split)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """(settings that differ, plug-ins) -> the configuration of a run that takes a second."""

    def made(changes: dict[str, Any] | None = None, plugins: Sequence[str] = ()) -> Config:
        return with_settings(Config(catalogue=load_plugins(plugins)), TINY | (changes or {})).check()

    return made


@pytest.fixture(scope="session")
def make(source, tiny) -> Callable[..., Experiment]:
    """(settings that differ, source, plug-ins) -> the experiment on the patterns, built as on the command line."""
    module = importlib.import_module("metadarts.training.build")  # in the package, the function hides it

    def made(changes: dict[str, Any] | None = None, source: Source = source, plugins: Sequence[str] = ()) -> Experiment:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_source", lambda *_, **__: source)
            return build(tiny(changes, plugins))

    return made


@pytest.fixture(scope="session")
def finished(make, one_thread, tmp_path_factory) -> Finished:
    """A run of seed 0, as `search` left it."""
    experiment = make()
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "seed 0", experiment.config, {"metadarts": "test"})
    return Finished(experiment, run, search(experiment, run))
