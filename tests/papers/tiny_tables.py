"""A table of a paper in a few seconds: patterns of 16x16, networks of a few weights, two updates, three test tasks."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.papers.reproduction import Job, TableSpec, carry_out
from metadarts.papers.reproduction.recipes import CONV4, Recipe
from metadarts.spaces import darts, random_genotype
from metadarts.tasks import ClassEntry, Source
from metadarts.training import search as search_door

SPLITS, PER_SPLIT, IMAGES, SIZE = ("train", "val", "test"), 6, 8, 16
NODES, TASKS, QUERIES, UPDATES = 2, 3, 2, 2
PAPER = {"T-NAS": {1: (0.99, 0.01), 5: (0.1, None)}, "MAML": {1: (0.9, None), 5: (0.2, 0.05)}}
TINY: dict[str, Any] = {
    "space.nodes": NODES,
    "macro.channels": 2,
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


def spec(trainings: tuple[str, ...] = ALL, ours: dict[str, Any] | None = None, updates: int = UPDATES) -> TableSpec:
    """A table whose splits are two names of one source. Args: ``ours``: settings that differ."""
    mine = TINY | (ours or {})
    recipe = Recipe(
        ours=mine,
        maml=mine | CONV4 | {"macro.channels": 2, "model.head": "shared", "inner.weight_rate": 0.4},
        protonet={"model.network": "conv4", "inner.steps": 0, "evaluate.steps": 0},
        steps={budget: dict.fromkeys(trainings, updates) for budget in ("smoke", "hour", "full")},
    )
    return TableSpec(
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


def job(out: Path, table: TableSpec | None = None, data: Source | None = None, **changes: Any) -> Job:
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
        "tell": lambda title, now: None,
        "stop": lambda: False,
    }
    return Job(**(given | changes))


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller test tasks, cells of two nodes; no plan of the memory and no pictures for TensorBoard.

    The two last take most of the time of so small a search; tests/training has tests of theirs.
    """
    packages = "metadarts.papers.reproduction"
    names = ("tables", "place", "runner", "recipes", "trainings")
    modules = {name: importlib.import_module(f"{packages}.{name}") for name in names}
    patch.setattr(modules["tables"], "SMOKE_TASKS", TASKS)
    patch.setattr(modules["tables"], "TASKS", TASKS)
    patch.setattr(modules["place"], "QUERIES", QUERIES)
    patch.setattr(modules["runner"], "NODES", NODES)
    patch.setattr(modules["runner"], "AUTO_MAML", auto_maml())
    validation = {"training.validations": 1, "training.validation_tasks": 2}
    patch.setattr(modules["recipes"], "SMOKE_VALIDATION", validation)
    patch.setattr(modules["recipes"], "CONV4", CONV4 | {"macro.channels": 2})
    plan = SimpleNamespace(facts=dict, apply=lambda config: config)
    patch.setattr(modules["trainings"], "plan_search", lambda *_: plan)
    board = SimpleNamespace(add=lambda record: None, close=lambda: None)
    patch.setattr(sys.modules[search_door.__module__], "TensorBoardWriter", lambda *_: board)


def killed(work: Callable[[], object], moment: int) -> bool:
    """Whether ``work``, in a process of its own, was there to be killed by SIGKILL at its write number ``moment``.

    A write is half a line or half a file, a file moved into place, or one that is removed; the process dies within it.
    """
    child = os.fork()
    if child == 0:
        _die_at(moment)
        try:
            work()
            os._exit(0)
        except BaseException:  # whatever it was, this process must not go on as its parent
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    if status:
        raise SystemExit(f"the process of moment {moment} failed")
    return False


def _die_at(moment: int) -> None:
    """Have this process killed within its write number ``moment``."""
    counted = itertools.count()

    def dying(call: Callable[..., Any], half: Callable[..., object]) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            if next(counted) == moment:
                half(*given)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return instead

    write, unlink, replace = os.write, Path.unlink, Path.replace
    os.write = dying(write, lambda file, content: write(file, content[: len(content) // 2]))
    Path.unlink = dying(unlink, lambda *_: None)  # type: ignore[method-assign]  # of a process that dies of it
    Path.replace = dying(replace, lambda path, _: os.truncate(path, path.stat().st_size // 2))  # type: ignore[method-assign]


def one_row(out: Path) -> Job:
    """A table of the headline alone, one task a share."""
    return job(out, spec(("headline",), {"evaluate.batch": 1}))


def row_killed(out: Path, name: str = "headline-1shot-seed0-cells") -> None:
    """``out``/whole, once through; and in ``out``/0, ``out``/1 and so on a process killed at that write of one row."""
    carry_out(one_row(out / "whole"))
    for moment in itertools.count():
        folder = out / str(moment)
        shutil.copytree(out / "whole", folder)
        (folder / "measured" / "1shot" / f"{name}.json").unlink()
        if not killed(partial(carry_out, one_row(folder)), moment):
            shutil.rmtree(folder)
            break


def table_killed(out: Path) -> None:
    """The table in ``out``, gone on with again and again, each time killed later, until a few rows are there."""
    moment = 0
    while len(list(out.glob("measured/*/*.json"))) < 2:
        if not killed(partial(carry_out, job(out)), moment):
            raise SystemExit(f"the process of moment {moment} ended by itself")
        moment = moment + 1 if moment < 3 else moment + 5


def in_a_process(what: str, out: Path) -> None:
    """Have `row_killed` or `table_killed` done in a process of its own, which may be forked."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", __file__, what, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


if __name__ == "__main__":
    shrink(pytest.MonkeyPatch())
    {"row": row_killed, "table": table_killed}[sys.argv[1]](Path(sys.argv[2]))
