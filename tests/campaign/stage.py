"""What the cases of the campaign work on, and what every command must keep true, whatever it is given."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from metadarts.cli import main
from metadarts.export import SUFFIXES
from metadarts.fewshot import FewShotClassifier
from tests.fewshot import cases

COUNTS = {"ant": 4, "bee": 5, "cat": 4}
LIMIT_S = 120
"""A command of these sizes takes a second or two; one that takes so long hangs."""
SEARCH = {
    "macro.channels": 4, "space.nodes": 2, "model.stem": "[4, 6]", "inner.steps": 1, "training.tasks": 2,
    "training.validations": 2, "training.validation_tasks": 4, "tasks.queries": 2, "tasks.train_ways": 2,
    "evaluate.steps": 1, "evaluate.queries": 3,
}  # fmt: skip
UNFINISHED = 3


class Fault(AssertionError):
    """A rule is broken."""


class Hang(BaseException):
    """A command does not end. No reader takes it for an error of a file's."""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def require(kept: bool, words: str, *facts: object) -> None:
    """Raise Fault, with ``facts``, unless ``kept``."""
    if not kept:
        raise Fault("; ".join([words, *map(repr, facts)]))


def snapshot(folder: Path) -> dict[Path, str]:
    """Each thing in ``folder`` -> what it is: a digest of a file, where a link leads, or its kind."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind):
                found[path] = f"link to {os.readlink(path)}"
            elif stat.S_ISREG(kind):
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[path] = "folder" if stat.S_ISDIR(kind) else "pipe"
    return found


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang(f"no end after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer_to(words: list[str]) -> Answer:
    """What the program says to ``words``, in this process. What it raises instead of ending passes through."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["metadarts", *words])
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        try:
            with _limited():
                main()
        except SystemExit as ended:
            return Answer(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise Fault(f"{words}: it did not end with an exit code")


@dataclass
class Stage:
    """A place of one case, beside what all cases share and may not change.

    Args:
        shared: made by `build`.
        place: an empty folder.
    """

    shared: Path
    place: Path

    def call(self, *words: object, writes: tuple[Path, ...] = (), codes: tuple[int, ...] = (0, 2)) -> Answer:
        """Run a command and require what holds for each: no traceback, one line for a refusal, nothing raw on the
        terminal, no file changed that was there before, also of those that cases share, and nothing new but ``writes``
        and what is in them, if it succeeds.
        """
        told = [str(word) for word in words]
        before, shared = snapshot(self.place), _looks(self.shared)
        try:
            answer = answer_to(told)
        except Fault:
            raise
        except BaseException as error:  # a traceback, for a user
            raise Fault(f"{told}: {type(error).__name__}: {error}") from error
        after = snapshot(self.place)
        said = answer.out + answer.err
        require("Traceback" not in said, "traceback", told, said)
        require(answer.code in codes, "exit code", told, answer)
        require(all(letter.isprintable() or letter == "\n" for letter in said), "raw on the terminal", told, said)
        if answer.code == 2:
            require(answer.err.startswith("metadarts: ") and answer.err.count("\n") == 1, "no line", told, answer)
        changed = [str(path) for path, what in before.items() if after.get(path) != what]
        require(not changed, "changed", told, changed, answer)
        require(_looks(self.shared) == shared, "changed where it reads", told, answer)
        own = () if answer.code == 2 else writes
        new = [path for path in after if path not in before and not any(_belongs(path, each) for each in own)]
        require(not new, "left behind", told, new, answer)
        return answer

    def copy(self, name: str) -> Path:
        """A copy of something shared, in the case's place."""
        source, target = self.shared / name, self.place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        return target


def _belongs(path: Path, result: Path) -> bool:
    """Whether ``path`` is a result, in it, or a folder that was made for it; a draft never is."""
    return not path.name.endswith(".partial") and (path == result or result in path.parents or path in result.parents)


def _looks(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def build(folder: Path) -> None:
    """Make what the cases share: starts, pictures, task folders, exported files, a run, an archive, a meta-model."""
    folder.mkdir(parents=True)
    importlib.import_module("matplotlib.font_manager")  # makes its list, once per machine, not without a word
    torch.set_num_threads(1)
    for channels, name in ((1, "grey"), (3, "colour")):
        start = Path(cases.save_start(cases.make_start(channels, model__nodes=1), folder)).rename(
            folder / f"{name}.safetensors"
        )
        zoo = cases.save_pictures(folder / f"zoo-{name}", COUNTS, channels)
        task = folder / f"task-{name}"
        _must("adapt", start, "--images", zoo, "--out", task, "--steps", 1, "--finish", "inherited", "--threads", 1)
        for format, suffix in SUFFIXES.items():  # a script has a file of weights beside it
            out = folder / f"{'script' if format == 'python' else 'model'}-{name}{suffix}"
            _must("export", task, "--format", format, "--out", out)
        FewShotClassifier.load(task).save(folder / f"saved-{name}")
    photos = folder / "photos"
    cases.save_pictures(photos, {f"class {number}": 8 for number in range(16)})
    sets = [word for name, value in SEARCH.items() for word in ("--set", f"{name}={value}")]
    words = ["--preset", "quick-supernet", "--meta-steps", 2, "--order", "first", "--device", "cpu", "--threads", 1]
    _must("search", "--data", photos, "--ways", 2, "--out", folder / "run", *words, *sets)
    _must("archive", "add", folder / "a.sqlite", "--run", folder / "run", "--tasks", 3, "--device", "cpu")
    _must(
        "metamodel", "train", folder / "a.sqlite", "--out", folder / "m.safetensors", "--start", folder / "run",
        "--epochs", 1, "--data-root", photos,
    )  # fmt: skip


def _must(*words: object) -> None:
    answer = answer_to([str(word) for word in words])
    require(answer.code == 0, "the stage", words, answer)


def facts_of(path: Path) -> dict[str, Any]:
    """A JSON file."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told
